"""Factorisations, kernels and products of Newton's system against dense linear algebra."""

import copy
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg

from conftest import dense_matrix, low_rank_target, random_operator
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.linalg.cholesky import CholeskyFactor
from lowrank_tangent.operators import TangentOperator
from lowrank_tangent.penalties import PowerPenalty
from lowrank_tangent.solvers import spectral_point as _point
from lowrank_tangent.solvers.newton import costs as _costs
from lowrank_tangent.solvers.newton import kernels as _kernels
from lowrank_tangent.solvers.newton import pairs as _pairs
from lowrank_tangent.solvers.newton import preconditioner as _preconditioner
from lowrank_tangent.solvers.newton import products as _products
from lowrank_tangent.solvers.newton import system as _system
from lowrank_tangent.solvers.newton.kernels import StretchedKernels
from lowrank_tangent.solvers.newton.nystrom import NystromFactor


@pytest.mark.parametrize("size", [1, 5, 64, 65, 129, 193, 300, 1100])
@pytest.mark.parametrize("columns", [None, 3])
def test_cholesky_factor_solves(rng, size, columns):
    root = rng.standard_normal((size, size + 3))
    matrix = root @ root.T + np.eye(size)
    x = rng.standard_normal(size if columns is None else (size, columns))
    upper = np.triu(rng.standard_normal((size, size)), 1)  # is not read
    found = CholeskyFactor(np.tril(matrix) + upper).solve(matrix @ x)
    np.testing.assert_allclose(found, x, atol=1e-9)
    single = CholeskyFactor(matrix.astype(np.float32))
    found = single.solve(matrix @ x)
    assert found.dtype == np.float32
    np.testing.assert_allclose(matrix @ found, matrix @ x, rtol=0.0, atol=1e-4 * np.abs(matrix @ x).max())


@pytest.mark.parametrize("size", [1, 64, 193, 500])
def test_inverse_by_a_cholesky_factor(rng, size):
    root = rng.standard_normal((size, size + 3))
    matrix = root @ root.T + np.eye(size)
    upper = np.triu(rng.standard_normal((size, size)), 1)  # is not read
    inverse = CholeskyFactor(np.tril(matrix) + upper).inverse()
    np.testing.assert_allclose(inverse @ matrix, np.eye(size), atol=1e-9)
    np.testing.assert_allclose(inverse, inverse.T, atol=1e-12)
    assert CholeskyFactor(matrix.astype(np.float32)).inverse().dtype == np.float32


@pytest.mark.parametrize("size", [3, 200])
def test_cholesky_factor_of_an_indefinite_matrix_is_an_error(rng, size):
    matrix = np.eye(size)
    matrix[-1, -1] = -1e-3
    with pytest.raises(np.linalg.LinAlgError):
        CholeskyFactor(matrix)


def test_nystrom_factor_is_exact_where_its_model_is(rng):
    root, alpha = rng.standard_normal((40, 60)), 0.3
    kernel = root @ root.T
    b = rng.standard_normal((40, 2))
    everyone = NystromFactor(kernel.copy(), kernel, np.diagonal(kernel), alpha)
    np.testing.assert_allclose(everyone.solve(b), np.linalg.solve(kernel + alpha * np.eye(40), b), rtol=1e-4)
    # Landmarks that span a kernel of rank five; the rest of it is diagonal.
    factor = rng.standard_normal((40, 5))
    factor[10:] = rng.standard_normal((30, 5))
    noise = np.append(np.zeros(10), rng.uniform(0.5, 2.0, 30))
    kernel = factor @ factor.T + np.diag(noise)
    some = NystromFactor(kernel[:, :10].copy(), kernel[:10, :10], np.diagonal(kernel), alpha)
    np.testing.assert_allclose(some.solve(b), np.linalg.solve(kernel + alpha * np.eye(40), b), rtol=1e-4)


CASES = [
    ("shared", 1, [(4, 6), (7, 1)]),
    ("shared", 1, [(9, 3), (4, 6)]),
    ("shared", 3, [(4, 6), (7, 1)]),
    ("shared", 3, [(5, 3), (20, 2)]),
    ("network", 3, [(4, 6), (7, 3)]),
]


def point_of(rng, outputs, C, shapes, n=9, loss="squared", **settings):
    operator = random_operator(rng, n, shapes, outputs, C)
    y = np.eye(C)[rng.integers(0, C, n)] if loss == "multinomial" else rng.standard_normal((n, C))
    problem = StructuredRegression(operator, y, "power", 0.1, 30.0, loss, **settings)
    return _point.PrimalPoint(problem, [rng.standard_normal(s) for s in operator.coef_shapes])


def dense_system(point):
    """A W A*, n·C × n·C, column by column of A*."""
    design = point.problem.design
    A = dense_matrix(design)
    columns = np.split(A, np.cumsum([p * q for p, q in design.coef_shapes])[:-1], axis=1)
    return sum(
        part @ np.array([layer.curvature_solver()(row.reshape(layer.shape)).ravel() for row in part]).T
        for part, layer in zip(columns, point.layers, strict=True)
    )


@pytest.mark.parametrize(("outputs", "C", "shapes"), CASES)
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weights and intercept"])
@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
@pytest.mark.parametrize("by_kernel", [False, True], ids=["factors", "kernels"])
def test_products_are_those_of_the_system(rng, monkeypatch, outputs, C, shapes, weighted, single, by_kernel):
    settings = {"sample_weight": rng.uniform(0.5, 2.0, 9), "fit_intercept": True} if weighted else {}
    point = point_of(rng, outputs, C, shapes, **settings)
    monkeypatch.setattr(_products, "skinny_cost", lambda n, columns: -np.inf if by_kernel else np.inf)
    products = _products.SystemProducts(point.problem, single)
    assert bool(products.by_kernel) == (by_kernel and outputs == "shared")
    vector = rng.standard_normal((9, C))
    expected = (dense_system(point) @ vector.ravel()).reshape(9, C)
    found = products.at(point)(vector.astype(products.design.dtype))
    assert found.dtype == (np.float32 if single else np.float64)
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=(1e-5 if single else 1e-11) * np.abs(expected).max())
    products.use_double()
    found = products.at(point)(vector)
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize(("outputs", "C", "shapes"), CASES)
@pytest.mark.parametrize("positions", [1, 2])
def test_mean_kernel_is_the_mean_over_outputs(rng, outputs, C, shapes, positions):
    operator = random_operator(rng, 8, shapes, outputs, C, positions)
    problem = StructuredRegression(operator, np.ones((8, C)), "kl", 0.1, 30.0, sample_weight=np.arange(1.0, 9.0))
    point = _point.PrimalPoint(problem, [rng.standard_normal(s) for s in operator.coef_shapes])
    left, right = zip(*(layer.transforms for layer in point.layers), strict=True)
    dense = dense_matrix(problem.design.transformed(left, right))
    kernel = (dense @ dense.T).reshape(8, C, 8, C)
    expected = np.einsum("icjc->ij", kernel) / C
    kernels = StretchedKernels(problem.design)
    np.testing.assert_allclose(kernels.mean(point), expected, atol=1e-12)
    np.testing.assert_allclose(kernels.mean(point), expected, atol=1e-12)  # what is kept has not been changed


@pytest.mark.parametrize("fit_intercept", [False, True])
def test_kernels_of_one_point_after_another(rng, monkeypatch, fit_intercept):
    monkeypatch.setattr(_kernels, "_BLOCK_ENTRIES", 30)
    operator = random_operator(rng, 8, [(4, 7), (6, 1), (3, 2)])
    problem = StructuredRegression(operator, np.ones(8), "kl", 0.1, 30.0, fit_intercept=fit_intercept)
    kernels = StretchedKernels(problem.design)
    for _ in range(3):
        point = _point.PrimalPoint(problem, [rng.standard_normal(s) for s in operator.coef_shapes])
        left, right = zip(*(layer.transforms for layer in point.layers), strict=True)
        for indices in ((0, 2), (1,)):
            parts = [
                dense_matrix(TangentOperator([operator.layers[i]]).transformed([left[i]], [right[i]])) for i in indices
            ]
            expected = sum(part @ part.T for part in parts)
            np.testing.assert_allclose(kernels.of_layers(indices, point), expected, atol=1e-12)
        dense = dense_matrix(problem.design.transformed(left, right))
        np.testing.assert_allclose(kernels.mean(point), dense @ dense.T, atol=1e-12)
        system = problem.alpha * dense_system(point)
        whole = kernels.mean(point, _pairs.pair_kernels(problem.design, point))
        np.testing.assert_allclose(whole, system, atol=1e-12 * np.abs(system).max())


def test_kernels_serve_where_the_smaller_side_is_small(rng):
    layers = [(5, 80), (80, 80), (80, 1)]
    for outputs, expected in ((1, [0, 2]), (8, [0, 1])):
        operator = random_operator(rng, 60, layers, "shared", outputs)
        problem = StructuredRegression(operator, np.ones((60, outputs)), alpha=0.1)
        assert _products.SystemProducts(problem, single=True).by_kernel == expected


def test_a_preconditioner_is_renewed_for_its_age_alone(rng):
    operator = random_operator(rng, 60, [(5, 80)])
    problem = StructuredRegression(operator, np.ones(60), "power", 0.1, 100.0)
    preconditioner = _preconditioner.Preconditioner(problem)
    point = _point.PrimalPoint(problem, [rng.standard_normal((5, 80))])
    renewed = []
    renew = preconditioner.renew
    preconditioner.renew = lambda point: renewed.append(point) or renew(point)
    needed = int(np.ceil(preconditioner.renewal_cost / preconditioner.product_cost))
    for steps in (7, 7, 7, 7 + needed, 0):
        preconditioner.update(point)
        for _ in range(steps):
            preconditioner.spend_product()
    assert len(renewed) == 2


def test_factors_too_large_for_single_precision_stay_in_double(rng):
    operator = random_operator(rng, 9, [(4, 6)]).scaled(1e25)
    problem = StructuredRegression(operator, np.ones(9), alpha=0.1)
    assert not _products.SystemProducts(problem, single=True).is_single
    unbalanced = random_operator(rng, 9, [(4, 6)])
    layer = unbalanced.layers[0]
    object.__setattr__(layer, "h", layer.h * 1e60)
    object.__setattr__(layer, "delta", layer.delta * 1e-60)
    products = _products.SystemProducts(StructuredRegression(unbalanced, np.ones(9), alpha=0.1), single=True)
    assert products.is_single
    assert np.abs(products.design.layers[0].h).max() < 1e3


@pytest.mark.parametrize(("outputs", "C", "shapes"), CASES)
@pytest.mark.parametrize("alpha", [1e-3, 1e-6])
@pytest.mark.parametrize("way", ["kernel", "landmarks"])
def test_every_preconditioner_leads_to_the_same_solution(rng, monkeypatch, outputs, C, shapes, alpha, way):
    operator = random_operator(rng, 60, shapes, outputs, C)
    problem = StructuredRegression(operator, low_rank_target(rng, operator), "power", alpha, 100.0)
    expected = solve(problem, "newton", tol=1e-10)
    monkeypatch.setattr(_costs, "EXACT_PRODUCTS", (0, 0, 0))
    if way == "landmarks":
        monkeypatch.setattr(_costs, "KERNEL_SAMPLES", 0)
        monkeypatch.setattr(_costs, "LANDMARK_ENTRIES", 20 * 60)
    found = solve(problem, "newton", tol=1e-10)
    assert found.converged
    assert found.objective == pytest.approx(expected.objective, rel=1e-9)


@pytest.mark.parametrize(("outputs", "shapes"), [("shared", [(4, 7), (6, 3)]), ("network", [(5, 5), (6, 1)])])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize(("penalty", "n_terms"), [("kl", 1), ("power", 2), (PowerPenalty(3), 8)])
def test_pair_kernels_are_the_rest_of_the_system(rng, outputs, shapes, centred, penalty, n_terms):
    operator = random_operator(rng, 30, shapes, outputs)
    problem = StructuredRegression(operator, np.ones(30), penalty, 0.1, 10.0, fit_intercept=centred)
    coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
    point = _point.PrimalPoint(problem, coefs)
    assert all(1 <= len(_pairs.pair_terms(layer)) <= n_terms for layer in point.layers)
    pairs = _pairs.pair_kernels(problem.design, point)
    assert len(pairs) == len(shapes)
    kernel = _kernels.StretchedKernels(problem.design).mean(point, pairs)
    system = problem.alpha * dense_system(point)
    if n_terms < 8:
        np.testing.assert_allclose(kernel, system, atol=1e-10 * np.abs(system).max())
    # What is left out is a share of the stretched kernel, and so of the system.
    ratios = scipy.linalg.eigvalsh(kernel + np.eye(30), system + np.eye(30))
    assert 1.0 - _pairs._LEFT_OUT <= ratios.min() <= ratios.max() <= 1.0 + _pairs._LEFT_OUT


@pytest.mark.parametrize("penalty", ["kl", "power"])
def test_pair_kernels_of_the_strongest_directions(rng, monkeypatch, penalty):
    monkeypatch.setattr(_pairs, "MOST_DIRECTIONS", 3)
    monkeypatch.setattr(_pairs, "_LEFT_OUT", 1e-10)
    operator = random_operator(rng, 30, [(6, 7), (8, 5), (4, 2)])
    problem = StructuredRegression(operator, np.ones(30), penalty, 0.1, 10.0)
    point = _point.PrimalPoint(problem, [rng.standard_normal(s) for s in operator.coef_shapes])
    kernels = StretchedKernels(problem.design)
    expected = kernels.mean(point).copy()
    for layer, spectrum in zip(operator.layers, point.layers, strict=True):
        a, b = _pairs.pair_factors(layer, spectrum, np.float64)
        b = b[:, 0]
        b[:, : max(b.shape[1] - 3, 0)] = 0.0
        for i, j in np.ndindex(spectrum.differences.shape):
            pair = a[:, i] * b[:, j] + a[:, j] * b[:, i]
            expected += 0.5 * spectrum.differences[i, j] * np.outer(pair, pair)
    found = kernels.mean(point, _pairs.pair_kernels(problem.design, point))
    np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())


def test_pairs_of_no_or_too_many_terms_are_left_out(rng):
    values, root, noise = rng.uniform(1.0, 2.0, 20), rng.uniform(1.0, 2.0, 20), np.abs(rng.standard_normal((20, 20)))

    def count(values, differences):
        return len(_pairs.pair_terms(SimpleNamespace(values=values, stretch=np.ones(20), differences=differences)))

    one, many = np.multiply.outer(root, root), noise + noise.T
    assert [count(values, differences) for differences in (one, one + 1e-4 * many, many, 0.0 * many)] == [1, 1, 0, 0]
    # They weigh nothing where the singular values that they belong to are small.
    assert [count(1e-3 * values, differences) for differences in (one, many)] == [0, 0]
    assert count(np.append(values[:1], 1e-3 * values[1:]), many) == 0
    assert count(np.append(1e-3 * values[1:], values[:1]), one) == 1


@pytest.mark.parametrize("scale", [1.0, 1e180, np.nan])
def test_passes_that_change_nothing_come_to_an_end(rng, monkeypatch, scale):
    point = point_of(rng, "shared", 1, [(4, 6), (7, 1)])
    problem, passes = point.problem, []
    narrow = _products.SystemProducts(problem, single=True).design
    assert narrow.dtype == np.float32
    problem.target = scale * problem.target  # as no problem allows: errors, squared, are infinite

    def gives_up(system, *_):
        passes.append(1)
        assert len(passes) < 10
        return np.zeros_like(system.residual), 0

    monkeypatch.setattr(_system, "_conjugate_gradients", gives_up)
    for design, products in itertools.product((problem.design, narrow), repeat=2):
        draft = copy.copy(problem)
        draft.design = design
        point = _point.PrimalPoint(draft, point.coefs)
        preconditioner = _preconditioner.Preconditioner(problem)
        preconditioner.products._use(products)
        preconditioner.update(point)
        passes.clear()
        with np.errstate(over="ignore", invalid="ignore"):
            _, solved = _system.solve_system(point, 0.5 * point.residual, None, preconditioner, 1e-12, 1.0)
        assert passes
        assert not solved
        # A draft that stalls is what has to go on in double precision, not its products.
        assert preconditioner.products.is_single == (design is products is narrow)


def test_products_are_widened_once(rng, monkeypatch):
    """Where the preconditioner is not positive definite in single precision, a draft goes on with one in double."""
    widened = []
    widen = _products.SystemProducts.use_double
    monkeypatch.setattr(_products.SystemProducts, "use_double", lambda self: (widened.append(1), widen(self)))
    monkeypatch.setattr(_costs, "EXACT_PRODUCTS", (0, 0, 0))
    operator = random_operator(rng, 100, [(5, 9), (8, 3)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator, 0.1), alpha=1.0, adaptivity=1e9)
    assert solve(problem, "newton", 1e-6).converged
    assert len(widened) == 1


def test_a_decrement_that_rounding_makes_negative_solves_nothing():
    assert not _system._is_solved(error=1e-3, decrement=-1.0, descent=-0.4, gap_target=0.0, penalty=1.0)
    assert _system._is_solved(error=1e-3, decrement=1.0, descent=0.9, gap_target=0.0, penalty=1.0)


def test_what_single_precision_makes_of_a_step_is_part_of_the_residual(rng):
    operator = random_operator(rng, 30, [(5, 9), (8, 3)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator), alpha=0.1, adaptivity=30.0)
    point = _point.PrimalPoint(problem, [rng.standard_normal(shape) for shape in operator.coef_shapes])
    dual = 0.5 * point.residual
    arguments = point, dual, point.residual - dual, operator.rmatvec(dual), operator
    exact, rough = (_system.NewtonSystem(*arguments, dtype) for dtype in (np.float64, np.float32))
    A = dense_matrix(operator)
    for system in (exact, rough, rough.moved(0.1 * rng.standard_normal(dual.shape), operator)):
        prediction = A @ np.concatenate([change.ravel() for change in system.change])
        np.testing.assert_allclose(system.residual[:, 0], system.unknown[:, 0] - prediction, rtol=0.0, atol=1e-11)
    size = np.abs(exact.prediction).max()
    assert 1e-9 * size < np.abs(exact.prediction - rough.prediction).max() < 1e-5 * size


@pytest.mark.parametrize("breaks_down", [False, True])
def test_steps_are_found_in_the_precision_of_the_products(rng, monkeypatch, breaks_down):
    operator = random_operator(rng, 100, [(5, 9), (8, 3)])
    problem = StructuredRegression(operator, low_rank_target(rng, operator), alpha=0.1, adaptivity=30.0)
    monkeypatch.setattr(_costs, "EXACT_PRODUCTS", (0, 0, 0))
    preconditioner = _preconditioner.Preconditioner(problem)
    if breaks_down:  # in single precision
        monkeypatch.setattr(_system, "_STALLED", -1.0)
    precisions = []
    whole = _system.NewtonSystem.__init__

    def record(self, *arguments):
        precisions.append(np.dtype(arguments[-1]))
        whole(self, *arguments)

    monkeypatch.setattr(_system.NewtonSystem, "__init__", record)
    point = _point.PrimalPoint(problem, [rng.standard_normal(shape) for shape in operator.coef_shapes])
    preconditioner.update(point)
    _system.solve_system(point, point.residual, None, preconditioner, 1e-30 if breaks_down else 1e-3, 0.0)
    assert set(precisions[:2]) == {np.dtype(np.float32)}
    assert (precisions[-1] == np.float64) == breaks_down


def test_a_stage_keeps_the_eigenvectors(rng):
    operator = random_operator(rng, 10, [(5, 9), (8, 3)])
    problem = StructuredRegression(operator, np.ones(10), alpha=0.1, adaptivity=30.0)
    point = _point.PrimalPoint(problem, [rng.standard_normal(shape) for shape in operator.coef_shapes])
    other = point.of(problem.with_strength(0.2, 3.0))
    fresh = _point.PrimalPoint(other.problem, point.coefs)
    assert other.objective == pytest.approx(fresh.objective, rel=1e-14)
    for layer, old in zip(other.layers, point.layers, strict=True):
        assert layer.basis is old.basis


@pytest.mark.parametrize(
    ("outputs", "C", "n", "shapes", "is_assembled"),
    [
        ("network", 3, 60, [(9, 16), (17, 3)], True),  # the mean kernel averages over different outputs
        ("network", 3, 400, [(9, 16), (17, 3)], False),
        ("shared", 1, 60, [(20, 30)], True),  # next to nothing
        ("shared", 1, 100, [(48, 48), (49, 1)], False),
        ("network", 1, 100, [(100, 100)], False),
        ("shared", 5, 80, [(11, 64), (65, 1)], False),
    ],
)
def test_the_system_is_assembled_where_a_kernel_would_miss_much(rng, outputs, C, n, shapes, is_assembled):
    operator = random_operator(rng, n, shapes, outputs, C)
    preconditioner = _preconditioner.Preconditioner(StructuredRegression(operator, np.ones((n, C)), alpha=0.1))
    assert preconditioner.is_exact == is_assembled
    assert preconditioner.products.is_single == (not is_assembled)
    assert preconditioner.may_be_exact  # where nothing else helps
