"""n × n kernels of features stretched on the smaller side of each layer, averaged over outputs.

Stretching one factor of a layer leaves the inner products of the other as they are. They are computed once, so that a
new stretch costs n² operations for each entry of the smaller factor, and elementwise work.
"""

from __future__ import annotations

import numpy as np

from .._memory import physical_memory
from ..operators import LayerFactors

#: Largest number of samples for which n × n kernels are formed, and the largest share of the memory that they may take.
_KERNEL_SAMPLES = 12_000
_KERNEL_SHARE = 0.25

#: Entries of a short row, and rows of a block of a kernel of long ones.
_SHORT_ROW = 128
_BLOCK_ROWS = 512


def kernel_fits(design):
    """Whether the n × n kernels of every layer and some of their sums are to be formed at all."""
    kernels = 2 * len(design.layers) + 3
    size = 4.0 * kernels * design.n_samples**2
    return not design.is_streamed and design.n_samples <= _KERNEL_SAMPLES and size <= _KERNEL_SHARE * physical_memory()


class StretchedKernels:
    """Kernels of one set of features at changing stretches, in the precision of the features.

    Averaging over outputs is exact where all of them share the stretch, as on the left of "shared" features.

    Parameters
    ----------
    design : TangentOperator
    """

    def __init__(self, design):
        self._design = design
        self._unstretched = {}
        self._latest = {}

    def of_layer(self, index, spectrum):
        """Kernel of a layer with one position and one output, or outputs that share it; shape (n, n), to be read only.

        Weights and centring of the samples are left out.
        """
        if index in self._latest and self._latest[index][0] is spectrum:
            return self._latest[index][1]
        layer = self._design.layers[index].astype(self._design.dtype)
        h, delta = layer.h[:, 0], layer.delta[:, 0, 0]
        rows, others = (delta, h) if spectrum.transposed else (h, delta)
        if index not in self._unstretched:
            self._unstretched[index] = gram(others)
        rows = rows @ _stretch(rows.shape[1], spectrum).astype(rows.dtype)
        if rows.shape[1] == 1:
            kernel = self._unstretched[index] * rows
            kernel *= rows.T
        else:
            kernel = gram(rows)
            kernel *= self._unstretched[index]
        self._latest[index] = spectrum, kernel
        return kernel

    def mean(self, point):
        """Kernel of all layers with weights and centring of the samples; shape (n, n)."""
        design = self._design
        if any(layer.n_outputs > 1 or layer.n_positions > 1 for layer in design.layers):
            return stretched(design, point).mean_gram()
        kernel = self.of_layers(range(len(design.layers)), point)
        return design.to_rows(design.to_rows(kernel).T) if design.changes_rows else kernel

    def of_layers(self, indices, point):
        """Sum of `of_layer`."""
        first, *others = indices
        kernel = self.of_layer(first, point.layers[first]).copy()
        for index in others:
            kernel += self.of_layer(index, point.layers[index])
        return kernel


def stretched(design, point):
    """The operator with the smaller side of every layer stretched (and rotated), the same for all outputs."""
    stretches = [
        _stretch(layer.shape[spectrum.transposed], spectrum).astype(design.dtype)
        for layer, spectrum in zip(design.layers, point.layers, strict=True)
    ]

    def change(layers):
        for layer, spectrum, stretch in zip(layers, point.layers, stretches, strict=True):
            if spectrum.transposed:
                yield LayerFactors(layer.h, layer.delta @ stretch)
            else:
                yield LayerFactors(layer.h @ stretch, layer.delta)

    return design.mapped(change, keep_rows=True)


def _stretch(size, spectrum):
    """A root of Z, of that many rows; for stacked outputs of the mean of its diagonal blocks, which is that of each."""
    blocks = spectrum.basis.reshape(-1, size, spectrum.basis.shape[1]) * spectrum.stretch
    if len(blocks) == 1:
        return blocks[0]
    halves = np.hstack(list(blocks))
    values, basis = np.linalg.eigh(halves @ halves.T / len(blocks))
    return basis * np.sqrt(np.maximum(values, 0.0))


def gram(rows):
    """Inner products of rows; for short ones, mirroring one triangle would take longer than computing both."""
    n = len(rows)
    if rows.shape[1] <= _SHORT_ROW:
        return rows @ np.ascontiguousarray(rows.T)
    gram = np.empty((n, n), dtype=rows.dtype)
    for start in range(0, n, _BLOCK_ROWS):
        stop = start + _BLOCK_ROWS
        gram[start:stop, :stop] = rows[start:stop] @ rows[:stop].T
        gram[:start, start:stop] = gram[start:stop, :start].T
    return gram
