"""TabPFN and TabICL from a weights file: shown rows, many classes, a plan that keeps to memory and time, no network, no pickle."""

import hashlib
import importlib.util
import math
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import made_weights
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay import checks
from assay.case import Case
from assay.data.dataset import Dataset
from assay.errors import AssayError
from assay.families import tabicl, tabpfn
from assay.families.base import Budget, TooSlow
from assay.neural import context_plan
from assay.neural.context_plan import Plan, most_rows, planned
from assay.neural.context_table import Table
from assay.neural.many_classes import answered, codebook
from assay.tasks import known
from assay.tasks.base import schema_of
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress
from assay.words import Text

CARDS = {"tabicl": tabicl.CANDIDATE, "tabpfn": tabpfn.CANDIDATE}
needed = pytest.mark.skipif(importlib.util.find_spec("tabicl") is None or importlib.util.find_spec("tabpfn") is None,
                            reason="the packages of the extra 'tabular' are not installed")
both = pytest.mark.parametrize("name", sorted(CARDS))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """{family, task: file}. TabPFN 2 tells 3 classes apart, TabPFN 2.5 knows amounts, 3.5 both; TabICL tells 4 classes apart, or knows amounts."""
    folder = tmp_path_factory.mktemp("weights")
    return {
        ("tabicl", "classify"): made_weights.tabicl(folder / "tabicl-c.ckpt", classes=4),
        ("tabicl", "regress"): made_weights.tabicl(folder / "tabicl-r.ckpt", classes=0),
        ("tabpfn", "classify"): made_weights.tabpfn(folder / "tabpfn-v2-c.ckpt", "tabpfn_v2", classes=3),
        ("tabpfn", "regress"): made_weights.tabpfn(folder / "tabpfn-v2.5-r.ckpt", "tabpfn_v2_5", classes=0, bars=40),
        ("tabpfn", "both"): made_weights.tabpfn(folder / "tabpfn-v3.5.ckpt", "tabpfn_v3_5", classes=3, bars=40),
    }


def _no_clock(**more):
    return Budget(seconds=math.inf, threads=1, **more)


def _built(name, task, data, file, *, views=2):
    return CARDS[name].build(task, data.schema, weights=str(file), views=views)


@needed
@pytest.mark.parametrize("task", ["classify", "regress"])
@both
def test_a_contestant_with_weights_holds_its_contract(weights, name, task, monkeypatch):
    monkeypatch.setattr(checks, "Budget", partial(Budget, threads=1))  # threads that wait for each other take most of a busy machine
    checks.check_candidate(replace(CARDS[name], tasks=(task,)), params={"weights": str(weights[name, task]), "views": 2})


@needed
@both
def test_nothing_is_asked_of_a_network_and_the_bundle_stands_alone(weights, name, tmp_path, monkeypatch):
    """Sockets are shut and the weights file is gone when the bundle is opened; its members are data."""
    from assay.ship.bundle import load, pack

    def shut(*given, **_):
        if not given or getattr(given[0], "family", socket.AF_INET) != socket.AF_UNIX:
            raise AssertionError(f"a network was asked: {given}")

    for what in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, what, shut)
    monkeypatch.setattr(socket, "getaddrinfo", shut)
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    data = Classify.example()
    task = Classify.of(data)
    file = tmp_path / weights[name, "classify"].name
    file.write_bytes(weights[name, "classify"].read_bytes())
    model = _built(name, task, data, file).fit(data.take(np.arange(100)), seed=1, budget=_no_clock())
    asked = data.take(np.arange(100, 150)).asked()
    wanted = model.predict(asked)
    path = pack(tmp_path / "a.assay", task=task, candidate=CARDS[name], params=model.params, schema=data.schema, model_folder=model, calibration={},
                facts=model.facts, reference=None)
    file.unlink()
    bundle = load(path)
    assert np.array_equal(bundle.model.predict(asked), wanted)
    assert {e for e in bundle.contents.entries if e.startswith("model/")} == {
        "model/weights.safetensors", "model/context.safetensors", "model/in_context.json"}
    one = bundle.predict_one(asked.frame.row(0, named=True))
    assert one["answer"] == task.classes[wanted[0].argmax()]


@needed
def test_one_weights_file_of_the_newest_tabpfn_answers_labels_and_amounts(weights):
    for task_name in ("classify", "regress"):
        data = known()[task_name].example()
        task = known()[task_name].of(data)
        answer = _built("tabpfn", task, data, weights["tabpfn", "both"], views=1).fit(data, seed=1, budget=_no_clock()).predict(data.asked())
        assert np.isfinite(answer).all()


@needed
@pytest.mark.parametrize("task", ["classify", "regress"])
def test_views_of_tabicl_stand_in_an_order_that_no_hash_decides(weights, task):
    data = known()[task].example()
    model = _built("tabicl", known()[task].of(data), data, weights["tabicl", task], views=4).fit(data, seed=3, budget=_no_clock())
    estimator = getattr(model._shown, "shown", model._shown).estimator
    assert list(estimator.ensemble_generator_.ensemble_configs_) == ["none", "power"]
    assert list(estimator.model_kv_cache_) == ["none", "power"]


@pytest.mark.slow
@needed
def test_same_seed_same_answers_in_another_process(weights):
    """Python orders a set of strings otherwise in every process; nothing may depend on it."""
    code = f"""
import hashlib, math, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_in_context import _fingerprint
print(_fingerprint("tabicl", {str(weights["tabicl", "classify"])!r}), _fingerprint("tabpfn", {str(weights["tabpfn", "classify"])!r}))
"""
    told = [subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=True).stdout
            for seed in (0, 1)]  # the set {"none", "power"} stands in another order in each of these
    assert told[0] == told[1]
    assert len(told[0]) > 100


def _fingerprint(name, file):
    data = Classify.example()
    model = _built(name, Classify.of(data), data, file, views=4).fit(data, seed=3, budget=_no_clock())
    return hashlib.sha256(model.predict(data.asked()).tobytes()).hexdigest()


@needed
@both
def test_more_classes_than_the_weights_tell_apart_are_answered(weights, name):
    """Seven classes, weights for three or four: TabPFN by codes of digits, TabICL by its own tree of classes."""
    rng = np.random.default_rng(0)
    kind = np.arange(140) % 7
    frame = pl.DataFrame({"a": kind + rng.normal(scale=0.1, size=140), "b": rng.normal(size=140), "y": [f"k{k}" for k in kind]})
    data = Dataset(frame, schema_of({"a": "number", "b": "number", "y": "category"}, target="y"))
    model = _built(name, Classify.of(data), data, weights[name, "classify"]).fit(data, seed=0, budget=_no_clock())
    answer = model.predict(data.asked())
    assert answer.shape == (140, 7)
    assert np.allclose(answer.sum(axis=1), 1)
    assert (answer > 0).all()
    row = np.concatenate([model.predict_row(r) for r in data.asked().frame.head(3).to_dicts()])
    assert np.allclose(row, answer[:3], atol=1e-5)


@needed
@both
def test_an_amount_is_the_mean_the_median_or_the_quantile_that_the_loss_asks_for(weights, name):
    data = Regress.example()
    asked = data.asked().take(np.arange(20))

    def answered_by(loss, quantile=0.5):
        task = Regress.of(data, loss=loss, quantile=quantile)
        return _built(name, task, data, weights[name, "regress"], views=1).fit(data, seed=0, budget=_no_clock()).predict(asked)[:, 0]

    low, middle, high = answered_by("pinball", 0.1), answered_by("absolute"), answered_by("pinball", 0.9)
    assert (low < middle).all()
    assert (middle < high).all()
    assert np.allclose(middle, answered_by("pinball", 0.5))
    mean = answered_by("squared")
    assert ((low < mean) & (mean < high)).mean() > 0.5
    assert not np.allclose(mean, middle)


@needed
@both
def test_amounts_in_another_unit_give_the_same_answers_in_that_unit(weights, name):
    """A billion times larger, shifted by a billion: in 32 bits the spread would be lost."""
    data = Regress.example()
    target = data.schema.target
    other = Dataset(data.frame.with_columns((pl.col(target) * 1e3 + 1e9).alias(target)), data.schema)
    first, second = (_built(name, Regress.of(d), d, weights[name, "regress"], views=1).fit(d, seed=0, budget=_no_clock()).predict(d.asked())
                     for d in (data, other))
    assert np.allclose((second - 1e9) / 1e3, first, rtol=1e-3, atol=1e-3 * np.ptp(first))


@needed
@pytest.mark.parametrize(("name", "given", "task", "says"), [
    ("tabpfn", ("tabicl", "classify"), "classify", "holds another model than tabpfn"),
    ("tabicl", ("tabpfn", "classify"), "classify", "holds another model than tabicl"),
    ("tabicl", ("tabicl", "regress"), "classify", "is that of a TabICL regressor; take the classifier's"),
    ("tabpfn", ("tabpfn", "classify"), "regress", "is that of a TabPFN classifier; take the regressor's"),
    ("tabpfn", ("tabpfn", "regress"), "classify", "is that of a TabPFN regressor; take the classifier's"),
])
def test_weights_of_another_model_or_task_get_one_sentence(weights, name, given, task, says):
    data = known()[task].example()
    with pytest.raises(AssayError) as error:
        _built(name, known()[task].of(data), data, weights[given]).fit(data, seed=0, budget=_no_clock())
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@needed
def test_weights_that_the_installed_package_does_not_know_get_one_sentence(tmp_path):
    import torch

    path = made_weights.tabicl(tmp_path / "new.ckpt", classes=3)
    held = torch.load(path, weights_only=True)
    held["config"]["invented_in_2031"] = 1
    torch.save(held, path)
    data = Classify.example()
    with pytest.raises(AssayError, match=r"the installed package tabicl does not fit the weights file 'new\.ckpt'.*invented_in_2031"):
        _built("tabicl", Classify.of(data), data, path).fit(data, seed=0, budget=_no_clock())


@both
def test_without_weights_it_says_where_they_come_from(name, tmp_path):
    schema = Classify.example().schema
    found = CARDS[name].prepare(Case("kind"), schema)
    assert isinstance(found, Text)
    assert f"--weights {name}=FILE" in str(found)
    assert {"tabicl": "jingang/TabICL", "tabpfn": "Prior-Labs/TabPFN-v2-clf"}[name] in str(found)
    assert "许可" in found.to("zh")
    absent = CARDS[name].prepare(Case("kind", weights={name: str(tmp_path / "none.ckpt")}), schema)
    assert str(absent) == f"there is no weights file '{tmp_path / 'none.ckpt'}'"
    (tmp_path / "cat.ckpt").write_bytes(b"CBM1" + bytes(9))
    assert "a CatBoost model" in str(CARDS[name].prepare(Case("kind", weights={name: str(tmp_path / "cat.ckpt")}), schema))


@needed
@both
def test_with_weights_it_is_ready_without_loading_a_library(weights, name):
    code = (f"import sys; from assay.case import Case; from assay.families.{name} import CANDIDATE as c; from assay.data.dataset import Schema;"
            f"print(c.prepare(Case('y', weights={{'{name}': {str(weights[name, 'classify'])!r}}}), Schema(())), 'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["{'weights':", f"'{weights[name, 'classify']}'}}", "False"]


@needed
def test_more_columns_than_the_weights_were_made_for_are_refused(weights):
    frame = pl.DataFrame({f"c{i}": np.random.default_rng(i).normal(size=60) for i in range(501)} | {"y": ["a", "b"] * 30})
    data = Dataset(frame, schema_of({f"c{i}": "number" for i in range(501)} | {"y": "category"}, target="y"))
    with pytest.raises(TooSlow, match="at most 500 columns, and there are 501"):
        _built("tabpfn", Classify.of(data), data, weights["tabpfn", "classify"]).fit(data, seed=0, budget=_no_clock())


class _Fake:
    """A model that takes time and memory as it is told, on a clock that it turns."""

    def __init__(self, *, build_s, row_s, row_bytes, power=1.0):
        self.build_s, self.row_s, self.row_bytes, self.power, self.now = build_s, row_s, row_bytes, power, 0.0

    def show(self, rows):
        self.now += self.build_s * rows**self.power
        shown = type("Shown", (), {"answer": lambda _, x: setattr(self, "now", self.now + self.row_s * len(x)), "cache_bytes": self.row_bytes * rows})
        return shown()


@given(build=st.floats(1e-6, 0.1), row=st.floats(1e-6, 0.1), size=st.floats(10, 1e6), power=st.floats(1, 2), there=st.integers(2, 100_000),
       seconds=st.floats(1, 1000), asked=st.integers(0, 5000), memory=st.floats(100, 10_000), views=st.integers(1, 8))
def test_a_plan_keeps_to_memory_and_time_or_says_why_it_cannot(build, row, size, power, there, seconds, asked, memory, views):
    fake = _Fake(build_s=build, row_s=row, row_bytes=size, power=power)
    real, time.monotonic = time.monotonic, lambda: fake.now
    try:
        budget = Budget(seconds=seconds, memory_mb=memory, predict_rows=asked, predict_seconds=seconds / 3, started=0.0)
        most = most_rows(there, 10, limit=10_000, size=128, memory_mb=memory)
        plan = planned(fake.show, np.zeros((5, 10)), most=most, there=there, views=views, budget=budget)
        spare = context_plan.BUILD_SHARE * budget.left()
    finally:
        time.monotonic = real
    if isinstance(plan, Text):
        assert plan.values["fit"] > spare or plan.values["answer"] > plan.values["answer_there"] or size * 32 > 0.25 * memory * 1e6
        return
    assert 1 <= plan.rows <= most <= there
    assert 1 <= plan.views <= views
    assert plan.whole == (plan.rows == there)
    assert plan.rows * plan.views * size <= 0.25 * memory * 1e6 * 1.001
    assert build * plan.rows**power * plan.views <= spare * 1.5  # the exponent is measured up to 256 rows
    assert row * plan.views * asked <= seconds / 3


def test_without_a_clock_no_time_is_measured_and_the_passes_are_the_limit(monkeypatch):
    fake = _Fake(build_s=1e9, row_s=1e9, row_bytes=100.0)
    begun = Budget(seconds=math.inf, passes=3)
    monkeypatch.setattr(time, "monotonic", lambda: fake.now)
    plan = planned(fake.show, np.zeros((5, 3)), most=50_000, there=50_000, views=8, budget=begun)
    assert plan == Plan(2000, 3, False)


def test_views_are_given_up_before_rows():
    choices = list(context_plan._choices(1000, 8))
    assert choices[:3] == [(1000, 8), (1000, 4), (1000, 2)]
    assert choices[-1] == (32, 1)
    assert [r for r, _ in choices] == sorted((r for r, _ in choices), reverse=True)


@given(classes=st.integers(3, 200), base=st.integers(2, 12), columns=st.integers(1, 10), seed=st.integers(0, 99))
def test_a_code_belongs_to_one_class_and_sure_digits_give_it_back(classes, base, columns, seed):
    base = min(base, classes - 1)
    book = codebook(classes, base, columns, seed)
    assert book.max() < base
    assert len(np.unique(book, axis=0)) == classes
    digits = [np.eye(book[:, j].max() + 1)[book[:, j]] * 0.9 + 0.1 / (book[:, j].max() + 1) for j in range(book.shape[1])]
    assert all((d.sum(axis=0) > 0).all() for d in digits)
    p = answered(book, digits, base)
    assert np.allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == np.arange(classes)).all()


def test_a_table_codes_categories_as_scikit_learn_does_and_leaves_gaps():
    from sklearn.preprocessing import OrdinalEncoder

    frame = pl.DataFrame({"n": [1.5, None, 1e30], "c": ["b", "a", None], "t": pl.Series([0, 3_600_000_000, None]).cast(pl.Datetime("us")),
                          "empty": pl.Series([None] * 3, dtype=pl.String), "text": ["x", "y", "z"]})
    schema = schema_of({"n": "number", "c": "category", "t": "time", "empty": "category", "text": "text"})
    table = Table.of(Table.learn(frame, schema).json())
    x = table.read(frame)
    assert x.shape == (3, table.width)
    assert table.categories == [0, 1]
    assert x[:2, 0].tolist() == OrdinalEncoder().fit_transform(np.array([["b"], ["a"]]))[:, 0].tolist()
    assert np.isnan(x[:, 1]).all()
    assert x[0, 2] == 1.5
    assert np.isnan(x[1, 2])
    assert np.isfinite(x[2, 2])
    assert x[1, 3:].tolist() == [1 / 24, 1, 4, 1]
    unseen = table.read(frame.with_columns(pl.lit("never seen").alias("c")))
    assert np.isnan(unseen[:, 0]).all()


@pytest.mark.slow
@needed
@both
def test_a_network_taught_on_made_up_tables_predicts_real_ones_it_never_saw(name, tmp_path_factory):
    """Without a step of training on them: three real sets of scikit-learn, one half shown, the other half asked.

    The networks have 35,000 weights and are taught for a minute; published ones have 7 to 219 million.
    """
    from sklearn import datasets

    teach = {"tabicl": made_weights.taught_tabicl, "tabpfn": made_weights.taught_tabpfn}[name]
    file = teach(Path(tmp_path_factory.mktemp("taught")) / f"{name}.ckpt")
    gains = {}
    for load in (datasets.load_iris, datasets.load_wine, datasets.load_breast_cancer):
        x, y = load(return_X_y=True)
        x = x[:, :7]
        frame = pl.DataFrame({f"c{i}": x[:, i] for i in range(x.shape[1])} | {"y": [f"k{k}" for k in y]})
        data = Dataset(frame, schema_of({f"c{i}": "number" for i in range(x.shape[1])} | {"y": "category"}, target="y"))
        task = Classify.of(data)
        order = np.random.default_rng(0).permutation(len(data))
        train, test = data.take(order[: len(order) // 2]), data.take(order[len(order) // 2:])
        model = _built(name, task, data, file, views=4).fit(train, seed=0, budget=_no_clock())
        shares = np.tile(np.bincount(task.truth(train)) / len(train), (len(test), 1))
        loss = {what: float(task.losses(train, test, p).mean()) for what, p in (("shown", model.predict(test.asked())), ("naive", shares))}
        gains[load.__name__] = loss["shown"] / loss["naive"]
    print(gains)
    assert max(gains.values()) < 0.6, gains
