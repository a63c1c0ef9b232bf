"""Coefficients on features of infinite width: how a model keeps them, and how it predicts.

Layers are n × n there, and so are coefficients, n × n·C for C targets. Predictions need the kernel of new samples and
the training points alone, and no system is solved for them.

- Coefficients of a penalty that moves nothing are B = A* r / α (source: arXiv 2308.15478, section 3). A model keeps
  β = r / α and predicts K β; the coefficients are found again when they are asked for.
- Those that adapt are kept, and solved with the factors of the training points once, at the first prediction.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .._types import Array, Coefs
from ..adaptation import Adaptation
from ..features import TangentFeatures
from ..problem import StructuredRegression
from ..solvers.solution import Solution

if TYPE_CHECKING:
    _Matrices = Sequence[Array]
else:
    _Matrices = Sequence


class _InfiniteCoefs(_Matrices):
    """One matrix a layer, and predictions with them."""

    def __init__(self, features: TangentFeatures) -> None:
        self.features = features

    def __len__(self) -> int:
        return len(self.features.layers_)

    def __getitem__(self, index: Any) -> Any:
        return self._matrices[index]

    @property
    @abstractmethod
    def _matrices(self) -> Coefs:
        """All of them."""

    @abstractmethod
    def predict(self, X: Array) -> Array:
        """A B of samples, shape (n', C)."""


class DualCoefs(_InfiniteCoefs):
    """Coefficients A* β, found when they are asked for; a pickle has β alone.

    Parameters
    ----------
    features : TangentFeatures
        Of infinite width.
    dual : ndarray of shape (n, C)
        β.
    known : list of ndarray
        The coefficients, as they are known before a pickle.
    """

    def __init__(self, features: TangentFeatures, dual: Array, known: Coefs) -> None:
        super().__init__(features)
        self.dual, self._known = dual, known

    def predict(self, X: Array) -> Array:
        """K β."""
        return self.features.predict_by_kernel(X, self.dual)

    @property
    def _matrices(self) -> Coefs:
        return self._known

    @functools.cached_property
    def _known(self) -> Coefs:
        return self.features.training_operator().rmatvec(self.dual)

    def __getstate__(self) -> dict[str, Any]:
        return {"features": self.features, "dual": self.dual}


class AdaptedCoefs(_InfiniteCoefs):
    """Coefficients that are kept as they are.

    Parameters
    ----------
    features : TangentFeatures
        Of infinite width.
    coefs : list of ndarray
    """

    def __init__(self, features: TangentFeatures, coefs: Coefs) -> None:
        super().__init__(features)
        self._coefs = coefs

    @property
    def _matrices(self) -> Coefs:
        return self._coefs

    def predict(self, X: Array) -> Array:
        """A B by products with the training points."""
        return self.features.predict_by_products(X, self._for_products)

    @functools.cached_property
    def _for_products(self) -> Coefs:
        return self.features.for_products(self._coefs)

    def __getstate__(self) -> dict[str, Any]:
        return {"features": self.features, "_coefs": self._coefs}


def kept(
    features: TangentFeatures, X: Array, problem: StructuredRegression, solution: Solution, adaptation: Adaptation
) -> tuple[Solution, Adaptation]:
    """Solution and adaptation as a model keeps them: at infinite width with coefficients of this file.

    Parameters
    ----------
    features : TangentFeatures
    X : ndarray of shape (n, n_features)
        Training points.
    problem : StructuredRegression
    solution : Solution
    adaptation : Adaptation
    """
    if not features.network.is_infinite:
        return solution, adaptation
    if problem.spectral.is_fixed:
        coefs = DualCoefs(features, problem.design.from_rows(solution.dual) / problem.alpha, solution.coefs)
        prediction, size = solution.prediction, np.abs(solution.prediction).max()
        # An iteration need not end at A* r / α, and an alpha below rounding is not seen in it.
        if np.abs(coefs.predict(X) - prediction).max() <= np.sqrt(np.finfo(features.dtype).eps) * size:
            # Where nothing moves, θ are the coefficients.
            found = cast(Coefs, coefs)
            return replace(solution, coefs=found), replace(adaptation, theta=found)
    return replace(solution, coefs=cast(Coefs, AdaptedCoefs(features, solution.coefs))), adaptation


def predict(features: TangentFeatures, X: Array, coefs: Coefs | _InfiniteCoefs) -> Array:
    """A B of samples, shape (n, C)."""
    return coefs.predict(X) if isinstance(coefs, _InfiniteCoefs) else features.predict(X, coefs)
