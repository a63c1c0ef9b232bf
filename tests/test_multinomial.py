"""Problems and classifiers with the cross-entropy: certificate, solvers, adapted kernel, probabilities."""

import numpy as np
import pytest
from scipy.special import entr, log_softmax, softmax
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import parametrize_with_checks

from conftest import dense_matrix, flat, random_operator
from lowrank_tangent import (
    AdaptiveTangentClassifier,
    AdaptiveTangentRegressor,
    StructuredRegression,
    TangentRidge,
    TangentRidgeClassifier,
    adapt,
    solve,
)
from lowrank_tangent.model_selection import tangent_path
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.penalties import JointPenalty, PowerPenalty
from lowrank_tangent.theory import verify_equivalence

pytestmark = pytest.mark.filterwarnings("error")
OUTPUTS = [("shared", 1), ("shared", 3), ("network", 1), ("network", 2), ("network", 3)]
CLASSIFIERS = [AdaptiveTangentClassifier, TangentRidgeClassifier]


def labels_for(rng, operator, noise=0.5):
    """Indicators of the largest of noisy logits, with a sample of every class."""
    classes = max(operator.n_outputs, 2)
    truth = operator.matvec([rng.standard_normal(shape) for shape in operator.coef_shapes])
    logits = np.hstack([np.zeros_like(truth), truth]) if operator.n_outputs == 1 else truth
    winners = (logits / truth.std() + noise * rng.standard_normal(logits.shape)).argmax(axis=1)
    winners[:classes] = np.arange(classes)
    return np.eye(classes)[winners][:, -operator.n_outputs :]


def multinomial(rng, outputs="shared", C=3, n=20, penalty="power", alpha=0.1, weighted=False, **kwargs):
    operator = random_operator(rng, n, [(3, 5), (4, 2)], outputs, C)
    if weighted:
        kwargs = {"sample_weight": rng.uniform(0.2, 2.0, n), "fit_intercept": True, **kwargs}
    settings = {"adaptivity": 10.0, "loss": "multinomial", **kwargs}
    return StructuredRegression(operator, labels_for(rng, operator), penalty, alpha, **settings)


def all_columns(first, columns):
    return np.hstack([first, columns]) if columns.shape[1] == 1 else columns


def certificate_from_outside(problem, solution):
    """Primal and dual objective by SciPy and the dense matrix, and how far the dual point is outside its domain."""
    weights = np.ones(len(problem.y)) if problem.sample_weight is None else problem.sample_weight
    A, y, r = dense_matrix(problem.operator), all_columns(1 - problem.y, problem.y), solution.dual
    logits = (A @ flat(solution.coefs)).reshape(problem.y.shape) + solution.intercept
    logits = all_columns(np.zeros_like(logits), logits)
    pulls = np.split(A.T @ r.ravel(), np.cumsum([p * q for p, q in problem.operator.coef_shapes])[:-1])
    root, power = np.sqrt(1 / problem.spectral[0].adaptivity), "Power" in repr(problem.spectral)
    primal = -np.sum(weights[:, None] * y * log_softmax(logits, axis=1))
    z = 1.0 + np.concatenate([[0.0], np.logspace(-6, 2, 200_001)])
    price = (z - 1) ** 2 if power else z**2 - 1 - 2 * np.log(z)
    q = y - all_columns(-r, r) / weights[:, None]
    dual = np.sum(weights[:, None] * entr(np.maximum(q, 0.0)))
    for coef, pull in zip(solution.coefs, pulls, strict=True):
        for v in np.linalg.svd(coef, compute_uv=False):
            primal += 0.5 * problem.alpha * (root**2 * price + v**2 / z**2).min()
        u = 2 / problem.alpha / root * np.linalg.svd(pull.reshape(coef.shape), compute_uv=False)
        assert np.all(u < 2)
        conjugate = u**2 / (4 - u**2) if power else -np.log1p(-(u**2) / 4)
        dual -= 0.5 * problem.alpha * root**2 * conjugate.sum()
    outside = max(np.abs(q.sum(axis=1) - 1).max(), -q.min())
    return primal, dual, max(outside, np.abs(r.sum(axis=0)).max()) if problem.fit_intercept else outside


@pytest.mark.filterwarnings("default")  # cvxpy warns about its own compilation
@pytest.mark.parametrize("penalty", ["power", "kl"])
@pytest.mark.parametrize(("outputs", "C"), OUTPUTS)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weights and intercept"])
@pytest.mark.parametrize("method", ["newton", "proximal"])
def test_solvers_find_the_value_of_the_conic_program(rng, penalty, outputs, C, weighted, method):
    problem = multinomial(rng, outputs, C, penalty=penalty, weighted=weighted)
    reference = solve(problem, "cvxpy", tol=1e-5)
    assert reference.converged
    solution = solve(problem, method, tol=1e-8)
    assert solution.converged
    assert solution.objective == pytest.approx(reference.objective, rel=1e-6)
    primal, dual, outside = certificate_from_outside(problem, solution)
    assert outside <= 1e-12
    # The stretch is minimised over on a grid, of relative step 1e-4.
    assert primal == pytest.approx(solution.objective, rel=1e-8)
    assert dual == pytest.approx(solution.dual_objective, rel=1e-9)
    assert primal - dual <= 1e-7 * primal
    assert reference.objective >= dual * (1 - 1e-7)


def test_soft_labels_and_samples_that_do_not_count(rng):
    operator = random_operator(rng, 15, [(3, 4)], "network", 3)
    y, weights = rng.dirichlet(np.ones(3), 15), np.append(rng.uniform(0.2, 2.0, 12), np.zeros(3))
    settings = {"alpha": 0.05, "loss": "multinomial", "fit_intercept": True}
    full = solve(StructuredRegression(operator, y, sample_weight=weights, **settings), tol=1e-11)
    part = StructuredRegression(operator.rows(slice(12)), y[:12], sample_weight=weights[:12], **settings)
    assert full.converged
    assert not full.dual[12:].any()
    assert solve(part, tol=1e-11).objective == pytest.approx(full.objective, rel=1e-10)
    with np.errstate(all="ignore"):
        reference = solve(part, "cvxpy")
    assert full.objective == pytest.approx(reference.objective, rel=1e-6)


@pytest.mark.parametrize(("outputs", "C"), [("shared", 1), ("network", 3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_dual_point_is_a_lower_bound(rng, outputs, C, weighted):
    problem = multinomial(rng, outputs, C, weighted=weighted)
    optimum = solve(problem, tol=1e-10).objective
    for scale in np.logspace(-3, 2, 20):
        candidate = problem.project(scale * rng.standard_normal(problem.y.shape))
        dual, value = problem.best_multiple(candidate)
        assert value == pytest.approx(problem.dual_objective(dual), rel=1e-9, abs=1e-12)
        assert 0.0 <= value <= optimum
        multiples = [problem.dual_objective(factor * candidate) for factor in np.linspace(0.0, 2.0, 41)]
        assert value >= max(multiples) * (1 - 1e-9)
        # What was not made feasible proves no more than that the objective is not negative.
        assert problem.best_multiple(scale * rng.standard_normal(problem.y.shape))[1] <= optimum
        coefs = [scale * rng.standard_normal(shape) for shape in problem.operator.coef_shapes]
        dual, value = problem.best_multiple(problem.residual(coefs))
        assert value <= optimum
        assert problem.certificate(coefs, dual).objective >= optimum


@pytest.mark.parametrize(("outputs", "C"), OUTPUTS)
@pytest.mark.parametrize("weighted", [False, True])
def test_without_adaptivity_it_is_logistic_regression_of_scikit_learn(rng, outputs, C, weighted):
    alpha, n = 0.3, 40
    operator = random_operator(rng, n, [(3, 4)], outputs, C)
    y = labels_for(rng, operator)
    weights = rng.uniform(0.1, 3.0, n) if weighted else None
    problem = StructuredRegression(
        operator, y, "power", alpha, 0.0, "multinomial", sample_weight=weights, fit_intercept=weighted
    )
    solution = solve(problem, tol=1e-13)
    winners = (all_columns(1 - y, y)).argmax(axis=1)
    logistic = LogisticRegression(C=1 / alpha, fit_intercept=weighted, tol=1e-10, max_iter=10_000)
    A = dense_matrix(operator).reshape(n, C, -1)
    if outputs == "shared":
        # Every class has its own coefficients for the same features.
        features = dense_matrix(TangentOperator(operator.layers))
        logistic.fit(features, winners, sample_weight=weights)
        coefs = np.hstack([row.reshape(3, 4) for row in logistic.coef_])
        np.testing.assert_allclose(solution.coefs[0], coefs, atol=1e-5)
        np.testing.assert_allclose(solution.intercept, logistic.intercept_, atol=1e-5)
    elif C == 1:
        logistic.fit(A[:, 0], winners, sample_weight=weights)
        np.testing.assert_allclose(flat(solution.coefs), logistic.coef_[0], atol=1e-5)
        np.testing.assert_allclose(solution.intercept, logistic.intercept_, atol=1e-5)
    elif C == 2:
        # One set of coefficients for two logits: their difference is a logistic regression.
        logistic.fit(A[:, 1] - A[:, 0], winners, sample_weight=weights)
        np.testing.assert_allclose(flat(solution.coefs), logistic.coef_[0], atol=1e-5)
        np.testing.assert_allclose(solution.intercept[1] - solution.intercept[0], logistic.intercept_, atol=1e-5)
    else:
        # Conditional logit, which scikit-learn does not have: the gradient vanishes.
        logits = (A @ flat(solution.coefs)) + solution.intercept
        residual = (y - softmax(logits, axis=1)) * (1.0 if weights is None else weights[:, None])
        np.testing.assert_allclose(np.einsum("nc,ncp->p", residual, A), alpha * flat(solution.coefs), atol=1e-5)
        assert not weighted or np.abs(residual.sum(axis=0)).max() < 1e-10


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_weights_are_repetitions_and_zero_weights_are_absence(rng, fit_intercept):
    h, delta, classes = rng.standard_normal((9, 3)), rng.standard_normal((9, 4)), np.arange(9) % 3
    weights = np.array([1, 2, 0, 1, 3, 1, 0, 1, 2])
    settings = {"alpha": 0.1, "adaptivity": 10.0, "loss": "multinomial", "fit_intercept": fit_intercept}

    def solution(index, **kwargs):
        operator = TangentOperator([LayerFactors(h[index], delta[index])], "shared", 3)
        return solve(StructuredRegression(operator, np.eye(3)[classes[index]], **kwargs, **settings), tol=1e-13)

    weighted = solution(np.arange(9), sample_weight=weights)
    repeated = solution(np.repeat(np.arange(9), weights))
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-11)
    np.testing.assert_allclose(weighted.coefs[0], repeated.coefs[0], atol=1e-5)
    np.testing.assert_allclose(weighted.intercept, repeated.intercept, atol=1e-5)


def test_the_order_of_classes_does_not_matter(rng):
    problem = multinomial(rng, "shared", 3, weighted=True)
    order = np.array([2, 0, 1])
    permuted = StructuredRegression(
        problem.operator,
        problem.y[:, order],
        "power",
        0.1,
        10.0,
        "multinomial",
        sample_weight=problem.sample_weight,
        fit_intercept=True,
    )
    one, two = solve(problem, tol=1e-13), solve(permuted, tol=1e-13)
    assert one.objective == pytest.approx(two.objective, rel=1e-10)
    logits = [problem.operator.matvec(solution.coefs) + solution.intercept for solution in (one, two)]
    np.testing.assert_allclose(logits[0][:, order], logits[1], atol=1e-5)
    # No class is the reference: logits of shared outputs have mean 0.
    np.testing.assert_allclose(logits[0].mean(axis=1), 0.0, atol=1e-9)


@pytest.mark.parametrize("C", [1, 3])
def test_separable_classes_and_tiny_alpha(rng, C):
    operator = random_operator(rng, 12, [(4, 5)], "shared", C)
    y = labels_for(rng, operator, noise=0.0)
    problem = StructuredRegression(operator, y, alpha=1e-10, loss="multinomial", fit_intercept=True)
    solution = solve(problem, tol=1e-4)
    assert solution.converged
    assert solution.objective < 1e-6
    logits = operator.matvec(solution.coefs) + solution.intercept
    assert np.isfinite(logits).all()
    assert np.abs(logits).max() > 15
    winners = all_columns(np.zeros_like(logits), logits).argmax(axis=1)
    np.testing.assert_array_equal(winners, all_columns(1 - y, y).argmax(axis=1))


@pytest.mark.parametrize("penalty", ["power", "kl"])
@pytest.mark.parametrize(("outputs", "C"), OUTPUTS)
@pytest.mark.parametrize("weighted", [False, True])
def test_identities_of_the_adapted_kernel(rng, penalty, outputs, C, weighted):
    problem = multinomial(rng, outputs, C, penalty=penalty, weighted=weighted)
    solution = solve(problem, tol=1e-14)
    adaptation = adapt(problem, solution)
    pulls = dense_matrix(problem.operator).T @ solution.dual.ravel()
    pulls = np.split(pulls, np.cumsum([p * q for p, q in problem.operator.coef_shapes])[:-1])
    joint, mu = 0.0, 1 / problem.spectral[0].adaptivity
    for theta, m1, m2, pull in zip(adaptation.theta, adaptation.left, adaptation.right, pulls, strict=True):
        expected = m1.to_dense() @ pull.reshape(theta.shape) @ m2.to_dense() / problem.alpha
        np.testing.assert_allclose(theta, expected, atol=1e-5)
        z = np.linalg.svd(m1.to_dense(), compute_uv=False)
        omega = (z - 1) ** 2 if penalty == "power" else z**2 - 1 - 2 * np.log(z)
        joint += np.sum(theta**2) + mu * omega.sum()
    assert 0.5 * problem.alpha * joint == pytest.approx(problem.penalty_value(solution.coefs), rel=1e-11)
    # Kernel logistic regression: logits K r / α + b, and r the weighted misfit of their softmax.
    kernel = adaptation.kernel(problem.operator)
    logits = (kernel @ solution.dual.ravel() / problem.alpha).reshape(problem.y.shape)
    np.testing.assert_allclose(logits, problem.operator.matvec(solution.coefs), atol=1e-5)
    logits = logits + solution.intercept
    misfit = problem.y - softmax(all_columns(np.zeros_like(logits), logits), axis=1)[:, -C:]
    weights = 1.0 if problem.sample_weight is None else problem.sample_weight[:, None]
    np.testing.assert_allclose(solution.dual, weights * misfit, atol=1e-5)


@pytest.mark.parametrize(("outputs", "C"), [("shared", 3), ("network", 1), ("network", 3)])
@pytest.mark.parametrize("penalty", [PowerPenalty(2), "kl", JointPenalty()], ids=repr)
def test_the_joint_problem_has_the_same_value(rng, outputs, C, penalty):
    operator = random_operator(rng, 10, [(4, 3)], outputs, C)
    problem = StructuredRegression(operator, labels_for(rng, operator), penalty, 0.3, 5.0, "multinomial")
    if problem.spectral.is_convex:
        report = verify_equivalence(problem)
        assert report.joint == pytest.approx(report.structured, rel=1e-7)
        assert report.recovered == pytest.approx(report.structured, rel=1e-9)
        assert report.kernel_identity <= 1e-5
        assert report.prediction_difference <= 1e-4
    else:
        structured, joint = solve(problem, tol=1e-8), solve(problem, "bilinear", tol=1e-6)
        assert np.isnan(structured.dual_gap)
        assert structured.stationarity <= 1e-8
        assert joint.objective == pytest.approx(structured.objective, rel=1e-6)


def test_warm_starts_and_paths(rng):
    problem = multinomial(rng, weighted=True)
    solution = solve(problem, tol=1e-8)
    assert solve(problem, tol=1e-7, warm_start=solution).n_iter == 0
    near = problem.with_strength(0.11, 10.0)
    assert solve(near, tol=1e-8, warm_start=solution).n_iter < solve(near, tol=1e-8).n_iter
    wild = solve(problem, tol=1e-8, warm_start=rng.standard_normal(problem.y.shape))
    assert wild.objective == pytest.approx(solution.objective, rel=1e-7)
    path = tangent_path(problem, [1.0, 0.1], [0.0, 10.0], tol=1e-7)
    assert path.error.max() <= 1e-7
    assert path.objective[1, 1] == pytest.approx(solution.objective, rel=1e-6)


@pytest.mark.parametrize("method", ["reweighted", "ridge"])
def test_solvers_for_least_squares_say_so(rng, method):
    with pytest.raises(
        ValueError, match=f"method='{method}' cannot solve loss='multinomial'; use method='auto' or one of .*'newton'"
    ):
        solve(multinomial(rng, adaptivity=0.0), method)


def test_targets_that_are_no_probabilities_are_refused(rng):
    operator = random_operator(rng, 6, [(3, 4)])
    with pytest.raises(ValueError, match="needs class probabilities between 0 and 1; y has values from -2 to 3"):
        StructuredRegression(operator, np.arange(-2.0, 4.0), loss="multinomial")


# The checks compare equivalent fits to seven digits; proximal gradient ends far below the gap that it is asked for.
@parametrize_with_checks(
    [
        AdaptiveTangentClassifier(
            (8,), "tanh", loss="multinomial", alpha=1.0, solver="proximal", tol=1e-13, random_state=0
        ),
        TangentRidgeClassifier((8,), "tanh", loss="multinomial", alpha=1.0, tol=1e-13, random_state=0),
    ]
)
@pytest.mark.filterwarnings("default")
def test_scikit_learn_compatibility(estimator, check):
    check(estimator)  # raises where it fails


@pytest.mark.parametrize("model", CLASSIFIERS)
@pytest.mark.parametrize("names", [["no", "yes"], [3, -1, 7]])
@pytest.mark.parametrize("outputs", ["shared", "network"])
def test_probabilities_belong_to_the_classes(model, names, outputs):
    X, y = make_classification(90, 5, n_informative=4, n_redundant=0, n_classes=len(names), random_state=0)
    labels = np.array(names)[y]
    fitted = model((32,), loss="multinomial", outputs=outputs, alpha=0.1, random_state=0).fit(X, labels)
    assert fitted.dual_gap_ <= 1e-6
    probabilities, scores = fitted.predict_proba(X), fitted.decision_function(X)
    assert probabilities.shape == (90, len(names))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    np.testing.assert_array_equal(fitted.classes_[probabilities.argmax(axis=1)], fitted.predict(X))
    np.testing.assert_allclose(np.exp(fitted.predict_log_proba(X)), probabilities, rtol=1e-12)
    logits = np.column_stack([np.zeros(90), scores]) if len(names) == 2 else scores
    np.testing.assert_allclose(probabilities, softmax(logits, axis=1), rtol=1e-10)
    assert fitted.score(X, labels) > 0.8
    # The mean of the probabilities is the share of each class: that is what the intercept is for.
    np.testing.assert_allclose(probabilities.mean(axis=0), np.mean(labels[:, None] == fitted.classes_, axis=0))


@pytest.mark.parametrize("model", CLASSIFIERS)
def test_squared_scores_are_no_probabilities(model):
    for method in ("predict_proba", "predict_log_proba"):
        assert not hasattr(model(), method)
        assert hasattr(model(loss="multinomial"), method)
    with pytest.raises(AttributeError, match="predict_proba") as error:
        model().predict_proba([[0.0]])
    assert "loss='squared' has scores and no probabilities; use loss='multinomial'" in str(error.value.__cause__)


@pytest.mark.parametrize("classes", [2, 3])
def test_kernel_logistic_regression_on_the_adapted_kernel(classes):
    X, y = make_classification(80, 5, n_informative=4, n_redundant=0, n_classes=classes, random_state=1)
    X, X_new, y = X[:60], X[60:], y[:60]
    model = AdaptiveTangentClassifier(
        (24,), loss="multinomial", penalty="kl", alpha=0.1, adaptivity=10.0, tol=1e-13, random_state=0
    ).fit(X, y)
    values, basis = np.linalg.eigh(model.kernel(X))
    kept = values > 1e-10 * values[-1]
    features = basis[:, kept] * np.sqrt(values[kept])
    new = model.kernel(X_new, X) @ (basis[:, kept] / np.sqrt(values[kept]))
    logistic = LogisticRegression(C=1 / 0.1, tol=1e-10, max_iter=10_000).fit(features, y)
    np.testing.assert_allclose(logistic.predict_proba(features), model.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(logistic.predict_proba(new), model.predict_proba(X_new), atol=1e-5)
    assert np.abs(model.kernel(X) - model.initial_kernel(X)).max() > 0.1


@pytest.mark.parametrize("model", CLASSIFIERS)
@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_calibrated(rng, model, classes):
    # Labels drawn from a softmax model of the inputs, so that the true probabilities are known.
    X = rng.standard_normal((4000, 4))
    truth = softmax(1.5 * X[:, :classes], axis=1)
    y = (rng.random(4000)[:, None] > np.cumsum(truth, axis=1)).sum(axis=1)
    train, test = slice(1500), slice(1500, None)
    best = log_loss(y[test], truth[test])
    settings = {"hidden_layer_sizes": (32,), "alpha": 3.0 if model is AdaptiveTangentClassifier else 1.0}
    fitted = model(**settings, loss="multinomial", tol=1e-5, random_state=0).fit(X[train], y[train])
    loss = log_loss(y[test], fitted.predict_proba(X[test]))
    scores = model(**settings, random_state=0).fit(X[train], y[train]).decision_function(X[test])
    scores = np.column_stack([np.zeros(len(scores)), scores]) if classes == 2 else scores
    assert best < loss < 1.05 * best
    assert loss < log_loss(y[test], softmax(scores, axis=1))
    # Among samples of like probability, the share of the last class is that probability: to three standard errors.
    probability = fitted.predict_proba(X[test])[:, -1]
    for part in np.array_split(np.argsort(probability), 5):
        assert np.mean(y[test][part] == classes - 1) == pytest.approx(probability[part].mean(), abs=0.07)


def test_warm_start_from_another_loss():
    X, y = make_classification(60, 5, n_informative=4, n_redundant=0, n_classes=3, random_state=0)
    model = AdaptiveTangentClassifier((8,), alpha=0.1, warm_start=True, random_state=0).fit(X, y)
    warm = model.set_params(loss="multinomial").fit(X, y)
    cold = AdaptiveTangentClassifier((8,), alpha=0.1, loss="multinomial", random_state=0).fit(X, y)
    assert warm.objective_ == pytest.approx(cold.objective_, rel=1e-5)


@pytest.mark.parametrize("model", [AdaptiveTangentRegressor, TangentRidge])
def test_regressors_do_not_take_classes(model):
    with pytest.raises(ValueError, match="loss='multinomial' is for class labels"):
        model((4,), loss="multinomial").fit(np.eye(4), [0.0, 1.0, 0.0, 1.0])


@pytest.mark.parametrize("model", [AdaptiveTangentRegressor, TangentRidge, *CLASSIFIERS])
def test_interpolating_estimators_meet_their_targets(rng, model):
    X = rng.standard_normal((30, 5))
    y = X[:, 0] * X[:, 1] > 0
    fitted = model((64,), loss="interpolation", random_state=0).fit(X, y)
    scores = fitted.decision_function(X) if model in CLASSIFIERS else fitted.predict(X)
    np.testing.assert_allclose(scores, 2.0 * y - 1.0 if model in CLASSIFIERS else y, atol=1e-5)
    with pytest.raises(ValueError, match="loss must be one of"):
        model((4,), loss="hinge").fit(X, y)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("solver", ["newton", "proximal"])
def test_a_class_of_weight_zero_is_never_predicted(rng, classes, solver):
    X, labels = rng.standard_normal((40, 4)), np.arange(40) % classes
    weights = np.where(labels == 1, 0.0, rng.uniform(0.5, 2.0, 40))
    model = AdaptiveTangentClassifier((16,), loss="multinomial", alpha=0.1, solver=solver, random_state=0)
    model.fit(X, labels, sample_weight=weights)
    assert model.dual_gap_ <= model.tol
    probabilities = model.predict_proba(X)
    np.testing.assert_array_equal(probabilities[:, 1], 0.0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert 1 not in model.predict(X)
