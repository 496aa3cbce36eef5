"""Trees as plain arrays: half the size of a library's model file, no library to run them, the same answers."""

from __future__ import annotations

from typing import Any

import numpy as np


class Forest:
    """Trees as arrays over all nodes, each tree in preorder: the left child of node i is i + 1.

    feature: the column that is asked, -1 at a leaf. number: the threshold, rounded down to float32, which changes no answer
    about float32 columns; at a leaf its amount or its share of the second class. skip: how far the right child is. For three
    and more classes a leaf lists those it saw: `count` of them, their `kind` and `share`.
    """

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in ("feature", "number", "skip", "count", "kind", "share")}
        self.roots = np.zeros(0, dtype=np.int64)
        self._sizes: list[int] = []

    def add(self, tree: Any, known: np.ndarray | None, leaf: np.ndarray | None) -> None:
        """tree: scikit-learn's. known: the class code of each column of its values, None for amounts. leaf: other amounts (nodes,)."""
        ends = tree.children_left < 0
        inner = np.flatnonzero(~ends)
        if not np.array_equal(tree.children_left[inner], inner + 1):
            raise ValueError("the trees of this scikit-learn do not stand in preorder")
        below = tree.threshold.astype(np.float32)
        below = np.where(below > tree.threshold, np.nextafter(below, np.float32(-np.inf)), below)
        if known is None:
            number = np.where(ends, tree.value[:, 0, 0] if leaf is None else leaf, below)
        else:
            share = tree.value[:, 0, :] / tree.value[:, 0, :].sum(axis=1, keepdims=True)
            number = np.where(ends, share[:, known == 1].sum(axis=1), below)
            rows, columns = np.nonzero(share[ends])
            self._parts["count"].append(np.bincount(rows, minlength=int(ends.sum())).astype(np.uint16))
            self._parts["kind"].append(known[columns].astype(np.uint16))
            self._parts["share"].append(share[ends][rows, columns].astype(np.float32))
        skip = np.where(ends, 0, tree.children_right - np.arange(tree.node_count))
        self._parts["feature"].append(np.where(ends, -1, tree.feature).astype(np.int32))
        self._parts["number"].append(number.astype(np.float32))
        self._parts["skip"].append(skip.astype(np.int32))
        self._sizes.append(tree.node_count)

    def ready(self, classes: int) -> Forest:
        self.roots = np.r_[0, np.cumsum(self._sizes[:-1])].astype(np.int64)
        joined = {name: np.concatenate(parts) for name, parts in self._parts.items() if parts}
        return self._run(joined, classes)

    def _run(self, arrays: dict[str, np.ndarray], classes: int) -> Forest:
        self.feature, self.number, self.skip, self.classes = arrays["feature"], arrays["number"], arrays["skip"], classes
        ends = self.feature < 0
        self._lists = None
        if classes > 2:
            self.count, self.kind, self.share = arrays["count"], arrays["kind"], arrays["share"]
            self._lists = np.cumsum(ends) - 1, np.r_[0, np.cumsum(self.count.astype(np.int64))]
        nodes = np.arange(len(ends), dtype=np.int32)
        self._asked = np.where(ends, 0, self.feature).astype(np.int32)
        self._limit = np.where(ends, np.float32(np.nan), self.number)  # nothing is at most NaN: a leaf leads to the right, which is itself
        self._right = nodes + self.skip
        return self

    def leaves(self, x: np.ndarray, roots: np.ndarray) -> np.ndarray:
        """The leaf of each row in each tree that begins at `roots`, int32 (trees, n). x: float32 (n, columns)."""
        n, width = x.shape
        cells = np.ascontiguousarray(x).ravel()
        node = np.repeat(roots.astype(np.int32), n)
        lane = np.arange(len(node))
        at = np.tile(np.arange(n) * width, len(roots))
        out = node.copy()
        here = node
        while len(here):
            for _ in range(6):
                here = np.where(cells[at + self._asked[here]] <= self._limit[here], here + 1, self._right[here])
            out[lane] = here
            going = self.feature[here] >= 0
            here, lane, at = here[going], lane[going], at[going]
        return out.reshape(len(roots), n)

    def answer(self, x: np.ndarray) -> np.ndarray:
        """The mean over all trees, float64: class shares (n, classes), or amounts (n, 1)."""
        n = len(x)
        total = np.zeros((n, max(self.classes, 1)))
        step = max(1, min(len(self.roots), 2000 // max(n, 1)))  # few rows: all trees at once; many: one tree, which then stays in the cache
        for start in range(0, len(self.roots), step):
            found = self.leaves(x, self.roots[start: start + step])
            if self._lists is None:
                total[:, -1] += self.number[found].sum(axis=0, dtype=np.float64)
            else:
                total += self._listed(found)
        total /= len(self.roots)
        if self.classes == 2:
            total[:, 0] = 1 - total[:, 1]
        return total

    def _listed(self, found: np.ndarray) -> np.ndarray:
        order, starts = self._lists  # type: ignore[misc]
        leaf = order[found.ravel()]
        count = self.count[leaf].astype(np.int64)
        entry = np.arange(count.sum()) + np.repeat(starts[leaf] - np.cumsum(count) + count, count)
        row = np.repeat(np.tile(np.arange(found.shape[1]), len(found)), count)
        cell = row * self.classes + self.kind[entry]
        return np.bincount(cell, weights=self.share[entry], minlength=found.shape[1] * self.classes).reshape(-1, self.classes)

    def arrays(self) -> dict[str, np.ndarray]:
        narrow = {"feature": np.int16 if self.feature.max(initial=0) < 2**15 else np.int32, "skip": np.uint16 if self.skip.max(initial=0) < 2**16 else np.int32}
        out = {"forest.feature": self.feature.astype(narrow["feature"]), "forest.number": self.number,
               "forest.skip": self.skip.astype(narrow["skip"]), "forest.roots": self.roots}
        return out | ({} if self._lists is None else {"forest.count": self.count, "forest.kind": self.kind, "forest.share": self.share})

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], classes: int) -> Forest:
        made = cls()
        made.roots = arrays["forest.roots"]
        named = {name.removeprefix("forest."): a for name, a in arrays.items() if name.startswith("forest.")}
        return made._run(named | {name: named[name].astype(np.int32) for name in ("feature", "skip")}, classes)


def leaf_quantiles(leaf: np.ndarray, y: np.ndarray, level: float, nodes: int) -> np.ndarray:
    """For each node the quantile of the amounts of its training rows, (nodes,), 0 where there are none."""
    order = np.lexsort((y, leaf))
    rows = np.bincount(leaf, minlength=nodes)
    place = level * np.maximum(rows - 1, 0)
    first = np.minimum(np.cumsum(rows) - rows + np.floor(place).astype(np.int64), len(y) - 1)
    second = np.minimum(first + (rows > np.floor(place) + 1), len(y) - 1)
    part = place - np.floor(place)
    return np.where(rows > 0, y[order[first]] * (1 - part) + y[order[second]] * part, 0.0)
