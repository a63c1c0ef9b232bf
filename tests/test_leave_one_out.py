"""The leave-one-out error in closed form against leaving one out."""

import numpy as np
import pytest
from sklearn.base import clone

from lowrank_tangent import (
    AdaptiveTangentRegressor,
    AdaptiveTangentRegressorCV,
    StructuredRegression,
    TangentFeatures,
    TangentRidge,
    solve,
)
from lowrank_tangent.leave_one_out import ALPHAS, left_out_together
from lowrank_tangent.networks import MLP

ALPHA = 0.3


@pytest.fixture
def data(rng):
    X = rng.standard_normal((14, 3))
    return X, np.column_stack([X[:, 0] * X[:, 1] + 2.0, np.abs(X[:, 2])]), rng.uniform(0.5, 3.0, 14)


def left_out(operator, Y, weights, fit_intercept, groups=None):
    """Sum of weighted squared residuals of samples (or groups) whose weight is taken away, fit by fit."""
    total = 0.0
    groups = np.arange(len(Y)) if groups is None else groups
    for i in map(groups.__eq__, np.unique(groups)):
        others = weights.copy()
        others[i] = 0.0
        problem = StructuredRegression(operator, Y, "ridge", ALPHA, 0.0, "squared", others, fit_intercept)
        solution = solve(problem)
        prediction = operator.matvec(solution.coefs)[i] + solution.intercept
        total += weights[i] @ np.sum((Y[i] - prediction) ** 2, axis=1)
    return total


@pytest.mark.parametrize("outputs", ["shared", "network"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_closed_form_is_leaving_one_out(data, outputs, fit_intercept, weighted):
    X, Y, weights = data
    operator = TangentFeatures(MLP((6,)), outputs, 0).fit(X, 2).operator(X)
    sample_weight = weights if weighted else None
    problem = StructuredRegression(operator, Y, "ridge", 1.0, 0.0, "squared", sample_weight, fit_intercept)
    path = problem.diagonalised().ridge_path
    expected = left_out(operator, Y, weights if weighted else np.ones(14), fit_intercept)
    assert path.leave_one_out([ALPHA])[0] == pytest.approx(expected, rel=1e-9)
    ridge = solve(problem.with_strength(ALPHA, 0.0))
    np.testing.assert_allclose(path.dual_coefs(ALPHA), ridge.dual / ALPHA, atol=1e-9)


@pytest.mark.parametrize("outputs", ["shared", "network"])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_groups_are_left_out_together(data, outputs, fit_intercept, weighted):
    X, Y, weights = data
    groups = np.array([2, 0, 1, 2, 3, 3, 1, 4, 3, 0, 5, 2, 1, 6])
    operator = TangentFeatures(MLP((6,)), outputs, 0).fit(X, 2).operator(X)
    sample_weight = weights if weighted else None
    problem = StructuredRegression(operator, Y, "ridge", 1.0, 0.0, "squared", sample_weight, fit_intercept)
    path = problem.diagonalised().ridge_path
    expected = left_out(operator, Y, weights if weighted else np.ones(14), fit_intercept, groups)
    assert path.leave_one_out([ALPHA], groups)[0] == pytest.approx(expected, rel=1e-9)
    # Nothing is left to predict from where all are of one group.
    assert path.best_alpha(np.zeros(14, dtype=int)) == path.best_alpha()


def test_copies_and_groups_that_are_linked_belong_together(rng):
    X = rng.standard_normal((7, 2))
    assert left_out_together(X) is None
    assert left_out_together(X, np.array(list("abcdefg"))) is None
    X[4], X[6] = X[0], X[5]
    links = left_out_together(X)
    assert len(set(links)) == 5
    assert links[0] == links[4] != links[5] == links[6]
    # Sample 1 is in the group of 4, which is a copy of 0.
    links = left_out_together(X, np.array(list("abcdbff")))
    assert len(set(links)) == 4
    assert links[0] == links[1] == links[4]
    with pytest.raises(ValueError, match=r"groups must hold one label for each of the 7 samples; got shape \(3,\)"):
        left_out_together(X, [1, 2, 3])


@pytest.mark.parametrize(
    "model", [TangentRidge((np.inf,), alpha="loo"), TangentRidge((20,), alpha="loo", random_state=0)]
)
def test_copies_are_the_same_as_one_sample_of_their_weight(rng, model):
    # Left out one by one, a copy would give the sample away: the smallest alpha would seem best.
    X, counts = rng.standard_normal((40, 3)), rng.integers(1, 4, 40)
    y = X[:, 0] + rng.standard_normal(40)
    copies, targets = np.repeat(X, counts, axis=0), np.repeat(y, counts)
    shuffled = rng.permutation(len(copies))
    one, many = clone(model).fit(X, y, counts), clone(model).fit(copies[shuffled], targets[shuffled])
    assert many.alpha_ / one.alpha_ == pytest.approx(1.0, rel=0.5)
    np.testing.assert_allclose(
        one.set_params(alpha=many.alpha_).fit(X, y, counts).predict(X), many.predict(X), atol=1e-6
    )
    assert many.alpha_ > 1e-2
    grouped = clone(model).fit(copies + 1e-9 * rng.standard_normal(copies.shape), targets, groups=copies[:, 0])
    assert grouped.alpha_ == many.alpha_


@pytest.mark.parametrize("outputs", ["shared", "network"])
@pytest.mark.parametrize("loss", ["squared", "interpolation"])
def test_a_problem_that_is_diagonalised_has_the_same_solutions(data, outputs, loss):
    X, Y, weights = data
    weights = weights if loss == "squared" else None
    operator = TangentFeatures(MLP((30,)), outputs, 0).fit(X, 2).operator(X)
    problem = StructuredRegression(operator, Y, "power", 1.0, 0.0, loss, weights, loss == "squared")
    known = problem.diagonalised()
    assert problem.ridge_path is None
    for alpha in (1e-3, ALPHA):
        one, other = (solve(p.with_strength(alpha, 0.0), "ridge") for p in (problem, known))
        assert other.converged
        np.testing.assert_allclose(other.prediction, one.prediction, atol=1e-9)
        for coef, expected in zip(other.coefs, one.coefs, strict=True):
            np.testing.assert_allclose(coef, expected, atol=1e-7)


def test_samples_without_weight_do_not_count(data):
    X, Y, weights = data
    weights[[3, 8]] = 0.0
    kept = weights > 0.0
    operator = TangentFeatures(MLP((6,)), random_state=0).fit(X, 2).operator(X)
    errors = [
        StructuredRegression(op, y, "ridge", 1.0, 0.0, "squared", w, True)
        .diagonalised()
        .ridge_path.leave_one_out([0.01, ALPHA])
        for op, y, w in ((operator, Y, weights), (operator.rows(kept), Y[kept], weights[kept]))
    ]
    np.testing.assert_allclose(errors[0], errors[1], rtol=1e-9)


def test_a_sample_that_alone_decides_leaves_a_finite_error(data):
    X, Y, _ = data
    only = np.zeros(14)
    only[5] = 1.0
    operator = TangentFeatures(MLP((6,)), random_state=0).fit(X, 2).operator(X)
    problem = StructuredRegression(operator, Y, "ridge", 1.0, 0.0, "squared", only, True)
    assert np.isfinite(problem.diagonalised().ridge_path.leave_one_out(ALPHAS)).all()


@pytest.mark.parametrize("factor", [1e-5, 1e5])
@pytest.mark.parametrize(
    "model",
    [
        TangentRidge((32,), alpha="loo", random_state=0),
        AdaptiveTangentRegressor((np.inf,), alpha="loo", adaptivity=0.0, metric="evidence", n_rounds=3),
        AdaptiveTangentRegressorCV(depths=[1], biases=[1.0], max_rounds=2, cv=3),
    ],
    ids=["ridge", "rounds", "choice"],
)
def test_a_factor_of_all_weights_says_nothing(rng, model, factor):
    X, weights = rng.standard_normal((50, 3)), rng.uniform(0.5, 2.0, 50)
    y = X[:, 0] ** 2 + rng.standard_normal(50)
    expected = clone(model).fit(X, y, weights).predict(X)
    np.testing.assert_allclose(model.fit(X, y, factor * weights).predict(X), expected, atol=1e-7)


@pytest.mark.parametrize("sizes", [(32,), (np.inf,)])
def test_estimators_choose_alpha_by_it(rng, sizes):
    X = rng.standard_normal((50, 3))
    y = X[:, 0] ** 2 + 0.3 * rng.standard_normal(50)
    model = TangentRidge(sizes, alpha="loo", random_state=0).fit(X, y)
    problem = StructuredRegression(model.features_.operator(X), y, "ridge", 1.0, 0.0, fit_intercept=True)
    errors = problem.diagonalised().ridge_path.leave_one_out(ALPHAS) / 50
    assert model.alpha_ == ALPHAS[np.argmin(errors)]
    assert ALPHAS[0] < model.alpha_ < ALPHAS[-1]
    assert model.rounds_[0].leave_one_out_error == pytest.approx(errors.min())
    given = TangentRidge(sizes, alpha=model.alpha_, random_state=0).fit(X, y)
    np.testing.assert_allclose(given.predict(X), model.predict(X))
    assert np.isnan(given.rounds_[0].leave_one_out_error)


def test_it_is_for_ridge_alone(rng):
    X = rng.standard_normal((20, 3))
    with pytest.raises(ValueError, match=r"closed form of ridge regression, which adaptivity=0 is.*got adaptivity=1.0"):
        AdaptiveTangentRegressor((8,), alpha="loo").fit(X, X[:, 0])
    with pytest.raises(TypeError, match="alpha must be a real number > 0; got 'cv'"):
        TangentRidge((8,), alpha="cv").fit(X, X[:, 0])
