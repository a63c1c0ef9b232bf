"""n × n kernels of features stretched on the smaller side of each layer, averaged over outputs.

Stretching one factor of a layer leaves the inner products of the other as they are. They are computed once, so that a
new stretch costs n² operations for each entry of the smaller factor, and elementwise work.
"""

from __future__ import annotations

import numpy as np
from sklearn.utils import gen_batches

from ...linalg.memory import available_memory
from ...linalg.transforms import ProductTransform
from ...operators import TangentOperator
from . import costs
from .pairs import product

#: Entries of a block of rows of a kernel.
_BLOCK_ENTRIES = 2**18


def kernel_fits(design, others=0):
    """Whether the n × n kernels of every layer, some of their sums and so many others are to be formed at all."""
    n, kernels = design.n_samples, len(design.layers) + 4 + others
    fits = n <= costs.KERNEL_SAMPLES and 4.0 * kernels * n**2 <= costs.KERNEL_SHARE * available_memory()
    return fits and bool(design.layers) and not design.is_streamed


def is_outer(layer):
    """Whether the features of a layer are outer products of one output, whose two factors are known."""
    return layer.n_outputs == 1 and layer.outer is not None


class StretchedKernels:
    """Kernels of one set of features at changing stretches, in the precision of the features.

    Averaging over outputs is exact where all of them share the stretch, as on the left of "shared" features. Results
    are kept in the same memory for every point: new arrays of this size cost more than what is computed in them.

    Parameters
    ----------
    design : TangentOperator
    """

    def __init__(self, design):
        self._design = design
        self._unstretched = {}
        self._latest = {}
        self._arrays = {}

    def of_layers(self, indices, point):
        """Sum of the kernels of layers with one position and one output, or outputs that share it; shape (n, n).

        To be read only, until the next point. Weights and centring of the samples are left out.
        """
        indices = tuple(indices)
        spectra = [point.layers[index] for index in indices]
        total, latest = self._array(indices), self._latest.get(indices)
        if latest is None or any(one is not other for one, other in zip(latest, spectra, strict=True)):
            factors = [self._factors(*pair) for pair in zip(indices, spectra, strict=True)]
            for block in _row_blocks(total):
                for number, (rows, columns, unstretched) in enumerate(factors):
                    part = product(rows[block], columns)
                    if number == 0:
                        np.multiply(part, unstretched[block], out=total[block])
                    else:
                        part *= unstretched[block]
                        total[block] += part
            self._latest[indices] = spectra
        return total

    def mean(self, point, pairs=()):
        """Kernel of all layers with weights and centring of the samples; shape (n, n), overwritten by the next one.

        Parameters
        ----------
        point : PrimalPoint
        pairs : sequence of PairKernel, optional
            To be added, for one output.
        """
        design, mean = self._design, self._array("mean")
        if not all(is_outer(layer) for layer in design.layers):
            mean[:] = stretched(design, point).mean_gram()
            return mean
        np.copyto(mean, self.of_layers(range(len(design.layers)), point))
        for rows in _row_blocks(mean) if pairs else ():
            for kernel in pairs:
                kernel.add_to(mean[rows, : rows.stop], rows)
            mean[: rows.start, rows] = mean[rows, : rows.start].T
        return design.to_rows_and_columns(mean)

    def _factors(self, index, spectrum):
        """The factor that a layer stretches, stretched, its transpose, and the inner products of the other one."""
        h, delta = self._design.layers[index].astype(self._design.dtype).outer
        rows, others = (delta[:, 0], h) if spectrum.transposed else (h, delta[:, 0])
        if index not in self._unstretched:
            self._unstretched[index] = others @ others.T
        rows = rows @ stretch_root(rows.shape[1], spectrum).astype(rows.dtype)
        return rows, np.ascontiguousarray(rows.T), self._unstretched[index]

    def _array(self, name):
        """An n × n array that is kept under this name."""
        if name not in self._arrays:
            self._arrays[name] = np.empty((self._design.n_samples,) * 2, dtype=self._design.dtype)
        return self._arrays[name]


def _row_blocks(kernel):
    """Slices of a few rows each, so that what is computed of them stays in the cache."""
    return gen_batches(len(kernel), max(1, _BLOCK_ENTRIES // len(kernel)))


def stretched(design, point):
    """The operator with the smaller side of every layer stretched (and rotated), the same for all outputs."""
    sides = []
    for layer, spectrum in zip(design.layers, point.layers, strict=True):
        stretch = ProductTransform(stretch_root(layer.shape[spectrum.transposed], spectrum).astype(design.dtype))
        sides.append((None, stretch) if spectrum.transposed else (stretch, None))

    def change(layers):
        return [layer.transformed(*pair) for layer, pair in zip(layers, sides, strict=True)]

    return design.mapped(change, keep_rows=True)


def output_kernels(design, point):
    """Kernel of the stretched features of one output of the network after the other; without what changes rows."""
    features = stretched(design, point).layers
    for c in range(design.n_outputs):
        yield TangentOperator(layer.output(c) for layer in features).with_precision(design.dtype).mean_gram()


def stretch_root(size, spectrum):
    """A root of Z, of that many rows; for stacked outputs of the mean of its diagonal blocks, which is that of each."""
    blocks = spectrum.basis.reshape(-1, size, spectrum.basis.shape[1]) * spectrum.stretch
    if len(blocks) == 1:
        return blocks[0]
    halves = np.hstack(list(blocks))
    values, basis = np.linalg.eigh(halves @ halves.T / len(blocks))
    return basis * np.sqrt(np.maximum(values, 0.0))
