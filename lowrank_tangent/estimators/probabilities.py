"""Probabilities of classes from scores of samples that were left out.

With scores F of shape (n, n_classes) of samples that no fit has seen, probabilities are softmax(a F + b): one scale a
(the inverse of a temperature) and an offset b for every class. They maximise the likelihood of the classes with a
little shrinkage, (a² + ‖b‖²) / 20 for n samples in all: scores that make no mistake would have an endless scale. With
it 100 of them say 0.995, about what the rule of succession says, 101 / 102.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from .._types import Array

#: Inverse of the variance of the scale and the offsets that is taken for granted.
_SHRINKAGE = 0.1
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Calibration:
    """Scale and offsets that make probabilities of scores.

    Attributes
    ----------
    scale : float ≥ 0
    offsets : ndarray of shape (n_classes,)
    """

    scale: float
    offsets: Array

    @classmethod
    def fitted(cls, scores: Array, classes: Array, n_classes: int, weights: Array | None = None) -> Calibration:
        """The most likely scale and offsets.

        Parameters
        ----------
        scores : ndarray of shape (n, C)
            Of samples that were left out; one column for two classes.
        classes : ndarray of int, shape (n,)
            The right ones.
        n_classes : int
        weights : ndarray of shape (n,), optional
        """
        rows = np.arange(len(scores))
        scores = _one_a_class(scores)
        shares = np.full(len(scores), 1.0 / len(scores)) if weights is None else weights / weights.sum()
        truth = np.zeros((len(scores), n_classes))
        truth[rows, classes] = 1.0
        shrinkage = _SHRINKAGE / np.count_nonzero(shares)

        def objective(parameters: Array) -> tuple[float, Array]:
            logs = log_softmax(parameters[0] * scores + parameters[1:], axis=1)
            missed = shares[:, None] * (np.exp(logs) - truth)
            value = -shares @ logs[rows, classes] + 0.5 * shrinkage * parameters @ parameters
            slopes = np.concatenate([[np.vdot(missed, scores)], missed.sum(axis=0)])
            return float(value), slopes + shrinkage * parameters

        bounds = [(0.0, None), *[(None, None)] * n_classes]
        start = np.concatenate([[1.0], np.zeros(n_classes)])
        options = {"gtol": _TOLERANCE, "ftol": _TOLERANCE}
        found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
        return cls(float(found[0]), found[1:])

    def log_probabilities(self, scores: Array) -> Array:
        """Logarithms of probabilities, shape (n, n_classes)."""
        return log_softmax(self.scale * _one_a_class(scores) + self.offsets, axis=1)


def _one_a_class(scores: Array) -> Array:
    """Scores with a column for each of two classes, too."""
    return np.hstack([-scores, scores]) / 2.0 if scores.shape[1] == 1 else scores
