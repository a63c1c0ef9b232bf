"""The contract of an operator: the linear map A from coefficients to predictions.

Whoever brings an operator writes `matvec` and `rmatvec`, and sets `n_samples`, `n_outputs` and `coef_shapes`. All else
follows from products: kernels one column at a time, weights, transforms and subsets by composition. A class that knows
a faster way overrides the default, as `TangentOperator` does.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .._types import Array, Coefs
from ..linalg.memory import check_fits_in_memory
from ..linalg.transforms import LowRankTransform
from .layer import Layer
from .rows import WeightedRows


class Operator(WeightedRows, ABC):
    """Linear operator A from one matrix of coefficients a layer to predictions of shape (n, C).

    Attributes
    ----------
    n_samples, n_outputs : int
        n and C; to be set by the class.
    coef_shapes : list of (int, int)
        Shape of each layer's coefficients; to be set by the class.
    outputs : {"network", "shared"}
        "shared": every output has coefficients of its own, side by side in each matrix, on the same features. Then all
        outputs have the same kernel and share nothing. "network" (default) promises nothing.
    layers : tuple of Layer
        The features layer by layer, optional knowledge that makes solvers faster; () if they are not known.
    is_streamed : bool
        Whether features are computed anew whenever they are needed, and `layers` has their shapes alone.
    dtype : numpy dtype
        Precision of products, double by default.
    row_scale, centred
        Weights and intercept, see `WeightedRows`.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent import StructuredRegression, solve
    >>> from lowrank_tangent.operators import Operator
    >>> class Dense(Operator):
    ...     def __init__(self, features):  # shape (n, p, q)
    ...         self.features, self.n_outputs = features, 1
    ...         self.n_samples, self.coef_shapes = len(features), [features.shape[1:]]
    ...     def matvec(self, coefs):
    ...         return np.einsum("npq,pq->n", self.features, coefs[0])[:, None]
    ...     def rmatvec(self, residual):
    ...         return [np.einsum("npq,n->pq", self.features, residual[:, 0])]
    >>> rng = np.random.default_rng(0)
    >>> problem = StructuredRegression(Dense(rng.normal(size=(20, 3, 4))), rng.normal(size=20), alpha=0.1)
    >>> solve(problem).converged
    True
    """

    n_samples: int
    n_outputs: int
    coef_shapes: list[tuple[int, int]]
    outputs: Literal["network", "shared"] = "network"
    layers: tuple[Layer, ...] = ()
    is_streamed: bool = False
    dtype: np.dtype[Any] = np.dtype(np.float64)

    # -- products ---------------------------------------------------------------------------

    @abstractmethod
    def matvec(self, coefs: Coefs) -> Array:
        """Predictions A B.

        Parameters
        ----------
        coefs : list of ndarray, one per layer, of shapes `coef_shapes`

        Returns
        -------
        ndarray of shape (n, C)
        """

    @abstractmethod
    def rmatvec(self, residual: Array) -> Coefs:
        """Adjoint A* R.

        Parameters
        ----------
        residual : ndarray of shape (n, C)

        Returns
        -------
        list of ndarray, one per layer, of shapes `coef_shapes`
        """

    def zeros(self) -> Coefs:
        """Coefficients B = 0."""
        return [np.zeros(shape) for shape in self.coef_shapes]

    # -- kernels ----------------------------------------------------------------------------

    def gram(self, other: Operator | None = None) -> Array:
        """Kernel A A'*, by default one column after the other: n'·C products with A and with A'*.

        Parameters
        ----------
        other : Operator, optional
            Of the same features, for other samples; this operator itself by default.

        Returns
        -------
        ndarray of shape (n·C, n'·C), row i·C + c for sample i and output c

        Raises
        ------
        MemoryError
            If the kernel is larger than the memory of the machine; the message says the size.
        """
        other, C = other or self, self.n_outputs
        check_fits_in_memory((self.n_samples * C, other.n_samples * C), "the kernel of all outputs")
        if self.outputs == "shared":
            kernel = self.mean_gram(other)
            return np.kron(kernel, np.eye(C, dtype=kernel.dtype))
        kernel = np.empty((self.n_samples * C, other.n_samples * C), dtype=self.dtype)
        for (j, c), unit in other._units(range(C)):
            kernel[:, j * C + c] = self.matvec(other.rmatvec(unit)).ravel()
        return kernel

    def mean_gram(self, other: Operator | None = None) -> Array:
        """Kernel of the samples, averaged over outputs: ``K[i, j] = (1/C) Σ_c (A A'*)[(i, c), (j, c)]``.

        For "shared" outputs this is the kernel of every single output, and the full kernel is its
        Kronecker product with the identity.

        Returns
        -------
        ndarray of shape (n, n')
        """
        other = other or self
        check_fits_in_memory((self.n_samples, other.n_samples), "the kernel")
        outputs = range(1 if self.outputs == "shared" else self.n_outputs)
        kernel = np.zeros((self.n_samples, other.n_samples), dtype=self.dtype)
        for (j, c), unit in other._units(outputs):
            kernel[:, j] += self.matvec(other.rmatvec(unit))[:, c]
        return kernel / len(outputs)

    def diagonal(self) -> Array:
        """Squared norm of every feature, without weights or centring; shape (n, C). By default n·C products with A*."""
        plain, squares = self.plain(), np.empty((self.n_samples, self.n_outputs))
        for sample, unit in plain._units(range(self.n_outputs)):
            squares[sample] = sum(np.sum(matrix**2) for matrix in plain.rmatvec(unit))
        return squares

    def to_dense(self) -> Array:
        """The matrix of A, shape (n·C, P): coefficients in C order, one layer after the other.

        Raises
        ------
        MemoryError
            If it is larger than the memory of the machine.
        """
        width = sum(math.prod(shape) for shape in self.coef_shapes)
        check_fits_in_memory((self.n_samples * self.n_outputs, width), "the matrix of the operator")
        rows = (self.rmatvec(unit) for _, unit in self._units(range(self.n_outputs)))
        return np.array([np.concatenate([matrix.ravel() for matrix in row]) for row in rows])

    def _units(self, outputs: Sequence[int]) -> Iterator[tuple[tuple[int, int], Array]]:
        """Pairs of a sample and an output, and the array of shape (n, C) that is 1 there and 0 elsewhere."""
        unit = np.zeros((self.n_samples, self.n_outputs), dtype=self.dtype)
        for sample in range(self.n_samples):
            for output in outputs:
                unit[sample, output] = 1.0
                yield (sample, output), unit
                unit[sample, output] = 0.0

    # -- derived operators ------------------------------------------------------------------

    def plain(self) -> Operator:
        """The operator without weights or centring."""
        return self

    def weighted(self, sample_weight: Array | None = None, centre: bool = False) -> Operator:
        """The operator of the weighted regression, with an intercept if `centre`, see `rows.py`.

        Parameters
        ----------
        sample_weight : ndarray of shape (n,), optional
        centre : bool
        """
        row_scale = None if sample_weight is None else np.sqrt(sample_weight)
        return _WeightedOperator(self.plain(), row_scale, centre) if centre or row_scale is not None else self.plain()

    def rows(self, index: Any) -> Operator:
        """The operator on a subset of the samples (slice, integers or mask), without weights or centring."""
        return _Subset(self.plain(), np.arange(self.n_samples)[index])

    def transformed(self, left: Sequence[LowRankTransform], right: Sequence[LowRankTransform]) -> Operator:
        """The operator on features ``M1 Φ M2``.

        Parameters
        ----------
        left, right : sequence of LowRankTransform, one per layer
            M1 of size p and M2 as wide as the layer's coefficient matrix. For "shared" outputs an M2 that
            is not the identity ties the outputs together; the result then has "network" outputs.
        """
        return _TransformedOperator(self, left, right)

    def reduce(self) -> tuple[Operator, Callable[[Coefs], Coefs], Callable[[Coefs], Coefs]]:
        """Exact reduction to the span of the features; by default none.

        Returns
        -------
        operator : Operator
            With the same predictions on rotated coefficients.
        expand, compress : callable
            Map coefficients of the reduced operator to coefficients of this one, and back (by projection).
        """
        return self, list, list

    def with_precision(self, dtype: npt.DTypeLike, balance: Sequence[float] | None = None) -> Operator:
        """The operator with products of another precision; this one itself where it has no such products."""
        return self

    @property
    def input_bases(self) -> list[Array | None]:
        """Orthonormal basis of the space that the columns of each layer's coefficients lie in; None where unknown."""
        return [None] * len(self.coef_shapes)


class _Composed(Operator):
    """An operator made of another one, whose rows, outputs and shapes it keeps unless it says otherwise."""

    def __init__(self, inner: Operator) -> None:
        self._inner = inner
        self.n_samples, self.n_outputs, self.outputs = inner.n_samples, inner.n_outputs, inner.outputs
        self.coef_shapes, self.dtype, self.is_streamed = inner.coef_shapes, inner.dtype, inner.is_streamed
        self.row_scale, self.centred = inner.row_scale, inner.centred


class _WeightedOperator(_Composed):
    """Π S A."""

    def __init__(self, inner: Operator, row_scale: Array | None, centred: bool) -> None:
        super().__init__(inner)
        self.row_scale, self.centred = row_scale, centred

    def matvec(self, coefs: Coefs) -> Array:
        return self.to_rows(self._inner.matvec(coefs))

    def rmatvec(self, residual: Array) -> Coefs:
        return self._inner.rmatvec(self.from_rows(residual))

    def plain(self) -> Operator:
        return self._inner

    def diagonal(self) -> Array:
        return self._inner.diagonal()


class _Subset(_Composed):
    """Some rows of A."""

    def __init__(self, inner: Operator, index: Array) -> None:
        super().__init__(inner)
        self._index, self.n_samples = index, len(index)

    def matvec(self, coefs: Coefs) -> Array:
        return self._inner.matvec(coefs)[self._index]

    def rmatvec(self, residual: Array) -> Coefs:
        everyone = np.zeros((self._inner.n_samples, self.n_outputs))
        np.add.at(everyone, self._index, residual)
        return self._inner.rmatvec(everyone)


class _TransformedOperator(_Composed):
    """B ↦ A (M1 B M2)."""

    def __init__(self, inner: Operator, left: Sequence[LowRankTransform], right: Sequence[LowRankTransform]) -> None:
        super().__init__(inner)
        self._left, self._right = left, right
        if not all(transform.is_identity for transform in right):
            self.outputs = "network"

    def matvec(self, coefs: Coefs) -> Array:
        return self._inner.matvec(self._transform(coefs))

    def rmatvec(self, residual: Array) -> Coefs:
        return self._transform(self._inner.rmatvec(residual))

    def plain(self) -> Operator:
        return _TransformedOperator(self._inner.plain(), self._left, self._right)

    def _transform(self, coefs: Coefs) -> Coefs:
        triples = zip(self._left, coefs, self._right, strict=True)
        return [right.apply(left.apply(coef.T).T) for left, coef, right in triples]
