"""Penalties that are not convex, and those that do not stretch: solvers, their residuals and their starts."""

import ast
import itertools
import warnings

import numpy as np
import pytest

from conftest import dense_matrix, flat, low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.losses import LOSSES
from lowrank_tangent.penalties import (
    CustomPenalty,
    JointPenalty,
    KLPenalty,
    NuclearPenalty,
    PowerPenalty,
    RidgePenalty,
    SchattenPenalty,
)
from lowrank_tangent.solvers import SOLVERS
from lowrank_tangent.solvers.reweighted import Majoriser
from lowrank_tangent.solvers.spectral_point import LayerSpectrum, PrimalPoint

pytestmark = pytest.mark.filterwarnings("error")
SMOOTH = [
    PowerPenalty(1),
    PowerPenalty(1.5),
    PowerPenalty(2),
    PowerPenalty(3),
    KLPenalty(),
    JointPenalty(),
    JointPenalty(PowerPenalty(1), PowerPenalty(1)),
    JointPenalty(KLPenalty(), KLPenalty()),
    JointPenalty(RidgePenalty(), PowerPenalty(2)),
    CustomPenalty(lambda z: abs(z - 1) ** 1.5 + abs(z - 1) ** 3, name="sum"),
]
NOT_CONVEX = [penalty for penalty in SMOOTH if not penalty.is_convex]


def problem_for(penalty, rng, outputs="network", C=1, alpha=0.02, adaptivity=20.0, **kwargs):
    operator = random_operator(rng, 24, [(4, 6), (7, 3)], outputs, C)
    return StructuredRegression(operator, low_rank_target(rng, operator), penalty, alpha, adaptivity, **kwargs)


def gradient_by_differences(problem, coefs, step=1e-6):
    """Gradient of the objective written out: dense features, and the penalty's values by themselves."""
    matrix = dense_matrix(problem.design)

    def objective(values):
        loss = 0.5 * np.sum((problem.target.reshape(-1) - matrix @ values) ** 2)
        start, penalty = 0, 0.0
        for p, q in problem.design.coef_shapes:
            singular = np.linalg.svd(values[start : start + p * q].reshape(p, q), compute_uv=False)
            penalty += problem.spectral[0].effective(singular).sum()
            start += p * q
        return loss + 0.5 * problem.alpha * penalty

    at = flat(coefs)
    gradient = np.zeros_like(at)
    for i in range(len(at)):
        shift = np.zeros_like(at)
        shift[i] = step
        gradient[i] = (objective(at + shift) - objective(at - shift)) / (2 * step)
    return gradient, np.linalg.norm(matrix.T @ (problem.target.reshape(-1) - matrix @ at))


@pytest.mark.parametrize("penalty", SMOOTH, ids=repr)
@pytest.mark.parametrize(("outputs", "C"), [("network", 1), ("network", 3), ("shared", 3)])
def test_reweighted_reaches_a_stationary_point(rng, penalty, outputs, C):
    problem = problem_for(penalty, rng, outputs, C, sample_weight=rng.uniform(0.1, 2.0, 24), fit_intercept=True)
    # The error of a point is the square root of its gap.
    solution = solve(problem, "reweighted", tol=1e-13 if penalty.is_convex else 1e-7)
    assert solution.converged
    gradient, size = gradient_by_differences(problem, solution.coefs)
    assert np.linalg.norm(gradient) <= 2e-6 * size
    objectives = [row.objective for row in solution.history]
    assert np.all(np.diff(objectives) <= 1e-12 * objectives[0])
    if penalty.is_convex:
        assert solution.objective == pytest.approx(solve(problem, "newton", tol=1e-10).objective, rel=1e-7)
        assert np.isnan(solution.stationarity)
    else:
        assert np.isnan(solution.dual_gap)
        assert np.isnan(solution.dual_objective)
        assert solution.stationarity == pytest.approx(problem.optimality_residual(solution.coefs), abs=1e-9)


@pytest.mark.parametrize("penalty", NOT_CONVEX[:5], ids=repr)
def test_proximal_gradient_finds_the_same_kind_of_point(rng, penalty):
    problem = problem_for(penalty, rng)
    proximal, reweighted = solve(problem, "proximal", tol=1e-6), solve(problem, tol=1e-6)
    assert reweighted.method == "reweighted"
    assert proximal.converged
    assert np.all(np.diff([row.objective for row in proximal.history]) <= 1e-12)
    assert problem.optimality_residual(proximal.coefs) <= 1.0001e-6
    # Different stationary points are possible; much worse ones are not.
    assert proximal.objective == pytest.approx(reweighted.objective, rel=0.05)


def test_the_step_of_the_classical_scheme_is_reproduced(rng):
    # One iteration without conjugate gradients beyond the first is ridge regression on stretched features.
    problem = problem_for(PowerPenalty(1.5), rng)
    start = solve(problem, "reweighted", max_iter=0)
    coefs = []
    blocks = []
    matrix = dense_matrix(problem.design)
    for coef in start.coefs:
        left, v, right = np.linalg.svd(coef)
        weight = np.ones(max(coef.shape))
        weight[: len(v)] = problem.spectral[0].stretch(v) ** -2
        # D acts on the smaller side of B.
        on_left = coef.shape[0] <= coef.shape[1]
        basis = left if on_left else right.T
        small = (basis * weight[: len(v)]) @ basis.T
        blocks.append(np.kron(small, np.eye(coef.shape[1])) if on_left else np.kron(np.eye(coef.shape[0]), small))
    full = np.zeros((matrix.shape[1],) * 2)
    at = 0
    for block in blocks:
        full[at : at + len(block), at : at + len(block)] = problem.alpha * block
        at += len(block)
    step = np.linalg.solve(full + matrix.T @ matrix, matrix.T @ problem.target.reshape(-1))
    at = 0
    for p, q in problem.design.coef_shapes:
        coefs.append(step[at : at + p * q].reshape(p, q))
        at += p * q
    majoriser = Majoriser(PrimalPoint(problem, start.coefs))
    for found, expected in zip(majoriser.minimiser(), coefs, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-9)
    # It lowers the objective, and so does the accelerated iteration.
    assert problem.objective(coefs) < start.objective
    assert solve(problem, "reweighted", max_iter=1).objective < start.objective


@pytest.mark.parametrize("penalty", SMOOTH, ids=repr)
@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
def test_curvature_is_the_derivative_of_the_gradient(rng, penalty, shape):
    problem = problem_for(penalty, rng, adaptivity=3.0)
    coef, direction = rng.standard_normal(shape), rng.standard_normal(shape)

    def gradient(matrix):
        # From the definition of a spectral function, by a full decomposition.
        u, v, vt = np.linalg.svd(matrix, full_matrices=False)
        return (u * (0.5 * problem.alpha * problem.spectral[0].derivative(v))) @ vt

    layer = LayerSpectrum(coef, problem.spectral[0], problem.alpha)
    np.testing.assert_allclose(layer.gradient, gradient(coef), rtol=1e-9, atol=1e-12)
    step = 1e-5
    expected = (gradient(coef + step * direction) - gradient(coef - step * direction)) / (2 * step)
    found = layer.curvature(direction)
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    if penalty.is_convex:
        np.testing.assert_allclose(layer.curvature_solver()(found), direction, atol=2e-3)
    # The classical majoriser lies above: E·D E ≥ E·H E.
    scaled = layer.solve_majoriser(direction)
    assert np.vdot(scaled, direction) > 0
    assert np.vdot(direction, found) <= problem.alpha * np.sum(direction**2) * (1 + 1e-9)


@pytest.mark.parametrize("penalty", [PowerPenalty(1), JointPenalty()], ids=repr)
def test_more_starts_never_hurt(rng, penalty):
    problem = problem_for(penalty, rng, alpha=0.005)
    one, many = solve(problem), solve(problem, n_init=6, random_state=0)
    again = solve(problem, n_init=6, random_state=0)
    assert many.objective <= one.objective
    assert many.converged
    assert again.objective == many.objective
    convex = problem_for(KLPenalty(), rng)
    assert solve(convex, n_init=5).n_iter == solve(convex).n_iter


def test_warm_start_from_a_solution_takes_no_time(rng):
    problem = problem_for(PowerPenalty(1), rng)
    solution = solve(problem, tol=1e-8)
    again = solve(problem, tol=1e-7, warm_start=solution)
    assert again.n_iter <= 1
    from_dual = solve(problem, warm_start=solution.dual)
    assert from_dual.converged


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("adaptivity", [1.0, 25.0])
@pytest.mark.parametrize(("outputs", "C"), [("network", 1), ("shared", 2)])
def test_nuclear_norm_against_the_semidefinite_program(rng, adaptivity, outputs, C):
    problem = problem_for("nuclear", rng, outputs, C, alpha=0.3, adaptivity=adaptivity)
    solution, reference = solve(problem, tol=1e-8), solve(problem, "cvxpy")
    assert solution.method == "proximal"
    assert solution.converged
    assert solution.objective == pytest.approx(reference.objective, rel=1e-6)
    nuclear = sum(np.linalg.svd(coef, compute_uv=False).sum() for coef in solution.coefs)
    assert problem.penalty_value(solution.coefs) == pytest.approx(0.3 / np.sqrt(adaptivity) * nuclear, rel=1e-9)
    # Small singular values are zero, and the residual of optimality knows that zero has a subdifferential.
    assert any(np.linalg.matrix_rank(coef, tol=1e-8) < min(coef.shape) for coef in solution.coefs)
    assert problem.optimality_residual(solution.coefs) < 1e-3
    shifted = [coef + 0.1 * rng.standard_normal(coef.shape) for coef in solution.coefs]
    assert problem.optimality_residual(shifted) > 0.05


@pytest.mark.parametrize("q", [0.5, 1.5])
def test_schatten_penalties_are_solved_by_proximal_gradient(rng, q):
    problem = problem_for(SchattenPenalty(q), rng, alpha=0.02, adaptivity=1.0)
    solution = solve(problem, tol=1e-6)
    assert solution.converged
    assert np.isnan(solution.dual_gap) == (q < 1)
    best = min(problem.objective([f * coef for coef in solution.coefs]) for f in (0.0, 0.97, 1.03))
    assert solution.objective < best


@pytest.mark.parametrize("q", [0.05, 0.3, 1.0])
def test_zeros_that_rounding_moves_cost_nothing(rng, q):
    # Rank one by construction, with singular values that are known: rounding leaves others of 1e-17.
    problem = problem_for(SchattenPenalty(q), rng, alpha=1.0, adaptivity=1.0)
    coefs = [
        3.0 * np.outer(*(v / np.linalg.norm(v) for v in map(rng.standard_normal, shape))) for shape in [(4, 6), (7, 3)]
    ]
    assert problem.penalty_value(coefs) == pytest.approx(2 * 3.0**q / q, rel=1e-12)
    assert problem.penalty_value([np.zeros((4, 6)), coefs[1]]) == pytest.approx(3.0**q / q, rel=1e-12)


def test_what_a_solver_cannot_do_is_said(rng):
    cases = [
        (
            "newton",
            PowerPenalty(1),
            "convex penalty, not PowerPenalty.p=1.; use method='auto' or one of .*'reweighted'",
        ),
        ("cvxpy", JointPenalty(), "convex penalty"),
        (
            "reweighted",
            NuclearPenalty(),
            "only stretches, not NuclearPenalty..; use method='auto' or one of .*'proximal'",
        ),
        ("newton", SchattenPenalty(1.5), "only stretches"),
        ("ridge", KLPenalty(), "adaptivity=0"),
    ]
    for method, penalty, message in cases:
        with pytest.raises(ValueError, match=message):
            solve(problem_for(penalty, rng), method)
    # Whatever a message says to use does not lead to the next one.
    operator = random_operator(rng, 6, [(3, 4)])
    penalties, methods = (PowerPenalty(1), NuclearPenalty(), SchattenPenalty()), SOLVERS.keys() - {"cvxpy"}
    for loss, penalty, method in itertools.product(LOSSES, penalties, methods):
        problem = StructuredRegression(operator, np.arange(6.0) % 2, penalty, loss=loss)
        try:
            solve(problem, method, max_iter=0)
        except ValueError as error:
            named = str(error).rpartition("one of ")[2].strip(".")
            for other in {"auto", *ast.literal_eval(named)} - {"cvxpy"}:
                solve(problem, other, max_iter=0)
    with pytest.raises(ValueError, match="n_init must be an integer >= 1; got 0"):
        solve(problem_for(PowerPenalty(1), rng), n_init=0)


def test_not_converged_is_not_claimed(rng):
    solution = solve(problem_for(PowerPenalty(1), rng), max_iter=1, tol=1e-12)
    assert not solution.converged
    assert "max_iter=1" in solution.message
    assert solution.stationarity > 1e-12


def test_a_callback_stops_it(rng):
    seen = []
    solve(problem_for(PowerPenalty(1), rng), callback=lambda row: seen.append(row.stationarity) or len(seen) == 2)
    assert len(seen) == 2
    assert np.isfinite(seen).all()
    calls = []
    solve(problem_for(PowerPenalty(1), rng), n_init=5, callback=lambda row: calls.append(row) or True)
    assert len(calls) == 1


@pytest.mark.parametrize("alpha", [1e-8, 1e-3, 10.0, 1e4])
@pytest.mark.parametrize("adaptivity", [1e-4, 1.0, 1e4])
def test_extreme_parameters(rng, alpha, adaptivity):
    for penalty in (PowerPenalty(1), PowerPenalty(1.5), JointPenalty()):
        problem = problem_for(penalty, rng, alpha=alpha, adaptivity=adaptivity)
        solution = solve(problem, tol=1e-6)
        # y − A B cannot be known better than the rounding of y, which A* r inherits.
        pull = np.linalg.norm(flat(problem.design.rmatvec(problem.residual(solution.coefs))))
        floor = 100 * np.finfo(float).eps * np.linalg.norm(problem.target) / pull
        assert solution.stationarity <= max(1e-6, floor), (penalty, solution.message, floor)


@pytest.mark.parametrize("penalty", [PowerPenalty(1), JointPenalty()], ids=repr)
@pytest.mark.parametrize(("alpha", "adaptivity", "tol"), [(1e-11, 1e3, 1e-5), (1e-8, 1e6, 0.05)])
def test_an_alpha_that_drowns_in_the_rounding_of_the_kernel(rng, penalty, alpha, adaptivity, tol):
    problem = problem_for(penalty, rng, alpha=alpha, adaptivity=adaptivity)
    solution = solve(problem, tol=1e-5)
    objectives = [row.objective for row in solution.history]
    assert np.all(np.diff(objectives) <= 1e-12 * np.array(objectives[1:]))
    # Per alpha the objective tends to that of interpolation.
    limit = solve(StructuredRegression(problem.operator, problem.y, penalty, 1.0, adaptivity, "interpolation"))
    assert limit.converged
    assert solution.objective / alpha == pytest.approx(limit.objective, rel=tol)


def test_a_majoriser_with_a_shift_is_the_inverse_of_what_it_says(rng):
    problem = problem_for(PowerPenalty(1), rng, alpha=1e-12)
    point = PrimalPoint(problem, [rng.standard_normal(s) for s in problem.design.coef_shapes])
    X = [rng.standard_normal(s) for s in problem.design.coef_shapes]
    change, prediction, pull = Majoriser(point).solve(X)
    # D' E + A* A E = X for a D' that is a multiple of D, and no less.
    rest = [x - a for x, a in zip(X, pull, strict=True)]
    scale = flat(change) @ flat(rest) / (flat(point.solve_majoriser(rest)) @ flat(rest))
    assert 0.0 < scale < 0.5
    np.testing.assert_allclose(flat(change), scale * flat(point.solve_majoriser(rest)), rtol=1e-9)
    image = dense_matrix(problem.design) @ flat(change)
    np.testing.assert_allclose(prediction.ravel(), image, atol=0.01 * np.abs(image).max())
    np.testing.assert_allclose(flat(pull), dense_matrix(problem.design).T @ image, atol=0.01 * np.abs(flat(X)).max())


def test_a_start_from_far_away_is_forgotten(rng):
    problem = problem_for(PowerPenalty(1), rng, alpha=0.1, adaptivity=1.0)
    solution = solve(problem, warm_start=np.full((24, 1), 1e7))
    assert solution.converged
    assert solution.objective == pytest.approx(solve(problem).objective, rel=0.05)


def test_degenerate_data(rng):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        operator = random_operator(rng, 10, [(3, 4)])
        constant = StructuredRegression(operator, np.zeros(10), PowerPenalty(1), fit_intercept=True)
        solution = solve(constant)
    assert solution.converged
    assert solution.objective == 0.0


@pytest.mark.filterwarnings("default")  # of numbers that overflow on the way
@pytest.mark.parametrize("seed", [17, 20, 23, 37, 42, 59])
def test_no_point_is_returned_that_is_worse_than_one_that_was_seen(seed):
    rng = np.random.default_rng(seed)
    operator = random_operator(rng, 21, [(9, 4)], "network" if seed % 2 else "shared", 3)
    problem = StructuredRegression(
        operator,
        sample_weight=10 ** rng.uniform(-8, 4, 21),
        y=rng.standard_normal((21, 3)),
        penalty=JointPenalty(KLPenalty(), KLPenalty()),
        alpha=1e-6,
        adaptivity=10.0,
        fit_intercept=True,
    )
    seen = [problem.objective(operator.zeros())]
    solution = solve(problem, "reweighted", callback=lambda row: seen.append(row.objective))
    assert solution.objective <= min(seen) * (1.0 + 1e-6)
