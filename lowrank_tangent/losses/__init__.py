"""Losses: what a prediction costs, its derivatives, and the conjugate that the certificate needs.

A loss L(f) is a convex function of predictions f of shape (n, C). It knows what the samples weigh and whether an
unpenalised intercept is minimised over. `at` is the loss at one prediction: value, gradient, Hessian. The rest is about
dual points r, for which weak duality says

    L(f) ≥ −L*(−r) − r·f,  with equality for r = −∇L(f).
"""

from __future__ import annotations

from .multinomial import Multinomial, probabilities_of
from .squared import Interpolation, Squared

LOSSES = {loss.name: loss for loss in (Squared, Interpolation, Multinomial)}


def get_loss(loss, sample_weight=None, fit_intercept=False):
    """The loss of that name.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {sorted(LOSSES)}; got {loss!r}.")
    return LOSSES[loss](sample_weight, fit_intercept)


__all__ = ["LOSSES", "Interpolation", "Multinomial", "Squared", "get_loss", "probabilities_of"]
