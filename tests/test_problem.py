import numpy as np
import pytest
from sklearn.linear_model import Ridge

from conftest import dense_matrix, flat, low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.certificate import Certificate
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.solvers import solve_path


def objective_from_scratch(problem, coefs):
    """The objective of the documentation with an intercept, by the dense matrix and a fine minimisation over z."""
    plain = TangentOperator(problem.operator.layers, problem.operator.outputs, problem.operator.n_outputs)
    residual = problem.y - (dense_matrix(plain) @ flat(coefs)).reshape(problem.y.shape)
    weights = np.ones(len(residual)) if problem.sample_weight is None else problem.sample_weight
    if problem.fit_intercept:
        residual = residual - np.average(residual, axis=0, weights=weights)
    mu = 1.0 / problem.spectral[0].adaptivity
    z = 1.0 + np.concatenate([[0.0], np.logspace(-6, 3, 400_001)])
    omega = (z - 1) ** 2 if repr(problem.spectral).startswith("Power") else z**2 - 1 - 2 * np.log(z)
    penalty = sum((mu * omega + v**2 / z**2).min() for coef in coefs for v in np.linalg.svd(coef, compute_uv=False))
    return 0.5 * np.sum(weights[:, None] * residual**2) + 0.5 * problem.alpha * penalty


@pytest.mark.parametrize("penalty", ["power", "kl"])
@pytest.mark.parametrize(("outputs", "C"), [("network", 2), ("shared", 2)])
def test_objective_is_the_one_written_out(rng, penalty, outputs, C):
    operator = random_operator(rng, 8, [(3, 4), (2, 2)], outputs, C)
    problem = StructuredRegression(
        operator,
        rng.standard_normal((8, C)),
        penalty,
        alpha=0.3,
        adaptivity=7.0,
        sample_weight=rng.uniform(0.0, 2.0, 8),
        fit_intercept=True,
    )
    coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
    assert problem.objective(coefs) == pytest.approx(objective_from_scratch(problem, coefs), rel=1e-9)


def test_a_layer_that_stays_adds_up_squares(rng):
    operator = random_operator(rng, 12, [(3, 4), (4, 2)])
    problem = StructuredRegression(operator, rng.standard_normal(12), alpha=0.3, adaptivity=[7.0, 0.0])
    coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
    z = 1.0 + np.concatenate([[0.0], np.logspace(-6, 3, 400_001)])
    moving = sum(((z - 1) ** 2 / 7.0 + v**2 / z**2).min() for v in np.linalg.svd(coefs[0], compute_uv=False))
    assert problem.penalty_value(coefs) == pytest.approx(0.15 * (moving + np.sum(coefs[1] ** 2)), rel=1e-9)
    # The conjugate of (α/2) v² is u² / (2α): at the coefficients of ridge regression both bounds meet.
    ridge = problem.with_strength(0.3, 0.0)
    fit = np.linalg.lstsq(
        np.vstack([dense_matrix(operator), np.sqrt(0.3) * np.eye(20)]), np.append(problem.y, np.zeros(20)), rcond=None
    )[0]
    certificate = ridge.certificate(
        [fit[:12].reshape(3, 4), fit[12:].reshape(4, 2)], problem.y - dense_matrix(operator) @ fit[:, None]
    )
    assert certificate.dual_objective == pytest.approx(certificate.objective, rel=1e-12)


def test_every_dual_point_is_a_lower_bound(rng):
    operator = random_operator(rng, 12, [(3, 4), (4, 2)])
    problem = StructuredRegression(operator, rng.standard_normal(12), "kl", alpha=0.2, adaptivity=5.0)
    optimum = solve(problem, tol=1e-12).objective
    for _ in range(50):
        dual, value = problem.best_multiple(rng.standard_normal((12, 1)))
        assert value == pytest.approx(problem.dual_objective(dual), rel=1e-9, abs=1e-12)
        assert value <= optimum
        multiples = [problem.dual_objective(factor * dual) for factor in (0.5, 0.9, 1.1)]
        assert value >= max(multiples)
    coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
    certificate = problem.certificate(coefs, problem.best_multiple(problem.residual(coefs))[0])
    assert certificate.dual_gap >= (certificate.objective - optimum) / certificate.objective


def test_dual_points_outside_the_domain_prove_nothing(rng):
    problem = StructuredRegression(random_operator(rng, 6, [(3, 4)]), rng.standard_normal(6), alpha=1e-3)
    assert problem.dual_objective(np.ones((6, 1))) == -np.inf


def test_a_lower_bound_above_the_objective_certifies_nothing():
    # Both are numbers with errors, and at least one has an error as large as their contradiction.
    for objective, dual_objective in ((1.0, np.inf), (1.0, 1.1), (1e-30, 1.1e-30), (1e90, 1.1e90)):
        assert Certificate.of(objective, dual_objective).dual_gap == np.inf
    assert Certificate.of(1.0, 1.0 + 1e-9).dual_gap == pytest.approx(1e-9)
    assert Certificate.of(1.0, 1.0).dual_gap == Certificate.of(1.0, 1.0 + 1e-15).dual_gap == 0.0
    assert Certificate.of(1.0, 0.9).dual_gap == pytest.approx(0.1)
    # A violated constraint may put the objective below the optimum, by no more than its price.
    assert Certificate.of(1.0, 1.1, slack=0.2).dual_gap == pytest.approx(0.2)
    assert Certificate.of(1.0, 1.3, slack=0.2).dual_gap == np.inf


@pytest.mark.parametrize("penalty", ["kl", "joint"])
@pytest.mark.parametrize("loss", ["squared", "interpolation"])
def test_what_is_not_a_number_is_never_converged(rng, penalty, loss):
    operator = random_operator(rng, 8, [(3, 4)])
    problem = StructuredRegression(operator, rng.standard_normal(8), penalty, loss=loss)
    solution = solve(problem, "newton" if penalty == "kl" else "reweighted")
    lost = problem.certificate(solution.coefs, solution.dual, prediction=np.full((8, 1), np.nan))
    for certificate in (lost, Certificate.of(np.nan, 1.0), Certificate.of(1.0, np.nan)):
        assert np.isnan(certificate.dual_gap)
        assert np.isnan(certificate.error)
    assert problem.certificate(solution.coefs, solution.dual).error <= 1e-6


def test_a_negative_objective_proves_no_more_than_another():
    assert Certificate.of(-1.0, -1.5).dual_gap == 0.5
    assert Certificate.of(-1.0, 1.0).dual_gap == np.inf


def test_optimality_residual_vanishes_at_the_solution_alone(rng):
    operator = random_operator(rng, 20, [(3, 4), (2, 5)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator), alpha=0.1, adaptivity=10.0)
    solution = solve(problem, tol=1e-14)
    assert problem.optimality_residual(solution.coefs) < 1e-6
    assert problem.optimality_residual([0.9 * coef for coef in solution.coefs]) > 1e-2


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_no_adaptivity_is_ridge_of_scikit_learn(rng, fit_intercept):
    operator = random_operator(rng, 15, [(4, 3)])
    y, weights = rng.standard_normal(15), rng.uniform(0.1, 3.0, 15)
    problem = StructuredRegression(
        operator, y, alpha=0.7, adaptivity=0.0, sample_weight=weights, fit_intercept=fit_intercept
    )
    solution = solve(problem)
    ridge = Ridge(alpha=0.7, fit_intercept=fit_intercept, tol=1e-12)
    ridge.fit(dense_matrix(operator), y, sample_weight=weights)
    np.testing.assert_allclose(flat(solution.coefs), ridge.coef_, atol=1e-10)
    np.testing.assert_allclose(solution.intercept, ridge.intercept_, atol=1e-10)


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_weights_are_repetitions_and_zero_weights_are_absence(rng, fit_intercept):
    h, delta, y = rng.standard_normal((9, 3)), rng.standard_normal((9, 4)), rng.standard_normal(9)
    weights = np.array([1, 2, 0, 1, 3, 0, 1, 1, 2])
    settings = {"alpha": 0.1, "adaptivity": 10.0, "fit_intercept": fit_intercept}
    weighted = solve(
        StructuredRegression(TangentOperator([LayerFactors(h, delta)]), y, sample_weight=weights, **settings), tol=1e-13
    )
    index = np.repeat(np.arange(9), weights)
    repeated = solve(
        StructuredRegression(TangentOperator([LayerFactors(h[index], delta[index])]), y[index], **settings), tol=1e-13
    )
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-12)
    np.testing.assert_allclose(weighted.coefs[0], repeated.coefs[0], atol=1e-5)
    np.testing.assert_allclose(weighted.intercept, repeated.intercept, atol=1e-6)


def test_shared_with_one_output_is_network(rng):
    layer = LayerFactors(rng.standard_normal((10, 3)), rng.standard_normal((10, 4)))
    y = rng.standard_normal(10)
    one, two = (
        solve(StructuredRegression(TangentOperator([layer], outputs, n), y), tol=1e-12)
        for outputs, n in (("network", None), ("shared", 1))
    )
    assert one.objective == pytest.approx(two.objective, rel=1e-13)


OPERATOR = random_operator(np.random.default_rng(5), 6, [(3, 4)])
Y = np.arange(6.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"operator": np.ones((6, 3))}, TypeError, "must be a TangentOperator; got ndarray"),
        ({"y": np.ones(5)}, ValueError, r"\(n, C\) = \(6, 1\) to fit the operator; got \(5, 1\)"),
        ({"y": np.ones((6, 2))}, ValueError, "outputs='shared', n_outputs=2"),
        ({"y": np.full(6, np.nan)}, ValueError, "y contains NaN"),
        ({"y": np.array(list("abcdef"))}, TypeError, "y must hold real numbers"),
        ({"y": np.ones(6, complex)}, TypeError, "y must hold real numbers"),
        ({"y": Y * 1e120}, ValueError, r"the largest value of y is 5.0e\+120; between 1e-100 and 1e\+100"),
        ({"y": Y * 1e-170}, ValueError, "the largest value of y is 5.0e-170.* Divide y by its standard deviation"),
        (
            {"y": Y * 1e-90, "sample_weight": np.full(6, 1e-30)},
            ValueError,
            "times the root of sample_weight is 5.0e-105",
        ),
        ({"alpha": 0.0}, ValueError, "alpha must be a finite number > 0; got 0.0"),
        ({"alpha": -1.0}, ValueError, "alpha must be a finite number > 0"),
        ({"alpha": np.inf}, ValueError, "alpha must be a finite number > 0"),
        ({"alpha": "small"}, TypeError, "alpha must be a real number > 0; got 'small'"),
        ({"adaptivity": -1e-9}, ValueError, "adaptivity must be a finite number >= 0"),
        ({"adaptivity": np.nan}, ValueError, "adaptivity must be a finite number >= 0"),
        ({"adaptivity": 1e-310}, ValueError, "0, which is ridge regression, or at least 2.2e-308.*got 1e-310. Use 0"),
        ({"adaptivity": [1e-310]}, ValueError, "1/adaptivity is finite; got 1e-310"),
        ({"adaptivity": np.array(-1.0)}, ValueError, "adaptivity must be a finite number >= 0"),
        ({"adaptivity": np.array(True)}, TypeError, "adaptivity must be a real number >= 0"),
        ({"penalty": "l1"}, ValueError, "penalty must be one of"),
        ({"loss": "hinge"}, ValueError, "loss must be one of"),
        ({"sample_weight": np.ones(5)}, ValueError, r"shape \(n,\) = \(6,\); got \(5,\)"),
        ({"sample_weight": -np.ones(6)}, ValueError, "negative values"),
        ({"sample_weight": np.zeros(6)}, ValueError, "zero for every sample"),
        ({"sample_weight": np.full(6, np.nan)}, ValueError, "NaN, infinity or negative"),
        ({"sample_weight": list("abcdef")}, TypeError, "sample_weight must hold real numbers"),
    ],
)
def test_bad_problems_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        StructuredRegression(**{"operator": OPERATOR, "y": Y, **arguments})


def test_numbers_may_be_arrays_without_dimensions():
    coefs = [np.ones((3, 4))]
    plain = StructuredRegression(OPERATOR, Y, alpha=0.1, adaptivity=2.0).objective(coefs)
    assert StructuredRegression(OPERATOR, Y, alpha=np.array(0.1), adaptivity=np.array(2.0)).objective(coefs) == plain
    # The least adaptivity that is allowed is as good as none.
    ridge = StructuredRegression(OPERATOR, Y, alpha=0.1, adaptivity=0.0).objective(coefs)
    least = StructuredRegression(OPERATOR, Y, alpha=0.1, adaptivity=np.finfo(float).tiny)
    assert least.objective(coefs) == pytest.approx(ridge, rel=1e-12)


@pytest.mark.parametrize("size", [0.0, 1e-99, 1e99])
def test_every_other_scale_is_certified(size):
    """Theory: with y and √μ scaled alike, the solution scales with them."""
    unit = solve(StructuredRegression(OPERATOR, Y, alpha=0.1, adaptivity=2.0))
    scaled = solve(StructuredRegression(OPERATOR, Y * size, alpha=0.1, adaptivity=2.0 / (size or 1.0) ** 2))
    assert scaled.converged
    assert scaled.objective == pytest.approx(unit.objective * size**2, rel=1e-5)
    if size > 0.0:
        assert scaled.dual_objective == pytest.approx(scaled.objective, rel=1e-5)


def test_a_number_is_the_weight_of_every_sample(rng):
    operator = random_operator(rng, 12, [(3, 4)])
    y = rng.standard_normal(12)
    one, all_ = (StructuredRegression(operator, y, "kl", sample_weight=w) for w in (2.5, np.full(12, 2.5)))
    np.testing.assert_array_equal(one.sample_weight, all_.sample_weight)
    assert solve(one).objective == solve(all_).objective
    with pytest.raises(ValueError, match=r"must be a number or have shape"):
        StructuredRegression(operator, y, sample_weight=np.ones(11))
    with pytest.raises(ValueError, match="zero for every sample"):
        StructuredRegression(operator, y, sample_weight=0.0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("level", [3.3, 1e6, -1e-30])
def test_what_centring_leaves_of_a_constant_is_zero(rng, weighted, level):
    operator = random_operator(rng, 30, [(4, 5)], "shared", 2)
    y = np.full((30, 2), level)
    y[:, 1] = rng.standard_normal(30)
    weights = 10 ** rng.uniform(-3, 3, 30) if weighted else None
    if weighted:
        weights[:5] = 0.0
        y[:5] = rng.standard_normal((5, 2))  # of samples that do not count
    problem = StructuredRegression(operator, y, "kl", sample_weight=weights, fit_intercept=True)
    np.testing.assert_array_equal(problem.target[:, 0], 0.0)
    assert problem.target[:, 1].any()
    solution = solve(problem)
    np.testing.assert_allclose(solution.intercept[0], level, rtol=1e-14)


@pytest.mark.parametrize("method", ["ridge", "newton"])
def test_a_signal_near_the_rounding_of_its_mean_is_certified(rng, method):
    operator = random_operator(rng, 40, [(4, 5)])
    signal = rng.standard_normal(40)
    for weights in (None, 10 ** rng.uniform(-2, 2, 40)):
        problem = StructuredRegression(
            operator, 1e6 + 1e-8 * signal, alpha=1e-7, adaptivity=0.0, sample_weight=weights, fit_intercept=True
        )
        for one in (problem, problem.diagonalised()):
            assert solve(one, method).dual_gap <= 1e-6


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("alpha", [1e-6, 1e-2, 1.0])
def test_weights_over_many_decades(rng, alpha, fit_intercept):
    for n, shape in ((20, (4, 5)), (60, (4, 5)), (60, (10, 12))):
        problem = StructuredRegression(
            random_operator(rng, n, [shape]),
            rng.standard_normal(n),
            alpha=alpha,
            adaptivity=0.0,
            sample_weight=10 ** rng.uniform(-12, 12, n),
            fit_intercept=fit_intercept,
        )
        for one in (problem, problem.diagonalised()):
            assert solve(one, "ridge").dual_gap <= 1e-6


@pytest.mark.parametrize("factor", [1e-200, 1e-40, 1e200])
@pytest.mark.parametrize(
    ("loss", "penalty"), [("squared", "kl"), ("squared", "joint"), ("multinomial", "kl"), ("interpolation", "kl")]
)
def test_a_factor_of_all_weights_and_of_alpha_says_nothing(rng, loss, penalty, factor):
    operator = random_operator(rng, 14, [(4, 5)])
    y, weights = np.arange(14.0) % 2, rng.uniform(0.5, 2.0, 14)

    def problem(factor):
        return StructuredRegression(
            operator, y, penalty, 0.1 * factor, 2.0, loss, sample_weight=factor * weights, fit_intercept=True
        )

    usual, rows = solve(problem(1.0), tol=1e-7), []
    solution = solve(problem(factor), tol=1e-7, callback=rows.append)
    assert solution.converged
    assert solution.objective / factor == pytest.approx(usual.objective, rel=1e-6)
    assert rows[-1].objective == pytest.approx(solution.objective, rel=1e-6)
    np.testing.assert_allclose(solution.prediction, usual.prediction, atol=1e-3)
    np.testing.assert_allclose(solution.intercept, usual.intercept, atol=1e-3)
    # The objective is the one of the documentation, and a warm start one of this problem.
    if factor == 1e-40:
        assert problem(factor).objective(solution.coefs) == pytest.approx(solution.objective, rel=1e-12)
        assert problem(factor).certificate(solution.coefs, solution.dual).error <= 1e-6
    assert solve(problem(factor), tol=1e-6, warm_start=solution).n_iter <= 1


def test_paths_where_weights_are_extreme(rng):
    operator = random_operator(rng, 14, [(4, 5)])
    y, weights = rng.standard_normal(14), rng.uniform(0.5, 2.0, 14)
    found = {}
    for factor in (1.0, 1e-200):
        problem = StructuredRegression(operator, y, "kl", sample_weight=factor * weights)
        found[factor] = []
        solve_path(
            problem,
            [factor, 0.1 * factor],
            [0.0, 1.0],
            1e-7,
            lambda one, solution, found=found[factor]: found.append((one.alpha, solution)),
        )
    for (alpha, one), (small, other) in zip(found[1.0], found[1e-200], strict=True):
        assert other.converged
        assert small / 1e-200 == pytest.approx(alpha)
        assert other.objective / 1e-200 == pytest.approx(one.objective, rel=1e-6)
