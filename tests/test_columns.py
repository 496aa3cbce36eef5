"""What each column adds: Shapley values are exact where they can be worked out by hand."""

import numpy as np
import polars as pl
import pytest

from assay.data.dataset import Dataset
from assay.explain.columns import shapley
from assay.families.base import Model
from assay.tasks import find
from assay.tasks.base import schema_of

SCHEMA = schema_of({"a": "number", "b": "number", "c": "category", "y": "number"}, target="y")


class Known(Model):
    """y = 2 a + 3 b + 5 (c is 'x') + together * a * b"""

    together = 0.0

    def fit(self, train, *, seed, budget):
        return self

    def predict(self, asked):
        f = asked.frame
        a, b = f["a"].to_numpy(), f["b"].to_numpy()
        return (2 * a + 3 * b + 5 * (f["c"] == "x").to_numpy() + self.together * a * b)[:, None]

    def dump(self, folder): ...

    def load(self, folder):
        return self


def explained(model, reference, row, **options):
    data = Dataset(pl.DataFrame({"a": [0.0, 1.0], "b": [0.0, 1.0], "c": ["x", "y"], "y": [0.0, 1.0]}), SCHEMA)
    task = find("regress").of(data)
    asked = Dataset(pl.DataFrame(row, schema={"a": pl.Float64, "b": pl.Float64, "c": pl.String}), SCHEMA.without_target())
    return shapley(task, model(task, SCHEMA), asked, reference, {}, **options)


def test_columns_that_only_add_get_what_they_add_without_sampling_error():
    reference = pl.DataFrame({"a": [1.0], "b": [1.0], "c": ["z"]})
    found = explained(Known, reference, {"a": [4.0], "b": [0.0], "c": ["x"]})
    shares = {s.column: s for s in found.shares}
    assert {n: s.value for n, s in shares.items()} == pytest.approx({"a": 6.0, "b": -3.0, "c": 5.0})
    assert max(s.error for s in shares.values()) == pytest.approx(0.0, abs=1e-9)
    assert (found.usual, found.told) == pytest.approx((5.0, 13.0))


def test_what_two_columns_do_together_is_shared_between_them():
    class Together(Known):
        together = 10.0

    found = explained(Together, pl.DataFrame({"a": [0.0], "b": [0.0], "c": ["z"]}), {"a": [1.0], "b": [1.0], "c": ["z"]})
    assert {s.column: s.value for s in found.shares} == pytest.approx({"a": 7.0, "b": 8.0, "c": 0.0})


@pytest.mark.parametrize("seed", range(5))
def test_shares_add_up_to_the_answer_minus_the_usual_one_whatever_is_drawn(seed):
    class Together(Known):
        together = -4.0

    rng = np.random.default_rng(seed)
    reference = pl.DataFrame({"a": rng.normal(size=30), "b": rng.normal(size=30), "c": rng.choice(["x", "y"], 30)})
    found = explained(Together, reference, {"a": [1.5], "b": [-2.0], "c": ["y"]}, seed=seed)
    assert sum(s.value for s in found.shares) == pytest.approx(found.told - found.usual)
    assert found.told == pytest.approx(2 * 1.5 - 6 + 12)
    assert found.target is None
