"""Estimators with scikit-learn's interface: ridge NTK, the adaptive model, and the one that chooses everything."""

from .adaptive import AdaptiveTangentClassifier, AdaptiveTangentRegressor
from .chosen import AdaptiveTangentClassifierCV, AdaptiveTangentRegressorCV
from .ridge import TangentRidge, TangentRidgeClassifier

__all__ = [
    "AdaptiveTangentClassifier",
    "AdaptiveTangentClassifierCV",
    "AdaptiveTangentRegressor",
    "AdaptiveTangentRegressorCV",
    "TangentRidge",
    "TangentRidgeClassifier",
]
