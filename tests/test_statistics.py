"""The judge's arithmetic against facts from outside the code."""

import numpy as np
import pytest
from scipy import stats

from assay.contest.statistics import Bootstrap, detectable, fold_factor, holm, jackknife, rows_to_settle


def two(n, gap, rng, clusters=None):
    noise = rng.normal(size=n)
    return Bootstrap({"small": noise + gap + rng.normal(size=n) * 0.3, "large": noise}, np.arange(n) if clusters is None else clusters,
                     confidence=0.95, seed=0)


def test_the_interval_of_a_mean_difference_agrees_with_students_t():
    rng = np.random.default_rng(0)
    for n in (12, 60, 5000):
        a, b = rng.normal(size=n), rng.normal(size=n) + 0.2
        ours = Bootstrap({"a": b, "b": a}, np.arange(n), confidence=0.95, seed=1).gain("a", "b")
        low, high = stats.ttest_rel(b, a).confidence_interval(0.95)
        assert ours.low == pytest.approx(low, abs=0.12 * (high - low))
        assert ours.high == pytest.approx(high, abs=0.12 * (high - low))


def test_a_true_null_is_called_different_about_one_time_in_twenty():
    rng = np.random.default_rng(0)
    false = 0
    for _ in range(300):
        a, b = rng.exponential(size=80), rng.exponential(size=80)
        g = Bootstrap({"a": a, "b": b}, np.arange(80), confidence=0.95, seed=0).gain("a", "b")
        false += not g.low <= 0 <= g.high
    assert 0.02 <= false / 300 <= 0.09


def test_rows_of_one_cluster_do_not_count_as_independent():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(30), 20)
    shared = rng.normal(size=30)[codes]
    naive = Bootstrap({"a": shared, "b": np.zeros(600)}, np.arange(600), confidence=0.95, seed=0).gain("a", "b")
    honest = Bootstrap({"a": shared, "b": np.zeros(600)}, codes, confidence=0.95, seed=0).gain("a", "b")
    assert honest.se == pytest.approx(np.std(shared[::20]) / np.sqrt(30), rel=0.15)
    assert honest.se > 3.5 * naive.se


def test_bundling_many_clusters_leaves_the_standard_error_alone():
    rng = np.random.default_rng(0)
    loss = rng.exponential(size=50_000)
    found = Bootstrap({"a": loss, "b": np.zeros(50_000)}, np.arange(50_000), confidence=0.95, seed=0).of("a")
    assert found.se == pytest.approx(loss.std() / np.sqrt(50_000), rel=0.1)


def test_the_fold_factor_is_that_of_nadeau_and_bengio():
    k, n_train, n_test = 10, 900, 100
    corrected = 1 / k + n_test / n_train
    assert fold_factor(k, n_train, n_test) == pytest.approx(np.sqrt(corrected * k))


def test_holm_matches_its_published_example():
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert holm(p) == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_a_detectable_effect_is_found_with_the_stated_power():
    rng = np.random.default_rng(0)
    n = 100
    effect = detectable(1 / np.sqrt(n), 0.95)
    hits = sum(stats.ttest_1samp(rng.normal(effect, 1, n), 0).pvalue < 0.05 for _ in range(2000)) / 2000
    assert hits == pytest.approx(0.8, abs=0.03)


def test_four_times_the_rows_settle_half_the_distance():
    near, far = rows_to_settle(0.01, 0.02, 1000, 0.95), rows_to_settle(0.02, 0.02, 1000, 0.95)
    assert near / far == pytest.approx(4, rel=0.01)
    assert rows_to_settle(0.0, 0.02, 1000, 0.95) is None


def test_the_jackknife_of_a_mean_is_its_standard_error():
    rng = np.random.default_rng(0)
    x = rng.normal(size=4000)
    found = jackknife(lambda w: {"mean": np.average(x, weights=w)}, np.arange(4000), confidence=0.95, seed=0)["mean"]
    assert found["high"] - found["value"] == pytest.approx(stats.t.ppf(0.975, 19) * x.std() / np.sqrt(4000), rel=0.4)


def test_more_data_narrow_the_interval():
    rng = np.random.default_rng(0)
    assert two(200, 0.1, rng).gain("small", "large").se > 3 * two(5000, 0.1, rng).gain("small", "large").se
