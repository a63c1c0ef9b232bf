import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import KernelCenterer

from conftest import low_rank_target, random_operator
from lowrank_tangent import AdaptiveTangentRegressor, StructuredRegression, adapt, solve
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.theory import alignment, effective_rank, label_kernel

pytestmark = pytest.mark.filterwarnings("error")
CASES = [("network", 1), ("network", 3), ("shared", 3)]


@pytest.fixture(params=["power", "kl"])
def penalty(request):
    return request.param


@pytest.fixture(params=CASES, ids=[f"{mode}-{C}" for mode, C in CASES])
def solved(request, rng, penalty):
    outputs, C = request.param
    operator = random_operator(rng, 16, [(4, 6), (5, 2)], outputs, C)
    problem = StructuredRegression(operator, low_rank_target(rng, operator), penalty, 0.05, 20.0)
    solution = solve(problem, "newton", tol=1e-14)
    return problem, solution, adapt(problem, solution)


def test_coefficients_are_transformed_parameters(solved):
    _, solution, adaptation = solved
    for B, theta, m1, m2 in zip(solution.coefs, adaptation.theta, adaptation.left, adaptation.right, strict=True):
        np.testing.assert_allclose(m1.to_dense() @ theta @ m2.to_dense(), B, atol=1e-12)
        assert np.all(m1.stretch > 1.0)
        assert m2.is_identity


def test_parameters_are_pulled_from_the_dual_point(solved):
    problem, solution, adaptation = solved
    for theta, m1, pull in zip(adaptation.theta, adaptation.left, problem.design.rmatvec(solution.dual), strict=True):
        np.testing.assert_allclose(theta, m1.to_dense() @ pull / problem.alpha, atol=1e-6)


def test_predictions_are_kernel_ridge_with_the_adapted_kernel(solved):
    problem, solution, adaptation = solved
    kernel = adaptation.kernel(problem.operator)
    alpha_r = np.linalg.solve(kernel + problem.alpha * np.eye(len(kernel)), problem.y.ravel())
    np.testing.assert_allclose(alpha_r, solution.dual.ravel() / problem.alpha, atol=1e-5)
    np.testing.assert_allclose(kernel @ alpha_r, problem.operator.matvec(solution.coefs).ravel(), atol=1e-6)


def test_both_problems_have_the_same_penalty(solved):
    problem, solution, adaptation = solved
    mu = 1.0 / problem.spectral[0].adaptivity
    # ω of the definition on the singular values of the dense transform, those that are 1 included.
    joint = 0.0
    for theta, m1 in zip(adaptation.theta, adaptation.left, strict=True):
        z = np.linalg.svd(m1.to_dense(), compute_uv=False)
        omega = (z - 1) ** 2 if repr(problem.spectral).startswith("Power") else z**2 - 1 - 2 * np.log(z)
        joint += np.sum(theta**2) + mu * omega.sum()
    assert 0.5 * problem.alpha * joint == pytest.approx(problem.penalty_value(solution.coefs), rel=1e-12)


@pytest.mark.parametrize(("outputs", "C"), [("network", 1), ("shared", 3)])
def test_one_group_adds_the_kernel_of_the_predictions(rng, penalty, outputs, C):
    # One unstructured group: every coefficient matrix is a single row (p = 1).
    n, q = 12, 20
    layer = LayerFactors(np.ones((n, 1)), rng.standard_normal((n, q)))
    operator = TangentOperator([layer], outputs, C)
    if outputs == "shared":
        # The stack of C coefficient vectors as columns is the group: put the features on the left.
        layer = LayerFactors(rng.standard_normal((n, q)), np.ones((n, 1)))
        operator = TangentOperator([layer], outputs, C)
    problem = StructuredRegression(operator, rng.standard_normal((n, C)), penalty, 0.5, 10.0)
    solution = solve(problem, tol=1e-14)
    adaptation = adapt(problem, solution)
    difference = adaptation.mean_kernel(operator) - operator.mean_gram()
    if outputs == "network":
        # M1 is a scalar here: K = z² K0, with the stretch of the group's norm.
        z = problem.spectral[0].stretch(np.linalg.norm(solution.coefs[0]))
        np.testing.assert_allclose(difference, (z**2 - 1) * operator.mean_gram(), atol=1e-10)
    else:
        predictions = operator.matvec(solution.coefs)
        projector = predictions @ np.linalg.pinv(predictions)
        np.testing.assert_allclose(projector @ difference @ projector, difference, atol=1e-8)
        assert np.linalg.matrix_rank(difference, tol=1e-8) == C


def test_single_vector_group_aligns_with_its_predictions(rng, penalty):
    # B a vector, transformed on its long side: K = K0 + c f̂ f̂ᵀ with c = (z² − 1)/‖B‖².
    layer = LayerFactors(rng.standard_normal((12, 20)), np.ones((12, 1)))
    operator = TangentOperator([layer])
    problem = StructuredRegression(operator, rng.standard_normal(12), penalty, 0.5, 10.0)
    solution = solve(problem, tol=1e-14)
    norm = np.linalg.norm(solution.coefs[0])
    c = (problem.spectral[0].stretch(norm) ** 2 - 1) / norm**2
    fit = operator.matvec(solution.coefs)
    expected = operator.gram() + c * fit @ fit.T
    np.testing.assert_allclose(adapt(problem, solution).kernel(operator), expected, atol=1e-8)


@pytest.mark.parametrize(("outputs", "C"), [("shared", 1), ("shared", 2), ("network", 2)])
@pytest.mark.parametrize("fit_intercept", [False, True])
def test_kernel_ridge_of_scikit_learn_on_the_adapted_kernel(rng, penalty, outputs, C, fit_intercept):
    X, X_new = rng.standard_normal((40, 5)), rng.standard_normal((15, 5))
    Y = np.column_stack([X[:, 0] * X[:, 1] + 0.1 * rng.standard_normal(40) + 2.0, X[:, 2] ** 2])[:, :C]
    model = AdaptiveTangentRegressor(
        (32,),
        penalty=penalty,
        alpha=0.05,
        adaptivity=5.0,
        outputs=outputs,
        tol=1e-14,
        fit_intercept=fit_intercept,
        random_state=0,
    ).fit(X, Y if C > 1 else Y[:, 0])
    K, K_new = model.kernel(X), model.kernel(X_new, X)
    targets = Y if outputs == "shared" else Y.reshape(-1, 1)
    mean = Y.mean(axis=0) if fit_intercept else np.zeros(C)
    if fit_intercept and outputs == "network":
        # Centring acts on each output by itself, so the full kernel is centred output by output.
        n = len(X)
        centre = np.kron(np.eye(n) - 1.0 / n, np.eye(C))
        K_new = (K_new - np.kron(np.ones((len(X_new), n)) / n, np.eye(C)) @ K) @ centre
        K = centre @ K @ centre
    elif fit_intercept:
        centerer = KernelCenterer().fit(K)
        K, K_new = centerer.transform(K), centerer.transform(K_new)
    targets = (Y - mean).reshape(targets.shape)
    ridge = KernelRidge(alpha=0.05, kernel="precomputed").fit(K, targets)
    for kernel, data in ((K, X), (K_new, X_new)):
        expected = ridge.predict(kernel).reshape(len(data), C) + mean
        np.testing.assert_allclose(model.predict(data).reshape(len(data), C), expected, atol=1e-6)


def test_transforms_are_stored_in_low_rank_form(rng):
    operator = random_operator(rng, 6, [(50, 8)])
    problem = StructuredRegression(operator, rng.standard_normal(6), "power", 0.1, 10.0)
    transform = adapt(problem, solve(problem)).left[0]
    assert transform.shape == (50, 50)
    assert transform.basis.shape[1] <= 6


def test_columns_of_zeros_change_nothing(rng):
    (layer,) = random_operator(rng, 20, [(6, 5)], "shared", 2).layers
    h, delta = np.zeros((20, 1, 9)), np.zeros((20, 1, 1, 8))
    on_left, on_right = np.array([0, 2, 3, 5, 6, 8]), np.array([1, 2, 3, 6, 7])
    h[..., on_left], delta[..., on_right] = layer.h, layer.delta
    y = rng.standard_normal((20, 2))
    found = []
    for factors in (layer, LayerFactors(h, delta)):
        problem = StructuredRegression(TangentOperator([factors], "shared", 2), y, "kl", 0.1, 20.0)
        solution = solve(problem, tol=1e-12)
        found.append((solution.coefs[0], adapt(problem, solution)))
    (coef, adaptation), (padded, other) = found
    blocks = padded.reshape(9, 2, 8)[np.ix_(on_left, [0, 1], on_right)]
    np.testing.assert_allclose(blocks, coef.reshape(6, 2, 5), atol=1e-6)
    assert np.sum(blocks**2) == pytest.approx(np.sum(padded**2), rel=1e-14)
    expected = np.eye(9)
    expected[np.ix_(on_left, on_left)] = adaptation.left[0].to_dense()
    np.testing.assert_allclose(other.left[0].to_dense(), expected, atol=1e-6)


def test_alignment_is_a_centred_cosine(rng):
    A, B = (m @ m.T for m in rng.standard_normal((2, 6, 3)))
    H = np.eye(6) - 1 / 6
    a, b = H @ A @ H, H @ B @ H
    expected = np.trace(a @ b) / np.sqrt(np.trace(a @ a) * np.trace(b @ b))
    assert alignment(A, B) == pytest.approx(expected)
    cosine = np.trace(A.T @ B) / np.sqrt(np.trace(A.T @ A) * np.trace(B.T @ B))
    assert alignment(A, B, centred=False) == pytest.approx(cosine)
    assert alignment(A, 3 * A, centred=False) == pytest.approx(1.0)
    assert alignment(A, 3 * A + 5, centred=False) < 0.99
    assert alignment(A, np.zeros((6, 6)), centred=False) == 0.0
    assert alignment(A, 3 * A + 5) == pytest.approx(1.0)
    assert alignment(A, np.ones((6, 6))) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match=r"shape \(n, n\)"):
        alignment(A[:3], B)
    with pytest.raises(ValueError, match="same shape"):
        alignment(A[:3, :3], B)


def test_label_kernel_and_effective_rank():
    np.testing.assert_array_equal(label_kernel([1, -1]), [[1, -1], [-1, 1]])
    np.testing.assert_array_equal(label_kernel(np.eye(2)), np.eye(2))
    assert effective_rank(np.ones(5)) == pytest.approx(5)
    assert effective_rank([3.0, 0.0, 0.0]) == pytest.approx(1)
    assert effective_rank(np.zeros(3)) == 0.0
