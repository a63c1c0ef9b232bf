"""The cross-entropy: value, derivatives and conjugate against SciPy, brute force and finite differences."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import entr, log_softmax, softmax

from lowrank_tangent.losses import Multinomial, Squared, probabilities_of

pytestmark = pytest.mark.filterwarnings("error")
N = 6
COLUMNS = [1, 2, 3]
SETTINGS = [(False, False), (True, False), (False, True), (True, True)]
NAMES = ["plain", "weights", "intercept", "weights and intercept"]


def cross_entropy(target, logits, weights, bias=0.0):
    """The loss written out, with the intercept given."""
    logits = logits + bias
    if target.shape[1] == 1:
        target, logits = np.hstack([1 - target, target]), np.hstack([np.zeros_like(logits), logits])
    return -np.sum(weights[:, None] * target * log_softmax(logits, axis=1))


def brute_value(target, logits, weights, intercept):
    """Its minimum over the intercept, by a general method."""
    if not intercept:
        return cross_entropy(target, logits, weights)
    start = np.zeros(target.shape[1])
    return minimize(lambda b: cross_entropy(target, logits, weights, b), start, options={"gtol": 1e-9}).fun


def labels(rng, n, columns):
    """Indicators in which every class occurs."""
    classes = max(columns, 2)
    return np.eye(classes)[rng.permutation(np.arange(n) % classes)][:, -columns:]


def soft(rng, n, columns):
    """Probabilities that are no indicators."""
    return rng.dirichlet(np.ones(max(columns, 2)), n)[:, -columns:]


@pytest.fixture(params=COLUMNS)
def columns(request):
    return request.param


@pytest.fixture(params=SETTINGS, ids=NAMES)
def setting(request, rng):
    weighted, intercept = request.param
    weights = rng.uniform(0.2, 2.0, N) if weighted else np.ones(N)
    return Multinomial(weights if weighted else None, intercept), weights, intercept


@pytest.mark.parametrize("targets", [labels, soft])
def test_value_and_intercept_are_the_minimum(rng, setting, columns, targets):
    loss, weights, intercept = setting
    y, f = targets(rng, N, columns), 2 * rng.standard_normal((N, columns))
    value = loss.at(y, f).value
    assert value == pytest.approx(brute_value(y, f, weights, intercept), rel=1e-9)
    best = loss.intercept(y, f)
    assert best.shape == (columns,)
    assert value == pytest.approx(cross_entropy(y, f, weights, best), rel=1e-12)
    assert intercept or not best.any()


@pytest.mark.parametrize("targets", [labels, soft])
def test_residual_is_minus_the_gradient(rng, setting, columns, targets):
    loss, _, intercept = setting
    y, f, step = targets(rng, N, columns), rng.standard_normal((N, columns)), 1e-6
    residual, numeric = loss.at(y, f).residual, np.empty((N, columns))
    for index in np.ndindex(N, columns):
        moved = np.zeros((N, columns))
        moved[index] = step
        numeric[index] = (loss.at(y, f + moved).value - loss.at(y, f - moved).value) / (2 * step)
    np.testing.assert_allclose(residual, -numeric, atol=1e-8)
    if intercept:
        np.testing.assert_allclose(residual.sum(axis=0), 0.0, atol=1e-12)


def test_factors_of_the_hessian(rng, setting, columns):
    loss, _, _ = setting
    y, f, step, size = soft(rng, N, columns), rng.standard_normal((N, columns)), 1e-6, N * columns
    here, units = loss.at(y, f), np.eye(size).reshape(size, N, columns)
    S = np.array([here.multiply(unit).ravel() for unit in units]).T
    np.testing.assert_allclose(np.array([here.adjoint(unit).ravel() for unit in units]), S, atol=1e-13)
    hessian = [(loss.at(y, f - step * u).residual - loss.at(y, f + step * u).residual) / (2 * step) for u in units]
    np.testing.assert_allclose(S @ S.T, np.array(hessian).reshape(size, size), atol=1e-8)


@pytest.mark.parametrize("size", [1e-7, 1e-3, 1.0, 30.0])
def test_divergence_is_what_the_tangent_misses(rng, setting, columns, size):
    loss, _, _ = setting
    y, f = soft(rng, N, columns), rng.standard_normal((N, columns))
    change = size * rng.standard_normal((N, columns))
    here = loss.at(y, f)
    if size < 1e-5:
        # Differences of losses are rounding here; the quadratic model is not.
        expected = 0.5 * np.sum(here.adjoint(change) ** 2)
    else:
        expected = loss.at(y, f + change).value - here.value + np.vdot(here.residual, change)
    assert here.divergence(loss.at(y, f + change)) == pytest.approx(expected, rel=1e-6)


def test_divergence_of_the_squared_loss(rng):
    y, f, other = rng.standard_normal((3, N, 2))
    here = Squared().at(y, f)
    expected = Squared().at(y, other).value - here.value + np.vdot(here.residual, other - f)
    assert here.divergence(Squared().at(y, other)) == pytest.approx(expected, rel=1e-12)


def feasible(rng, y, weights, intercept):
    """A point of the domain of the conjugate and its distributions q, by the definition."""
    full = np.hstack([1 - y, y]) if y.shape[1] == 1 else y
    q = rng.dirichlet(np.ones(full.shape[1]), len(y))
    if intercept:
        # Alternate scaling of rows and columns.
        for _ in range(2000):
            q *= (weights @ full) / (weights @ q)
            q /= q.sum(axis=1, keepdims=True)
    return (weights[:, None] * (full - q))[:, -y.shape[1] :], q


@pytest.mark.parametrize("targets", [labels, soft])
def test_conjugate_by_brute_force(rng, setting, columns, targets):
    loss, weights, intercept = setting
    y = targets(rng, N, columns)
    dual, q = feasible(rng, y, weights, intercept)
    value = loss.dual_value(y, dual)
    assert value == pytest.approx(np.sum(weights[:, None] * entr(q)), rel=1e-10)

    def lagrangian(variables):
        f, bias = variables[columns:].reshape(N, columns), variables[:columns] * intercept
        return cross_entropy(y, f, weights, bias) + np.vdot(dual, f)

    brute = minimize(lagrangian, np.zeros(columns * (N + 1)), options={"gtol": 1e-7, "maxiter": 10_000})
    assert value == pytest.approx(brute.fun, rel=1e-6)


@pytest.mark.parametrize("targets", [labels, soft])
def test_fenchel_and_young(rng, setting, columns, targets):
    loss, weights, intercept = setting
    y, f = targets(rng, N, columns), 3 * rng.standard_normal((N, columns))
    here = loss.at(y, f)
    assert here.value == pytest.approx(loss.dual_value(y, here.residual) - np.vdot(here.residual, f), rel=1e-10)
    for _ in range(5):
        dual, _ = feasible(rng, y, weights, intercept)
        assert here.value >= loss.dual_value(y, dual) - np.vdot(dual, f)


def test_the_largest_factor_is_where_probabilities_turn_negative(rng, setting, columns):
    loss, weights, intercept = setting
    for targets in (labels, soft):
        y = targets(rng, N, columns)
        dual, _ = feasible(rng, y, weights, intercept)
        reach = loss.largest_factor(y, dual)
        full = y - np.multiply.outer(np.array([1 - 1e-9, 1 + 1e-9]) * reach, dual / weights[:, None])
        full = np.concatenate([full, 1 - full], axis=-1) if columns == 1 else full
        assert reach >= 1
        assert full[0].min() >= 0 > full[1].min()
        factors = np.array([0.0, 0.3, 1.0, 0.999 * reach])
        expected = [loss.dual_value(y, factor * dual) for factor in factors]
        np.testing.assert_allclose(loss.dual_along(y, dual)(factors), expected, rtol=1e-12)
        assert loss.dual_value(y, 1.001 * reach * dual) == -np.inf


def test_points_outside_the_domain_prove_nothing(rng, columns):
    y = labels(rng, N, columns)
    for loss in (Multinomial(), Multinomial(None, True)):
        wild = 5 * rng.standard_normal((N, columns))
        assert loss.dual_value(y, wild) == -np.inf
        assert loss.dual_value(y, np.zeros((N, columns))) == 0.0
    # Inside without an intercept, outside with one.
    dual, _ = feasible(rng, y, np.ones(N), False)
    assert np.isfinite(Multinomial().dual_value(y, dual))
    assert Multinomial(None, True).dual_value(y, dual) == -np.inf
    # A sample that does not count has no say.
    weights = np.array([0.0, *np.ones(N - 1)])
    assert Multinomial(weights).dual_value(y, dual) == -np.inf


@pytest.mark.parametrize("targets", [labels, soft])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_projection_makes_any_array_feasible(rng, setting, columns, targets, scale):
    loss, weights, intercept = setting
    y = targets(rng, N, columns)
    dual = loss.nearest_dual(y, scale * rng.standard_normal((N, columns)))
    q = y - dual / weights[:, None]
    q = np.hstack([1 - q, q]) if columns == 1 else q
    assert q.min() >= -1e-15
    np.testing.assert_allclose(q.sum(axis=1), 1.0, atol=1e-14)
    if intercept:
        np.testing.assert_allclose(dual.sum(axis=0), 0.0, atol=1e-13)
    inside, _ = feasible(rng, y, weights, intercept)
    np.testing.assert_array_equal(loss.nearest_dual(y, inside), inside)


@pytest.mark.parametrize("scale", [1e2, 1e4])
@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("fitted", [False, True])
def test_huge_logits(rng, setting, scale, classes, fitted):
    weights = rng.uniform(0.2, 2.0, 40)
    intercept = setting[2]
    loss = Multinomial(weights, intercept)
    columns = 1 if classes == 2 else classes
    y = labels(rng, 40, columns)
    # With an offset that the intercept has to take away, and for separable classes or not.
    f = scale * (rng.standard_normal((40, columns)) + rng.standard_normal(columns) + 6 * fitted * (y - 0.5))
    here = loss.at(y, f)
    best = loss.intercept(y, f)
    assert np.isfinite(best).all()
    assert here.value >= 0.0
    assert here.value == pytest.approx(cross_entropy(y, f, weights, best), rel=1e-9, abs=1e-9)
    bound = loss.dual_value(y, here.residual) - np.vdot(here.residual, f)
    assert bound == pytest.approx(here.value, abs=1e-9 * scale * weights.sum())
    assert np.isfinite(here.multiply(here.adjoint(f))).all()
    assert np.isfinite(here.divergence(loss.at(y, -f)))


def test_certain_samples_keep_their_accuracy():
    # 1 − p is exp(−f) to all digits where p is 1 to rounding.
    y, f = np.ones((1, 1)), np.array([[60.0]])
    here = Multinomial().at(y, f)
    assert here.value == pytest.approx(np.exp(-60.0), rel=1e-12)
    assert here.residual[0, 0] == pytest.approx(np.exp(-60.0), rel=1e-12)
    assert Multinomial().dual_value(y, here.residual) == pytest.approx(61 * np.exp(-60.0), rel=1e-12)


@pytest.mark.parametrize("columns", [1, 4])
def test_probabilities_and_logarithms(rng, columns):
    logits = 300 * rng.standard_normal((20, columns))
    full = np.hstack([np.zeros((20, 1)), logits]) if columns == 1 else logits
    probabilities, logarithms = probabilities_of(logits)
    np.testing.assert_allclose(probabilities, softmax(full, axis=1), rtol=1e-12)
    np.testing.assert_allclose(logarithms, log_softmax(full, axis=1), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("y", "arguments", "message"),
    [
        ([[0.5], [-1.0]], {}, "between 0 and 1; y has values from -1 to 0.5.*indicators"),
        ([[0.5], [2.0]], {}, "between 0 and 1"),
        ([[0.5, 0.4], [0.0, 1.0]], {}, "sum to 1.*got sums from 0.9 to 1"),
    ],
)
def test_targets_that_are_no_probabilities_are_refused(y, arguments, message):
    with pytest.raises(ValueError, match=message):
        Multinomial(**arguments).check_target(np.array(y))


@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("absent", [0, 1])
@pytest.mark.parametrize("left_out", [False, True], ids=["no sample", "weight 0"])
def test_a_class_without_weight_has_probability_zero(rng, columns, absent, left_out):
    y, f = labels(rng, N, columns), rng.standard_normal((N, columns))
    full = np.hstack([1 - y, y]) if columns == 1 else y
    weights = rng.uniform(0.5, 2.0, N)
    if left_out:
        weights[full[:, absent] > 0] = 0.0
    else:
        keep = full[:, absent] == 0
        y, f, full, weights = y[keep], f[keep], full[keep], weights[keep]
    loss = Multinomial(weights, True)
    y = loss.check_target(y)
    here = loss.at(y, f)
    probabilities, logarithms = probabilities_of(f + loss.intercept(y, f))
    np.testing.assert_array_equal(probabilities[:, absent], 0.0)
    np.testing.assert_array_equal(logarithms[:, absent], -np.inf)
    # The loss of the classes that are there, on the samples that count.
    if columns == 1:
        expected = 0.0
    else:
        there, counted = np.arange(3) != absent, weights > 0
        pair = y[counted][:, there], f[counted][:, there], weights[counted]
        expected = minimize(lambda b: cross_entropy(*pair, b), np.zeros(2), options={"gtol": 1e-9}).fun
    assert here.value == pytest.approx(expected, abs=1e-9)
    assert here.value == pytest.approx(loss.dual_value(y, here.residual) - np.vdot(here.residual, f), abs=1e-9)
    assert here.divergence(loss.at(y, f)) == pytest.approx(0.0, abs=1e-14)
    np.testing.assert_allclose(here.residual.sum(axis=0), 0.0, atol=1e-12)
    assert np.isfinite(here.multiply(here.adjoint(f))).all()
