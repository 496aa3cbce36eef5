"""Late fusion: what it reads, what its scores may know, how its members are weighed, and that it keeps what it promises."""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.case import Case
from assay.data.dataset import Column, Dataset, Schema
from assay.errors import InputError
from assay.families import fusion as family
from assay.families.base import Budget, TooSlow
from assay.neural import fusion
from assay.neural.base import Encoder
from assay.neural.fusion import CrossLine, Directions, folds_of
from assay.neural.head import Aim
from assay.neural.members import Lesson, TreesMember, Views, weights_of
from assay.tasks.classify import Classify
from assay.tasks.regress import Regress
from assay.words import Text

pytest.importorskip("lightgbm")
FOREVER = float("inf")


class Stub(Encoder):
    """Words hashed to 24 numbers: an encoder that is there on every machine."""

    name, dimension, languages, licence, source, version = "stub", 24, ("en", "zh"), "", "", "stub 1"
    wait_s = 0.0

    def files(self):
        return {"stub.json": self.folder / "stub.json"}

    def tokens(self, texts):
        return [np.array([int(hashlib.md5(w.encode()).hexdigest()[:6], 16) for w in text.split()] or [0]) for text in texts]

    def vectors(self, ids):
        time.sleep(self.wait_s * len(ids))
        out = np.zeros((len(ids), 24), dtype=np.float32)
        for row, words in enumerate(ids):
            np.add.at(out[row], words % 24, 1.0)
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9)

    def reopen(self):
        pass


@pytest.fixture(autouse=True)
def stub(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("stub")
    (folder / "stub.json").write_text("{}")
    monkeypatch.setitem(fusion.ENCODERS, "text", lambda column: "stub")
    monkeypatch.setitem(fusion.INSTALLED, "stub", lambda threads: Stub(folder, threads))
    monkeypatch.setitem(fusion.FROM_FOLDER, "stub", Stub)
    monkeypatch.setattr(Stub, "wait_s", 0.0)


GOOD, BAD = ["fine", "great", "quick", "lovely", "kind"], ["slow", "broken", "late", "cold", "rude"]


def mixed(n=600, *, seed=0, classes=2):
    """A text and a number that carry the signal in equal parts, a category and a time that carry none."""
    rng = np.random.default_rng(seed)
    mood, weight = rng.random(n) < 0.5, rng.normal(size=n)
    texts = [" ".join(rng.choice(GOOD if m else BAD, 2)) + f" order {rng.integers(30)}" for m in mood]
    score = 1.5 * np.where(mood, 1, -1) + 1.5 * weight + rng.logistic(0, 0.4, n)
    frame = pl.DataFrame({"note": texts, "weight": weight, "shop": rng.choice(["a", "b", "c"], n),
                          "when": pl.Series(np.datetime64("2026-01-01") + rng.integers(0, 300, n)).cast(pl.Datetime)})
    kinds = {"note": "text", "weight": "number", "shop": "category", "when": "time"}
    if classes:
        edges = np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1])
        frame = frame.with_columns(y=pl.Series([f"k{int(c):02d}" for c in np.searchsorted(edges, score)]))
    else:
        frame = frame.with_columns(y=pl.Series(score * 10 + 100))
    kinds["y"] = "category" if classes else "number"
    return Dataset(frame, Schema(tuple(Column(k, v, language="en" if v == "text" else None) for k, v in kinds.items()), "y"))


def fitted(data, task=None, *, seed=0, **budget):
    task = task or Classify.of(data)
    given = {"seconds": FOREVER, "threads": 1, "passes": 30} | budget
    return family.candidate.build(task, data.schema).fit(data, seed=seed, budget=Budget(**given))


@pytest.fixture(scope="module")
def data():
    return mixed()


def test_what_text_and_table_say_in_part_is_said_whole_by_both(data):
    model = fitted(data)
    held = model.facts["held_loss"]
    assert held["all"] < 0.8 * min(held["text"], held["table"])
    unseen = mixed(seed=1)
    task = Classify.of(data)
    right = {name: (model.predict(part.asked()).argmax(axis=1) == task.truth(unseen)).mean()
             for name, part in {"both": unseen, "blind": Dataset(unseen.frame.with_columns(note=pl.lit("")), unseen.schema)}.items()}
    assert right["both"] > 0.84 > right["blind"]


def test_it_answers_alike_after_dump_and_load_in_a_row_and_in_a_batch(data, tmp_path):
    model = fitted(data)
    answer = model.predict(data.asked())
    model.dump(tmp_path)
    again = family.candidate.build(Classify.of(data), data.schema).load(tmp_path)
    assert np.array_equal(again.predict(data.asked()), answer)
    for row in (0, 7):
        np.testing.assert_allclose(again.predict_row(data.asked().frame.row(row, named=True)), answer[[row]], atol=1e-5)
    assert again.predict_row({}).shape == (1, 2)
    (tmp_path / "stub" / "stub.json").write_text("{ }")
    with pytest.raises(InputError, match="weights of the encoder"):
        family.candidate.build(Classify.of(data), data.schema).load(tmp_path)


@pytest.mark.parametrize("loss", ["squared", "absolute", "pinball"])
def test_amounts_are_learnt_under_every_loss(loss):
    train, test = mixed(classes=0), mixed(seed=1, classes=0)
    model = fitted(train, Regress(loss=loss, quantile=0.8))
    truth, answer = test.y.to_numpy(), model.predict(test.asked())[:, 0]
    if loss == "pinball":
        assert 0.7 < (truth < answer).mean() < 0.9
    else:
        assert ((truth - answer) ** 2).mean() < 0.25 * truth.var()


def test_without_a_clock_a_slow_machine_gives_the_same_model(monkeypatch):
    data = mixed(120)
    quick = fitted(data, passes=3, predict_rows=10**9)
    monkeypatch.setattr(Stub, "wait_s", 0.001)
    slow = fitted(data, passes=3, predict_rows=10**9)
    assert quick.facts == slow.facts
    assert np.array_equal(quick.predict(data.asked()), slow.predict(data.asked()))


def test_a_slow_encoder_reads_fewer_rows_and_says_so_or_refuses(monkeypatch, data):
    monkeypatch.setattr(Stub, "wait_s", 0.005)
    several = mixed(4000)
    model = fitted(several, seconds=12, passes=None)
    assert 40 <= model.facts["rows_used"] < 4000
    with pytest.raises(TooSlow) as refused:
        fitted(data, seconds=60, predict_rows=100_000, predict_seconds=5)
    assert refused.value.reason.values["there"] == 5


def test_where_the_table_alone_answers_nothing_waits_for_an_encoder(monkeypatch, data, tmp_path):
    monkeypatch.setattr(family, "weights_of", lambda answers, *rest: np.eye(len(answers))[3])
    model = fitted(data)
    assert model.facts["weights"] == {"table": 1.0}
    monkeypatch.setattr(Stub, "vectors", None)
    answer = model.predict(data.asked())
    model.dump(tmp_path)
    assert not (tmp_path / "stub").exists()
    assert np.array_equal(family.candidate.build(Classify.of(data), data.schema).load(tmp_path).predict(data.asked()), answer)


def test_many_classes_or_no_table_leave_trees_or_table_out():
    many = mixed(900, classes=24)
    assert not {"trees", "table"} & fitted(many, passes=4).facts["held_loss"].keys()
    blind = mixed(300).blind(("number", "category", "time"))
    model = fitted(blind)
    assert model.facts["held_loss"].keys() == {"text", "trees", "all"}
    assert model.predict(blind.asked()).shape == (300, 2)


def test_it_refuses_tables_without_text_texts_without_table_and_machines_without_encoder(monkeypatch, data):
    task, case = Classify.of(data), Case(target="y")
    no_text = data.blind(("text",)).schema
    assert "it reads text columns" in str(family.candidate.refuses(task, no_text))
    only_text = family.candidate.prepare(case, data.blind(("number", "category", "time")).schema)
    assert isinstance(only_text, Text)
    assert only_text.to("zh").startswith("它把文本与")
    assert family.candidate.prepare(case, data.schema) == {}
    monkeypatch.setitem(fusion.ENCODERS, "text", lambda column: None)
    assert "assay[encoders]" in str(family.candidate.prepare(case, data.schema))


def test_each_language_is_read_by_an_encoder_that_knows_it(monkeypatch):
    monkeypatch.setattr(fusion, "package_folder", lambda package: Path())
    assert [fusion.text_encoder(Column("t", "text", language=lang)) for lang in ("en", "zh", "other", None)] == [
        "minilm", "multilingual", "multilingual", "minilm"]
    monkeypatch.setattr(fusion, "package_folder", lambda package: None)
    assert fusion.text_encoder(Column("t", "text", language="en")) is None


def test_another_kind_of_column_needs_one_entry_only(monkeypatch):
    monkeypatch.setitem(fusion.ENCODERS, "category", lambda column: "stub")
    schema = mixed(4).schema
    assert fusion.readers(schema) == {"stub": ["note", "shop"]}
    assert [c.name for c in fusion.table_only(mixed(4)).schema.features] == ["weight", "when"]


@pytest.mark.parametrize("sparse", [False, True])
def test_a_score_has_not_seen_its_own_answer(sparse, monkeypatch):
    monkeypatch.setattr(fusion, "STRENGTHS", (6.0,))
    monkeypatch.setattr(fusion, "PENALTIES", (0.01,))
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    truth, folds = (x[:, 0] + rng.normal(size=60) > 0).astype(int), np.arange(60) % 5

    def scores(codes):
        return CrossLine().fit(csr_matrix(x) if sparse else x, codes, folds, Aim(2), deadline=FOREVER, most_steps=100)

    before = scores(truth)
    for row in (0, 13, 59):
        flipped = truth.copy()
        flipped[row] = 1 - flipped[row]
        after = scores(flipped)
        assert np.array_equal(after[row], before[row])
        assert not np.array_equal(after[(row + 1) % 60], before[(row + 1) % 60])


def test_folds_keep_groups_whole_and_cut_time_into_stretches():
    n = 200
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"g": [f"g{i}" for i in rng.integers(0, 40, n)], "x": rng.normal(size=n),
                          "t": pl.Series(np.datetime64("2026-01-01") + rng.permutation(n)).cast(pl.Datetime)})
    columns = (Column("g", "category"), Column("x", "number"), Column("t", "time"))
    grouped = folds_of(Dataset(frame, Schema(columns, group="g")), 5, seed=0, strata=None)
    assert pl.DataFrame({"g": frame["g"], "f": grouped}).group_by("g").agg(pl.col("f").n_unique())["f"].max() == 1
    timed = folds_of(Dataset(frame, Schema(columns, time="t")), 5, seed=0, strata=None)
    assert (np.diff(timed[np.argsort(frame["t"].to_numpy())]) >= 0).all()
    assert set(grouped) == set(timed) == set(range(5))


@settings(max_examples=25)
@given(st.integers(2, 5), st.integers(20, 120), st.integers(0, 10_000), st.booleans())
def test_weights_are_shares_and_the_mix_is_hardly_worse_than_the_best_member(members, n, seed, classes):
    rng = np.random.default_rng(seed)
    aim = Aim(3) if classes else Aim(0, "squared")
    truth = rng.integers(0, 3, n) if classes else rng.normal(size=n)
    answers = [rng.dirichlet(np.ones(3), n) if classes else rng.normal(size=(n, 1)) for _ in range(members)]
    weights = weights_of(answers, truth, aim, seed)
    assert weights.sum() == pytest.approx(1)
    assert (weights >= 0).all()
    mixed_loss = aim.losses(truth, sum(w * a for w, a in zip(weights, answers, strict=True))).mean()
    assert mixed_loss < min(aim.losses(truth, a).mean() for a in answers) * 1.05


def test_a_member_that_knows_gets_all_the_weight_and_a_useless_one_none():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    knows = np.where(np.eye(2)[truth] > 0, 0.98, 0.02)
    weights = weights_of([np.full((400, 2), 0.5), knows, rng.dirichlet(np.ones(2), 400)], truth, Aim(2), 0)
    assert weights.tolist() == [0.0, 1.0, 0.0]


def test_main_directions_are_those_of_scikit_learn():
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = (np.random.default_rng(0).normal(size=(300, 12)) @ np.diag(np.arange(1, 13))).astype(np.float32)
    ours, theirs = Directions.learn(x, 4).of(x), decomposition.PCA(4, svd_solver="full").fit_transform(x)
    for i in range(4):
        assert abs(np.corrcoef(ours[:, i], theirs[:, i])[0, 1]) == pytest.approx(1, abs=1e-3)
    assert ours[:, 0].std() == pytest.approx(1, abs=1e-2)


def test_trees_join_a_text_with_a_number(tmp_path):
    rng = np.random.default_rng(0)
    scores, codes = rng.normal(size=(1500, 1)), rng.normal(size=(1500, 1))
    truth = ((scores[:, 0] > 0) & (codes[:, 0] > 0)).astype(int)
    views = Views(scores, np.zeros((1500, 0)), codes.astype(np.float32), codes)
    member = TreesMember(Aim(2))
    member.fit(Lesson(views, truth, np.arange(1000), np.arange(1000, 1500), [], 0, 1, FOREVER, 100))
    assert (member.answer(views.take(np.arange(1000, 1500))).argmax(axis=1) == truth[1000:]).mean() > 0.95
    member.dump(tmp_path)
    assert np.array_equal(TreesMember(Aim(2)).load(tmp_path).answer(views), member.answer(views))


def test_the_facts_are_json_and_name_what_each_side_is_worth(data):
    facts = json.loads(json.dumps(fitted(data, passes=5).facts))
    assert facts["encoders"] == {"stub": ["note"]}
    assert {"text", "line", "table", "trees", "all"} <= facts["held_loss"].keys()
    assert sum(facts["weights"].values()) == pytest.approx(1, abs=0.01)
