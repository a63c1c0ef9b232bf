"""The linear map from layer coefficients to predictions, through its layers.

The tangent feature of layer l, sample i and output c is ``Σ_t h[i, t] delta[i, c, t]ᵀ`` (p × q), so the
map and its adjoint need the factors alone; the n·C × P Jacobian is never formed.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import gen_batches

from .._types import Array, Coefs
from ..linalg.memory import check_fits_in_memory
from ..linalg.transforms import LowRankTransform
from .base import Operator
from .layer import Layer, Transform
from .layers import rotate, transpose

if TYPE_CHECKING:
    from typing_extensions import Self

#: Samples and their features, layer by layer.
Batch = tuple[slice, Sequence[Layer]]

#: Rows of a kernel block: large enough for BLAS to run at full speed, small enough to keep the temporaries
#: of one block far below the kernel itself.
_BLOCK_ROWS = 1024
#: Share of a kernel's memory that features may take while it is assembled: those of more samples are computed (or
#: converted) anew for every group of rows, so that the passes over them grow in proportion to the samples.
_KEPT_SHARE = 0.5
#: Bytes of factors that are converted to another precision at a time.
_BATCH_BYTES = 2**26


class TangentOperator(Operator):
    """Linear operator ``(A B)[i, c] = Σ_l Σ_t h_{i,t}ᵀ B_l delta_{i,c,t}`` in factored form.

    Parameters
    ----------
    layers : sequence of Layer
        `LayerFactors`, or another class of layers.
    outputs : {"network", "shared"}, default="network"
        "network": the network has C outputs, each layer one coefficient matrix of shape (p, q).
        "shared": the network has one output and each of the `n_outputs` targets its own coefficients; a
        layer's matrix is their stack ``[B^(1) … B^(C)]`` of shape (p, C·q).
    n_outputs : int, optional
        Number of targets C; needed for "shared", taken from the factors for "network".

    Attributes
    ----------
    layers : tuple of Layer
    row_scale, centred
        Weights and intercept, see `WeightedRows`.
    dtype : numpy dtype
        Precision of products, double whatever that of the factors; see `with_precision`.

    Raises
    ------
    TypeError, ValueError
        What are not layers, layers of different numbers of samples or outputs, numbers of outputs that do not fit.

    Notes
    -----
    One product costs 4·n·T·p·q operations (times C for "shared"), and memory beyond factors and
    coefficients is O(n·T·q). Source: arXiv 2308.15478, section 2.
    """

    def __init__(self, layers: Iterable[Layer], outputs: str = "network", n_outputs: int | None = None) -> None:
        layers = tuple(layers)
        if not layers or not all(isinstance(layer, Layer) for layer in layers):
            raise TypeError("layers must be a non-empty sequence of LayerFactors(h, delta), or of another Layer.")
        if len({(layer.n_samples, layer.n_outputs) for layer in layers}) > 1:
            given = [(layer.n_samples, layer.n_outputs) for layer in layers]
            raise ValueError(f"all layers need the same number of samples and outputs; got (n, C) = {given}.")
        if outputs not in ("network", "shared"):
            raise ValueError(f"outputs must be 'network' or 'shared'; got {outputs!r}.")
        network_outputs = layers[0].n_outputs
        if outputs == "shared" and network_outputs != 1:
            raise ValueError(
                f"outputs='shared' needs a network with one output; delta has {network_outputs}. "
                "Use outputs='network' for features of a network with several outputs."
            )
        if outputs == "network" and n_outputs not in (None, network_outputs):
            raise ValueError(
                f"delta has {network_outputs} output(s) but n_outputs={n_outputs}; to give each of {n_outputs} "
                "targets its own coefficients on the same features use outputs='shared'."
            )
        if n_outputs is not None and (not isinstance(n_outputs, Integral) or n_outputs < 1):
            raise ValueError(f"n_outputs must be a positive integer; got {n_outputs!r}.")
        self.layers = layers
        self.outputs = "shared" if outputs == "shared" else "network"
        self.n_samples = layers[0].n_samples
        self.n_outputs = network_outputs if outputs == "network" else int(n_outputs or 1)
        self.dtype = np.dtype(np.float64)

    @property
    def coef_shapes(self) -> list[tuple[int, int]]:  # type: ignore[override]  # follows from the layers
        """Shape of each layer's coefficient matrix."""
        copies = self.n_outputs if self.outputs == "shared" else 1
        return [(p, copies * q) for p, q in (layer.shape for layer in self.layers)]

    # -- derived operators ------------------------------------------------------------------

    def mapped(self, change: Callable[[Sequence[Layer]], Iterable[Layer]], keep_rows: bool = False) -> TangentOperator:
        """The operator with other layers; weights and centring are kept only on demand.

        Parameters
        ----------
        change : callable
            From a list of layers to another list of as many samples. A stream calls it batch by batch.
        keep_rows : bool, default=False
        """
        other = copy.copy(self) if keep_rows else self.plain()
        other.layers = tuple(change(self.layers))
        return other

    def some_layers(self, indices: Sequence[int]) -> TangentOperator | None:
        """The operator of some of the layers, with weights and centring; None without any."""
        return self.mapped(partial(_selected, indices=tuple(indices)), keep_rows=True) if len(indices) else None

    def rows(self, index: Any) -> TangentOperator:
        """The operator on a subset of the samples, without weights or centring."""
        other = self.mapped(lambda layers: [layer.rows(index) for layer in layers])
        other.n_samples = other.layers[0].n_samples
        return other

    def scaled(self, factor: float) -> TangentOperator:
        """The operator with every feature multiplied by `factor`, without weights or centring."""
        return self.mapped(partial(_scaled, factor=factor))

    def weighted(self, sample_weight: Array | None = None, centre: bool = False) -> TangentOperator:
        """The operator of the weighted regression, with an intercept if `centre`, see `rows.py`.

        Parameters
        ----------
        sample_weight : ndarray of shape (n,), optional
        centre : bool
        """
        weighted = self.plain()
        weighted.row_scale = None if sample_weight is None else np.sqrt(sample_weight)
        weighted.centred = centre
        return weighted

    def plain(self) -> Self:
        """A copy without weights or centring."""
        plain = copy.copy(self)
        plain.row_scale, plain.centred = None, False
        return plain

    def transformed(self, left: Sequence[LowRankTransform], right: Sequence[LowRankTransform]) -> TangentOperator:
        """The operator on features ``M1 Φ M2``, see `Operator.transformed`."""
        tied = self.outputs == "shared" and not all(transform.is_identity for transform in right)
        copies = self.n_outputs if tied else None
        transformed = self.mapped(partial(_transformed, left=left, right=right, copies=copies), keep_rows=True)
        transformed.outputs = "network" if tied else self.outputs
        return transformed

    def reduce(self) -> tuple[TangentOperator, Callable[[Coefs], Coefs], Callable[[Coefs], Coefs]]:
        """Exact reduction to the span of the features.

        Coefficients outside the span never help, and unitarily invariant penalties do not see the choice of basis. So
        a QR of the factors shrinks a layer whose n·T is below p or q. Inputs or units that are zero in every sample
        are left out, if at least a tenth of them are.

        Returns
        -------
        operator : TangentOperator
            With the same predictions on rotated coefficients.
        expand, compress : callable
            Map coefficients of the reduced operator to coefficients of this one, and back (by projection).
        """
        layers, lefts, rights = zip(*(layer.reduce() for layer in self.layers), strict=True)
        reduced = self.mapped(lambda _: layers, keep_rows=True)

        def expand(coefs: Coefs) -> Coefs:
            return [rotate(*each) for each in zip(coefs, lefts, rights, self.coef_shapes, strict=True)]

        def compress(coefs: Coefs) -> Coefs:
            back = (map(transpose, bases) for bases in (lefts, rights))
            return [rotate(*each) for each in zip(coefs, *back, reduced.coef_shapes, strict=True)]

        return reduced, expand, compress

    @property
    def input_bases(self) -> list[Array | None]:
        """Orthonormal basis of the span of every layer's inputs; None where that is everything."""
        return [layer.input_basis() for layer in self.layers]

    def with_precision(self, dtype: npt.DTypeLike, balance: Sequence[float] | None = None) -> TangentOperator:
        """The operator with products (and features, if they are kept) of another precision.

        Parameters
        ----------
        dtype : numpy dtype
        balance : sequence of float, optional
            Factor by which each layer's first factor is multiplied and its second divided.
        """
        weights = balance or [1.0] * len(self.layers)
        other = self.mapped(partial(_converted, weights=weights, dtype=dtype), keep_rows=True)
        other.dtype = np.dtype(dtype)
        if self.row_scale is not None:
            other.row_scale = self.row_scale.astype(dtype)
        return other

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """The samples from `start` on, as many at a time as memory is for, in the precision of A."""
        if all(layer.dtype == self.dtype for layer in self.layers):
            rest = slice(start, self.n_samples)
            yield rest, (self.layers if start == 0 else [layer.rows(rest) for layer in self.layers])
            return
        floats = sum(layer.size for layer in self.layers) / self.n_samples
        for rows in self._slices(start, max(1, int(_BATCH_BYTES / (8 * floats)))):
            yield rows, [layer.rows(rows).astype(self.dtype) for layer in self.layers]

    def _slices(self, start: int, size: int) -> Iterator[slice]:
        """Slices of at most so many samples, from `start` on."""
        for rows in gen_batches(self.n_samples - start, size):
            yield slice(start + rows.start, start + rows.stop)

    # -- products ---------------------------------------------------------------------------

    def matvec(self, coefs: Coefs) -> Array:
        """Predictions A B, see `Operator.matvec`."""
        self._check_coefs(coefs)
        coefs = [np.asarray(coef, dtype=self.dtype) for coef in coefs]
        out = np.empty((self.n_samples, self.n_outputs), dtype=self.dtype)
        for rows, layers in self.batches():
            out[rows] = sum(layer.product(coef, self.n_outputs) for layer, coef in zip(layers, coefs, strict=True))
        return self.to_rows(out)

    def rmatvec(self, residual: Array) -> Coefs:
        """Adjoint A* R, see `Operator.rmatvec`."""
        residual = np.asarray(residual, dtype=self.dtype)
        if residual.shape != (self.n_samples, self.n_outputs):
            raise ValueError(
                f"residual must have shape (n, C) = {(self.n_samples, self.n_outputs)}; got {residual.shape}."
            )
        residual = self.from_rows(residual)
        coefs: Coefs = []
        for rows, layers in self.batches():
            parts = [
                layer.adjoint(residual[rows], shape) for layer, shape in zip(layers, self.coef_shapes, strict=True)
            ]
            if not coefs:
                coefs = parts
                continue
            for coef, part in zip(coefs, parts, strict=True):
                coef += part
        return coefs

    # -- kernels ----------------------------------------------------------------------------

    def gram(self, other: Operator | None = None) -> Array:
        """Kernel A A'*, by blocks of samples, see `Operator.gram`. It is formed in memory, also of a stream."""
        if self.outputs == "shared":
            return super().gram(other)
        return self._assemble(other, per_output=True)

    def mean_gram(self, other: Operator | None = None) -> Array:
        """Kernel of the samples, averaged over outputs, see `Operator.mean_gram`. It is formed in memory."""
        return self._assemble(other, per_output=False)

    def diagonal(self) -> Array:
        """Squared norm of every feature, without weights or centring; shape (n, C)."""
        total = np.zeros((self.n_samples, self.layers[0].n_outputs))
        for rows, layers in self.batches():
            for layer in layers:
                total[rows] += layer.squares()
        return np.broadcast_to(total, (self.n_samples, self.n_outputs))

    def largest(self) -> Array:
        """Largest absolute values of both factors of every layer, shape (n_layers, 2); see `Layer.largest`."""
        return np.max([[layer.largest() for layer in layers] for _, layers in self.batches()], axis=0)

    def _assemble(self, other: Operator | None, per_output: bool) -> Array:
        symmetric = other is None or other is self
        others: Any = self if symmetric else other  # with batches, if it has layers of the same shapes
        if [layer.shape for layer in others.layers] != [layer.shape for layer in self.layers]:
            raise ValueError("both operators must come from the same network: their layers differ in shape.")
        block = self.layers[0].n_outputs if per_output else 1
        shape = (self.n_samples * block, others.n_samples * block)
        check_fits_in_memory(shape, "the kernel")
        kernel = np.empty(shape, dtype=np.result_type(self.dtype, others.dtype))
        step = max(1, _BLOCK_ROWS // (block * max(layer.n_positions for layer in self.layers)))
        for batches in self._groups(_KEPT_SHARE * kernel.nbytes):
            these = list(_blocks(batches, step))
            # Of a symmetric kernel the blocks above the diagonal are mirrored, not computed.
            columns, end = others.batches() if not symmetric else iter(batches), batches[-1][0].stop
            if symmetric and end < self.n_samples:
                columns = itertools.chain(columns, self.batches(end))
            for cols, those in _blocks(columns, step):
                for rows, layers in these:
                    if symmetric and cols.start < rows.start:
                        continue
                    part: Any = sum(one.kernel(two, per_output) for one, two in zip(layers, those, strict=True))
                    row, col = (slice(block * span.start, block * span.stop) for span in (rows, cols))
                    kernel[row, col] = part
                    if symmetric and cols.start > rows.start:
                        kernel[col, row] = part.T
        kernel = self.to_rows(kernel.reshape(self.n_samples, -1)).reshape(shape)
        transposed = np.ascontiguousarray(kernel.T).reshape(others.n_samples, -1)
        return others.to_rows(transposed).reshape(shape[::-1]).T if others.changes_rows else kernel

    def _groups(self, most_bytes: float) -> Iterator[list[Batch]]:
        """The batches, in groups whose features take at most that memory, or of one batch."""
        group: list[Batch] = []
        size = 0
        for batch in self.batches():
            bytes_of_batch = sum(layer.size * layer.dtype.itemsize for layer in batch[1])
            if group and size + bytes_of_batch > most_bytes:
                yield group
                group, size = [], 0
            group.append(batch)
            size += bytes_of_batch
        yield group

    def _check_coefs(self, coefs: Coefs) -> None:
        shapes = [np.shape(coef) for coef in coefs]
        if shapes != self.coef_shapes:
            raise ValueError(f"coefs must have one matrix a layer, of shapes {self.coef_shapes}; got {shapes}.")


def _blocks(batches: Iterable[Batch], step: int) -> Iterator[Batch]:
    """The batches in slices of at most so many samples."""
    for rows, layers in batches:
        for part in gen_batches(rows.stop - rows.start, step):
            samples = slice(rows.start + part.start, rows.start + part.stop)
            yield samples, [layer.rows(part) for layer in layers]


# Changes of layers, for `mapped`: functions of the module, so that operators can be pickled.


def _selected(layers: Sequence[Layer], indices: Sequence[int]) -> list[Layer]:
    return [layers[index] for index in indices]


def _scaled(layers: Sequence[Layer], factor: float) -> list[Layer]:
    return [layer.scaled(factor) for layer in layers]


def _transformed(
    layers: Sequence[Layer], left: Sequence[Transform], right: Sequence[Transform], copies: int | None
) -> list[Layer]:
    """M1 Φ M2, of one output or of so many copies of it."""
    stacked = layers if copies is None else [layer.stacked(copies) for layer in layers]
    return [layer.transformed(m1, m2) for layer, m1, m2 in zip(stacked, left, right, strict=True)]


def _converted(layers: Sequence[Layer], weights: Sequence[float], dtype: npt.DTypeLike) -> list[Layer]:
    """The layers in another precision, balanced by these weights."""
    pairs = zip(layers, weights, strict=True)
    return [(layer if weight == 1.0 else layer.balanced(weight)).astype(dtype) for layer, weight in pairs]
