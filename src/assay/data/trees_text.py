"""LightGBM's model text, read strictly and written again: what the C library is then given has been checked number by number.

Its own reader trusts the text: a child that is no node, a list that is too short or a line without '=' makes it read memory
that is not its own, and bundles come from anywhere. So every index is checked here, and the library gets a text made of
what answering needs (half of the original: no gains, weights, counts or parameters), with its sizes counted anew.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from assay.errors import BundleError
from assay.words import Text, say

_ONE_OUTPUT = re.compile(
    r"(?:regression|regression_l1|huber|fair|poisson|quantile|mape|gamma|tweedie|cross_entropy|cross_entropy_lambda|lambdarank|rank_xendcg)(?: sqrt)?"
    r"|binary sigmoid:[0-9.]{1,20}")
_MANY_OUTPUTS = re.compile(r"(?:multiclass num_class:([0-9]{1,6})|multiclassova num_class:([0-9]{1,6}) sigmoid:[0-9.]{1,20})")
_WHOLE = re.compile(r"-?[0-9]{1,10}")
_WHOLES = re.compile(r"-?[0-9]++(?: -?[0-9]++)*+")  # possessive: linear time and no memory on whatever a hostile file holds
_AMOUNT = r"-?(?:inf|[0-9]++(?:\.[0-9]++)?+(?:e[+-]?[0-9]++)?+)"  # inf: what is known goes left, what is missing right
_AMOUNTS = re.compile(rf"{_AMOUNT}(?: {_AMOUNT})*+")
_FLOATS = ("threshold", "leaf_value")
_LISTS = ("split_feature", "threshold", "decision_type", "left_child", "right_child")
_CATEGORY, _MISSING = 1, 12  # bits of decision_type; both bits of the kind of missing value set means no kind


@dataclass(frozen=True)
class ModelText:
    """What the library may be given. features: columns that the trees read; outputs: trees a round, which is numbers a row; rounds."""

    text: bytes
    features: int
    outputs: int
    rounds: int


def checked(text: str, *, shown: str = "trees") -> ModelText:
    """The model of a text that LightGBM 3 or 4 wrote, without linear trees. Raises BundleError if anything in it is not as that writes it."""
    try:
        return _checked(text.encode("utf-8"))
    except (_Wrong, UnicodeError) as error:
        found = error.found if isinstance(error, _Wrong) else say("text that is not UTF-8")
        raise BundleError("The trees in '{file}' cannot be used: {found}. Pack the model again, or get the file again from where it came.",
                          file=shown, found=found) from None


class _Wrong(Exception):
    def __init__(self, found: Text) -> None:
        self.found = found
        super().__init__(str(found))


def _checked(raw: bytes) -> ModelText:
    head, *blocks = raw.replace(b"\r\n", b"\n").split(b"\nTree=")
    if not blocks or not head.startswith(b"tree\n"):
        raise _Wrong(say("it does not begin like a model of LightGBM"))
    last, end, _ = blocks[-1].partition(b"\nend of trees\n")
    if not end:
        raise _Wrong(say("it ends in the middle of a tree"))
    blocks[-1] = last
    facts = _lines(head)
    if facts.get("version") not in ("v3", "v4"):
        raise _Wrong(say("its version is not one of {known}", known=["v3", "v4"]))
    features, outputs = _whole(facts, "max_feature_idx") + 1, _whole(facts, "num_tree_per_iteration")
    objective = _objective(facts.get("objective"), outputs)
    if outputs < 1 or _whole(facts, "num_class") != outputs or len(blocks) % outputs:
        raise _Wrong(say("the numbers of its classes and of its trees do not fit together"))
    if features < 1 or len(facts.get("feature_infos", "").split()) != features:
        raise _Wrong(say("it says something else of how many columns it reads than it lists"))
    written = _trees(blocks, features)
    made = ["tree", "version=v4", f"num_class={outputs}", f"num_tree_per_iteration={outputs}", "label_index=0", f"max_feature_idx={features - 1}",
            *objective, *(["average_output"] if "average_output" in facts else []), "feature_names=" + " ".join(f"c{i}" for i in range(features)),
            "feature_infos=" + " ".join(["none"] * features), "tree_sizes=" + " ".join(str(len(tree)) for tree in written), "", ""]
    return ModelText("\n".join(made).encode() + b"".join(written) + b"end of trees\n", features, outputs, len(blocks) // outputs)


def _objective(said: str | None, outputs: int) -> list[str]:
    """It turns scores into answers, many classes at once: a number of them beyond the trees' would read beyond the scores."""
    if said is None:
        return []  # of a fit with an objective of its own
    many = _MANY_OUTPUTS.fullmatch(said)
    if int(many[1] or many[2]) == outputs if many else _ONE_OUTPUT.fullmatch(said) and outputs == 1:
        return [f"objective={said}"]
    raise _Wrong(say("its objective is not one that is known, or not one for as many outputs as it has"))


def _lines(block: bytes) -> dict[str, str]:
    out: dict[str, str] = {}
    for line in block.decode("utf-8").split("\n"):
        key, _, value = line.partition("=")
        if key in out and key:
            raise _Wrong(say("the line '{name}' stands twice", name=key[:40]))
        out[key] = value
    return out


def _whole(facts: dict[str, str], name: str) -> int:
    if not _WHOLE.fullmatch(facts.get(name, "")):
        raise _Wrong(say("it has no whole number '{name}'", name=name))
    return int(facts[name])


def _trees(blocks: list[bytes], features: int) -> list[bytes]:
    """Each tree as it is handed on, after all of them have been checked at once (a tree at a time took 20 times as long)."""
    read = [_lines(b"Tree=" + block) for block in blocks]
    leaves = np.array([_whole(tree, "num_leaves") for tree in read])
    groups = np.array([_whole(tree, "num_cat") for tree in read])
    if leaves.min() < 1 or groups.min() < 0 or any(tree.get("is_linear", "0") != "0" for tree in read):
        raise _Wrong(say("it has trees without leaves, or with lines in their leaves"))
    inner = np.flatnonzero(leaves > 1)
    split = [read[i] for i in inner]
    amounts = _numbers([tree.get("leaf_value", "") for tree in read], leaves, "leaf_value")
    lists = {name: _numbers([tree.get(name, "") for tree in split], leaves[inner] - 1, name) for name in _LISTS}
    if not np.isfinite(amounts).all():
        raise _Wrong(say("it holds a number beyond the range of floats"))
    if len(inner):
        _check_ways(lists, leaves[inner], features)
    grouped = np.flatnonzero((leaves > 1) & (groups > 0))
    _check_groups(lists, leaves[inner], groups[inner], [read[i] for i in grouped], groups[grouped])
    keys = ("num_leaves", "num_cat", *_LISTS, "leaf_value", "cat_boundaries", "cat_threshold")
    out = []
    for i, tree in enumerate(read):
        kept = keys if leaves[i] > 1 else ("num_leaves", "leaf_value")
        lines = [f"Tree={i}", *([] if leaves[i] > 1 else ["num_cat=0"]), *(f"{key}={tree[key]}" for key in kept if key in tree and (groups[i] or key[:4] != "cat_"))]
        out.append(("\n".join(lines) + "\n\n\n").encode())
    return out


def _numbers(lists: list[str], sizes: np.ndarray, name: str) -> np.ndarray:
    """The numbers of many lists end to end, float64; each list must hold exactly as many, one blank between two.

    Spelt as LightGBM spells them: its reader goes on in the middle of what it does not take for a number.
    """
    joined = " ".join(lists)
    if joined and not (_AMOUNTS if name in _FLOATS else _WHOLES).fullmatch(joined):
        raise _Wrong(say("'{name}' holds something else than numbers", name=name))
    if not all(one and one.count(" ") + 1 == size for one, size in zip(lists, sizes.tolist(), strict=True)):
        raise _Wrong(say("'{name}' has fewer or more numbers than its trees have places", name=name))
    return np.fromstring(joined, dtype=np.float64, sep=" ") if joined else np.zeros(0)


def _check_ways(lists: dict[str, np.ndarray], leaves: np.ndarray, features: int) -> None:
    """Every way from a root ends in a leaf: children stand behind their parents, and each node but the root is a child once."""
    nodes = leaves - 1
    first, first_leaf = np.cumsum(nodes) - nodes, np.cumsum(leaves) - leaves
    size, own = np.repeat(nodes, nodes), np.arange(nodes.sum()) - np.repeat(first, nodes)
    seen, seen_leaves = np.zeros(nodes.sum(), dtype=np.int64), np.zeros(leaves.sum(), dtype=np.int64)
    for side in ("left_child", "right_child"):
        child = lists[side]
        if (child != np.floor(child)).any() or (child >= size).any() or (child < -size - 1).any() or ((child >= 0) & (child <= own)).any():
            raise _Wrong(say("'{name}' leads to no place in its tree", name=side))
        child = child.astype(np.int64)
        ends = child < 0
        seen += np.bincount((np.repeat(first, nodes) + child)[~ends], minlength=len(seen))
        seen_leaves += np.bincount((np.repeat(first_leaf, nodes) - child - 1)[ends], minlength=len(seen_leaves))
    if (seen_leaves != 1).any() or (seen != (own > 0)).any():
        raise _Wrong(say("a place in one of its trees is reached twice, or never"))
    column, kind = lists["split_feature"], lists["decision_type"]
    if (column != np.floor(column)).any() or (column < 0).any() or (column >= features).any():
        raise _Wrong(say("it asks for a column that it does not have"))
    if (kind != np.floor(kind)).any() or (kind < 0).any() or (kind > 15).any() or (kind.astype(np.int64) & _MISSING == _MISSING).any():
        raise _Wrong(say("it asks its columns in a way that is not known"))


def _check_groups(lists: dict[str, np.ndarray], leaves: np.ndarray, groups: np.ndarray, read: list[dict[str, str]], sizes: np.ndarray) -> None:
    """Questions about categories name a group of them, which is a stretch of 32-bit words inside the list of its tree."""
    asked = lists["decision_type"].astype(np.int64) & _CATEGORY == 1
    group, most = lists["threshold"], np.repeat(groups, leaves - 1)
    if (asked & ((group != np.floor(group)) | (group < 0) | (group >= most))).any():
        raise _Wrong(say("it asks for a group of categories that it does not have"))
    if not read:
        return
    bounds = _numbers([tree.get("cat_boundaries", "") for tree in read], sizes + 1, "cat_boundaries")
    last = np.cumsum(sizes + 1) - 1
    start = last - sizes
    words = bounds[last]
    falls = np.diff(bounds) < 0
    falls[last[:-1]] = False  # from one tree to the next
    if (bounds != np.floor(bounds)).any() or (bounds[start] != 0).any() or falls.any() or (words < 1).any() or (words > 2**31 - 1).any():
        raise _Wrong(say("the groups of its categories are not side by side"))
    bits = _numbers([tree.get("cat_threshold", "") for tree in read], words.astype(np.int64), "cat_threshold")
    if (bits != np.floor(bits)).any() or (bits < 0).any() or (bits >= 2**32).any():
        raise _Wrong(say("'{name}' holds something else than numbers", name="cat_threshold"))
