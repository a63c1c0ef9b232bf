"""Coefficients written in the samples: the same as entry by entry, in everything that Newton's method asks of them."""

import copy
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from lowrank_tangent import StructuredRegression, TangentFeatures, solve
from lowrank_tangent.networks import InfiniteMLP
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.solvers import spectral_point as _point
from lowrank_tangent.solvers.newton import costs as _costs
from lowrank_tangent.solvers.newton import method as newton
from lowrank_tangent.solvers.newton import preconditioner as _preconditioner
from lowrank_tangent.solvers.newton import products as _products
from lowrank_tangent.solvers.newton import samples as _samples

N, C = 12, 4
#: Of the second layer the smaller side is that of δ, which cannot be written in the samples.
SHAPES = [(5, 7), (20, 2), (6, 3)]


@pytest.fixture(params=[False, True], ids=["plain", "weights and intercept"])
def problem(rng, request):
    layers = [LayerFactors(rng.standard_normal((N, p)), rng.standard_normal((N, q))) for p, q in SHAPES]
    settings = {"sample_weight": rng.uniform(0.5, 2.0, N), "fit_intercept": True} if request.param else {}
    y = rng.standard_normal((N, C))
    return StructuredRegression(TangentOperator(layers, "shared", C), y, "power", 0.1, 30.0, **settings)


@pytest.fixture
def pair(rng, problem):
    """The same point by entries and in the samples."""
    design = _samples.SampledDesign(problem.design, [0, 2])
    zeros = design.zeros()
    coefs = [
        rng.standard_normal(shape) if isinstance(zero, np.ndarray) else _samples.SampledCoef(zero.layer, weights)
        for zero, shape, weights in zip(
            zeros, problem.design.coef_shapes, [rng.standard_normal((N, C, p)) for p, _ in SHAPES], strict=True
        )
    ]
    sampled = copy.copy(problem)
    sampled.design = design
    return (
        _point.PrimalPoint(problem, [_point.entries_of(coef) for coef in coefs]),
        _point.PrimalPoint(sampled, coefs),
    )


def assert_close(found, expected, tol=1e-10):
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=tol * np.abs(expected).max())


def test_coefficients_have_the_same_products(rng, pair):
    entries, sampled = pair
    dual = rng.standard_normal((N, C))
    assert_close(sampled.prediction, entries.prediction)
    correlations = zip(entries.problem.design.rmatvec(dual), sampled.problem.design.rmatvec(dual), strict=True)
    for coef, other, (correlation, sampled_correlation) in zip(entries.coefs, sampled.coefs, correlations, strict=True):
        assert_close(_point.gram_singular_values(sampled_correlation), _point.gram_singular_values(correlation))
        if not isinstance(other, np.ndarray):
            assert_close(other.gram, coef @ coef.T)
            assert_close(other.times_correlation(sampled_correlation), coef @ correlation.T)
            assert_close((sampled_correlation + sampled_correlation).gram, 4.0 * correlation @ correlation.T)


def test_nothing_is_zero(problem):
    design = _samples.SampledDesign(problem.design, [0, 2])
    coefs = [_point.entries_of(coef) for coef in design.zeros()]
    assert [coef.shape for coef in coefs] == problem.design.coef_shapes
    assert not any(coef.any() for coef in coefs)


def test_newton_steps_are_the_same(rng, pair):
    entries, sampled = pair
    dual = rng.standard_normal((N, C))
    change, energy = entries.newton_change(entries.problem.design.rmatvec(dual), np.float64)
    other, other_energy = sampled.newton_change(sampled.problem.design.rmatvec(dual), np.float64)
    assert other_energy == pytest.approx(energy, rel=1e-9)
    prediction = entries.problem.design.matvec(change)
    assert_close(sampled.problem.design.matvec(other), prediction)
    for length in (0.3, 1.0):
        expected = _point.PenaltyLine(entries, change).at(length)
        assert _point.PenaltyLine(sampled, other).at(length) == pytest.approx(expected, rel=1e-9)
        moved = sampled.moved(length, other, prediction).coefs
        expected = entries.moved(length, change, prediction).coefs
        for coef, matrix in zip(map(_point.entries_of, moved), expected, strict=True):
            assert_close(coef, matrix)


def test_products_with_the_system_are_the_same(rng, pair, monkeypatch):
    monkeypatch.setattr(_products, "skinny_cost", lambda n, columns: -np.inf)  # by kernels
    entries, sampled = pair
    products = _products.SystemProducts(entries.problem, single=False)
    assert {0, 2} <= set(products.by_kernel)
    dual = rng.standard_normal((N, C))
    assert_close(products.at(sampled)(dual), products.at(entries)(dual))


@pytest.fixture
def treated_as_large(monkeypatch):
    """Small problems written in the samples wherever that is possible; the operators in which that was done."""
    monkeypatch.setattr(_costs, "EXACT_UNKNOWNS", 0)
    monkeypatch.setattr(_costs, "KERNEL_PRODUCTS", 1e9)
    return recorded(monkeypatch, lambda design, shape: True)


def recorded(monkeypatch, is_cheaper):
    """The operators in the samples that are made from now on."""
    designs, original = [], _samples.SampledDesign.__init__

    def init(self, *arguments):
        designs.append(self)
        original(self, *arguments)

    monkeypatch.setattr(_samples.SampledDesign, "__init__", init)
    monkeypatch.setattr(_samples, "_is_cheaper", is_cheaper)
    return designs


def many_outputs(rng, n, shapes, loss="squared", alpha=30.0, adaptivity=3000.0, penalty="power", **settings):
    layers = [LayerFactors(rng.standard_normal((n, p)), rng.standard_normal((n, q))) for p, q in shapes]
    h = layers[0].h[:, 0]
    y = h[:, :C] * h[:, 1 : C + 1] + 0.3 * rng.standard_normal((n, C))
    if loss == "multinomial":
        y = np.eye(C)[y.argmax(axis=1)]
    return StructuredRegression(TangentOperator(layers, "shared", C), y, penalty, alpha, adaptivity, loss, **settings)


CASES = {
    "squared": {},
    "kl": {"penalty": "kl"},
    "softmax": {"loss": "multinomial", "alpha": 1.0, "adaptivity": 30.0},
    "one layer for all": {"shapes": [(8, 50)]},
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weights and intercept"])
def test_solutions_are_the_same(rng, treated_as_large, name, weighted):
    n = 50
    settings = {"shapes": [(8, 30), (50, 1)], **CASES[name]}
    if weighted:
        settings |= {"sample_weight": rng.uniform(0.5, 2.0, n), "fit_intercept": True}
    problem = many_outputs(rng, n, **settings)
    solution = solve(problem, "newton", tol=1e-10)
    assert solution.converged
    assert len(treated_as_large) == 1
    expected = solve(problem, "newton", tol=1e-10, warm_start=np.zeros_like(solution.dual))
    assert len(treated_as_large) == 1  # with somewhere to start from it goes by entries
    assert solution.objective == pytest.approx(expected.objective, rel=2e-10)
    assert_close(solution.prediction, expected.prediction, 1e-4)


def test_where_the_samples_are_not_exact_enough_entries_go_on(rng, treated_as_large, monkeypatch):
    problem = many_outputs(rng, 50, [(8, 30), (50, 1)])
    expected = solve(problem, "newton", tol=1e-9)
    exact = _samples.SampledCoef.times_correlation

    def inexact(self, correlation):
        return exact(self, correlation) * (1.0 + 0.1 * rng.standard_normal())

    monkeypatch.setattr(_samples.SampledCoef, "times_correlation", inexact)
    solution = solve(problem, "newton", tol=1e-9)
    assert solution.converged  # which such steps do not lead to
    assert solution.objective == pytest.approx(expected.objective, rel=2e-9)


@pytest.mark.parametrize("seed", [5, 7])
def test_nearly_nuclear_problems_are_solved(treated_as_large, seed):
    # Were B B' added up from step to step in place of computed anew, the second would not converge in 200 iterations.
    problem = many_outputs(np.random.default_rng(seed), 64, [(9, 35), (14, 1)], alpha=0.4, adaptivity=1e8, penalty="kl")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert solve(problem, "newton", tol=1e-8).converged
    assert len(treated_as_large) == 1


@pytest.mark.parametrize(
    ("n", "C", "shape", "expected"),
    [
        (1000, 10, (1000, 1000), True),  # infinite width, ten classes
        (1000, 3, (1000, 1000), False),
        (2000, 10, (50, 512), False),
        (2000, 10, (50, 2000), True),
    ],
)
def test_what_is_cheaper(n, C, shape, expected):
    # By fits of both kinds, timed one after the other: faster, equal, slower, equal.
    assert _samples._is_cheaper(SimpleNamespace(n_samples=n, n_outputs=C), shape) == expected


def test_one_output_is_not_written_in_the_samples(rng, treated_as_large):
    # Its preconditioner has the whole Γ term, which is made of entries.
    layers = [LayerFactors(rng.standard_normal((50, 8)), rng.standard_normal((50, 30)))]
    problem = StructuredRegression(
        TangentOperator(layers, "shared", 1), rng.standard_normal((50, 1)), "power", 3.0, 30.0
    )
    assert solve(problem, "newton", tol=1e-8).converged
    assert not treated_as_large


def test_ten_outputs_of_infinite_width_are_written_in_the_samples(rng, monkeypatch):
    X = rng.standard_normal((210, 4))
    Y = np.sign(X @ rng.standard_normal((4, 10))) + 0.1 * rng.standard_normal((210, 10))
    operator = TangentFeatures(InfiniteMLP(2, bias=1.0)).fit(X, 10).operator(X)
    problem = StructuredRegression(operator, Y, "power", 1.0, 10.0, fit_intercept=True)
    designs = recorded(monkeypatch, _samples._is_cheaper)
    solution = solve(problem, tol=1e-6)
    assert solution.converged
    assert len(designs) == 1
    monkeypatch.setattr(_samples, "_is_cheaper", lambda design, shape: False)
    assert solution.objective == pytest.approx(solve(problem, tol=1e-6).objective, rel=2e-6)
    assert len(designs) == 1


def test_coefficients_in_the_samples_do_not_descend(rng, monkeypatch):
    """A descent adds up products of entries, which these coefficients do not have."""
    for cost in ("DESCENT_CALLS", "DESCENT_SAMPLES", "DESCENT_SHARE"):
        monkeypatch.setattr(_costs, cost, 0.0)
    monkeypatch.setattr(newton, "descend", lambda *_: pytest.fail("a descent"))
    X = rng.standard_normal((210, 4))
    operator = TangentFeatures(InfiniteMLP(2, bias=1.0)).fit(X, 10).operator(X)
    problem = StructuredRegression(operator, np.sign(X @ rng.standard_normal((4, 10))), "power", 1.0, 10.0)
    assert _preconditioner.Preconditioner(problem.reduced()[0]).leads_descent(1.0)
    designs = recorded(monkeypatch, _samples._is_cheaper)
    assert solve(problem, tol=1e-6).converged
    assert designs
