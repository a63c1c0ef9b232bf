"""What a layer promises, against its features as one dense array."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .._types import Array
from ..linalg.transforms import ProductTransform
from ..operators import Layer
from .findings import agree, expect, pickled, run_checks, same_dtype, skip, unchanged

#: Results of double precision agree to this share of their size, and those of single precision to that.
DOUBLE, SINGLE = 1e-11, 2e-5


def check_layer(layer: Layer, *, random_state: int = 0, verbose: int = 0) -> list[str]:
    """Check the tangent features of a layer against a dense array of them.

    Parameters
    ----------
    layer : Layer
        An instance with a few samples and small shapes: all n·C·p·q numbers are held in memory.
    random_state : int, default=0
        Draws coefficients, residuals and transforms.
    verbose : int, default=0
        From 1 on every check is logged.

    Returns
    -------
    list of str
        Names of the checks that apply, of "shapes", "linearity", "adjoint", "separate", "kernel", "squares",
        "projected", "rows", "output", "stacked", "transformed", "scaled", "reduce", "precision", "knowledge",
        "immutability", "pickling".

    Raises
    ------
    AssertionError
        With one line a finding.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent.operators import LayerFactors
    >>> from lowrank_tangent.testing import check_layer
    >>> rng = np.random.default_rng(0)
    >>> len(check_layer(LayerFactors(rng.normal(size=(6, 3)), rng.normal(size=(6, 2, 4)))))
    15
    """
    return run_checks(layer, _Case(layer), _CHECKS, random_state, verbose)


class _Case:
    """A layer and its features."""

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.tol = DOUBLE if layer.dtype == np.float64 else SINGLE

    @functools.cached_property
    def features(self) -> Array:
        """Φ of shape (n, C, p, q), from products with unit matrices."""
        return features_of(self.layer)


def features_of(layer: Layer) -> Array:
    """All features of a layer, one product with a unit matrix for each of their entries; shape (n, C, p, q)."""
    p, q = layer.shape
    found = np.empty((layer.n_samples, layer.n_outputs, p, q))
    for i in range(p):
        for j in range(q):
            unit = np.zeros((p, q))
            unit[i, j] = 1.0
            found[:, :, i, j] = layer.product(unit.astype(layer.dtype), layer.n_outputs)
    return found


def _normal(case: _Case, rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(case.layer.dtype)


def _index_kinds(n: int) -> dict[str, Any]:
    """Subsets of n samples, as users give them."""
    mask = np.arange(n) % 3 != 1
    return {
        "a slice": slice(1, n, 2),
        "integers with a repeated one": np.array([n - 1, 0, 0, n // 2]),
        "a mask": mask,
    }


def _shapes(case: _Case, rng: np.random.Generator) -> None:
    layer = case.layer
    for name in ("n_samples", "n_outputs", "n_positions"):
        value = getattr(layer, name)
        expect(isinstance(value, (int, np.integer)) and value >= 1, f"{name} must be an integer >= 1; got {value!r}")
    expect(layer.dtype in (np.float32, np.float64), f"dtype must be float32 or float64; got {layer.dtype!r}")
    p, q = layer.shape
    n, C = layer.n_samples, layer.n_outputs
    got = np.shape(layer.product(_normal(case, rng, p, q), C))
    expect(got == (n, C), f"product must have shape (n, C) = {(n, C)}; got {got}")
    got = np.shape(layer.adjoint(_normal(case, rng, n, C), (p, q)))
    expect(got == (p, q), f"adjoint must have the shape that was asked for, {(p, q)}; got {got}")
    expect(layer.size >= 1, f"size must be a number of entries; got {layer.size!r}")


def _linearity(case: _Case, rng: np.random.Generator) -> None:
    coef = _normal(case, rng, *case.layer.shape)
    expected = np.einsum("ncpq,pq->nc", case.features, coef)
    agree(
        "product against the sum of products with unit matrices",
        case.layer.product(coef, expected.shape[1]),
        expected,
        case.tol,
        _size(case, coef),
    )


def _adjoint(case: _Case, rng: np.random.Generator) -> None:
    residual = _normal(case, rng, case.layer.n_samples, case.layer.n_outputs)
    expected = np.einsum("ncpq,nc->pq", case.features, residual)
    agree(
        "adjoint against Σ r Φ",
        case.layer.adjoint(residual, case.layer.shape),
        expected,
        case.tol,
        _size(case, residual),
    )


def _separate(case: _Case, rng: np.random.Generator) -> None:
    layer, k = case.layer, 3
    if layer.n_outputs > 1:
        skip("for networks with one output")
    p, q = layer.shape
    coef, residual = _normal(case, rng, p, k * q), _normal(case, rng, layer.n_samples, k)
    expected = np.einsum("npq,pkq->nk", case.features[:, 0], coef.reshape(p, k, q))
    agree(
        "product with coefficients of 3 targets side by side",
        layer.product(coef, k),
        expected,
        case.tol,
        _size(case, coef),
    )
    expected = np.einsum("npq,nk->pkq", case.features[:, 0], residual).reshape(p, k * q)
    agree("adjoint for 3 targets", layer.adjoint(residual, (p, k * q)), expected, case.tol, _size(case, residual))


def _kernel(case: _Case, rng: np.random.Generator) -> None:
    layer = case.layer
    index = np.arange(layer.n_samples)[::2]
    for name, other, features in (
        ("itself", layer, case.features),
        ("a part of it", layer.rows(index), case.features[index]),
    ):
        size = float(np.abs(np.einsum("ncpq,ncpq->nc", case.features, case.features)).max())
        expected = np.einsum("icpq,jdpq->icjd", case.features, features)
        rows = layer.n_samples * layer.n_outputs
        agree(f"kernel with {name}, per output", layer.kernel(other, True), expected.reshape(rows, -1), case.tol, size)
        averaged = np.einsum("icjc->ij", expected) / layer.n_outputs
        agree(f"kernel with {name}, averaged over outputs", layer.kernel(other, False), averaged, case.tol, size)


def _squares(case: _Case, rng: np.random.Generator) -> None:
    agree("squares against Σ Φ²", case.layer.squares(), np.sum(case.features**2, axis=(2, 3)), case.tol)


def _projected(case: _Case, rng: np.random.Generator) -> None:
    p, q = case.layer.shape
    left, right = _normal(case, rng, p, 2), _normal(case, rng, q, 3)
    expected = np.einsum("ncpq,pm,qk->mknc", case.features, left, right)
    agree(
        "projected against leftᵀ Φ right", case.layer.projected(left, right, case.layer.n_outputs), expected, case.tol
    )


def _rows(case: _Case, rng: np.random.Generator) -> None:
    for kind, index in _index_kinds(case.layer.n_samples).items():
        part = case.layer.rows(index)
        expected = case.features[index]
        expect(part.n_samples == len(expected), f"rows of {kind}: {len(expected)} samples wanted, got {part.n_samples}")
        agree(f"features of rows given by {kind}", features_of(part), expected, case.tol)


def _output(case: _Case, rng: np.random.Generator) -> None:
    for c in range(case.layer.n_outputs):
        agree(f"features of output({c})", features_of(case.layer.output(c)), case.features[:, c : c + 1], case.tol)


def _stacked(case: _Case, rng: np.random.Generator) -> None:
    if case.layer.n_outputs > 1:
        skip("for networks with one output")
    (n, _, p, q), k = case.features.shape, 2
    expected = np.zeros((n, k, p, k * q))
    for c in range(k):
        expected[:, c, :, c * q : (c + 1) * q] = case.features[:, 0]
    agree("features of stacked(2)", features_of(case.layer.stacked(k)), expected, case.tol)


def _transformed(case: _Case, rng: np.random.Generator) -> None:
    p, q = case.layer.shape
    left, right = ProductTransform(_normal(case, rng, p, p)), ProductTransform(_normal(case, rng, q, q))
    both = np.einsum("po,ncpq,qr->ncor", left.core, case.features, right.core)
    agree(
        "features of transformed(M1, M2) against M1ᵀ Φ M2",
        features_of(case.layer.transformed(left, right)),
        both,
        case.tol,
    )
    agree(
        "features of transformed(M1, None) against M1ᵀ Φ",
        features_of(case.layer.transformed(left, None)),
        np.einsum("po,ncpq->ncoq", left.core, case.features),
        case.tol,
    )
    agree(
        "features of transformed(None, M2) against Φ M2",
        features_of(case.layer.transformed(None, right)),
        np.einsum("ncpq,qr->ncpr", case.features, right.core),
        case.tol,
    )


def _scaled(case: _Case, rng: np.random.Generator) -> None:
    agree("features of scaled(−2.5)", features_of(case.layer.scaled(-2.5)), -2.5 * case.features, case.tol)
    agree("features of balanced(4)", features_of(case.layer.balanced(4.0)), case.features, case.tol)


def _reduce(case: _Case, rng: np.random.Generator) -> None:
    reduced, left, right = case.layer.reduce()
    features = case.features
    for name, basis, axis in (("left", left, "ncpq,po->ncoq"), ("right", right, "ncpq,qo->ncpo")):
        if basis is not None:
            agree(f"the {name} basis of reduce, which is orthonormal", basis.T @ basis, np.eye(basis.shape[1]), DOUBLE)
            features = np.einsum(axis, features, basis)
    agree("features of the reduced layer against Pᵀ Φ Q", features_of(reduced), features, case.tol)
    agree(
        "norms of the reduced features, of which nothing is lost",
        np.sum(features**2, axis=(2, 3)),
        np.sum(case.features**2, axis=(2, 3)),
        case.tol,
    )


def _precision(case: _Case, rng: np.random.Generator) -> None:
    layer = case.layer
    coef, residual = _normal(case, rng, *layer.shape), _normal(case, rng, layer.n_samples, layer.n_outputs)
    product, adjoint = layer.product(coef, layer.n_outputs), layer.adjoint(residual, layer.shape)
    same_dtype("product", product, layer.dtype)
    same_dtype("adjoint", adjoint, layer.dtype)
    # Double precision claimed and single computed shows in digits.
    expected = np.einsum("ncpq,pq->nc", case.features, coef)
    agree(f"product in {layer.dtype}, whose last digits must be right", product, expected, case.tol, _size(case, coef))
    for dtype, tol in ((np.float32, SINGLE), (np.float64, case.tol)):
        other = layer.astype(dtype)
        expect(other.dtype == dtype, f"astype({np.dtype(dtype)}) has dtype {other.dtype}")
        same_dtype(f"product of astype({np.dtype(dtype)})", other.product(coef.astype(dtype), layer.n_outputs), dtype)
        agree(f"features of astype({np.dtype(dtype)})", features_of(other), case.features, tol)


def _knowledge(case: _Case, rng: np.random.Generator) -> None:
    layer = case.layer
    if layer.outer is not None:
        h, delta = layer.outer
        agree("the outer products of h and δ", np.einsum("np,ncq->ncpq", h, delta), case.features, case.tol)
    largest = np.asarray(layer.largest())
    expect(
        largest.shape == (2,) and np.isfinite(largest).all() and (largest >= 0.0).all(),
        f"largest() must be two finite numbers >= 0; got {largest.tolist()}",
    )
    limit = layer.n_positions * largest.prod() * (1.0 + SINGLE)
    reached = float(np.abs(case.features).max())
    expect(reached <= limit, f"the product of largest() bounds entries by {limit:.6g}; one is {reached:.6g}")
    for count in (None, max(1, layer.shape[0] // 2)):
        basis = layer.input_basis(count)
        if basis is not None:
            rows = case.features[:, :, :count]
            inside = np.einsum("po,oi,ncpq->nciq", basis, basis.T, rows)
            agree(f"features projected onto input_basis({count})", inside, rows, case.tol)


def _immutability(case: _Case, rng: np.random.Generator) -> None:
    layer = case.layer
    coef, residual = _normal(case, rng, *layer.shape), _normal(case, rng, layer.n_samples, layer.n_outputs)
    copies = coef.copy(), residual.copy()
    layer.product(coef, layer.n_outputs)
    layer.adjoint(residual, layer.shape)
    unchanged("an array", (coef, residual), copies)
    case.features, layer.rows(slice(1)), layer.scaled(3.0), layer.astype(np.float32), layer.reduce()
    agree("features after calls of other methods", features_of(layer), case.features, 0.0)


def _pickling(case: _Case, rng: np.random.Generator) -> None:
    agree("features of the loaded layer", features_of(pickled(case.layer)), case.features, 0.0)


def _size(case: _Case, other: Array) -> float:
    """Size of a product, without what cancels in it."""
    return float(np.linalg.norm(case.features) * np.linalg.norm(other))


_CHECKS: dict[str, Callable[[_Case, np.random.Generator], None]] = {
    "shapes": _shapes,
    "linearity": _linearity,
    "adjoint": _adjoint,
    "separate": _separate,
    "kernel": _kernel,
    "squares": _squares,
    "projected": _projected,
    "rows": _rows,
    "output": _output,
    "stacked": _stacked,
    "transformed": _transformed,
    "scaled": _scaled,
    "reduce": _reduce,
    "precision": _precision,
    "knowledge": _knowledge,
    "immutability": _immutability,
    "pickling": _pickling,
}
