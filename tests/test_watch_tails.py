"""Tails without scipy are scipy's."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.watch.tails import chi2_above, normal_below, t_at, t_below


@settings(max_examples=300, deadline=None)
@given(st.floats(-35, 8))
def test_the_normal_law(z: float) -> None:
    from scipy.special import ndtr

    assert normal_below(z) == pytest.approx(float(ndtr(z)), rel=1e-12)


@settings(max_examples=500, deadline=None)
@given(st.floats(1e-6, 8000), st.integers(1, 60), st.floats(0, 2000))
def test_the_chi_squared_law(x: float, df: int, nc: float) -> None:
    from scipy.special import chdtrc, chndtr

    own = chi2_above(x, df, nc)
    below = 1.0 - float(chndtr(x, df, nc)) if nc else float(chdtrc(df, x))
    assert own == pytest.approx(below, rel=1e-9, abs=2e-11)
    assert 0.0 <= own <= 1.0


@pytest.mark.parametrize(("x", "df", "nc"), [(60.0, 9, 3.0), (200.0, 9, 20.0), (500.0, 19, 100.0), (900.0, 4, 50.0), (3000.0, 19, 900.0), (2500.0, 9, 1900.0), (150.0, 1, 0.5)])
def test_the_far_tail_of_the_chi_squared_law(x: float, df: int, nc: float) -> None:
    from scipy.integrate import quad
    from scipy.stats import ncx2

    far, _ = quad(lambda v: np.exp(ncx2.logpdf(v, df, nc)), x, x + 400, epsabs=0, epsrel=1e-10, limit=500)
    assert 0 < chi2_above(x, df, nc) < 1e-4
    assert chi2_above(x, df, nc) == pytest.approx(far, rel=1e-6)


@settings(max_examples=500, deadline=None)
@given(st.floats(-60, 60), st.one_of(st.integers(1, 100), st.integers(1, 1_000_000)))
def test_students_law(t: float, df: int) -> None:
    from scipy.special import stdtr

    assert t_below(t, df) == pytest.approx(float(stdtr(df, t)), rel=1e-7, abs=1e-300)


@settings(max_examples=300, deadline=None)
@given(st.floats(0.001, 0.999), st.one_of(st.integers(1, 100), st.integers(1, 1_000_000)))
def test_students_law_the_other_way(p: float, df: int) -> None:
    t = t_at(p, df)
    assert math.isfinite(t)
    assert t_below(t, df) == pytest.approx(p, rel=1e-9)
