"""A fit with factors and coefficients, as a metric of rounds sees it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np

from .._types import Array
from ..features import TangentFeatures
from ..operators import TangentOperator
from ..problem import StructuredRegression
from ..solvers.solution import Solution
from .evidence import Ascent, Evidence, log_slopes
from .metrics import View


class FactorView(View):
    """One layer of a problem's features, and the solution on them.

    Parameters
    ----------
    features : TangentFeatures
        Those of the problem.
    layer : int
    problem : StructuredRegression
    solution : Solution
    adaptivity : float or sequence of float, optional
        In place of the problem's.
    evidence : callable
        Returns the `Evidence` of the problem's kernel.
    ascent : Ascent

    Attributes
    ----------
    coefs : ndarray of shape (p, q)
        B of the layer's inputs without their constant.
    """

    def __init__(
        self,
        features: TangentFeatures,
        layer: int,
        problem: StructuredRegression,
        solution: Solution,
        adaptivity: Any,
        evidence: Callable[[], Evidence],
        ascent: Ascent,
    ) -> None:
        self._features, self._problem, self._solution = features, problem, solution
        self._adaptivity, self._evidence, self.ascent = adaptivity, evidence, ascent
        self._index = features.layers_.index(layer)
        network, n_inputs = features.network, problem.operator.layers[self._index].shape[0]
        self._n_inputs = n_inputs - network.input_has_constant(layer)
        self._scale = network.forward_scale(self._n_inputs)
        self.coefs = solution.coefs[self._index][: self._n_inputs]
        weights = problem.sample_weight
        weights = np.ones(problem.operator.n_samples) if weights is None else weights
        self.shares = weights / weights.sum()

    @functools.cached_property
    def price(self) -> Any:
        """Price of the layer."""
        problem = self._problem
        if self._adaptivity is not None:
            problem = problem.with_strength(problem.alpha, self._adaptivity)
        return problem.spectral[self._index]

    @functools.cached_property
    def basis(self) -> Array | None:  # type: ignore[override]
        """Basis of the span of the inputs; None also where samples come in batches."""
        return self._problem.operator.layers[self._index].input_basis(self._n_inputs)

    @property
    def evidence(self) -> Evidence:
        """Evidence of the problem's kernel."""
        return self._evidence()

    def evidence_slopes(self, by_features: bool) -> Array:
        """Slopes of the log evidence."""
        Z, tangent = self._features.tangent()
        weights = self._problem.sample_weight
        roots = np.ones(len(Z)) if weights is None else np.sqrt(weights)
        rows = Z if by_features or self.basis is None else Z @ self.basis
        return log_slopes(roots[:, None] * self.evidence.weights() * roots, tangent, rows, by_features)

    def still_gradients(self) -> Iterator[tuple[Any, Array]]:
        """B delta of every sample and output, in the batches of the operator."""
        coefs = self.coefs * self._scale
        operator = cast(TangentOperator, self._problem.operator)  # as features make them
        for rows, layers in operator.batches():
            outer = layers[self._index].outer
            if outer is None:
                raise ValueError(
                    "slopes of a layer's inputs are for layers of one position; take metric='coefficient', or leave "
                    "this layer out of `movable_layers`."
                )
            yield rows, _layer_gradients(outer[1], coefs)

    def whole_gradients(self) -> Iterator[tuple[Any, Array]]:
        """By the kernel's derivative."""
        yield slice(None), self._features.input_gradients(self._solution.coefs).transpose(1, 0, 2)


def _layer_gradients(delta: Array, coefs: Array) -> Array:
    """B delta of every sample and output, shape (p, n, C)."""
    n_outputs, q = delta.shape[1:]
    if n_outputs > 1:
        return np.einsum("pq,ncq->pnc", coefs, delta, optimize=True)
    return np.einsum("pcq,nq->pnc", coefs.reshape(len(coefs), -1, q), delta[:, 0], optimize=True)
