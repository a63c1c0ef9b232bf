"""The choice among networks, metrics and rounds by cross-validation: what a candidate is, folds, screening, rule."""

from .candidates import Candidate, EstimatorCandidate, Fold, Outcome

__all__ = ["Candidate", "EstimatorCandidate", "Fold", "Outcome"]
