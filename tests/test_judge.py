"""The judge on made evidence: each outcome for its reason, and what is handed over follows the verdict."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from assay.case import Case
from assay.contest.folder import Folder, Trial
from assay.contest.judge import judge
from assay.data.dataset import Column, Dataset, Schema
from assay.data.split import splits
from assay.errors import BudgetError
from assay.tasks.classify import Classify

COST = {"fit_s": 1.0, "fit_wall_s": 1.0, "predict_s_per_row": 1e-5, "predict_wh_per_row": 1e-8, "single_row_ms": 0.1, "single_row_p95_ms": 0.2,
        "artefact_mb": 1.0, "peak_mb": 100.0, "energy_wh": 0.001, "energy": "modelled", "money_per_row": 0.0}
RUNGS = {"naive": "naive", "linear": "classical", "boosting": "classical", "mlp": "scratch", "minilm": "pretrained"}


def verdict(tmp_path: Path, accuracy: dict[str, float], *, n=2000, costs=None, rival=None, clusters=None, **options):
    """Judge candidates that are right with these shares, each sure to 0.8 whether right or wrong; naive says one half."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, n)
    frame = pl.DataFrame({"x": rng.normal(size=n), "g": [f"g{i}" for i in (clusters if clusters is not None else np.arange(n))],
                          "y": [["no", "yes"][t] for t in truth]})
    data = Dataset(frame, Schema((Column("x", "number"), Column("g", "id"), Column("y", "category")), target="y",
                                 group="g" if clusters is not None else None))
    case = Case.of({"target": "y", **options})
    task = Classify.of(data, costs=case.worth.costs if case.worth else None, currency=case.worth.currency if case.worth else "")
    parts = splits(data, folds=1, share=0.5, seed=0, kind="group" if clusters is not None else "random")
    folder = Folder(tmp_path)
    folder.begin(case, task, data, parts, {"created": "now", "split": {"text": "", "values": {}}, "notes": []})
    luck = rng.random(n)  # shared, so that candidates are right and wrong on like rows
    for name, share in accuracy.items():
        right = luck < share
        p = np.where(right, 0.8, 0.2) if name != "naive" else np.full(n, 0.5)
        prediction = np.empty((n, 2))
        prediction[np.arange(n), truth], prediction[np.arange(n), 1 - truth] = p, 1 - p
        part = parts[0]
        np.save(folder.prediction_file(f"{name}.0"), prediction[part.test].astype(np.float32))
        np.savez(folder.validation_file(f"{name}.0"), rows=part.train[:200], prediction=prediction[part.train[:200]])
        folder.append(Trial(name, RUNGS[name], 0, "done", 0, train_rows=len(part.train), rows_used=len(part.train), test_rows=len(part.test),
                            cost=COST | (costs or {}).get(name, {}), seconds=1.0))
    return judge(folder, case, task, data, parts, rival=rival)


def test_a_clear_gain_is_worth_it_and_hands_over_the_large_model(tmp_path):
    found = verdict(tmp_path, {"naive": 0.5, "linear": 0.7, "mlp": 0.85})
    assert (found.outcome, found.winner, found.large, found.small) == ("worth_it", "mlp", "mlp", "linear")
    assert found.effect["low"] > found.effect["margin"] > 0


def test_a_clear_loss_is_not_worth_it_and_hands_over_the_small_model(tmp_path):
    found = verdict(tmp_path, {"naive": 0.5, "linear": 0.85, "mlp": 0.7})
    assert (found.outcome, found.winner) == ("not_worth_it", "linear")


def test_a_gain_too_small_to_matter_is_not_worth_it(tmp_path):
    found = verdict(tmp_path, {"naive": 0.5, "linear": 0.85, "mlp": 0.852}, n=8000, margin=0.05)
    assert (found.outcome, found.winner) == ("not_worth_it", "linear")


def test_few_rows_leave_it_unknown_and_say_how_many_would_settle_it(tmp_path):
    found = verdict(tmp_path, {"naive": 0.5, "linear": 0.78, "mlp": 0.82}, n=150)
    assert found.outcome == "unknown"
    assert found.effect["rows_to_settle"] > 75
    assert found.effect["mde"] > abs(found.effect["gain"] - found.effect["margin"])


def test_guesses_end_in_nothing_beats_naive_whatever_their_rung(tmp_path):
    found = verdict(tmp_path, {"naive": 0.5, "linear": 0.5, "mlp": 0.5})
    assert (found.outcome, found.winner) == ("nothing_beats_naive", "naive")


def test_rows_of_one_group_make_the_interval_wider(tmp_path):
    apart = verdict(tmp_path / "apart", {"naive": 0.5, "linear": 0.7, "mlp": 0.75})
    grouped = verdict(tmp_path / "grouped", {"naive": 0.5, "linear": 0.7, "mlp": 0.75}, clusters=np.arange(2000) // 200)
    assert grouped.effect["high"] - grouped.effect["low"] > 1.2 * (apart.effect["high"] - apart.effect["low"])


def test_the_price_of_answering_can_eat_the_gain(tmp_path):
    shares = {"naive": 0.5, "linear": 0.80, "mlp": 0.85}
    cheap = verdict(tmp_path / "cheap", shares, worth="error=0.1 USD", requests="1M/month")
    dear = verdict(tmp_path / "dear", shares, costs={"mlp": {"money_per_row": 0.02}}, worth="error=0.1 USD", requests="1M/month")
    assert (cheap.outcome, dear.outcome) == ("worth_it", "not_worth_it")
    assert dear.money["extra_cost_of_large"] == pytest.approx(0.02 * 1e6, rel=0.01)
    assert cheap.money["net"] == pytest.approx(cheap.effect["gain"] * 1e6)


def test_a_limit_that_every_large_model_breaks_is_named(tmp_path):
    found = verdict(tmp_path, {"naive": 0.5, "linear": 0.7, "mlp": 0.85}, costs={"mlp": {"single_row_p95_ms": 30.0}}, latency="20ms")
    assert (found.outcome, found.winner) == ("not_worth_it", "linear")
    assert "breaks a limit" in str(found.sentence)
    assert "30 ms" in str(found.sentence)


def test_a_rival_is_judged_on_request(tmp_path):
    found = verdict(tmp_path, {"naive": 0.5, "linear": 0.7, "boosting": 0.8, "mlp": 0.85}, rival="boosting")
    assert (found.large, found.small) == ("boosting", "linear")


def test_without_a_naive_answer_there_is_no_verdict(tmp_path):
    with pytest.raises(BudgetError, match="naive answer did not finish"):
        verdict(tmp_path, {"linear": 0.7, "mlp": 0.85})


def test_the_cheapest_that_is_good_enough_is_handed_over_too(tmp_path):
    found = verdict(tmp_path, {"naive": 0.5, "linear": 0.8, "boosting": 0.801}, costs={"boosting": {"predict_s_per_row": 1e-3}})
    assert found.cheapest == "linear"
