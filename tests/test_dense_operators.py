"""Operators of which products alone are known, through every solver, against the same problem in factored form."""

import numpy as np
import pytest

from conftest import dense_matrix, flat, low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, adapt, solve
from lowrank_tangent.linalg.transforms import LowRankTransform
from lowrank_tangent.model_selection import tangent_path
from lowrank_tangent.operators import Operator
from lowrank_tangent.solvers.newton import costs as _costs
from lowrank_tangent.theory import verify_equivalence

pytestmark = pytest.mark.filterwarnings("error")
CASES = [("network", 1), ("network", 3), ("shared", 3)]
SETTINGS = {"penalty": "power", "alpha": 0.1, "adaptivity": 10.0, "fit_intercept": True}


class Dense(Operator):
    """An operator by its matrix: five names, all else follows."""

    def __init__(self, known):
        self.matrix = dense_matrix(known)
        self.n_samples, self.n_outputs, self.coef_shapes = known.n_samples, known.n_outputs, known.coef_shapes
        self.products = 0

    def matvec(self, coefs):
        self.products += 1
        return (self.matrix @ flat(coefs)).reshape(self.n_samples, self.n_outputs)

    def rmatvec(self, residual):
        self.products += 1
        rows, ends = residual.ravel() @ self.matrix, np.cumsum([p * q for p, q in self.coef_shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(rows, ends[:-1]), self.coef_shapes, strict=True)]


def pair(rng, n, outputs="network", C=1, shapes=((3, 4), (2, 3))):
    """The same operator with its layers and without."""
    known = random_operator(rng, n, shapes, outputs, C)
    return known, Dense(known)


def targets(rng, known, loss):
    if loss != "multinomial":
        return low_rank_target(rng, known)
    C = known.n_outputs
    return np.eye(max(C, 2))[np.arange(known.n_samples) % max(C, 2)][:, -C:]


@pytest.mark.parametrize(("outputs", "C"), CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_what_follows_from_products(rng, outputs, C, weighted):
    known, own = pair(rng, 7, outputs, C)
    if weighted:
        weights = rng.uniform(0.5, 2.0, 7)
        known, own = known.weighted(weights, True), own.weighted(weights, True)
    left, right = (
        [
            LowRankTransform(np.linalg.qr(rng.standard_normal((shape[side], 2)))[0], np.array([3.0, 1.5]))
            for shape in known.coef_shapes
        ]
        for side in (0, 1)
    )
    coefs = [rng.standard_normal(shape) for shape in known.coef_shapes]
    residual = rng.standard_normal((7, C))
    for change in (
        lambda operator: operator,
        lambda operator: operator.plain(),
        lambda operator: operator.rows([4, 2, 2, 0, 1, 5, 6]),
        lambda operator: operator.rows(np.arange(7) != 9),
        lambda operator: operator.transformed(left, right),
        lambda operator: operator.transformed(left, right).weighted(np.arange(1.0, 8.0), False),
        lambda operator: operator.with_precision(np.float64),
        lambda operator: operator.reduce()[0],
    ):
        one, two = change(known), change(own)
        assert (one.n_samples, one.n_outputs, one.coef_shapes) == (two.n_samples, two.n_outputs, two.coef_shapes)
        np.testing.assert_allclose(two.matvec(coefs), one.matvec(coefs), atol=1e-12)
        np.testing.assert_allclose(flat(two.rmatvec(residual)), flat(one.rmatvec(residual)), atol=1e-12)
        for kernel in ("gram", "mean_gram", "diagonal", "to_dense"):
            np.testing.assert_allclose(getattr(two, kernel)(), getattr(one, kernel)(), atol=1e-11)
    np.testing.assert_allclose(
        own.rows([1, 2]).gram(own.rows([0, 3, 4])), known.rows([1, 2]).gram(known.rows([0, 3, 4]))
    )
    assert [np.shape(matrix) for matrix in own.zeros()] == known.coef_shapes
    assert own.input_bases == [None, None]


@pytest.mark.parametrize(
    ("method", "loss"),
    [
        (method, loss)
        for method in ("newton", "reweighted", "proximal", "bilinear", "cvxpy")
        for loss in ("squared", "multinomial", "interpolation")
        if (method, loss) not in (("reweighted", "multinomial"), ("proximal", "interpolation"))
    ],
)
@pytest.mark.parametrize(("outputs", "C"), CASES)
def test_every_solver(rng, outputs, C, method, loss):
    known, own = pair(rng, 5 if loss == "interpolation" else 12, outputs, C, ((3, 4), (4, 3)))
    y = targets(rng, known, loss)
    expected = solve(StructuredRegression(known, y, loss=loss, **SETTINGS), "newton", tol=1e-10)
    tol = 1e-9 if method in ("newton", "reweighted") else 1e-6
    problem = StructuredRegression(own, y, loss=loss, **SETTINGS)
    found = solve(problem, method, tol=tol)
    assert found.converged
    assert problem.certificate(found.coefs, found.dual).error <= tol
    assert found.objective == pytest.approx(expected.objective, rel=10 * tol)


@pytest.mark.parametrize("loss", ["squared", "interpolation"])
@pytest.mark.parametrize(("outputs", "C"), CASES)
def test_ridge(rng, outputs, C, loss):
    known, own = pair(rng, 5, outputs, C)
    y = low_rank_target(rng, known)
    expected, found = (solve(StructuredRegression(each, y, adaptivity=0.0, loss=loss)) for each in (known, own))
    assert found.method == "ridge"
    np.testing.assert_allclose(flat(found.coefs), flat(expected.coefs), atol=1e-8)


@pytest.mark.parametrize("loss", ["squared", "multinomial"])
@pytest.mark.parametrize("penalty", ["power", "kl"])
def test_newton_without_a_preconditioner(rng, monkeypatch, penalty, loss):
    known, own = pair(rng, 40, "network", 2)
    y = targets(rng, known, loss)
    expected = solve(StructuredRegression(known, y, penalty, 0.1, 10.0, loss), "newton", tol=1e-10)
    monkeypatch.setattr(_costs, "EXACT_UNKNOWNS", 0)
    found = solve(StructuredRegression(own, y, penalty, 0.1, 10.0, loss), "newton", tol=1e-9)
    assert found.converged
    assert found.objective == pytest.approx(expected.objective, rel=1e-8)


def test_newton_makes_the_rows_once(rng):
    known, own = pair(rng, 30)
    solution = solve(StructuredRegression(own, low_rank_target(rng, known), "kl", 0.01, 100.0), "newton")
    assert solution.converged
    assert own.products < 30 + 200  # the rows, and a few products a step; anew at every point, it would be thousands


def test_paths_adaptation_and_theory(rng):
    known, own = pair(rng, 20)
    y = low_rank_target(rng, known)
    alphas, adaptivities = (1.0, 0.3, 0.1), (0.0, 1.0, 10.0)
    expected, found = (
        tangent_path(StructuredRegression(each, y, fit_intercept=True), alphas, adaptivities, tol=1e-9)
        for each in (known, own)
    )
    for one, two in zip(expected.results, found.results, strict=True):
        values = [[solution.objective for solution in row] for row in (one, two)]
        np.testing.assert_allclose(values[1], values[0], rtol=1e-8)
    problem = StructuredRegression(own, y, "kl", 0.1, 10.0)
    solution = solve(problem, tol=1e-10)
    kernel = adapt(problem, solution).kernel(own)
    np.testing.assert_allclose(kernel @ solution.dual.ravel() / 0.1, solution.prediction.ravel(), atol=1e-4)
    small, dense = pair(rng, 8, shapes=((2, 3),))
    report = verify_equivalence(StructuredRegression(dense, low_rank_target(rng, small), "kl", 0.5))
    assert report.joint == pytest.approx(report.structured, rel=1e-6)
    assert report.kernel_identity < 1e-6


def test_what_is_no_operator_is_refused():
    class Other:
        n_samples, n_outputs, coef_shapes = 3, 1, [(1, 1)]

    with pytest.raises(TypeError, match=r"must be a TangentOperator; got Other\. .* derived from .*\.Operator"):
        StructuredRegression(Other(), np.ones(3))
    with pytest.raises(TypeError, match="abstract"):
        Operator()
