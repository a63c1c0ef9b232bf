"""Features that are outer products: the two factors of one layer, and what can be done with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._types import Array
from ..linalg.svd import thin_svd
from .layer import Layer, Transform

#: Temporaries of a product with separate coefficients for each output, 32 MiB.
_GROUP_FLOATS = 2**22
#: Columns of zeros are left out only if at most this share of the columns is used: the others have to be copied.
_USED = 0.9


@dataclass(frozen=True, eq=False)
class LayerFactors(Layer):
    """Factors of one layer's tangent features ``Σ_t h_t δ_tᵀ``.

    Factors of different precision are both kept in double, so that products of them are in double precision. Two
    layers are equal only if they are the same object.

    Parameters
    ----------
    h : array of shape (n, T, p) or (n, p)
        Layer inputs at T positions (T = 1 when left out). A bias is a constant column of h.
    delta : array of shape (n, C, T, q), (n, C, q) or (n, q)
        Gradients of the C outputs with respect to what the layer puts out; C = 1 and T = 1 when left out,
        so that several positions always come with all four axes.

    Raises
    ------
    ValueError, TypeError
        Shapes that do not fit, an empty axis, NaN or infinity, values that are not real numbers.
    """

    h: np.ndarray
    delta: np.ndarray

    def __post_init__(self) -> None:
        h, delta = _real_array(self.h, "h"), _real_array(self.delta, "delta")
        if h.ndim not in (2, 3):
            raise ValueError(f"h must have shape (n, p) or (n, T, p); got {h.shape}.")
        if delta.ndim not in (2, 3, 4):
            raise ValueError(f"delta must have shape (n, q), (n, C, q) or (n, C, T, q); got {delta.shape}.")
        if h.ndim == 2:
            h = h[:, None, :]
        if delta.ndim == 2:
            delta = delta[:, None, :]
        if delta.ndim == 3:
            delta = delta[:, :, None, :]
        if len(h) != len(delta):
            raise ValueError(f"h and delta must have one row a sample each; got {len(h)} and {len(delta)} rows.")
        if h.shape[1] != delta.shape[2]:
            raise ValueError(
                f"h has {h.shape[1]} position(s) a sample and delta has {delta.shape[2]}; both need the same T: "
                "h of shape (n, T, p) goes with delta of shape (n, C, T, q)."
            )
        precision = np.result_type(h, delta)
        object.__setattr__(self, "h", h.astype(precision, copy=False))
        object.__setattr__(self, "delta", delta.astype(precision, copy=False))

    @property
    def n_samples(self) -> int:
        """Number of samples n."""
        return len(self.h)

    @property
    def n_outputs(self) -> int:
        """Number of outputs C of the network."""
        return self.delta.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (p, q) of the layer's weight matrix."""
        return self.h.shape[2], self.delta.shape[3]

    @property
    def n_positions(self) -> int:  # type: ignore[override]  # read alone, as those of the factors
        """Number of positions T."""
        return self.h.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Precision of both factors."""
        return np.result_type(self.h, self.delta)

    @property
    def size(self) -> int:
        """How many numbers both factors hold."""
        return self.h.size + self.delta.size

    @property
    def outer(self) -> tuple[Array, Array] | None:
        """The factors h and δ of a layer with one position; else None."""
        return (self.h[:, 0], self.delta[:, :, 0]) if self.n_positions == 1 else None

    def rows(self, index: Any) -> LayerFactors:
        """The factors of a subset of the samples (slice, integers or mask)."""
        return LayerFactors(self.h[index], self.delta[index])

    def output(self, index: int) -> LayerFactors:
        """The factors of one output of the network."""
        return LayerFactors(self.h, self.delta[:, index : index + 1])

    def stacked(self, n_outputs: int) -> LayerFactors:
        """Gradients of one output as those of `n_outputs` outputs, each in its own block of columns."""
        n, _, T, q = self.delta.shape
        stacked = np.zeros((n, n_outputs, T, n_outputs, q), dtype=self.delta.dtype)
        for c in range(n_outputs):
            stacked[:, c, :, c] = self.delta[:, 0]
        return LayerFactors(self.h, stacked.reshape(n, n_outputs, T, n_outputs * q))

    def astype(self, dtype: npt.DTypeLike) -> LayerFactors:
        """The factors in another precision."""
        if self.h.dtype == self.delta.dtype == dtype:
            return self
        return LayerFactors(self.h.astype(dtype, copy=False), self.delta.astype(dtype, copy=False))

    def transformed(self, left: Transform | None, right: Transform | None) -> LayerFactors:
        """The factors h M1 and δ M2; None leaves one as it is."""
        h = self.h if left is None else left.apply(self.h)
        return LayerFactors(h, self.delta if right is None else right.apply(self.delta))

    def scaled(self, factor: float) -> LayerFactors:
        """The features times a number."""
        return LayerFactors(self.h, self.delta * factor)

    def balanced(self, weight: float) -> LayerFactors:
        """h times a number and δ divided by it."""
        return LayerFactors(self.h * weight, self.delta / weight)

    def reduce(self) -> tuple[LayerFactors, Array | None, Array | None]:
        """The factors in bases of their spans, which a QR finds, and these bases; see `compact_factor`."""
        h, left = compact_factor(self.h)
        delta, right = compact_factor(self.delta)
        return LayerFactors(h, delta), left, right

    def largest(self) -> Array:
        """Largest absolute values of h and of δ."""
        return np.array([np.abs(self.h).max(), np.abs(self.delta).max()], dtype=np.float64)

    def input_basis(self, count: int | None = None) -> Array | None:
        """Orthonormal basis of the span of the first `count` columns of h, None where that is everything."""
        return reduced_factor(self.h[..., :count])[1]

    def product(self, coef: Array, n_outputs: int) -> Array:
        """Predictions of `n_outputs` outputs by coefficients of shape (p, q), or (p, C·q) for each its own."""
        if self.n_outputs > 1:
            product = np.einsum("ntp,pq->ntq", self.h, coef, optimize=True)
            return np.einsum("ntq,nctq->nc", product, self.delta)
        out = np.empty((self.n_samples, n_outputs), dtype=self.dtype)
        wide, narrow, blocks = self._by_width(coef)
        n, T, width = narrow.shape
        wide = wide.reshape(n * T, -1)
        for group in _output_groups(n_outputs, narrow.size):
            product = wide @ blocks[:, group].reshape(wide.shape[1], -1)
            out[:, group] = np.einsum("ntcw,ntw->nc", product.reshape(n, T, -1, width), narrow)
        return out

    def adjoint(self, residual: Array, shape: tuple[int, int]) -> Array:
        """Coefficients of that shape, the adjoint of `product` times `residual` of shape (n, C)."""
        if self.n_outputs > 1:
            combined = np.einsum("nc,nctq->ntq", residual, self.delta)
            return np.einsum("ntp,ntq->pq", self.h, combined, optimize=True)
        coef = np.empty(shape, dtype=self.dtype)
        wide, narrow, blocks = self._by_width(coef)
        n, T, width = narrow.shape
        wide = wide.reshape(n * T, -1)
        for group in _output_groups(residual.shape[1], narrow.size):
            weighted = (residual[:, None, group, None] * narrow[:, :, None, :]).reshape(n * T, -1)
            # BLAS takes up to a third less time for a result with long rows than for one with short rows.
            if weighted.shape[1] >= wide.shape[1]:
                blocks[:, group] = (wide.T @ weighted).reshape(wide.shape[1], -1, width)
            else:
                blocks[:, group] = (weighted.T @ wide).reshape(-1, width, wide.shape[1]).transpose(2, 0, 1)
        return coef

    def kernel(self, other: LayerFactors, per_output: bool) -> Array:
        """Kernel between these samples and those of `other`, per output or averaged over equal outputs."""
        h1, h2, d1, d2 = self.h, other.h, self.delta, other.delta
        (n1, T, p), n2, (C, q) = h1.shape, len(h2), d1.shape[1::2]
        if T == 1:
            inner = h1.reshape(n1, p) @ h2.reshape(n2, p).T
            if not per_output:
                inner *= d1.reshape(n1, C * q) @ d2.reshape(n2, C * q).T
                return inner / C
            gradients = (d1.reshape(n1 * C, q) @ d2.reshape(n2 * C, q).T).reshape(n1, C, n2, C)
            return (inner[:, None, :, None] * gradients).reshape(n1 * C, n2 * C)
        inner = np.tensordot(h1, h2, axes=(2, 2))
        if per_output:
            gradients = np.tensordot(d1, d2, axes=(3, 3))
            return np.einsum("itjs,ictjds->icjd", inner, gradients).reshape(n1 * C, n2 * C)
        gradients = sum(np.tensordot(d1[:, c], d2[:, c], axes=(2, 2)) for c in range(C))
        return np.einsum("itjs,itjs->ij", inner, gradients) / C

    def squares(self) -> Array:
        """Squared norm of every feature, shape (n, C)."""
        positions = np.einsum("ntp,nsp->nts", self.h, self.h)
        gradients = np.einsum("nctq,ncsq->ncts", self.delta, self.delta)
        return np.einsum("nts,ncts->nc", positions, gradients)

    def projected(self, left: Array, right: Array, n_outputs: int) -> Array:
        """Features in two bases, ``leftᵀ Φ right``, samples along contiguous memory; shape (m, k, n, n_outputs)."""
        if self.n_outputs == n_outputs:
            delta = self.delta @ right
        else:
            blocks = right.reshape(n_outputs, -1, right.shape[1])
            delta = np.einsum("ntq,cqk->nctk", self.delta[:, 0], blocks, optimize=True)
        h = np.ascontiguousarray((self.h @ left).transpose(1, 2, 0))
        delta = np.ascontiguousarray(delta.transpose(2, 3, 0, 1))
        return sum(one[:, None, :, None] * other for one, other in zip(h, delta, strict=True))

    def _by_width(self, coef: Array) -> tuple[Array, Array, Array]:
        """Wide and narrow factor of a layer with one output, and a view (wide, C, narrow) of its coefficients.

        A product is a matrix product with the wide factor and elementwise work with the narrow one: which of the
        two is h makes no difference to the former, but the latter is bound by memory.
        """
        h, delta = self.h, self.delta[:, 0]
        blocks = coef.reshape(h.shape[2], -1, delta.shape[2])
        return (h, delta, blocks) if delta.shape[2] <= h.shape[2] else (delta, h, blocks.transpose(2, 1, 0))


def _output_groups(n_outputs: int, floats: int) -> list[slice]:
    """Outputs in groups of bounded temporaries: as few products as possible, each as large as reasonable."""
    size = max(1, _GROUP_FLOATS // floats)
    return [slice(c, min(c + size, n_outputs)) for c in range(0, n_outputs, size)]


def reduced_factor(factor: Array) -> tuple[Array, Array | None]:
    """Factor in an orthonormal basis of its span, in double precision, and the basis (None where nothing is gained)."""
    flat = factor.reshape(-1, factor.shape[-1])
    if len(flat) >= flat.shape[1]:
        return factor, None
    flat = flat.astype(np.float64, copy=False)
    basis, triangle = np.linalg.qr(flat.T)
    return triangle.T.reshape(*factor.shape[:-1], -1), basis


def compact_factor(factor: Array) -> tuple[Array, Array | None]:
    """Like `reduced_factor`, and where many columns are zero, as pixels that no sample uses are, without these."""
    used: Array = np.any(factor.reshape(-1, factor.shape[-1]), axis=0)
    used[0] |= not used.any()
    if used.mean() > _USED:
        return reduced_factor(factor)
    reduced, inner = reduced_factor(factor[..., used])
    basis = np.zeros((len(used), reduced.shape[-1]))
    basis[used] = np.eye(reduced.shape[-1]) if inner is None else inner
    return reduced, basis


def singular_vectors(coef: Array, basis: Array | None) -> tuple[Array, Array, Array]:
    """Thin SVD of a layer's coefficients whose columns lie in the span of a basis (None: anywhere).

    Only as many singular values are sought as the basis is wide; the others are zero.
    """
    if basis is None:
        return thin_svd(coef)
    u, v, vt = thin_svd(basis.T @ coef)
    return basis @ u, v, vt


def rotate(coef: Array, left: Array | None, right: Array | None, shape: tuple[int, ...]) -> Array:
    """``left @ coef @ rightᵀ`` of that shape, with the same `right` for every output's block (None: identity)."""
    if left is not None:
        coef = left @ coef
    if right is not None:
        coef = (coef.reshape(shape[0], -1, right.shape[1]) @ right.T).reshape(shape)
    return coef


def transpose(basis: Array | None) -> Array | None:
    """Transpose of a basis that may be missing."""
    return None if basis is None else basis.T


def _real_array(values: Any, name: str) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers; got dtype {array.dtype}.")
    if array.dtype != np.float32:
        array = array.astype(np.float64, copy=False)
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} contains NaN or infinity; remove or impute those samples first.")
    return array
