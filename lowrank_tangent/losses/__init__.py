"""Losses: what a prediction costs, its derivatives, and the conjugate that the certificate needs.

`base.py` is the contract, `separable.py` the short way to a loss of one's own; see `Loss` and `SeparableLoss`.
"""

from __future__ import annotations

from .._types import Array
from .base import Loss, LossAt
from .multinomial import Multinomial, probabilities_of
from .separable import SeparableLoss
from .squared import Interpolation, Squared

#: The losses that have a name.
LOSSES: dict[str, type[Loss]] = {loss.name: loss for loss in (Squared, Interpolation, Multinomial)}


def get_loss(loss: str | Loss, sample_weight: Array | None = None, fit_intercept: bool = False) -> Loss:
    """The loss of that name, or a copy of that instance, with weights and intercept.

    Parameters
    ----------
    loss : str or Loss
    sample_weight : ndarray of shape (n,), optional
    fit_intercept : bool, default=False

    Raises
    ------
    ValueError
        For an unknown name.
    TypeError
        For anything else that is not an instance of `Loss`, such as a class.
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise ValueError(f"loss must be one of {sorted(LOSSES)} or an instance of losses.Loss; got {loss!r}.")
        loss = LOSSES[loss]()
    if not isinstance(loss, Loss):
        given = f"the class {loss.__name__}: give {loss.__name__}()" if isinstance(loss, type) else repr(loss)
        raise TypeError(f"loss must be one of {sorted(LOSSES)} or an instance of losses.Loss; got {given}.")
    return loss.bound(sample_weight, fit_intercept)


__all__ = [
    "LOSSES",
    "Interpolation",
    "Loss",
    "LossAt",
    "Multinomial",
    "SeparableLoss",
    "Squared",
    "get_loss",
    "probabilities_of",
]
