import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lowrank_tangent.linalg.memory as memory
from conftest import dense_matrix, flat, random_operator
from lowrank_tangent.linalg.transforms import LowRankTransform, ProductTransform
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.operators import rows as _rows

CASES = [("network", 1), ("network", 3), ("shared", 1), ("shared", 3)]
pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(params=CASES, ids=[f"{mode}-{C}" for mode, C in CASES])
def case(request):
    return request.param


@pytest.mark.parametrize("positions", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_products_agree_with_the_dense_matrix(rng, case, positions, weighted, centred):
    outputs, C = case
    operator = random_operator(rng, 7, [(4, 5), (2, 3)], outputs, C, positions)
    weights = rng.uniform(0.2, 3.0, 7) if weighted else None
    operator = operator.weighted(weights, centred)
    A = dense_matrix(operator)
    coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
    residual = rng.standard_normal((7, C))
    np.testing.assert_allclose(operator.matvec(coefs).ravel(), A @ flat(coefs), atol=1e-13)
    np.testing.assert_allclose(flat(operator.rmatvec(residual)), A.T @ residual.ravel(), atol=1e-13)
    np.testing.assert_allclose(operator.gram(), A @ A.T, atol=1e-13)
    blocks = (A @ A.T).reshape(7, C, 7, C)
    np.testing.assert_allclose(operator.mean_gram(), np.einsum("icjc->ij", blocks) / C, atol=1e-13)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_weights_and_centring_of_both_sides_of_a_kernel(rng, monkeypatch, weighted, centred):
    monkeypatch.setattr(_rows, "_BLOCK_ROWS", 4)
    weights = rng.uniform(0.2, 3.0, 9) if weighted else np.ones(9)
    operator = random_operator(rng, 9, [(3, 4)]).weighted(weights if weighted else None, centred)
    unit = np.sqrt(weights / weights.sum())
    change = (np.eye(9) - centred * np.outer(unit, unit)) @ np.diag(np.sqrt(weights))
    root = rng.standard_normal((9, 9))
    kernel = root @ root.T
    expected = change @ kernel @ change.T
    changed = operator.to_rows_and_columns(kernel)
    assert changed is kernel
    np.testing.assert_allclose(changed, expected, atol=1e-13)


def test_weighted_centring_is_what_an_intercept_leaves(rng):
    operator = random_operator(rng, 9, [(3, 4)])
    weights = rng.uniform(0.1, 2.0, 9)
    residual = rng.standard_normal((9, 1))
    b = np.average(residual[:, 0], weights=weights)
    best = np.sum(weights[:, None] * (residual - b) ** 2)
    assert np.sum(operator.weighted(weights, True).to_rows(residual) ** 2) == pytest.approx(best, rel=1e-12)


def test_cross_kernel_and_row_subsets(rng, case):
    outputs, C = case
    operator = random_operator(rng, 8, [(4, 5), (3, 2)], outputs, C, positions=2)
    first, second = operator.rows(slice(0, 3)), operator.rows([5, 3])
    A, B = dense_matrix(first), dense_matrix(second)
    np.testing.assert_allclose(first.gram(second), A @ B.T, atol=1e-13)
    np.testing.assert_allclose(operator.diagonal().ravel(), np.sum(dense_matrix(operator) ** 2, axis=1), atol=1e-13)


def test_kernel_by_blocks_is_the_kernel(rng, monkeypatch):
    monkeypatch.setattr("lowrank_tangent.operators.factored._BLOCK_ROWS", 3)
    operator = random_operator(rng, 8, [(4, 5)], "network", 2).weighted(rng.uniform(1, 2, 8), True)
    A = dense_matrix(operator)
    np.testing.assert_allclose(operator.gram(), A @ A.T, atol=1e-13)


def test_outputs_in_groups_give_the_same_products(rng, monkeypatch):
    operator = random_operator(rng, 6, [(3, 4)], "shared", 5)
    coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
    residual = rng.standard_normal((6, 5))
    whole = operator.matvec(coefs), operator.rmatvec(residual)
    monkeypatch.setattr("lowrank_tangent.operators.layers._GROUP_FLOATS", 2 * 6 * 4)
    np.testing.assert_allclose(operator.matvec(coefs), whole[0])
    np.testing.assert_allclose(operator.rmatvec(residual)[0], whole[1][0])


@pytest.mark.parametrize("positions", [1, 2])
def test_reduction_changes_no_value(rng, case, positions):
    outputs, C = case
    operator = random_operator(rng, 4, [(30, 35), (3, 40), (50, 2)], outputs, C, positions)
    operator = operator.weighted(rng.uniform(0.5, 2.0, 4), True)
    reduced, expand, compress = operator.reduce()
    rank = 4 * positions
    assert [layer.shape[0] for layer in reduced.layers] == [rank, 3, rank]
    coefs = [rng.standard_normal(shape) for shape in reduced.coef_shapes]
    full = expand(coefs)
    np.testing.assert_allclose(operator.matvec(full), reduced.matvec(coefs), atol=1e-12)
    for small, large in zip(coefs, full, strict=True):
        s, S = (np.linalg.svd(m, compute_uv=False) for m in (small, large))
        np.testing.assert_allclose(S[: len(s)], s, atol=1e-12)
        np.testing.assert_allclose(S[len(s) :], 0.0, atol=1e-12)
    for back, small in zip(compress(full), coefs, strict=True):
        np.testing.assert_allclose(back, small, atol=1e-12)
    np.testing.assert_allclose(reduced.gram(), operator.gram(), atol=1e-12)


@pytest.mark.parametrize(
    ("n", "width", "used", "left"),
    [(12, 10, 4, 4), (12, 10, 9, 9), (12, 11, 10, 11), (3, 10, 6, 3), (5, 10, 4, 4), (9, 10, 9, 9), (12, 7, 0, 1)],
)
def test_reduction_leaves_out_columns_of_zeros(rng, n, width, used, left):
    # One column in eleven does not pay for a copy of the others; an operator keeps one of nothing but zeros.
    factors = [rng.standard_normal((n, width)), rng.standard_normal((n, width))]
    unused = [rng.permutation(width)[used:] for _ in factors]
    for factor, columns in zip(factors, unused, strict=True):
        factor[:, columns] = 0.0
    operator = TangentOperator([LayerFactors(*factors)], "shared", 2).weighted(rng.uniform(0.5, 2.0, n), True)
    reduced, expand, compress = operator.reduce()
    assert reduced.layers[0].shape == (left, left)
    (coef,) = coefs = [rng.standard_normal(shape) for shape in reduced.coef_shapes]
    (full,) = expand(coefs)
    assert full.shape == (width, 2 * width)
    np.testing.assert_allclose(operator.matvec([full]), reduced.matvec(coefs), atol=1e-12)
    np.testing.assert_allclose(compress([full])[0], coef, atol=1e-12)
    spectrum, expected = (np.linalg.svd(matrix, compute_uv=False) for matrix in (full, coef))
    np.testing.assert_allclose(spectrum[: len(expected)], expected, atol=1e-12)
    np.testing.assert_allclose(spectrum[len(expected) :], 0.0, atol=1e-12)
    if used and left < width:
        assert not full[unused[0]].any()
        assert not full.reshape(width, 2, width)[:, :, unused[1]].any()


def test_columns_that_are_left_keep_their_precision(rng):
    h = rng.standard_normal((12, 10)).astype(np.float32)
    h[:, ::2] = 0.0
    reduced, _, _ = TangentOperator([LayerFactors(h, h)]).reduce()
    assert reduced.layers[0].dtype == np.float32
    np.testing.assert_array_equal(reduced.layers[0].h[:, 0], h[:, 1::2])


def test_transformed_features(rng, case):
    outputs, C = case
    operator = random_operator(rng, 5, [(4, 3)], outputs, C)
    ((p, width),) = operator.coef_shapes
    left, right = (
        LowRankTransform(np.linalg.qr(rng.standard_normal((size, 2)))[0], np.array([3.0, 1.5])) for size in (p, width)
    )
    for m1, m2 in ((left, right), (left, LowRankTransform.identity(width))):
        transformed = operator.transformed([m1], [m2])
        features = dense_matrix(operator).reshape(-1, p, width)
        expected = np.einsum("ab,rbc,cd->rad", m1.to_dense(), features, m2.to_dense()).reshape(len(features), -1)
        np.testing.assert_allclose(transformed.gram(), expected @ expected.T, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 5),
    p=st.integers(1, 4),
    q=st.integers(1, 4),
    T=st.integers(1, 3),
    C=st.integers(1, 3),
    scale=st.sampled_from([1e-150, 1e-8, 1.0, 1e8, 1e100]),
    outputs=st.sampled_from(["network", "shared"]),
    seed=st.integers(0, 99),
)
def test_adjoint_identity_at_any_shape_and_scale(n, p, q, T, C, scale, outputs, seed):
    rng = np.random.default_rng(seed)
    operator = random_operator(rng, n, [(p, q)], outputs, C, T).scaled(scale)
    coefs = [rng.standard_normal(shape) for shape in operator.coef_shapes]
    residual = rng.standard_normal((n, C))
    one = np.vdot(operator.matvec(coefs), residual)
    two = np.vdot(flat(coefs), flat(operator.rmatvec(residual)))
    size = np.linalg.norm(operator.matvec(coefs)) * np.linalg.norm(residual)
    assert abs(one - two) <= 1e-13 * size * max(p * q * T, 1) + 1e-300


def test_two_axes_mean_one_output_and_one_position(rng):
    h, delta = rng.standard_normal((6, 3)), rng.standard_normal((6, 4))
    layer = LayerFactors(h, delta)
    assert layer.h.shape == (6, 1, 3)
    assert layer.delta.shape == (6, 1, 1, 4)
    assert LayerFactors(h, rng.standard_normal((6, 2, 4))).n_outputs == 2


@pytest.mark.parametrize(
    ("h", "delta", "error", "message"),
    [
        (np.ones((3, 2)), np.ones((4, 2)), ValueError, "3 and 4 rows"),
        (np.ones(3), np.ones((3, 2)), ValueError, "h must have shape"),
        (np.ones((3, 2)), np.ones(3), ValueError, "delta must have shape"),
        (np.ones((3, 5, 2)), np.ones((3, 1, 4, 2)), ValueError, "5 position.* delta has 4"),
        (np.ones((3, 0)), np.ones((3, 2)), ValueError, "h is empty"),
        (np.full((3, 2), np.nan), np.ones((3, 2)), ValueError, "h contains NaN"),
        (np.ones((3, 2)), np.full((3, 2), np.inf), ValueError, "delta contains NaN or infinity"),
        (np.ones((3, 2), complex), np.ones((3, 2)), TypeError, "real numbers; got dtype complex"),
        (np.ones((3, 2), object), np.ones((3, 2)), TypeError, "real numbers; got dtype object"),
    ],
)
def test_bad_factors_are_refused(h, delta, error, message):
    with pytest.raises(error, match=message):
        LayerFactors(h, delta)


def test_bad_operators_are_refused(rng):
    one, other = LayerFactors(np.ones((3, 2)), np.ones((3, 2))), LayerFactors(np.ones((4, 2)), np.ones((4, 2)))
    two = LayerFactors(np.ones((3, 2)), np.ones((3, 2, 2)))
    with pytest.raises(TypeError, match="sequence of LayerFactors"):
        TangentOperator([])
    with pytest.raises(ValueError, match="same number of samples"):
        TangentOperator([one, other])
    with pytest.raises(ValueError, match="'network' or 'shared'"):
        TangentOperator([one], outputs="both")
    with pytest.raises(ValueError, match="needs a network with one output"):
        TangentOperator([two], outputs="shared", n_outputs=2)
    with pytest.raises(ValueError, match="use outputs='shared'"):
        TangentOperator([one], n_outputs=3)
    for count in (0, -2, 1.5):
        with pytest.raises(ValueError, match="positive integer"):
            TangentOperator([one], outputs="shared", n_outputs=count)
    operator = TangentOperator([one])
    with pytest.raises(ValueError, match=r"shapes \[\(2, 2\)\]; got \[\(3, 2\)\]"):
        operator.matvec([np.ones((3, 2))])
    with pytest.raises(ValueError, match=r"\(n, C\) = \(3, 1\); got \(4, 1\)"):
        operator.rmatvec(np.ones((4, 1)))
    with pytest.raises(ValueError, match="same network"):
        operator.gram(TangentOperator([LayerFactors(np.ones((3, 3)), np.ones((3, 2)))]))


@pytest.mark.parametrize("outputs", ["network", "shared"])
def test_a_kernel_beyond_memory_is_refused_with_its_size(rng, monkeypatch, outputs):
    monkeypatch.setattr(memory, "physical_memory", lambda: 4096)
    operator = random_operator(rng, 30, [(2, 2)], outputs, 2)
    with pytest.raises(MemoryError, match=r"\(60, 60\) needs .* GiB and this machine has"):
        operator.gram()


def test_low_rank_transform_is_its_dense_matrix(rng):
    basis, _ = np.linalg.qr(rng.standard_normal((6, 2)))
    transform = LowRankTransform(basis, np.array([4.0, 2.0]))
    rows = rng.standard_normal((3, 5, 6))
    np.testing.assert_allclose(transform.apply(rows), rows @ transform.to_dense(), atol=1e-13)
    np.testing.assert_allclose(transform.spectrum, np.linalg.svd(transform.to_dense(), compute_uv=False))
    assert transform.shape == (6, 6)
    assert LowRankTransform.identity(6).apply(rows) is rows


def test_product_transforms_are_products_of_matrices(rng):
    basis, _ = np.linalg.qr(rng.standard_normal((6, 3)))
    directions, _ = np.linalg.qr(basis @ rng.standard_normal((3, 2)))
    along = LowRankTransform(directions, np.array([4.0, 2.0]), 0.5)
    features = rng.uniform(1.0, 2.0, 6)
    rows = rng.standard_normal((2, 4, 6))
    for start, stretches in (
        (ProductTransform(np.eye(3), basis), [along, LowRankTransform(basis, np.array([3.0, 1.0, 5.0]), 2.0)]),
        (ProductTransform(np.eye(6)), [along, features]),
        (ProductTransform(np.ones(6)), [features, 1.0 / features**2]),
    ):
        product, expected = start, np.eye(6)
        for stretch in stretches:
            product = product.then(stretch)
            expected = expected @ (np.diag(stretch) if isinstance(stretch, np.ndarray) else stretch.to_dense())
            expected *= np.sqrt(6.0) / np.linalg.norm(expected)
        np.testing.assert_allclose(product.to_dense(), expected, atol=1e-13)
        np.testing.assert_allclose(product.apply(rows), rows @ expected, atol=1e-13)
        np.testing.assert_allclose(product.transposed.apply(rows), rows @ expected.T, atol=1e-13)
        np.testing.assert_allclose(product.row_squares, np.sum(expected**2, axis=1), atol=1e-13)
        assert product.size == 6
    assert ProductTransform(np.eye(6)).then(LowRankTransform(np.zeros((6, 0)), np.ones(0), 0.0)) is None
