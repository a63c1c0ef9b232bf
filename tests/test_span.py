"""Where a path goes on, against brute force over the span and against definitions."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.optimize import minimize

from conftest import flat, low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.model_selection import tangent_path
from lowrank_tangent.penalties import KLPenalty, PowerPenalty
from lowrank_tangent.solvers.path.known import KnownSolution
from lowrank_tangent.solvers.path.span import SolutionSpan, span_size
from lowrank_tangent.solvers.spectral_point import PrimalPoint

CASES = [("squared", "shared"), ("squared", "network"), ("multinomial", "shared"), ("multinomial", "network")]


def make_problem(rng, loss, outputs, n_outputs=3):
    operator = random_operator(rng, 30, [(4, 9), (12, 2)], outputs, n_outputs)
    y = low_rank_target(rng, operator)
    if loss == "multinomial":
        y = np.eye(3)[rng.integers(3, size=30)] if n_outputs == 3 else rng.integers(2, size=(30, 1)) * 1.0
    weights = rng.uniform(0.5, 2.0, 30)
    settings = {"loss": loss, "sample_weight": weights, "fit_intercept": True}
    return StructuredRegression(operator, y, ["power", "kl"], 0.1, 10.0, **settings)


def known_of(problem, alpha, adaptivity=10.0, tol=1e-10):
    reduced = problem.reduced()[0].with_strength(alpha, adaptivity)
    return KnownSolution(reduced, solve(reduced, "newton", tol=tol))


@pytest.mark.parametrize(("loss", "outputs"), CASES)
def test_the_best_of_the_span_is_found(rng, loss, outputs):
    problem = make_problem(rng, loss, outputs)
    known = [known_of(problem, alpha) for alpha in (0.3, 1.0, 2.0)]
    wanted = problem.reduced()[0].with_strength(0.1, 10.0)
    searched = SolutionSpan(known)
    found = searched.at(wanted, 1e-8)

    def objective(weights):
        coefs = [sum(w * part for w, part in zip(weights, parts, strict=True)) for parts in zip(*coefs_of, strict=True)]
        return wanted.objective(coefs)

    coefs_of = [one.coefs for one in known]
    best = minimize(objective, [1.0, 0.0, 0.0], method="BFGS", options={"gtol": 1e-9})
    assert found.point.objective == pytest.approx(best.fun, rel=1e-8)
    assert found.point.objective == pytest.approx(wanted.objective(found.point.coefs), rel=1e-12)
    span = np.stack([flat(one.coefs) for one in known])
    weights = np.linalg.lstsq(span.T, flat(found.point.coefs), rcond=None)[0]
    np.testing.assert_allclose(weights @ span, flat(found.point.coefs), atol=1e-9)
    np.testing.assert_allclose(searched._weights @ span, flat(found.point.coefs), atol=1e-9)
    # The dual point: nothing in the span changes the second-order approximation of the dual to first order.
    point, change = found.point, found.dual - found.point.residual
    gradient = [layer.gradient for layer in point.layers]
    misses = [correlation - g for correlation, g in zip(wanted.design.rmatvec(found.dual), gradient, strict=True)]
    images = [layer.curvature_solver()(miss) for layer, miss in zip(point.layers, misses, strict=True)]
    for one in known:
        terms = [np.vdot(a, b) for a, b in zip(wanted.design.rmatvec(one.dual), images, strict=True)]
        terms.append(np.vdot(one.dual, point.loss.conjugate_curvature(change)))
        assert abs(sum(terms)) <= 1e-8 * max(sum(abs(term) for term in terms), 1e-8)
    np.testing.assert_allclose(flat(found.correlation), flat(wanted.design.rmatvec(found.dual)), atol=1e-10)


@pytest.mark.parametrize(("loss", "outputs"), CASES)
def test_a_solution_in_the_span_is_certified_without_a_step(rng, loss, outputs):
    problem = make_problem(rng, loss, outputs)
    known = [known_of(problem, alpha) for alpha in (0.3, 0.1, 0.03)]
    wanted = problem.reduced()[0].with_strength(0.1, 10.0)
    found = SolutionSpan(known).at(wanted, 1e-8)
    dual, _ = wanted.best_multiple(wanted.project(found.dual))
    assert wanted.certificate(found.point.coefs, dual).dual_gap <= 2e-9


def test_the_gap_is_of_second_order_in_what_the_span_misses(rng):
    """Four alphas a little apart: one solution has a gap of the square of the distance, a span of three far less."""
    problem = make_problem(rng, "squared", "shared")
    known = [known_of(problem, alpha) for alpha in (0.11, 0.12, 0.13)]
    wanted = problem.reduced()[0].with_strength(0.1, 10.0)
    gaps = []
    for size in (1, 2, 3):
        found = SolutionSpan(known[:size]).at(wanted, 1e-12)
        dual, _ = wanted.best_multiple(found.dual)
        gaps.append(wanted.certificate(found.point.coefs, dual).dual_gap)
    assert gaps[0] < 1e-2
    assert gaps[1] < 0.05 * gaps[0]
    assert gaps[2] < 0.05 * gaps[1]


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6)])
@pytest.mark.parametrize("penalty", [PowerPenalty(2), KLPenalty()], ids=repr)
def test_inner_products_are_those_of_the_products(rng, shape, penalty):
    operator = random_operator(rng, 20, [shape])
    problem = StructuredRegression(operator, rng.standard_normal(20), penalty, 0.3, 5.0)
    point = PrimalPoint(problem, [rng.standard_normal(shape)])
    directions = [[rng.standard_normal(shape)] for _ in range(4)]
    layer = point.layers[0]
    for found, function in (
        (point.curvature_products(directions), layer.curvature),
        (point.inverse_curvature_products(directions), layer.curvature_solver()),
    ):
        expected = [[np.vdot(a, function(b)) for (b,) in directions] for (a,) in directions]
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * np.abs(expected).max())


@pytest.mark.parametrize(("loss", "n_outputs"), [("squared", 3), ("multinomial", 3), ("multinomial", 1)])
def test_curvature_of_the_conjugate(rng, loss, n_outputs):
    problem = make_problem(rng, loss, "shared", n_outputs)
    target, conjugate = problem.target, problem.loss
    prediction = rng.standard_normal(target.shape)
    at = conjugate.at(target, prediction)
    # Towards another residual a dual point stays in the domain.
    change = 0.1 * (conjugate.at(target, prediction + rng.standard_normal(target.shape)).residual - at.residual)

    def value(t):
        return conjugate.dual_value(target, at.residual + t * change)

    step = 1e-3
    second = (value(step) - 2.0 * value(0.0) + value(-step)) / step**2
    assert np.vdot(change, at.conjugate_curvature(change)) == pytest.approx(-second, rel=1e-4)
    several = at.conjugate_curvature(np.stack([change, 2.0 * change]))
    np.testing.assert_allclose(several[1], 2.0 * at.conjugate_curvature(change), rtol=1e-12)


def test_samples_of_no_weight_or_certain_class_do_not_count(rng):
    operator = random_operator(rng, 6, [(3, 4)])
    y = np.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    problem = StructuredRegression(operator, y, loss="multinomial", sample_weight=[0.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    at = problem.loss.at(problem.target, np.array([[0.0], [800.0], [-800.0], [0.0], [1.0], [-1.0]]))
    found = at.conjugate_curvature(np.ones((6, 1)))
    assert np.isfinite(found).all()
    assert found[0] == 0.0


def known_stub(alpha, is_new=True):
    return SimpleNamespace(alpha=alpha, is_new=is_new)


def test_only_what_is_new_widens_the_span():
    span = SolutionSpan(size=4)
    span.add(known_stub(1.0, is_new=False))  # the first one, whatever it took
    for alpha in (0.5, 0.4):
        span.add(known_stub(alpha))
    span.add(known_stub(0.3, is_new=False))
    assert [known.alpha for known in span._known] == [0.4, 0.5, 1.0]
    for alpha in (0.2, 0.15, 0.1, 0.05):
        span.add(known_stub(alpha))
    assert [known.alpha for known in span._known] == [0.05, 0.1, 0.15, 0.2]


def test_a_span_costs_no_more_than_a_step(rng):
    narrow, wide = random_operator(rng, 200, [(4, 30)]), random_operator(rng, 200, [(150, 160)])
    assert span_size(narrow) == 6
    assert span_size(wide) == 3
    assert 3 < span_size(random_operator(rng, 200, [(40, 150)])) < 6


def test_weights_are_extrapolated_along_a_line_in_log_alpha():
    span = SolutionSpan([known_stub(1.0), known_stub(2.0)])
    assert SolutionSpan().at(None, 1e-6) is None
    np.testing.assert_array_equal(span._extrapolated(0.5), [1.0, 0.0])
    for alpha, weights in ((1.0, [0.5, 0.5]), (0.1, [0.7, 0.4])):
        span._weights = np.array(weights)
        span.add(known_stub(alpha, is_new=False))
    np.testing.assert_allclose(span._extrapolated(0.01), [0.9, 0.3])
    np.testing.assert_allclose(span._extrapolated(0.1), [0.7, 0.4])
    # A new solution is a direction of its own.
    span.add(known_stub(0.01))
    np.testing.assert_allclose(span._extrapolated(0.001), [2.0, -0.7, -0.4])
    span.add(known_stub(0.01))
    np.testing.assert_allclose(span._extrapolated(0.001), [1.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize(("loss", "n_outputs"), [("squared", 3), ("multinomial", 3), ("multinomial", 1)])
def test_points_without_a_step_are_solutions(rng, loss, n_outputs):
    problem = make_problem(rng, loss, "shared", n_outputs)
    path = tangent_path(problem, np.logspace(0, -1, 16), [1.0, 10.0], tol=1e-5)
    assert (path.n_iter == 0).sum() >= 8
    assert path.error.max() <= 1e-5
    for row, adaptivity in zip(path.results, path.adaptivities, strict=True):
        for found, alpha in zip(row, path.alphas, strict=True):
            exact = solve(problem.with_strength(alpha, adaptivity), tol=1e-9)
            assert found.objective == pytest.approx(exact.objective, rel=1.1e-5)
            assert found.objective >= exact.objective * (1 - 1e-9)


def test_alphas_whose_ratio_overflows(rng):
    problem = StructuredRegression(random_operator(rng, 10, [(3, 4)]), rng.standard_normal(10))
    path = tangent_path(problem, [1e200, 1e190, 1e-150], [0.5, 1.0], tol=1e-3)
    assert path.error[:, :2].max() <= 1e-3
    assert np.isfinite(path.objective).all()


def test_a_path_of_nothing(rng):
    problem = StructuredRegression(random_operator(rng, 10, [(3, 4)]), np.zeros(10))
    path = tangent_path(problem, [1.0, 0.1, 0.01], [0.0, 1.0, 100.0])
    assert path.error.max() == 0.0
    assert not path.objective.any()
