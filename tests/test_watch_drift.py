"""Planted shifts are found, trifles are not, and the stated rate of false alarms holds."""

import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.io import wavfile

from assay.data.dataset import Column
from assay.data.media import packed
from assay.watch import drift, quality, two_sample
from assay.watch.gauge import Gauge

COUNTS = st.lists(st.integers(5, 500), min_size=2, max_size=12)


def found(before: dict, after: dict, kinds: dict[str, str], **options) -> dict[str, str]:
    """{code: level} of what is no longer fine in one check."""
    columns = [Column(n, k, language="en" if k == "text" else None) for n, k in kinds.items()]
    gauge = Gauge.learn(pl.DataFrame(before), columns)
    recent = gauge.measure(pl.DataFrame(after))
    checked = drift.controlled(drift.compare(gauge, recent, **options) + quality.check(gauge, recent), drift.ALPHA)
    return {f.code: f.level for f in checked if f.level != "fine"}


def normal(n: int, seed: int, mean: float = 0.0, sd: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, sd, n)


# ---- the measure


@given(COUNTS, st.randoms(use_true_random=False))
def test_the_effect_is_symmetric_and_between_0_and_8(counts, random):
    a = np.array(counts)
    b = np.array(random.sample(counts, len(counts)))
    one, two = drift.shift(a, b), drift.shift(b, a)
    assert one.effect == pytest.approx(two.effect)
    assert 0 <= one.low <= one.high <= 8
    assert one.low <= one.effect <= one.high + 1e-9


def test_for_small_shifts_the_effect_is_the_population_stability_index():
    p = np.full(10, 0.1)
    q = p * (1 + 0.2 * np.linspace(-1, 1, 10))
    n = 10_000_000
    assert drift.shift(p * n, q * n).effect == pytest.approx(drift.psi(p * n, q * n), rel=0.03)


def test_disjoint_samples_reach_the_end_of_the_scale_and_stay_finite():
    a, b = np.array([500, 0]), np.array([0, 500])
    assert drift.shift(a, b).effect == pytest.approx(8, rel=0.1)
    assert drift.shift(a, b).p < 1e-50


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    p = np.full(10, 0.1)
    q = p * np.exp(0.45 * np.linspace(-1, 1, 10) ** 3)
    q /= q.sum()
    truth = 4 * ((np.sqrt(p) - np.sqrt(q)) ** 2).sum()
    held = [s.low <= truth <= s.high for s in (drift.shift(rng.multinomial(1000, p), rng.multinomial(800, q)) for _ in range(1500))]
    assert 0.93 <= np.mean(held) <= 0.985


def test_at_the_edge_of_what_is_tolerated_the_test_keeps_its_level_with_a_reference_of_1000_rows():
    rng = np.random.default_rng(1)
    p = np.full(10, 0.1)
    low, high = 0.0, 2.0
    for _ in range(60):  # the tilt whose effect is just what is tolerated
        middle = (low + high) / 2
        q = p * np.exp(middle * np.linspace(-1, 1, 10))
        q /= q.sum()
        low, high = (low, middle) if 4 * ((np.sqrt(p) - np.sqrt(q)) ** 2).sum() > drift.TOLERATED else (middle, high)
    n = 4000
    values = np.array([drift.shift(rng.multinomial(1000, p), rng.multinomial(300, q)).p for _ in range(n)])
    for level in (0.05, 0.01, 0.001):
        assert (values < level).sum() <= n * level + 3 * np.sqrt(n * level) + 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_corrected_p_values_are_never_smaller_and_keep_their_order(p):
    out = drift.adjusted(p)
    assert (out >= np.array(p) - 1e-12).all()
    assert (np.diff(out[np.argsort(p, kind="stable")]) >= -1e-12).all()


def test_all_checks_together_never_spend_more_than_alpha():
    assert 0.04 < sum(drift.spent(t, 0.05) for t in range(1, 20_000)) < 0.05
    assert drift.spent(10_000, 0.05) > 1e-8


# ---- planted shifts, and nothing


@pytest.mark.parametrize(("what", "after"), [
    ("mean", normal(1500, 1, mean=0.8)),
    ("spread", normal(1500, 1, sd=2.2)),
    ("shape", np.abs(normal(1500, 1)) * np.where(np.arange(1500) % 2, 1.6, -1.6)),
])
def test_a_number_that_moves_widens_or_splits_is_found(what, after):
    assert "drift:x" in found({"x": normal(1000, 0)}, {"x": after}, {"x": "number"})


def test_a_trifle_is_no_drift_however_many_rows_there_are():
    before, after = normal(200_000, 0), normal(200_000, 1, mean=0.1)  # a tenth of a standard deviation: a t-test would call it with p < 1e-200
    assert found({"x": before}, {"x": after}, {"x": "number"}) == {}
    assert "drift:x" in found({"x": before}, {"x": after}, {"x": "number"}, tolerated=0.001)


def test_another_mix_of_categories_is_found_and_its_level_named():
    rng = np.random.default_rng(0)
    before, after = rng.choice(["a", "b", "c"], 1000, p=[0.6, 0.3, 0.1]), rng.choice(["a", "b", "c"], 800, p=[0.3, 0.2, 0.5])
    columns = [Column("c", "category")]
    gauge = Gauge.learn(pl.DataFrame({"c": before}), columns)
    one = drift.compare(gauge, gauge.measure(pl.DataFrame({"c": after})))[0]
    assert one.facts["level"] == "c"
    assert one.facts["low"] > drift.TOLERATED
    assert one.facts["cramers_v"] > 0.3


def test_a_column_of_thousands_of_rare_levels_is_no_drift_but_a_flood_of_new_ones_is():
    rng = np.random.default_rng(0)
    cities = np.array([f"city {i}" for i in range(4000)])
    weights = 1 / np.arange(1, 4001) ** 0.8
    weights /= weights.sum()
    draw = lambda n: rng.choice(cities, n, p=weights)  # noqa: E731
    before = draw(1000)  # it holds a seventh of the cities
    assert found({"c": before}, {"c": draw(3000)}, {"c": "category"}) == {}
    flood = np.where(rng.random(3000) < 0.85, np.array([f"village {i % 900}" for i in range(3000)]), draw(3000))
    assert {"new_levels:c", "drift:c"} & found({"c": before}, {"c": flood}, {"c": "category"}).keys()


def test_a_text_that_turns_to_another_topic_or_language_is_found_and_the_same_topic_is_not():
    rng = np.random.default_rng(0)
    post, bank = ["parcel", "late", "courier", "door", "broken", "box", "driver", "street"], ["account", "card", "payment", "transfer", "bill", "interest", "loan", "branch"]
    said = lambda words, n: [" ".join(rng.choice(words, 6)) for _ in range(n)]  # noqa: E731
    before = {"t": said(post, 800)}
    assert found(before, {"t": said(post, 600)}, {"t": "text"}) == {}
    assert any(code.startswith("drift:t/") for code in found(before, {"t": said(bank, 600)}, {"t": "text"}))
    mixed = said(post, 300) + said(bank, 300)
    assert any(code.startswith("drift:t/") for code in found(before, {"t": mixed}, {"t": "text"}))
    assert "drift:t/han" in found(before, {"t": ["快递又迟到了，包装也破了"] * 400 + said(post, 200)}, {"t": "text"})


def wav(seconds: float, hertz: float, rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    wavfile.write(out, 8000, (3000 * np.sin(2 * np.pi * hertz * np.arange(int(8000 * seconds)) / 8000) + rng.normal(0, 300, int(8000 * seconds))).astype(np.int16))
    return out.getvalue()


def png(light: float, rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rng.normal(light, 30, (40, 48)).clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(("column", "usual", "other", "seen"), [
    (Column("p", "image"), lambda rng: png(120 + rng.normal(0, 8), rng), lambda rng: png(170 + rng.normal(0, 8), rng), "drift:p/light"),
    (Column("s", "audio"), lambda rng: wav(0.3, rng.normal(500, 30), rng), lambda rng: wav(0.3, rng.normal(1500, 30), rng), "drift:s/pitch"),
    (Column("q", "sequence", channels=("force", "speed")), lambda rng: packed(rng.normal(0, 1, (30, 2))), lambda rng: packed(rng.normal(0, [1, 3], (30, 2))), "drift:q/spread speed"),
])
def test_pictures_sounds_and_sequences_that_change_are_found_and_others_are_not(column, usual, other, seen):
    rng = np.random.default_rng(0)
    made = {name: pl.DataFrame({column.name: pl.Series([draw(rng) for _ in range(n)], dtype=pl.Binary)}) for name, draw, n in (("before", usual, 240), ("same", usual, 160), ("after", other, 160))}
    gauge = Gauge.learn(made["before"], [column])
    same, after = ({f.code for f in drift.controlled(drift.compare(gauge, gauge.measure(made[k])), drift.ALPHA) if f.alarming} for k in ("same", "after"))
    assert same == set()
    assert seen in after
    broken = pl.DataFrame({column.name: pl.Series([b"\x89PNG nonsense"[:7]] * 3 + [usual(rng)], dtype=pl.Binary)})
    assert gauge.measure(broken).unread == {column.name: 3}


def test_quality_finds_missing_values_new_levels_values_out_of_range_and_a_stuck_sensor():
    rng = np.random.default_rng(0)
    before = {"x": normal(1000, 0), "y": normal(1000, 1), "z": normal(1000, 2), "c": rng.choice(["a", "b"], 1000)}
    after = {"x": np.where(rng.random(500) < 0.2, np.nan, normal(500, 3)), "y": np.where(rng.random(500) < 0.15, 900.0, normal(500, 4)), "z": np.full(500, 0.3),
             "c": np.where(rng.random(500) < 0.1, "new", rng.choice(["a", "b"], 500))}
    codes = found(before, {k: pl.Series(v).fill_nan(None) if k in "xy" else v for k, v in after.items()}, {"x": "number", "y": "number", "z": "number", "c": "category"})
    assert {"missing:x", "range:y", "stuck:z", "new_levels:c"} <= codes.keys()
    assert codes["stuck:z"] == "critical"


def test_copied_rows_are_found_and_rows_that_are_alike_by_chance_are_not():
    rng = np.random.default_rng(0)
    few = {"a": rng.integers(0, 12, 1000).astype(float), "b": rng.choice(["x", "y"], 1000)}
    assert found(few, {"a": rng.integers(0, 12, 2000).astype(float), "b": rng.choice(["x", "y"], 2000)}, {"a": "number", "b": "category"}) == {}
    copied = np.tile(normal(250, 5), 4)
    assert "duplicates" in found({"a": normal(1000, 0)}, {"a": copied}, {"a": "number"})


def test_a_broken_relation_between_columns_is_seen_by_the_classifier_alone():
    rng = np.random.default_rng(0)
    a = rng.normal(size=1000)
    before = pl.DataFrame({"a": a, "b": a + 0.2 * rng.normal(size=1000), "c": rng.choice(["u", "v"], 1000)})
    c = rng.normal(size=1000)
    kept = pl.DataFrame({"a": c, "b": c + 0.2 * rng.normal(size=1000), "c": rng.choice(["u", "v"], 1000)})
    broken = pl.DataFrame({"a": c, "b": 1.02 * rng.permutation(c), "c": rng.choice(["u", "v"], 1000)})
    gauge = Gauge.learn(before, [Column("a", "number"), Column("b", "number"), Column("c", "category")])
    assert not any(f.alarming for f in drift.controlled(drift.compare(gauge, gauge.measure(broken)), drift.ALPHA))
    told = two_sample.check(gauge, before, broken)[0]
    assert told.facts["low"] > 0.8
    assert list(told.facts["columns"])[:2] == ["b", "a"] or list(told.facts["columns"])[:2] == ["a", "b"]
    same = two_sample.check(gauge, before, kept)[0]
    assert same.facts["low"] < 0.55
    assert same.facts["p"] > 0.5


def test_of_stationary_streams_checked_again_and_again_no_more_than_the_stated_share_alarms():
    """30 streams here (bench/drift.py: 200): each with a reference of 500 rows and 10 checks of 200 rows, columns of all sorts."""
    rng = np.random.default_rng(0)
    columns = [Column("x", "number"), Column("y", "number"), Column("k", "number"), Column("c", "category")]
    draw = lambda n: pl.DataFrame({"x": rng.normal(size=n), "y": rng.lognormal(0, 2, n), "k": rng.poisson(2, n).astype(float),  # noqa: E731
                                   "c": rng.choice(list("abcdefgh"), n, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.04, 0.01])})
    alarmed = 0
    for _ in range(30):
        gauge = Gauge.learn(draw(500), columns)
        for check in range(1, 11):
            recent = gauge.measure(draw(200), copied=False)
            # tolerated almost nothing: the level itself is tested, not the tolerance
            tested = drift.compare(gauge, recent, tolerated=1e-6) + quality.check(gauge, recent)
            if any(f.alarming for f in drift.controlled(tested, drift.spent(check))):
                alarmed += 1
                break
    assert alarmed <= 30 * 0.05 + 3 * np.sqrt(30 * 0.05)
