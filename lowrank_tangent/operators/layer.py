"""The contract of a layer: what operators and solvers ask of the tangent features of one layer.

A layer holds one feature Φ, a matrix of shape (p, q), for every sample and output of the network. How it is stored is
its own affair: `LayerFactors` has outer products, another class may have the matrices themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from .._types import Array
from ..linalg.transforms import LowRankTransform

if TYPE_CHECKING:
    from typing_extensions import Self


class Transform(Protocol):
    """A matrix M that multiplies rows from the right."""

    def apply(self, rows: Array) -> Array:
        """``rows @ M``."""


class Layer(ABC):
    """Tangent features of one layer, a matrix Φ of shape (p, q) for each of n samples and C outputs.

    Coefficients of a layer with several outputs have the shape (p, q). Where the network has one output, each of
    `n_outputs` targets may have coefficients of its own, side by side: (p, n_outputs·q).
    """

    #: Positions T at which the layer is applied; products cost 4·n·T·p·q operations.
    n_positions: int = 1

    # -- what a layer is --------------------------------------------------------------------

    @property
    @abstractmethod
    def n_samples(self) -> int:
        """Number of samples n."""

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Number of outputs C of the network."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Shape (p, q) of a feature."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Precision in which the features are stored and multiplied: double, or single."""

    # -- products ---------------------------------------------------------------------------

    @abstractmethod
    def product(self, coef: Array, n_outputs: int) -> Array:
        """Inner products ⟨Φ, B⟩ for `n_outputs` outputs, shape (n, n_outputs).

        Parameters
        ----------
        coef : ndarray of shape (p, q), or (p, n_outputs·q) for a network with one output
        n_outputs : int
        """

    @abstractmethod
    def adjoint(self, residual: Array, shape: tuple[int, int]) -> Array:
        """Coefficients ``Σ r Φ``, the adjoint of `product` times `residual`.

        Parameters
        ----------
        residual : ndarray of shape (n, n_outputs)
        shape : tuple
            Shape of the coefficients, as for `product`.
        """

    @abstractmethod
    def kernel(self, other: Self, per_output: bool) -> Array:
        """Inner products of the features of these samples with those of the samples of another layer.

        Parameters
        ----------
        other : Layer
            Of the same class and shape.
        per_output : bool
            For every pair of outputs, shape (n·C, n'·C); or for equal outputs, averaged, shape (n, n').
        """

    @abstractmethod
    def squares(self) -> Array:
        """Squared norm of every feature, shape (n, C)."""

    def projected(self, left: Array, right: Array, n_outputs: int) -> Array:
        """Features in two bases, ``leftᵀ Φ right``, shape (m, k, n, n_outputs).

        Parameters
        ----------
        left : ndarray of shape (p, m)
        right : ndarray of shape (q, k), or (n_outputs·q, k) for a network with one output
        n_outputs : int
        """
        return np.array([[self.product(np.outer(a, b), n_outputs) for b in right.T] for a in left.T])

    # -- other layers -----------------------------------------------------------------------

    @abstractmethod
    def rows(self, index: Any) -> Self:
        """The features of a subset of the samples (slice, integers or mask)."""

    @abstractmethod
    def output(self, index: int) -> Self:
        """The features of one output of the network."""

    @abstractmethod
    def stacked(self, n_outputs: int) -> Self:
        """Features of one output as those of `n_outputs`, each in its own block of columns: shape (p, n_outputs·q)."""

    @abstractmethod
    def astype(self, dtype: npt.DTypeLike) -> Self:
        """The features in another precision."""

    @abstractmethod
    def transformed(self, left: Transform | None, right: Transform | None) -> Self:
        """The features M1ᵀ Φ M2; None leaves a side as it is."""

    def scaled(self, factor: float) -> Self:
        """The features times a number."""
        return self.transformed(None, LowRankTransform(np.zeros((self.shape[1], 0)), np.ones(0), factor))

    def reduce(self) -> tuple[Self, Array | None, Array | None]:
        """The layer in bases of the spans of its features, and these bases; None where a side stays as it is.

        Returns
        -------
        layer : Layer
            With features ``Pᵀ Φ Q``.
        left : ndarray of shape (p, p') or None
            Orthonormal columns P.
        right : ndarray of shape (q, q') or None
            Orthonormal columns Q.
        """
        return self, None, None

    # -- optional knowledge -----------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many numbers are stored."""
        p, q = self.shape
        return self.n_samples * self.n_outputs * p * q

    @property
    def outer(self) -> tuple[Array, Array] | None:
        """h of shape (n, p) and delta of shape (n, C, q), where every feature is ``h δᵀ``; else None."""
        return None

    def largest(self) -> Array:
        """Two numbers whose product is about the largest absolute entry of a feature; of the two factors if any."""
        return np.array([1.0, np.sqrt(self.squares().max())])

    def balanced(self, weight: float) -> Self:
        """The same features, the first factor times `weight` and the second divided by it, if there are two."""
        return self

    def input_basis(self, count: int | None = None) -> Array | None:
        """Orthonormal basis of the span of the first `count` rows of the features; None where that is everything."""
        return None
