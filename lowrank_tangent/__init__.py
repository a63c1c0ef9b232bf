"""Adaptive tangent features with certificates: ridge NTK whose features may move.

minimise over B  ``½‖y − A B‖² + (α/2) Σ_l Σ_j ω̃_μ(σ_j(B_l))``,  μ = 1/adaptivity,

with A the tangent features of a neural network at its initial weights.
Source: LeJeune & Alemohammad, An Adaptive Tangent Feature Perspective of Neural Networks (arXiv 2308.15478).
"""

from ._version import __version__
from .adaptation import Adaptation, adapt
from .estimators import (
    AdaptiveTangentClassifier,
    AdaptiveTangentClassifierCV,
    AdaptiveTangentRegressor,
    AdaptiveTangentRegressorCV,
    TangentRidge,
    TangentRidgeClassifier,
)
from .features import TangentFeatures
from .problem import StructuredRegression
from .solvers import Solution, solve

__all__ = [
    "Adaptation",
    "AdaptiveTangentClassifier",
    "AdaptiveTangentClassifierCV",
    "AdaptiveTangentRegressor",
    "AdaptiveTangentRegressorCV",
    "Solution",
    "StructuredRegression",
    "TangentFeatures",
    "TangentRidge",
    "TangentRidgeClassifier",
    "__version__",
    "adapt",
    "solve",
]
