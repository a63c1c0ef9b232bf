"""Preconditioners for the cross-entropy, of the whole system and of one class each, against the system by products."""

import numpy as np
import pytest

from conftest import random_operator
from lowrank_tangent import StructuredRegression, TangentFeatures, solve
from lowrank_tangent.networks import MLP
from lowrank_tangent.solvers.newton import costs as _costs
from lowrank_tangent.solvers.newton import kernels as _kernels
from lowrank_tangent.solvers.newton.classwise import ClasswiseFactor
from lowrank_tangent.solvers.newton.preconditioner import Preconditioner
from lowrank_tangent.solvers.spectral_point import PrimalPoint

WEIGHTS = np.append(np.linspace(0.2, 3.0, 19), 0.0)


@pytest.fixture
def by_class(monkeypatch):
    """Systems that are small enough to be assembled are not."""
    monkeypatch.setattr(_costs, "EXACT_UNKNOWNS", 0)


def point_at_zero(rng, C, scale, **settings):
    """B = 0, where the system has no Γ term, and yet any prediction."""
    y = np.eye(max(C, 2))[np.arange(20) % max(C, 2)][:, -C:]
    operator = random_operator(rng, 20, [(3, 5), (4, 2)], "shared", C)
    problem = StructuredRegression(operator, y, "power", 0.05, 10.0, "multinomial", **settings)
    return PrimalPoint(problem, problem.design.zeros(), scale * rng.standard_normal((20, C)))


def system(point, x):
    """(I + Sᵀ A W A* S) x."""
    design, loss = point.problem.design, point.loss
    pull = zip(design.rmatvec(loss.multiply(x)), point.layers, strict=True)
    return x + loss.adjoint(design.matvec([layer.curvature_solver()(matrix) for matrix, layer in pull]))


@pytest.mark.parametrize(("outputs", "C"), [("shared", 1), ("shared", 3), ("network", 2), ("network", 3)])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weights"])
def test_inverse_of_a_small_system(rng, outputs, C, fit_intercept, weights):
    y = np.eye(max(C, 2))[np.arange(20) % max(C, 2)][:, -C:]
    operator = random_operator(rng, 20, [(3, 5), (4, 2)], outputs, C)
    settings = {"sample_weight": weights, "fit_intercept": fit_intercept}
    problem = StructuredRegression(operator, y, "kl", 0.3, 10.0, "multinomial", **settings)
    coefs = [0.3 * rng.standard_normal(shape) for shape in operator.coef_shapes]
    point = PrimalPoint(problem, coefs)
    preconditioner = Preconditioner(problem)
    assert preconditioner.is_exact
    preconditioner.update(point)
    x = rng.standard_normal((20, C))
    np.testing.assert_allclose(preconditioner.apply(system(point, x)), x, atol=1e-8)


@pytest.mark.usefixtures("by_class")
@pytest.mark.parametrize("C", [1, 2, 3, 6])
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["plain", "weights"])
def test_inverse_of_the_system_without_stretches(rng, C, scale, fit_intercept, weights):
    point = point_at_zero(rng, C, scale, sample_weight=weights, fit_intercept=fit_intercept)
    preconditioner = Preconditioner(point.problem)
    preconditioner.use_double(point)
    x = rng.standard_normal((20, C))  # with what S and the intercept take out
    np.testing.assert_allclose(preconditioner.apply(system(point, x)), x, atol=1e-8)


@pytest.mark.usefixtures("by_class")
@pytest.mark.parametrize("C", [1, 3])
def test_single_precision_is_close(rng, C):
    point = point_at_zero(rng, C, 3.0, fit_intercept=True)
    preconditioner = Preconditioner(point.problem)
    preconditioner.update(point)
    x = rng.standard_normal((20, C)).astype(np.float32)
    found = preconditioner.apply(system(point, x).astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, x, atol=1e-3)


@pytest.mark.usefixtures("by_class")
def test_it_is_symmetric_and_positive(rng):
    point = point_at_zero(rng, 3, 3.0, fit_intercept=True)
    preconditioner = Preconditioner(point.problem)
    preconditioner.use_double(point)
    columns = np.array([preconditioner.apply(unit.reshape(20, 3)).ravel() for unit in np.eye(60)])
    np.testing.assert_allclose(columns, columns.T, atol=1e-12)
    values = np.linalg.eigvalsh(columns)
    assert values[0] > 0.0
    assert values[-1] == pytest.approx(1.0)


@pytest.fixture
def certain(rng):
    """Three classes told apart by signs, and little penalty: most samples become certain of their class."""
    X = rng.standard_normal((60, 4))
    labels = np.eye(3)[np.sum(X[:, :2] > 0.0, axis=1)]
    operator = TangentFeatures(MLP((16,)), random_state=0).fit(X, 3).operator(X)
    return StructuredRegression(operator, labels, "power", 1e-3, 10.0, "multinomial", fit_intercept=True)


@pytest.mark.usefixtures("by_class")
def test_certain_classes_take_few_products(certain, monkeypatch):
    products = []
    spend = Preconditioner.spend_product

    def counted(preconditioner):
        products.append(preconditioner)
        spend(preconditioner)

    monkeypatch.setattr(Preconditioner, "spend_product", counted)
    few = solve(certain, "newton")
    fresh = len(products)
    products.clear()
    monkeypatch.setattr(_costs, "CLASSWISE_PRODUCTS", 0)
    many = solve(certain, "newton")
    assert few.converged
    assert many.converged
    assert few.objective == pytest.approx(many.objective, rel=1e-5)
    assert fresh <= 0.3 * len(products)


def test_outputs_of_a_network_have_kernels_of_their_own(rng):
    operator = random_operator(rng, 12, [(3, 5), (4, 2)], "network", 3)
    problem = StructuredRegression(operator, np.eye(3)[np.arange(12) % 3], "kl", 0.3, 10.0, "multinomial")
    coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
    point = PrimalPoint(problem, coefs)
    left, right = zip(*(layer.transforms for layer in point.layers), strict=True)
    whole = operator.transformed(left, right).gram().reshape(12, 3, 12, 3)
    for c, kernel in enumerate(_kernels.output_kernels(problem.design, point)):
        np.testing.assert_allclose(kernel, whole[:, c, :, c], atol=1e-12)


@pytest.mark.usefixtures("by_class")
def test_it_is_for_several_classes_that_are_worth_it(rng, monkeypatch):
    def renewed(C, **settings):
        point = point_at_zero(rng, C, 1.0, **settings)
        preconditioner = Preconditioner(point.problem)
        preconditioner.update(point)
        return preconditioner._factor

    assert isinstance(renewed(3), ClasswiseFactor)
    assert not isinstance(renewed(1), ClasswiseFactor)
    with monkeypatch.context() as patch:  # memory for the kernels of the layers, but not for one a class
        patch.setattr(_kernels, "available_memory", lambda: 50_000)
        assert not isinstance(renewed(3), ClasswiseFactor)
    monkeypatch.setattr(_costs, "CLASSWISE_PRODUCTS", 0)
    assert not isinstance(renewed(3), ClasswiseFactor)
    assert not isinstance(renewed(3, fit_intercept=True)._factor, ClasswiseFactor)


@pytest.mark.parametrize(
    ("outputs", "adaptivity", "fit_intercept", "seed"),
    [("shared", 0.1, True, 0), ("shared", 0.1, False, 1), ("network", 1e3, False, 0)],
)
def test_a_step_that_fails_is_tried_with_a_fresh_preconditioner(outputs, adaptivity, fit_intercept, seed):
    """An alpha of 1e-7 and labels that nearly every sample can be given: the system changes a lot from step to step."""
    rng = np.random.default_rng(seed)
    operator = random_operator(rng, 40, [(4, 5), (3, 2)], outputs, 2)
    labels = rng.integers(0, 2, 40)
    labels[:2] = 0, 1
    settings = {"loss": "multinomial", "fit_intercept": fit_intercept}
    problem = StructuredRegression(operator, np.eye(2)[labels], "power", 1e-7, adaptivity, **settings)
    assert solve(problem, "newton").converged
