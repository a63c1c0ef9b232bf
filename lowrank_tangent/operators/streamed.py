"""An operator whose factors are computed anew, some samples at a time, wherever they are needed.

The factors of n samples take n·Σ(p + q) numbers, far more than samples and coefficients together. Computing them costs
about as much as a product with the coefficients of one output. No n × n kernel is formed of a stream.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from sklearn.utils import gen_batches

from .factored import TangentOperator


@dataclass(frozen=True)
class LayerShape:
    """What is known of a layer whose factors are not kept; attributes as those of `LayerFactors`."""

    n_samples: int
    n_outputs: int
    n_positions: int
    shape: tuple
    #: A stream has more samples than layers are wide, and nothing is gained by looking for their span.
    input_basis: None = None


class StreamedOperator(TangentOperator):
    """Tangent operator of samples whose factors are computed in batches; products need memory for one batch.

    Parameters
    ----------
    factors_of : callable
        Called with a slice or integers; returns the LayerFactors of these samples, one a layer.
    n_samples : int
    batch_size : int
        Samples whose factors are in memory at a time.
    outputs, n_outputs
        As for `TangentOperator`.
    """

    is_streamed = True

    def __init__(self, factors_of, n_samples, batch_size, outputs="network", n_outputs=None):
        super().__init__(factors_of(slice(0, 1)), outputs, n_outputs)
        self.n_samples = n_samples
        self._batch_size = batch_size
        self._stream(factors_of)

    def mapped(self, change, keep_rows=False):
        """The operator with other factors, changed batch by batch, see `TangentOperator.mapped`."""
        other = copy.copy(self) if keep_rows else self._plain()
        other._stream(lambda rows: list(change(self._factors_of(rows))))
        return other

    def rows(self, index):
        """The operator on a subset of the samples, whose factors are kept, without weights or centring."""
        kept = TangentOperator(
            self._factors_of(index), self.outputs, self.n_outputs if self.outputs == "shared" else None
        )
        kept.dtype = self.dtype
        return kept

    def reduce(self):
        """This operator itself, and maps that leave coefficients as they are."""
        return self, list, list

    def batches(self):
        """The samples of one batch after another: pairs of a slice and their factors in the precision of A."""
        for rows in gen_batches(self.n_samples, self._batch_size):
            yield rows, [layer.astype(self.dtype) for layer in self._factors_of(rows)]

    def _stream(self, factors_of):
        self._factors_of = factors_of
        self.layers = tuple(
            LayerShape(self.n_samples, layer.n_outputs, layer.n_positions, layer.shape)
            for layer in factors_of(slice(0, 1))
        )
