"""Penalties on the singular values of each layer's coefficients."""

from collections.abc import Callable

from ._scalar import divided_differences
from .custom import CustomPenalty
from .joint import JointPenalty
from .layered import LayeredPenalty, ScaledPenalty
from .named import KLPenalty, PowerPenalty
from .schatten import NuclearPenalty, SchattenPenalty
from .spectral import RidgePenalty, SpectralPenalty

#: Penalties that estimators know by name, with their default parameters.
PENALTIES: dict[str, Callable[[], SpectralPenalty]] = {
    "ridge": RidgePenalty,
    "power": PowerPenalty,
    "kl": KLPenalty,
    "joint": JointPenalty,
    "nuclear": NuclearPenalty,
    "schatten": SchattenPenalty,
}


def get_penalty(penalty: str | SpectralPenalty) -> SpectralPenalty:
    """The penalty of that name, or the instance itself.

    Raises
    ------
    ValueError, TypeError
        For an unknown name, or anything that is no penalty.
    """
    if isinstance(penalty, str):
        if penalty not in PENALTIES:
            raise ValueError(f"penalty must be one of {sorted(PENALTIES)} or an instance; got {penalty!r}.")
        return PENALTIES[penalty]()
    if not isinstance(penalty, SpectralPenalty):
        raise TypeError(
            f"penalty must be one of {sorted(PENALTIES)} or a SpectralPenalty instance such as KLPenalty(); "
            f"got {penalty!r}."
        )
    return penalty


__all__ = [
    "PENALTIES",
    "CustomPenalty",
    "JointPenalty",
    "KLPenalty",
    "LayeredPenalty",
    "NuclearPenalty",
    "PowerPenalty",
    "RidgePenalty",
    "ScaledPenalty",
    "SchattenPenalty",
    "SpectralPenalty",
    "divided_differences",
    "get_penalty",
]
