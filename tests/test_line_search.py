"""Step lengths against one-dimensional minimisation of the objective by SciPy."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from conftest import low_rank_target, random_operator
from lowrank_tangent import StructuredRegression
from lowrank_tangent.solvers import spectral_point as _point
from lowrank_tangent.solvers.newton import line_search as _line_search
from lowrank_tangent.solvers.newton.line_search import step_length


class Line:
    """A point, a direction downhill, and the objective along it from singular values."""

    def __init__(self, rng, adaptivity, scale, alpha=1.0):
        operator = random_operator(rng, 30, [(5, 9), (8, 3)])
        target = low_rank_target(rng, operator)
        self.problem = StructuredRegression(operator, target, "power", alpha, adaptivity)
        coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
        self.point = _point.PrimalPoint(self.problem, coefs)
        pull = operator.rmatvec(self.point.residual)
        gradient = [layer.gradient - part for layer, part in zip(self.point.layers, pull, strict=True)]
        self.descent = scale * sum(np.sum(part**2) for part in gradient)
        self.change = [-scale * part for part in gradient]
        self.prediction = operator.matvec(self.change)

    def objective(self, length):
        coefs = [coef + length * part for coef, part in zip(self.point.coefs, self.change, strict=True)]
        return self.problem.objective(coefs)

    def length(self, descent=None):
        return step_length(self.point, self.change, self.prediction, self.descent if descent is None else descent)


@pytest.fixture
def trials(monkeypatch):
    """Lengths that are tried."""
    lengths = []
    whole = _point.PenaltyLine.at
    monkeypatch.setattr(_point.PenaltyLine, "at", lambda self, t: (lengths.append(t), whole(self, t))[1])
    return lengths


@pytest.mark.parametrize("adaptivity", [0.0, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("scale", [0.01, 0.1, 1.0])
def test_a_length_leaves_little_to_gain(rng, trials, adaptivity, scale):
    line = Line(rng, adaptivity, scale)
    length = line.length()
    best = minimize_scalar(line.objective, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-9})
    most = line.objective(0.0) - min(best.fun, line.objective(1.0))
    gain = line.objective(0.0) - line.objective(length)
    assert gain >= 0.95 * most
    assert length == trials[-1]
    assert len(trials) <= 8


def test_a_quadratic_takes_its_minimum(rng, trials):
    line = Line(rng, 0.0, 0.3)
    curvature = np.sum(line.prediction**2) + line.problem.alpha * sum(np.sum(part**2) for part in line.change)
    assert line.length() == pytest.approx(line.descent / curvature, rel=1e-9)
    assert len(trials) == 2


def test_the_whole_step_where_its_end_still_goes_down(rng, trials):
    line = Line(rng, 10.0, 1e-6)
    assert line.length() == 1.0
    assert trials == [1.0]


@pytest.mark.filterwarnings("error")
def test_an_end_that_goes_down_and_gains_too_little_ends_the_search(rng, trials):
    line = Line(rng, 10.0, 1e-6)
    assert line.length(descent=1e6 * line.descent) is None
    assert trials == [1.0]


def test_no_length_uphill(rng, trials):
    line = Line(rng, 10.0, 0.1)
    assert line.length(descent=-line.descent) is None
    assert line.length(descent=np.nan) is None
    assert not trials


def test_rounding_has_no_length(rng, trials):
    """Towards a minimum that is reached to all digits: what a step would gain cannot be told from nothing."""
    line = Line(rng, 1.0, 0.1)
    line.change = [1e-9 * part for part in line.change]
    line.prediction = -1e-9 * line.prediction  # another sign: the step goes up
    assert line.length(descent=1e-18 * line.descent) is None
    assert len(trials) == 1


def test_a_cubic_has_its_minimum_between():
    def cubic(t):
        return 2.0 * t**3 - 3.0 * t**2 - 12.0 * t, 6.0 * t**2 - 6.0 * t - 12.0

    for start, end in ((0.0, 4.0), (1.5, 2.6), (-0.9, 3.0)):
        found = _line_search._between((start, *cubic(start)), (end, *cubic(end)))
        assert found == pytest.approx(2.0)
    near = _line_search._between((1.99, *cubic(1.99)), (12.0, *cubic(12.0)))
    assert near == pytest.approx(1.99 + _line_search._INSIDE * 10.01)
