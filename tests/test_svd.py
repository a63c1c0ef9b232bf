"""Singular value decompositions by a QR decomposition first, against LAPACK's of the whole matrix."""

import numpy as np
import pytest

from lowrank_tangent.linalg.svd import singular_values, thin_svd

SHAPES = [(3, 50), (50, 3), (4, 16), (16, 4), (5, 7), (7, 5), (6, 6), (1, 9), (9, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank_one", [False, True])
def test_decompositions_are_those_of_the_whole_matrix(rng, shape, rank_one):
    matrix = rng.standard_normal(shape)
    if rank_one:
        matrix = np.outer(matrix[:, 0], matrix[0])
    expected = np.linalg.svd(matrix, compute_uv=False)
    rounding = 1e-14 * expected[0]
    np.testing.assert_allclose(singular_values(matrix), expected, rtol=0, atol=rounding)
    u, values, vt = thin_svd(matrix)
    k = min(shape)
    assert u.shape == (shape[0], k)
    assert vt.shape == (k, shape[1])
    np.testing.assert_allclose(values, expected, rtol=0, atol=rounding)
    np.testing.assert_allclose((u * values) @ vt, matrix, rtol=0, atol=rounding)
    np.testing.assert_allclose(u.T @ u, np.eye(k), atol=1e-14)
    np.testing.assert_allclose(vt @ vt.T, np.eye(k), atol=1e-14)


def test_small_singular_values_are_not_lost(rng):
    # By the squares of the matrix, those below 1e-8 would be.
    values = np.array([1.0, 1e-5, 1e-10, 1e-14])
    left, right = (np.linalg.qr(rng.standard_normal((n, 4)))[0] for n in (4, 60))
    matrix = (left * values) @ right.T
    np.testing.assert_allclose(singular_values(matrix), values, rtol=0, atol=1e-15)
    np.testing.assert_allclose(thin_svd(matrix)[1], values, rtol=0, atol=1e-15)


@pytest.mark.parametrize("shape", [(2, 30), (30, 2), (3, 3)])
def test_numbers_that_are_none_are_an_error(shape):
    for decompose in (singular_values, thin_svd):
        with pytest.raises(np.linalg.LinAlgError):
            decompose(np.full(shape, np.nan))
