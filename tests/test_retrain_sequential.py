"""Tests that may be looked at after every label: they err as seldom as they say, on whatever law, and say the same of the same gains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.retrain.sequential import LEAST, by_group, compare, log_capital, log_t_mixture, spent

ALPHA = 0.05
LAWS = {  # gains of mean zero within [-1, 1]: a challenger that is no better
    "wrong answers": lambda rng, shape: rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.9, 0.05], size=shape),
    "a rare catastrophe": lambda rng, shape: np.where(rng.random(shape) < 0.02, -0.98, 0.02),
    "a rare stroke of luck": lambda rng, shape: np.where(rng.random(shape) < 0.02, 0.98, -0.02),
    "even": lambda rng, shape: rng.uniform(-1, 1, shape),
    "one that drifts from worse to no better": lambda rng, shape: rng.uniform(-1, 1, shape) - np.maximum(0.0, 0.05 * (1 - np.arange(shape[1]) / 300)),
}
GAINS = st.lists(st.floats(-1, 1).map(lambda v: round(v, 3)), min_size=2, max_size=200).map(np.array)


@pytest.mark.parametrize("law", LAWS)
def test_looking_after_every_label_promotes_no_worse_challenger_more_often_than_alpha(law):
    gains = np.clip(LAWS[law](np.random.default_rng(3), (800, 600)), -1, 1)
    wrong = (log_capital(gains, 0.0, -1.0, path=True) >= -np.log(ALPHA)).any(axis=1).mean()
    assert wrong <= ALPHA + 3 * np.sqrt(ALPHA / 800)


def test_a_t_test_that_is_looked_at_after_every_label_is_wrong_several_times_as_often():
    gains = np.random.default_rng(4).normal(size=(800, 600))
    n = np.arange(1, 601)
    mean, squares = _running(gains)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = mean / np.sqrt(squares / (n - 1) / n)
    naive = (t[:, LEAST:] > 1.645).any(axis=1).mean()
    ours = (log_t_mixture(n, mean, squares)[:, LEAST - 1:] >= -np.log(ALPHA)).any(axis=1).mean()
    assert naive > 4 * ALPHA
    assert ours <= ALPHA + 3 * np.sqrt(ALPHA / 800)


@pytest.mark.parametrize(("n", "effect"), [(2, 0.4), (10, 1.0), (60, 0.3), (60, -0.2), (400, 0.15)])
def test_the_mixture_is_never_more_than_the_average_likelihood_ratio_of_better_effects(n, effect):
    """Against the t densities of scipy, averaged over effects above zero by quadrature."""
    from scipy.stats import nct
    from scipy.stats import t as student

    from assay.retrain.sequential import _prior

    x = np.random.default_rng(n).normal(effect, 1, n)
    t = x.mean() / (x.std(ddof=1) / np.sqrt(n))
    effects = (np.arange(4000) + 0.5) / 4000 * 8 * np.sqrt(_prior(ALPHA))
    weight = np.exp(-(effects**2) / (2 * _prior(ALPHA)))
    exact = float((nct.pdf(t, n - 1, effects * np.sqrt(n)) * weight).sum() / weight.sum() / student.pdf(t, n - 1))
    ours = float(np.exp(log_t_mixture(n, x.mean(), ((x - x.mean()) ** 2).sum())))
    assert ours <= exact * (1 + 1e-3)
    assert exact <= 2 or ours >= 0.9 * exact - 1


@given(GAINS, st.sampled_from([0.0, 0.02]), st.booleans())
def test_a_bound_beyond_the_margin_and_evidence_of_it_are_the_same_thing(gains, margin, exact):
    found = compare(gains, alpha=ALPHA, margin=margin, support=(-1.0, 1.0) if exact else None)
    assert found.low <= found.gain + 1e-9
    assert found.gain <= found.high + 1e-9
    for evidence, beyond in ((found.evidence, found.low - margin), (found.against, margin - found.high)):
        if abs(beyond) > 1e-6:
            assert (evidence >= 1 / ALPHA) == (beyond > 0)
    assert found.settled(ALPHA) in (-1, 0, 1)
    assert (found.needed is None) or not found.settled(ALPHA)


@given(GAINS, st.floats(0.01, 100), st.randoms(use_true_random=False))
def test_units_and_order_of_the_gains_do_not_matter_and_the_mirror_image_is_the_mirror_image(gains, unit, random):
    found = compare(gains, support=(-1.0, 1.0))
    shuffled = gains.copy()
    random.shuffle(shuffled)
    scaled = compare(shuffled * unit, support=(-unit, unit))
    mirrored = compare(-gains, support=(-1.0, 1.0))
    assert (scaled.low, scaled.high) == pytest.approx((found.low * unit, found.high * unit), abs=1e-6 * unit)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-6)
    assert mirrored.against == pytest.approx(found.evidence, rel=1e-6)


@given(GAINS)
def test_the_capital_of_the_whole_is_the_end_of_its_path(gains):
    values, counts = np.unique(gains, return_counts=True)
    path = log_capital(gains, 0.01, -1.0, path=True)
    assert path[-1] == pytest.approx(float(log_capital(gains, 0.01, -1.0)), abs=1e-9)
    assert path[-1] == pytest.approx(float(log_capital(values, 0.01, -1.0, counts=counts)), abs=1e-9)


@given(st.floats(0.02, 0.5), st.booleans(), st.integers(60, 300))
@settings(max_examples=40)
def test_as_many_labels_as_are_said_to_be_needed_settle_it_if_they_go_on_alike(gain, exact, n):
    gains = np.where(np.arange(n) % 5 == 0, -0.3, 0.3 * 0.25 + gain * 1.25) * 0.4  # a mean of gain * 0.4, spread around it
    gains = gains - gains.mean() + 0.05 * gain
    found = compare(gains, support=(-1.0, 1.0) if exact else None)
    if found.settled(0.05):
        return
    assert found.needed is not None
    more = -(-found.needed // n) + 1
    assert compare(np.tile(gains, 1 + more), support=(-1.0, 1.0) if exact else None).settled(0.05) == 1
    less = found.needed // n - 1
    if less > 0:
        assert compare(np.tile(gains, 1 + less), support=(-1.0, 1.0) if exact else None).settled(0.05) == 0


@given(GAINS, st.integers(2, 4))
def test_rows_of_one_group_count_as_one(gains, copies):
    groups = np.repeat(np.arange(len(gains)), copies)
    many = compare(np.repeat(gains, copies), support=(-1.0, 1.0), groups=groups)
    once = compare(gains, support=(-1.0, 1.0))
    assert (many.units, many.rows) == (len(gains), copies * len(gains))
    assert (many.low, many.high) == pytest.approx((once.low, once.high), abs=1e-9)
    assert by_group(np.array([1.0, 3.0, 5.0]), np.array(["b", "a", "b"])).tolist() == [3.0, 3.0]


def test_nothing_is_said_from_a_handful_of_gains_whose_end_is_not_known():
    found = compare(np.full(LEAST - 1, 0.3))
    assert (found.low, found.high, found.settled(0.05)) == (-np.inf, np.inf, 0)


def test_gains_outside_of_what_is_possible_are_refused():
    with pytest.raises(ValueError, match="outside"):
        compare(np.array([0.0, 1.5]), support=(-1.0, 1.0))


@given(st.integers(0, 60))
def test_alpha_spent_on_challengers_without_end_is_never_more_than_alpha(promoted):
    assert sum(spent(0.05, k, 0) for k in range(1, 500)) <= 0.05
    assert spent(0.05, 7, promoted) == pytest.approx((promoted + 1) * spent(0.05, 7, 0))


def _running(gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n = np.arange(1, gains.shape[1] + 1)
    mean = np.cumsum(gains, axis=1) / n
    return mean, np.maximum(np.cumsum(gains**2, axis=1) - n * mean**2, 0.0)
