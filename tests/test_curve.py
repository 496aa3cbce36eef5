"""Learning curves against made candidates whose true curve is known."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.contest.curve import Curve, Point, crossing, learning_curve, rows_sentence
from assay.contest.laws import LAWS, log_shapes, shapes
from assay.contest.more_time import more_rows, more_training
from assay.words import Text, say

N = 400
SIZES = (250, 500, 1000, 2000)
ROWS = np.arange(N)


def points(truth, *, sizes=SIZES, seeds=1, luck=0.01, seed=0, n=N):
    """A candidate whose loss at m rows is truth(m); rows differ in how hard they are, fits in their luck."""
    rng = np.random.default_rng(seed)
    hard = rng.exponential(size=n)
    hard /= hard.mean()
    return [Point(m, s, hard * truth(m) * np.exp(luck * rng.normal())) for m in sizes for s in range(seeds)]


def curve(truth, **how):
    return learning_curve(points(truth, **how), ROWS, seed=0)


def test_every_shape_is_one_at_the_largest_size_and_never_rises():
    ratio = np.geomspace(1 / 8, 100, 60)
    logs = log_shapes(ratio)
    assert logs.shape == (len(shapes()), 60)
    assert np.abs(log_shapes(np.array([1.0]))).max() < 1e-12
    assert (np.diff(logs, axis=1) <= 1e-12).all()
    assert {s.law.name for s in shapes()} == {law.name for law in LAWS}
    assert sum(s.prior for s in shapes()) == pytest.approx(sum(law.prior for law in LAWS))


@pytest.mark.parametrize("truth", [lambda m: 6 * m**-0.4, lambda m: 0.2 + 40 * m**-0.8, lambda m: 3 / np.log(m), lambda m: 0.4 + 0 * m],
                         ids=["power", "power with floor", "inverse logarithm", "constant"])
def test_an_interval_at_twice_the_rows_holds_the_truth_of_a_known_law(truth):
    hits = 0
    for seed in range(20):
        said = learning_curve(points(truth, seed=seed, n=500), np.arange(500), seed=seed).at(4000)
        hits += said.low <= truth(4000) <= said.high
    assert hits >= 14, "of 20 intervals at 80 %, fewer than 14 held the truth (chance: under 1 in 10)"


def test_a_law_is_told_from_the_others_where_the_points_show_it():
    falls, flat = curve(lambda m: 6 * m**-0.4, luck=0.0), curve(lambda m: 0.4 + 0 * m, luck=0.002)
    assert falls.laws["constant"] < 0.01 < flat.laws["constant"]
    assert falls.at(8000).median == pytest.approx(6 * 8000**-0.4, rel=0.15)
    assert flat.at(8000).median == pytest.approx(0.4, rel=0.05)
    assert sum(falls.laws.values()) == pytest.approx(1)


def test_the_farther_ahead_the_wider_and_the_fewer_sizes_the_wider():
    def truth(m):
        return 0.1 + 20 * m**-0.6

    def width(found, rows):
        at = found.at(rows)
        return np.log(at.high / at.low)

    four = curve(truth)
    assert width(four, 4000) < width(four, 8000) < width(four, 32000)
    two = curve(truth, sizes=SIZES[-2:])
    assert width(two, 8000) > width(four, 8000)
    assert np.mean([width(curve(truth, luck=0.3, seed=s), 8000) for s in range(5)]) > 1.5 * width(four, 8000)


def test_what_was_measured_stands_beside_what_is_said():
    found = curve(lambda m: 6 * m**-0.4, seeds=3)
    assert found.sizes == SIZES
    assert all(e.low < m < e.high for e, m in zip(found.intervals, found.means, strict=True))
    packed = json.loads(json.dumps(found.json([250, 4000])))
    assert [g["rows"] for g in packed["grid"]] == [250, 4000]
    assert packed["grid"][1]["low"] <= packed["grid"][1]["median"] <= packed["grid"][1]["high"]


@settings(max_examples=15)
@given(scale=st.floats(1e-6, 1e6), order=st.permutations(range(4)))
def test_the_unit_of_the_loss_and_the_order_of_the_points_do_not_matter(scale, order):
    made = points(lambda m: 6 * m**-0.4)
    one = learning_curve(made, ROWS, seed=0).at(8000)
    other = learning_curve([Point(made[i].rows, made[i].seed, made[i].losses * scale) for i in order], ROWS, seed=0).at(8000)
    assert other.median == pytest.approx(one.median * scale, rel=2e-2)
    assert other.high == pytest.approx(one.high * scale, rel=2e-2)


def test_the_same_seed_says_the_same_to_the_last_byte():
    assert json.dumps(curve(lambda m: 6 * m**-0.4).json()) == json.dumps(curve(lambda m: 6 * m**-0.4).json())


def test_test_rows_that_belong_together_count_once():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 20)
    hard = rng.exponential(size=20)[group]
    made = [Point(m, 0, hard * 6 * m**-0.4) for m in SIZES]

    def width(clusters):
        at = learning_curve(made, clusters, seed=0).at(4000)
        return at.high - at.low

    assert width(group) > 1.5 * width(ROWS)


# ---- curves that are none


def test_one_size_or_none_is_refused_with_a_reason():
    one, none = curve(lambda m: 0.4, sizes=(2000,)), learning_curve([], ROWS, seed=0)
    assert "only one size" in str(one.reason)
    assert one.means == pytest.approx((0.4,), rel=0.05)
    assert "no size" in str(none.reason)
    assert none.json()["grid"] == one.json()["grid"] == []
    with pytest.raises(ValueError, match="only one size"):
        one.at(4000)


def test_a_fit_that_failed_at_a_small_size_leaves_the_others():
    made = points(lambda m: 6 * m**-0.4)
    broken = [Point(125, 0, np.full(N, np.nan)), *made]
    assert learning_curve(broken, ROWS, seed=0).sizes == SIZES


def test_points_on_other_test_rows_are_a_mistake():
    with pytest.raises(ValueError, match="same test rows"):
        learning_curve([Point(100, 0, np.ones(5)), Point(200, 0, np.ones(6))], np.arange(5), seed=0)


def test_a_loss_that_rises_is_noted_and_not_said_to_fall():
    found = curve(lambda m: 0.1 * m**0.3)
    assert "rises" in str(found.notes[0])
    assert found.at(4000).high > found.means[-1]


def test_noise_larger_than_the_trend_is_noted():
    rng = np.random.default_rng(0)
    made = [Point(m, 0, rng.exponential(size=N)) for m in SIZES]
    assert "less than chance can explain" in str(learning_curve(made, ROWS, seed=0).notes[0])


def test_no_loss_at_all_and_no_loss_at_some_sizes():
    assert "no loss left" in str(curve(lambda m: 0.0).reason)
    rng = np.random.default_rng(0)
    made = [Point(m, 0, (rng.random(N) < p).astype(float)) for m, p in zip(SIZES, (0.1, 0.02, 0.0, 0.0), strict=True)]
    at = learning_curve(made, ROWS, seed=0).at(4000)
    assert 0 < at.low < at.high < 0.1


def test_losses_below_zero_are_refused():
    made = [Point(m, 0, np.linspace(-1, 1, N)) for m in SIZES]
    assert "below zero" in str(learning_curve(made, ROWS, seed=0).reason)


def test_five_test_rows_make_a_curve_wider_than_a_hundred():
    few = learning_curve(points(lambda m: 6 * m**-0.4, n=5), np.arange(5), seed=0).at(4000)
    many = learning_curve(points(lambda m: 6 * m**-0.4, n=100), np.arange(100), seed=0).at(4000)
    assert few.high / few.low > many.high / many.low


# ---- crossing


def meet(large, small, **how):
    same = {"margin": lambda loss: 0.02 * loss, "seed": 0} | how
    return crossing(points(large, seed=1), points(small, seed=1), ROWS, **same)


def flat(m):
    return 0.3 + 0 * m


def test_a_crossing_inside_the_measured_sizes_is_found():
    found = meet(lambda m: 0.3 * (700 / m) ** 0.5, flat)
    assert found.kind == "from"
    assert found.low <= 700 * 1.05 <= found.high <= 1500
    assert found.pays_now > 0.95
    assert "from about" in str(found.sentence("mlp", "boosting"))


def test_a_crossing_ahead_is_said_with_an_interval_that_holds_it():
    found = meet(lambda m: 0.3 * (4000 / m) ** 0.5, flat)
    assert found.kind == "from"
    assert found.low <= 4000 * 1.05 <= found.high
    assert found.pays_now < 0.05


def test_a_large_model_that_pays_everywhere_pays_from_the_first_size_on():
    found = meet(lambda m: 2 * m**-0.5, lambda m: 6 * m**-0.3)
    assert (found.kind, found.rows) == ("from", 250)
    assert "every size measured" in str(found.reason)


def test_a_large_model_that_never_pays_is_said_so():
    found = meet(lambda m: 1.5 + 0 * m, lambda m: 6 * m**-0.4)
    assert found.rows is None
    assert found.share < 0.1
    assert "does not pay" in str(found.sentence("mlp", "boosting"))


def test_a_large_model_that_pays_with_few_rows_only_is_said_so():
    found = meet(flat, lambda m: 0.3 * (900 / m) ** 0.6)
    assert found.kind == "until"
    assert found.low <= 870 <= found.high  # 900 * 0.98 ** (1 / 0.6): the margin is 2 %
    assert "up to about" in str(found.sentence("llm", "linear"))


def test_parallel_curves_cannot_be_told():
    found = meet(lambda m: 0.985 * 6 * m**-0.4, lambda m: 6 * m**-0.4)
    assert found.kind is None
    assert "cannot be told" in str(found.sentence("mlp", "boosting"))


def test_an_extra_cost_a_row_moves_the_crossing_to_more_rows():
    cheap = meet(lambda m: 0.3 * (700 / m) ** 0.5, flat, margin=0.0)
    dear = meet(lambda m: 0.3 * (700 / m) ** 0.5, flat, margin=0.0, less=0.05)
    assert cheap.rows < dear.rows


def test_a_rival_with_one_size_gives_a_reason_and_not_a_number():
    found = crossing(points(flat, sizes=(2000,)), points(flat), ROWS, margin=0.0, seed=0)
    assert found.kind is None
    assert found.rows is None
    assert "large model" in str(found.sentence("mlp", "boosting"))
    json.dumps(found.json())


# ---- sentences and seconds


def test_twice_the_rows_are_a_sentence_in_both_languages():
    text = rows_sentence("mlp", say("log loss"), curve(lambda m: 6 * m**-0.4))
    assert str(text).startswith("2 times the rows (4,000) would lower the log loss of mlp from 0.2")
    assert "对数损失" in text.to("zh")
    assert "about where it is" in str(rows_sentence("mlp", say("log loss"), curve(flat, luck=0.001)))


def trace(f, last=100):
    return [[step, None, f(step)] for step in range(1, last + 1)]


def test_more_seconds_for_a_training_that_still_falls_lower_its_loss():
    found = more_training(trace(lambda s: 2 * s**-0.5), seconds=30, extra=90, seed=0)
    assert found.low < 2 * 400**-0.5 < found.high
    assert found.now == pytest.approx(0.2)
    assert "90 more seconds" in str(found.sentence("mlp", say("log loss")))
    json.dumps(found.json())


def test_a_training_that_stopped_falling_is_told_so():
    assert "stopped falling" in str(more_training(trace(lambda s: max(0.5, 2 / s)), seconds=30, extra=90, seed=0))
    assert isinstance(more_training([[1, None, 0.5]], seconds=1, extra=90, seed=0), Text)


def test_more_seconds_are_more_rows_for_a_candidate_that_left_rows_out():
    found = curve(lambda m: 6 * m**-0.4)
    bought = more_rows(found, rows_used=2000, train_rows=6000, seconds=10, extra=90)
    assert bought.rows == 6000
    assert bought.then < bought.now
    assert "6,000 rows instead of 2,000" in str(bought.sentence("mlp", say("log loss")))
    assert "all" in str(more_rows(found, rows_used=2000, train_rows=2000, seconds=10, extra=90))


def test_a_curve_is_plain_data_besides_its_draws():
    found = curve(flat)
    assert isinstance(found, Curve)
    assert found.draws([500, 4000]).shape[1] == 2
    assert found.draws(500).std() <= found.draws(500, single_fit=True).std()
