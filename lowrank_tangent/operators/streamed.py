"""An operator whose features are computed anew, some samples at a time, wherever they are needed.

The factors of n samples take n·Σ(p + q) numbers, far more than samples and coefficients together. Computing them costs
about as much as a product with the coefficients of one output.

Products need the memory of one batch. `gram` and `mean_gram` form an n × n kernel as they do of every operator, and so
do "ridge", "reweighted", the start of "proximal" for a penalty that is not convex, and the leave-one-out error. Of a
problem with n·C > n rows of its own they have n·C × n·C. "newton", and "proximal" for convex penalties, do not, and
``method="auto"`` takes "newton" where it can.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from .._types import Coefs
from .factored import Batch, TangentOperator
from .layer import Layer


@dataclass(frozen=True)
class LayerShape:
    """What is known of a layer whose features are not kept; attributes as those of `Layer`."""

    n_samples: int
    n_outputs: int
    n_positions: int
    shape: tuple[int, int]
    outer: None = None

    def input_basis(self, count: int | None = None) -> None:
        """None: a stream has more samples than layers are wide, and nothing is gained by looking for their span."""


class StreamedOperator(TangentOperator):
    """Tangent operator of samples whose features are computed in batches; products need memory for one batch.

    Kernels of all samples, n × n, are formed where they are asked for (`gram`, `mean_gram`, and the solvers "ridge" and
    "reweighted"). While that happens batches of features are kept in half as much memory as the kernel takes.

    Parameters
    ----------
    factors_of : callable
        Called with a slice or integers; returns the layers of these samples. To pickle the operator, or a problem on
        it, this has to be picklable: a method, or an instance of a class, and no lambda.
    n_samples : int
    batch_size : int
        Samples whose features are in memory at a time.
    outputs, n_outputs
        As for `TangentOperator`.
    """

    is_streamed = True

    def __init__(
        self,
        factors_of: Callable[[Any], Sequence[Layer]],
        n_samples: int,
        batch_size: int,
        outputs: str = "network",
        n_outputs: int | None = None,
    ) -> None:
        super().__init__(factors_of(slice(0, 1)), outputs, n_outputs)
        self.n_samples = n_samples
        self._batch_size = batch_size
        self._stream(factors_of)

    def mapped(self, change: Callable[[Sequence[Layer]], Iterable[Layer]], keep_rows: bool = False) -> StreamedOperator:
        """The operator with other layers, changed batch by batch, see `TangentOperator.mapped`."""
        other = copy.copy(self) if keep_rows else self.plain()
        other._stream(partial(_changed_layers, self._factors_of, change))
        return other

    def rows(self, index: Any) -> TangentOperator:
        """The operator on a subset of the samples, whose features are kept, without weights or centring."""
        kept = TangentOperator(
            self._factors_of(index), self.outputs, self.n_outputs if self.outputs == "shared" else None
        )
        kept.dtype = self.dtype
        return kept

    def reduce(self) -> tuple[StreamedOperator, Callable[[Coefs], Coefs], Callable[[Coefs], Coefs]]:
        """This operator itself, and maps that leave coefficients as they are."""
        return self, list, list

    def batches(self, start: int = 0) -> Iterator[Batch]:
        """The samples of one batch after another, from `start` on, in the precision of A."""
        for rows in self._slices(start, self._batch_size):
            yield rows, [layer.astype(self.dtype) for layer in self._factors_of(rows)]

    def _stream(self, factors_of: Callable[[Any], Sequence[Layer]]) -> None:
        self._factors_of = factors_of
        shapes: list[Any] = [
            LayerShape(self.n_samples, layer.n_outputs, layer.n_positions, layer.shape)
            for layer in factors_of(slice(0, 1))
        ]
        self.layers = tuple(shapes)  # of the features, only what a stream is asked for


def _changed_layers(
    factors_of: Callable[[Any], Sequence[Layer]], change: Callable[[Sequence[Layer]], Iterable[Layer]], rows: Any
) -> list[Layer]:
    """The layers of some samples after a change."""
    return list(change(factors_of(rows)))
