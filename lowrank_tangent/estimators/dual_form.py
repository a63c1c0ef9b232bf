"""Coefficients that are A* β with features of infinite width: kept as β, one row for every training point.

At infinite width the layers' coefficients are n × n, and n × n·C for C targets. Those of a penalty that moves nothing
are B = A* r / α (theory: LeJeune & Alemohammad, arXiv 2308.15478, section 3), so that predictions are A B = K β with
the kernel in closed form. A model keeps β; the coefficients are found again when they are asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .._types import Array, Coefs
from ..adaptation import Adaptation
from ..features import TangentFeatures
from ..problem import StructuredRegression
from ..solvers.solution import Solution


class DualCoefs(Sequence):
    """Coefficients A* β, one matrix a layer, found when they are asked for; a pickle has β alone.

    Parameters
    ----------
    features : TangentFeatures
        Of infinite width.
    dual : ndarray of shape (n, C)
        β.
    known : list of ndarray, optional
        The coefficients, if they are known already.
    """

    def __init__(self, features: TangentFeatures, dual: Array, known: Coefs | None = None) -> None:
        self.features, self.dual = features, dual
        if known is not None:
            self._coefs = known

    def __len__(self) -> int:
        return len(self.features.layers_)

    def __getitem__(self, index: Any) -> Any:
        return self._coefs[index]

    def predict(self, X: Array) -> Array:
        """A B, shape (n', C)."""
        return self.features.predict_by_kernel(X, self.dual)

    @functools.cached_property
    def _coefs(self) -> Coefs:
        return self.features.training_operator().rmatvec(self.dual)

    def __getstate__(self) -> dict[str, Any]:
        return {"features": self.features, "dual": self.dual}


def in_dual_form(
    features: TangentFeatures, X: Array, problem: StructuredRegression, solution: Solution, adaptation: Adaptation
) -> tuple[Solution, Adaptation]:
    """Solution and adaptation with coefficients in their dual form, where they have one to rounding; else as they are.

    Parameters
    ----------
    features : TangentFeatures
    X : ndarray of shape (n, n_features)
        Training points.
    problem : StructuredRegression
    solution : Solution
    adaptation : Adaptation
    """
    if not features.network.is_infinite or not problem.spectral.is_fixed:
        return solution, adaptation
    coefs = DualCoefs(features, problem.design.from_rows(solution.dual) / problem.alpha, solution.coefs)
    prediction, size = solution.prediction, np.abs(solution.prediction).max()
    # An iteration need not end at A* r / α, and an alpha below rounding is not seen in it.
    if np.abs(coefs.predict(X) - prediction).max() > np.sqrt(np.finfo(features.dtype).eps) * size:
        return solution, adaptation
    # Where nothing moves, θ are the coefficients.
    return replace(solution, coefs=coefs), replace(adaptation, theta=coefs)


def predict(features: TangentFeatures, X: Array, coefs: Coefs | DualCoefs) -> Array:
    """A B of samples, shape (n, C)."""
    return coefs.predict(X) if isinstance(coefs, DualCoefs) else features.predict(X, coefs)
