"""Totals are forecast as well, and what is handed out adds up."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay import api
from assay.data.hierarchy import coherent
from assay.data.history import ORIGIN
from assay.data.read_series import read_series
from assay.errors import InputError


def table(stores: int = 6, days: int = 60, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame([{"day": str(np.datetime64("2026-01-01") + k), "store": f"s{i}", "region": ("north", "south")[i % 2], "open": float(k % 7 > 0),
                          "units": float(rng.poisson(20 * (i + 1) * (1 + 0.3 * np.sin(2 * np.pi * k / 7))))} for i in range(stores) for k in range(days)])


def made(**more):
    return read_series(table(), target="units", group="store", horizon=7, hierarchy=("region",), **more).dataset


def test_totals_are_the_sums_of_their_series():
    data = made()
    last = data.frame.filter(pl.col(ORIGIN) == data.frame[ORIGIN].max())
    value = {row["store"]: np.frombuffer(row["units"], dtype="<f4") for row in last.iter_rows(named=True)}
    assert set(value) == {f"s{i}" for i in range(6)} | {"region=north", "region=south", "*"}
    np.testing.assert_allclose(value["region=north"], value["s0"] + value["s2"] + value["s4"])
    np.testing.assert_allclose(value["*"], value["region=north"] + value["region=south"])


@given(st.integers(0, 10_000), st.floats(0.1, 5.0))
@settings(max_examples=20, deadline=None)
def test_what_is_handed_out_adds_up_and_keeps_the_width_of_its_quantiles(seed, width):
    data = made()
    last = data.take(np.flatnonzero((data.frame[ORIGIN] == data.frame[ORIGIN].max()).to_numpy())).asked()
    rng = np.random.default_rng(seed)
    base = rng.uniform(0, 100, (len(last), 7, 1)) + width * rng.uniform(0.5, 2, (len(last), 1, 1)) * np.linspace(-1, 1, 9)
    out = coherent(base, last)
    name = {n: i for i, n in enumerate(last.frame["store"].to_list())}
    middle = out[:, :, 4]
    np.testing.assert_allclose(middle[name["*"]], sum(middle[name[f"s{i}"]] for i in range(6)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(middle[name["region=south"]], sum(middle[name[f"s{i}"]] for i in (1, 3, 5)), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.diff(out, axis=2), np.diff(base, axis=2), atol=1e-9)


def test_forecasts_that_add_up_already_stay_as_they_are():
    data = made()
    last = data.take(np.flatnonzero((data.frame[ORIGIN] == data.frame[ORIGIN].max()).to_numpy())).asked()
    name = {n: i for i, n in enumerate(last.frame["store"].to_list())}
    base = np.zeros((len(last), 7, 9))
    for i in range(6):
        base[name[f"s{i}"]] = 10.0 * (i + 1)
    base[name["region=north"]], base[name["region=south"]], base[name["*"]] = 90.0, 120.0, 210.0
    base += np.linspace(-1, 1, 9)
    np.testing.assert_allclose(coherent(base, last), base, atol=1e-9)


def test_a_column_that_changes_within_a_series_cannot_group():
    with pytest.raises(InputError, match="'open' cannot group the series"):
        read_series(table(), target="units", group="store", horizon=7, hierarchy=("open",))


def test_plans_are_not_made_for_totals(tmp_path):
    (tmp_path / "stock.toml").write_text('kind = "inventory"\n', encoding="utf-8")
    with pytest.raises(InputError, match="totals"):
        api.run(table(), target="units", group="store", task="forecast", horizon=7, hierarchy=("region",), decide=str(tmp_path / "stock.toml"), out=tmp_path / "run")


def test_a_run_says_what_adding_up_costs_and_its_bundle_adds_up(tmp_path):
    made = api.run(table(), target="units", group="store", task="forecast", horizon=7, hierarchy=("region",), candidates=("lag_linear",), work=2, out=tmp_path / "run")
    assert any("add up" in str(note) for note in made.verdict.notes)
    told = api.load(made.winner).predict(table())
    total = told.filter(pl.col("store") == "*").sort("step")["q0.5"].to_numpy()
    parts = told.filter(pl.col("store").str.starts_with("s")).group_by("step").agg(pl.col("q0.5").sum()).sort("step")["q0.5"].to_numpy()
    np.testing.assert_allclose(total, parts, rtol=1e-6)
