"""Trees without LightGBM's Python package: the same answers to the last bit, and a hostile text is an error, never a crash."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay import registry, tasks
from assay.data.trees import Trees
from assay.data.trees_text import checked
from assay.errors import BundleError
from assay.families.base import Budget, Candidate
from assay.ship.bundle import pack

OBJECTIVES = ("binary", "multiclass", "multiclassova", "regression", "l1", "quantile", "poisson", "cross_entropy", "rf")


def grown(objective: str, seed: int, *, rows: int = 150, rounds: int = 5) -> tuple[object, np.ndarray]:
    """A small model over three numbers with gaps and two categories, and rows to ask, with values that it has not seen."""
    import lightgbm

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 5))
    x[:, 3], x[:, 4] = rng.integers(0, 70, rows), rng.integers(0, 3, rows)
    x[rng.random(x.shape) < 0.15] = np.nan
    y = np.abs(np.nan_to_num(x[:, 0]) + (np.nan_to_num(x[:, 3]) % 3 == 0) + 0.1 * rng.normal(size=rows)) + 0.01
    params = {"objective": objective, "num_leaves": int(rng.integers(2, 12)), "min_data_in_leaf": 3, "min_data_per_group": 2, "cat_smooth": 1.0, "seed": seed,
              "verbosity": -1, "num_threads": 1, "use_missing": bool(seed % 5), "zero_as_missing": seed % 7 == 0}
    if objective in ("binary", "cross_entropy"):
        y = (y > np.median(y)).astype(float)
    if objective.startswith("multiclass"):
        y, params["num_class"] = np.digitize(y, np.quantile(y, [0.3, 0.7])).astype(float), 3
    if objective == "rf":
        params |= {"objective": "l2", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6, "reg_sqrt": True}
    asked = rng.normal(size=(60, 5)) * 3
    asked[:, 3] = rng.choice([-5, 0, 3, 31, 32, 69, 70, 1e6, 1e12, 2.5], 60)
    asked[rng.random(asked.shape) < 0.2] = np.nan
    asked[0], asked[1], asked[2] = 0.0, np.inf, -np.inf
    return lightgbm.train(params, lightgbm.Dataset(x, y, categorical_feature=[3, 4]), rounds), asked


@pytest.fixture(scope="module")
def texts() -> list[str]:
    made = ((grown(objective, seed, rounds=3)[0].model_to_string() for seed in range(60)) for objective in ("binary", "multiclass", "l1"))
    return [next(text for text in one if len(listed(text, "leaf_value")) > 4 and listed(text, "num_cat") != ["0"]) for one in made]


@settings(max_examples=25, deadline=None)
@given(objective=st.sampled_from(OBJECTIVES), seed=st.integers(0, 10_000), raw=st.booleans(), narrow=st.booleans())
def test_answers_are_those_of_the_package_to_the_last_bit(objective, seed, raw, narrow):
    booster, asked = grown(objective, seed)
    trees = Trees(booster.model_to_string())
    expected = booster.predict(asked, raw_score=raw)
    assert np.array_equal(trees.predict(asked, raw_score=raw), expected)
    assert np.array_equal(np.concatenate([trees.row(row, raw_score=raw) for row in asked]), expected)
    assert np.array_equal(trees.predict(np.asfortranarray(asked), raw_score=raw, num_threads=2), expected)
    if narrow:
        asked = asked.astype(np.float32)
        assert np.array_equal(trees.predict(asked, raw_score=raw), booster.predict(asked, raw_score=raw))
        assert np.array_equal(trees.predict(asked[:1], raw_score=raw), booster.predict(asked[:1], raw_score=raw))
    assert np.array_equal(trees.predict(asked, num_iteration=2), booster.predict(asked, num_iteration=2))


def test_sparse_rows_are_answered_as_by_the_package():
    from scipy.sparse import csr_matrix

    booster, asked = grown("multiclass", 1)
    sparse = csr_matrix(np.nan_to_num(asked, posinf=9, neginf=-9))
    trees = Trees(booster.model_to_string())
    assert np.array_equal(trees.predict(sparse), booster.predict(sparse))
    assert trees.predict(sparse[:0]).shape == (0, 3)


def test_a_model_that_was_read_can_be_written_and_read_again_by_both(texts):
    import lightgbm

    _, asked = grown("l1", 1)
    for text in texts:
        trees = Trees(text)
        for rounds in (None, 2):
            again = trees.model_to_string(rounds)
            expected = trees.predict(asked, num_iteration=rounds)
            assert np.array_equal(Trees(again).predict(asked), expected)
            assert np.array_equal(lightgbm.Booster(model_str=again).predict(asked), expected)


def test_threads_that_ask_for_rows_at_the_same_time_get_their_own_answers():
    booster, asked = grown("multiclass", 2, rounds=40)
    trees, wrong = Trees(booster.model_to_string()), []
    expected = booster.predict(asked)

    def ask(offset: int) -> None:
        wrong.extend(i for i in np.roll(np.arange(len(asked)), offset).tolist() * 20 if not np.array_equal(trees.row(asked[i])[0], expected[i]))

    workers = [threading.Thread(target=ask, args=(7 * k,)) for k in range(6)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
    assert not wrong


def test_the_library_lets_go_of_what_is_no_longer_held():
    def held_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux says how much memory a process holds")
    text = grown("l1", 1, rows=2000, rounds=300)[0].model_to_string()

    def used() -> None:
        trees = Trees(text)
        trees.row(np.zeros(5))

    for _ in range(5):
        used()
    before = held_mb()
    for _ in range(60):
        used()
    assert held_mb() - before < 12  # each of them takes about 1 MB


def test_a_wrong_number_of_columns_is_one_sentence(texts):
    trees = Trees(texts[0])
    with pytest.raises(BundleError, match=r"read 5 columns, and they were given 4"):
        trees.predict(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="broadcast"):
        trees.row(np.zeros(4))


def changed(text: str, key: str, value: str, tree: int = 0) -> str:
    """The text with another value in the line `key` of one tree (-1: of the head)."""
    parts = text.split("Tree=")
    lines = parts[tree + 1].split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(f"{key}="))
    lines[at] = f"{key}={value}"
    parts[tree + 1] = "\n".join(lines)
    return "Tree=".join(parts)


def listed(text: str, key: str, tree: int = 0) -> list[str]:
    return next(line for line in text.split("Tree=")[tree + 1].split("\n") if line.startswith(f"{key}=")).partition("=")[2].split()


def test_every_kind_of_lie_about_a_tree_is_refused(texts):
    text = texts[0]
    left, threshold, bounds = (listed(text, key) for key in ("left_child", "threshold", "cat_boundaries"))
    kinds = listed(text, "decision_type")
    group = next(i for i, kind in enumerate(kinds) if int(kind) & 1)
    inner = next(i for i, child in enumerate(left) if int(child) > 0)

    def at(values: list[str], i: int, value: object) -> str:
        return " ".join([*values[:i], str(value), *values[i + 1:]])

    lies = [("left_child", at(left, inner, 0)), ("left_child", at(left, inner, 10**6)), ("left_child", at(left, inner, -(10**6))), ("left_child", at(left, inner, 2**32)),
            ("left_child", at(left, inner, "1e0")), ("left_child", " ".join(left[:-1])), ("left_child", " ".join(left) + " "), ("left_child", at(left, inner, "1-2")),
            ("left_child", at(left, inner, "1 e")), ("right_child", listed(text, "left_child")[0] + " " + " ".join(listed(text, "right_child")[1:])),
            ("split_feature", at(listed(text, "split_feature"), 0, 5)), ("split_feature", at(listed(text, "split_feature"), 0, -1)), ("decision_type", at(kinds, 0, 13)),
            ("decision_type", at(kinds, 0, 300)), ("threshold", at(threshold, group, 99)), ("threshold", at(threshold, group, -1)), ("threshold", at(threshold, group, 0.5)),
            ("threshold", at(threshold, group, "nan")), ("threshold", at(threshold, group, "inf")), ("cat_boundaries", at(bounds, len(bounds) - 1, 2**31)),
            ("cat_boundaries", at(bounds, 0, 1)), ("cat_boundaries", at(bounds, len(bounds) - 1, -4)), ("cat_threshold", "7"), ("cat_threshold", ""), ("num_cat", "0"),
            ("num_cat", "9"), ("num_leaves", "2000000000"), ("num_leaves", "0"), ("num_leaves", "-3"), ("num_leaves", "1"), ("is_linear", "1"), ("leaf_value", "0"),
            ("leaf_value", "nan " * 3), ("num_leaves", "99999999999999999999")]
    head = [("num_class", "2"), ("num_tree_per_iteration", "2"), ("num_tree_per_iteration", "0"), ("max_feature_idx", "3"), ("max_feature_idx", "2147483647"),
            ("max_feature_idx", "-1"), ("objective", "multiclass num_class:3"), ("objective", "binary sigmoid:1 num_class:9"), ("objective", "x"), ("version", "v9"),
            ("feature_infos", "none")]
    accepted = [(key, value) for tree, some in ((0, lies), (-1, head)) for key, value in some if not refused(changed(text, key, value, tree))]
    assert accepted in ([], [("num_leaves", "1")])  # a tree of one leaf has no use for what else stands there
    assert all(map(refused, (text.replace("objective=binary", "objective=binary\nobjective=binary"), "", "tree\n", "\0" * 100)))


def refused(text: str) -> bool:
    try:
        checked(text)
    except BundleError as error:
        return 40 < len(str(error)) < 400
    return False


FUZZ = """
    import pathlib, sys
    import numpy as np
    from assay.data.trees import Trees
    from assay.errors import BundleError

    rng = np.random.default_rng(int(sys.argv[2]))
    asked = rng.normal(size=(20, 5)) * 40
    asked[rng.random(asked.shape) < 0.2] = np.nan
    asked[:, 3:] = np.round(asked[:, 3:])
    whole = [p.read_bytes() for p in sorted(pathlib.Path(sys.argv[1]).glob("*.txt"))]
    said = {"refused": 0, "answered": 0}
    for i in range(int(sys.argv[3])):
        raw = bytearray(whole[i % len(whole)][: None if i % 3 else int(rng.integers(1, 6000))])
        for _ in range(int(rng.integers(0 if i % 3 == 0 else 1, 4))):
            raw += b" " * (not raw)
            at = int(rng.integers(0, max(1, min(len(raw), 6000))))
            kind = rng.integers(0, 5)
            if kind == 0:
                raw[at] = int(rng.integers(0, 256))
            elif kind == 1:
                raw[at] = int(rng.choice(list(b"0123456789- =.e\\n")))
            elif kind == 2:
                del raw[at : at + int(rng.integers(1, 40))]
            elif kind == 3:
                raw[at:at] = raw[at // 2 : at // 2 + int(rng.integers(1, 200))]
            else:
                raw[at:at] = bytes(rng.choice(list(b"9-1 0"), int(rng.integers(1, 12))).tolist())
        try:
            trees = Trees(bytes(raw).decode("utf-8", "surrogateescape"))
            x = asked[:, : trees.features] if trees.features <= 5 else np.zeros((20, trees.features))
            assert np.array_equal(np.concatenate([trees.row(row) for row in x]), trees.predict(x))
            said["answered"] += 1
        except BundleError:
            said["refused"] += 1
    print(said["refused"], said["answered"])
"""


def fuzzed(folder: Path, texts: list[str], seed: int, times: int) -> tuple[int, int]:
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(FUZZ), str(folder), str(seed), str(times)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    refused_, answered = map(int, done.stdout.split()[-2:])
    return refused_, answered


def test_a_thousand_damaged_texts_are_refused_or_answered_and_never_end_the_process(tmp_path, texts):
    refused_, answered = fuzzed(tmp_path, texts, 0, 1000)
    assert refused_ > 300  # what was cut off, and most of what was changed
    assert answered > 50  # other amounts in the leaves are another model, and no damage that can be seen


@pytest.mark.parametrize("task", ["classify", "regress"])
def test_a_packed_model_answers_without_the_packages_that_growing_needs(tmp_path, task):
    kind = tasks.find(task)
    data = kind.example()
    made, candidate = kind.of(data), registry.get("assay.families", Candidate, "boosting")
    plain = type(data)(data.frame.drop([c.name for c in data.schema.of_kind("text")]),
                       type(data.schema)(tuple(c for c in data.schema.columns if c.kind != "text"), target=data.schema.target))
    model = candidate.build(made, plain.schema).fit(plain, seed=0, budget=Budget(seconds=20))
    pack(tmp_path / "x.assay", task=made, candidate=candidate, params={}, schema=plain.schema, model_folder=model, calibration={}, facts={}, reference=plain.asked().frame)
    code = ("import sys; from assay.ship.bundle import load; b = load(sys.argv[1]); row = b.reference.row(0, named=True); b.predict([row]); print(b.predict_one(row));"
            "print(sorted(m for m in ('lightgbm', 'sklearn', 'scipy', 'pandas', 'torch') if m in sys.modules))")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.assay")], capture_output=True, text=True, env={"ASSAY_CACHE": str(tmp_path / "c"), "PATH": ""}, timeout=100)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr
