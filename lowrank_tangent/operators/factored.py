"""The linear map from layer coefficients to predictions, through its factors.

The tangent feature of layer l, sample i and output c is ``Σ_t h[i, t] delta[i, c, t]ᵀ`` (p × q), so the
map and its adjoint need the factors alone; the n·C × P Jacobian is never formed.
"""

from __future__ import annotations

import copy
from numbers import Integral

import numpy as np
from sklearn.utils import gen_batches

from ..linalg.memory import check_fits_in_memory
from .layers import LayerFactors, compact_factor, kernel_block, rotate, stacked_outputs, transpose
from .rows import WeightedRows

#: Rows of a kernel block: large enough for BLAS to run at full speed, small enough to keep the temporaries
#: of one block far below the kernel itself.
_BLOCK_ROWS = 1024
#: Bytes of factors that are converted to another precision at a time.
_BATCH_BYTES = 2**26


class TangentOperator(WeightedRows):
    """Linear operator ``(A B)[i, c] = Σ_l Σ_t h_{i,t}ᵀ B_l delta_{i,c,t}`` in factored form.

    Parameters
    ----------
    layers : sequence of LayerFactors
    outputs : {"network", "shared"}, default="network"
        "network": the network has C outputs, each layer one coefficient matrix of shape (p, q).
        "shared": the network has one output and each of the `n_outputs` targets its own coefficients; a
        layer's matrix is their stack ``[B^(1) … B^(C)]`` of shape (p, C·q).
    n_outputs : int, optional
        Number of targets C; needed for "shared", taken from the factors for "network".

    Attributes
    ----------
    layers : tuple of LayerFactors
    row_scale, centred
        Weights and intercept, see `WeightedRows`.
    dtype : numpy dtype
        Precision of products, double whatever that of the factors; see `with_precision`.

    Notes
    -----
    One product costs 4·n·T·p·q operations (times C for "shared"), and memory beyond factors and
    coefficients is O(n·T·q). Source: arXiv 2308.15478, section 2.
    """

    def __init__(self, layers, outputs="network", n_outputs=None):
        layers = tuple(layers)
        if not layers or not all(isinstance(layer, LayerFactors) for layer in layers):
            raise TypeError("layers must be a non-empty sequence of LayerFactors(h, delta).")
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
        self.outputs = outputs
        self.n_samples = layers[0].n_samples
        self.n_outputs = network_outputs if outputs == "network" else int(n_outputs or 1)
        self.dtype = np.dtype(np.float64)

    #: Whether factors are computed anew whenever they are needed, and `layers` has their shapes alone.
    is_streamed = False

    @property
    def coef_shapes(self):
        """Shape of each layer's coefficient matrix."""
        copies = self.n_outputs if self.outputs == "shared" else 1
        return [(p, copies * q) for p, q in (layer.shape for layer in self.layers)]

    # -- derived operators ------------------------------------------------------------------

    def mapped(self, change, keep_rows=False):
        """The operator with other factors; weights and centring are kept only on demand.

        Parameters
        ----------
        change : callable
            Makes of a list of LayerFactors another one. It may be called for some of the samples at a time.
        keep_rows : bool, default=False
        """
        other = copy.copy(self) if keep_rows else self._plain()
        other.layers = tuple(change(self.layers))
        return other

    def rows(self, index):
        """The operator on a subset of the samples, without weights or centring."""
        other = self.mapped(lambda layers: [layer.rows(index) for layer in layers])
        other.n_samples = other.layers[0].n_samples
        return other

    def scaled(self, factor):
        """The operator with every feature multiplied by `factor`, without weights or centring."""
        return self.mapped(lambda layers: [LayerFactors(layer.h, layer.delta * factor) for layer in layers])

    def weighted(self, sample_weight=None, centre=False):
        """The operator of the weighted regression, with an intercept if `centre`, see `rows.py`.

        Parameters
        ----------
        sample_weight : ndarray of shape (n,), optional
        centre : bool
        """
        weighted = self._plain()
        weighted.row_scale = None if sample_weight is None else np.sqrt(sample_weight)
        weighted.centred = centre
        return weighted

    def _plain(self):
        """A copy without weights or centring."""
        plain = copy.copy(self)
        plain.row_scale, plain.centred = None, False
        return plain

    def transformed(self, left, right):
        """The operator on features ``M1 Φ M2``.

        Parameters
        ----------
        left, right : sequence of LowRankTransform, one per layer
            M1 of size p and M2 as wide as the layer's coefficient matrix. For "shared" outputs an M2 that
            is not the identity ties the outputs together; the result then has "network" outputs.
        """
        expand = self.outputs == "shared" and not all(transform.is_identity for transform in right)

        def change(layers):
            for layer, m1, m2 in zip(layers, left, right, strict=True):
                delta = stacked_outputs(layer.delta, self.n_outputs) if expand else layer.delta
                yield LayerFactors(m1.apply(layer.h), m2.apply(delta))

        transformed = self.mapped(change, keep_rows=True)
        transformed.outputs = "network" if expand else self.outputs
        return transformed

    def reduce(self):
        """Exact reduction to the span of the factors.

        Coefficients outside span(h) × span(delta) never help, and unitarily invariant penalties do not see
        the choice of basis, so a QR of the factors shrinks a layer whose n·T is below p (or q). Inputs or units that
        are zero in every sample are left out, if at least a tenth of them are.

        Returns
        -------
        operator : TangentOperator
            With the same predictions on rotated coefficients.
        expand, compress : callable
            Map coefficients of the reduced operator to coefficients of this one, and back (by projection).
        """
        layers, bases = [], []
        for layer in self.layers:
            h, basis_h = compact_factor(layer.h)
            delta, basis_delta = compact_factor(layer.delta)
            layers.append(LayerFactors(h, delta))
            bases.append((basis_h, basis_delta))

        reduced = self.mapped(lambda _: layers, keep_rows=True)

        def expand(coefs):
            return [
                rotate(coef, basis_h, basis_delta, shape)
                for coef, (basis_h, basis_delta), shape in zip(coefs, bases, self.coef_shapes, strict=True)
            ]

        def compress(coefs):
            return [
                rotate(coef, transpose(basis_h), transpose(basis_delta), shape)
                for coef, (basis_h, basis_delta), shape in zip(coefs, bases, reduced.coef_shapes, strict=True)
            ]

        return reduced, expand, compress

    def with_precision(self, dtype, balance=None):
        """The operator with products (and factors, if they are kept) of another precision.

        Parameters
        ----------
        dtype : numpy dtype
        balance : sequence of float, optional
            Factor by which each layer's h is multiplied and its delta divided.
        """

        def change(layers):
            for layer, weight in zip(layers, balance or [1.0] * len(layers), strict=True):
                if weight != 1.0:
                    layer = LayerFactors(layer.h * weight, layer.delta / weight)
                yield layer.astype(dtype)

        other = self.mapped(change, keep_rows=True)
        other.dtype = np.dtype(dtype)
        if self.row_scale is not None:
            other.row_scale = self.row_scale.astype(dtype)
        return other

    def batches(self):
        """The samples, as many at a time as memory is for: pairs of a slice and their factors in the precision of A."""
        if all(layer.dtype == self.dtype for layer in self.layers):
            yield slice(0, self.n_samples), self.layers
            return
        floats = sum(layer.h.size + layer.delta.size for layer in self.layers) / self.n_samples
        for rows in gen_batches(self.n_samples, max(1, int(_BATCH_BYTES / (8 * floats)))):
            yield rows, [layer.rows(rows).astype(self.dtype) for layer in self.layers]

    # -- products ---------------------------------------------------------------------------

    def zeros(self):
        """Coefficients B = 0."""
        return [np.zeros(shape) for shape in self.coef_shapes]

    def matvec(self, coefs):
        """Predictions A B.

        Parameters
        ----------
        coefs : list of ndarray, one per layer, of shapes `coef_shapes`

        Returns
        -------
        ndarray of shape (n, C)
        """
        self._check_coefs(coefs)
        coefs = [np.asarray(coef, dtype=self.dtype) for coef in coefs]
        out = np.empty((self.n_samples, self.n_outputs), dtype=self.dtype)
        for rows, layers in self.batches():
            out[rows] = sum(layer.product(coef, self.n_outputs) for layer, coef in zip(layers, coefs, strict=True))
        return self.to_rows(out)

    def rmatvec(self, residual):
        """Adjoint A* R.

        Parameters
        ----------
        residual : ndarray of shape (n, C)

        Returns
        -------
        list of ndarray, one per layer, of shapes `coef_shapes`
        """
        residual = np.asarray(residual, dtype=self.dtype)
        if residual.shape != (self.n_samples, self.n_outputs):
            raise ValueError(
                f"residual must have shape (n, C) = {(self.n_samples, self.n_outputs)}; got {residual.shape}."
            )
        residual = self.from_rows(residual)
        coefs = []
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

    def gram(self, other=None):
        """Kernel A A'*.

        Parameters
        ----------
        other : TangentOperator, optional
            Of the same network; this operator itself by default.

        Returns
        -------
        ndarray of shape (n·C, n'·C), row i·C + c for sample i and output c

        Raises
        ------
        MemoryError
            If the kernel is larger than the memory of the machine; the message says the size.
        """
        if self.outputs == "shared":
            size = self.n_outputs
            n_other = (other or self).n_samples
            check_fits_in_memory((self.n_samples * size, n_other * size), "the kernel of all outputs")
            kernel = self.mean_gram(other)
            return np.kron(kernel, np.eye(size, dtype=kernel.dtype))
        return self._assemble(other, per_output=True)

    def mean_gram(self, other=None):
        """Kernel of the samples, averaged over outputs: ``K[i, j] = (1/C) Σ_c (A A'*)[(i, c), (j, c)]``.

        For "shared" outputs this is the kernel of every single output, and the full kernel is its
        Kronecker product with the identity.

        Returns
        -------
        ndarray of shape (n, n')
        """
        return self._assemble(other, per_output=False)

    def diagonal(self):
        """Squared norm of every tangent feature, without weights or centring; shape (n, C)."""
        total = np.zeros((self.n_samples, self.layers[0].n_outputs))
        for rows, layers in self.batches():
            for layer in layers:
                positions = np.einsum("ntp,nsp->nts", layer.h, layer.h)
                gradients = np.einsum("nctq,ncsq->ncts", layer.delta, layer.delta)
                total[rows] += np.einsum("nts,ncts->nc", positions, gradients)
        return np.broadcast_to(total, (self.n_samples, self.n_outputs))

    def largest(self):
        """Largest absolute values of h and of delta, shape (n_layers, 2)."""
        return np.max([[layer.largest() for layer in layers] for _, layers in self.batches()], axis=0)

    def _assemble(self, other, per_output):
        symmetric = other is None or other is self
        other = self if symmetric else other
        if [layer.shape for layer in other.layers] != [layer.shape for layer in self.layers]:
            raise ValueError("both operators must come from the same network: their layers differ in shape.")
        block = self.layers[0].n_outputs if per_output else 1
        shape = (self.n_samples * block, other.n_samples * block)
        check_fits_in_memory(shape, "the kernel")
        kernel = np.empty(shape, dtype=np.result_type(self.dtype, other.dtype))
        step = max(1, _BLOCK_ROWS // (block * max(layer.n_positions for layer in self.layers)))
        for rows, these in self._blocks(step):
            for cols, those in other._blocks(step):
                # Of a symmetric kernel the blocks above the diagonal are mirrored, not computed.
                if symmetric and cols.start < rows.start:
                    continue
                part = sum(kernel_block(one, two, per_output) for one, two in zip(these, those, strict=True))
                row, col = (slice(block * span.start, block * span.stop) for span in (rows, cols))
                kernel[row, col] = part
                if symmetric and cols.start > rows.start:
                    kernel[col, row] = part.T
        kernel = self.to_rows(kernel.reshape(self.n_samples, -1)).reshape(shape)
        transposed = np.ascontiguousarray(kernel.T).reshape(other.n_samples, -1)
        return other.to_rows(transposed).reshape(shape[::-1]).T if other.changes_rows else kernel

    def _blocks(self, step):
        """Pairs of a slice of at most so many samples and their factors."""
        for rows, layers in self.batches():
            for part in gen_batches(rows.stop - rows.start, step):
                samples = slice(rows.start + part.start, rows.start + part.stop)
                yield samples, [layer.rows(part) for layer in layers]

    def _check_coefs(self, coefs):
        shapes = [np.shape(coef) for coef in coefs]
        if shapes != self.coef_shapes:
            raise ValueError(f"coefs must have one matrix a layer, of shapes {self.coef_shapes}; got {shapes}.")
