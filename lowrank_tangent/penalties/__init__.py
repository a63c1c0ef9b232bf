"""Penalties on the singular values of each layer's coefficients."""

from ._scalar import divided_differences
from .custom import CustomPenalty
from .joint import JointPenalty
from .layered import LayeredPenalty
from .named import KLPenalty, PowerPenalty
from .schatten import NuclearPenalty, SchattenPenalty
from .spectral import RidgePenalty, ScaledPenalty, SpectralPenalty

#: Penalties that estimators know by name, with their default parameters.
PENALTIES = {
    "ridge": RidgePenalty,
    "power": PowerPenalty,
    "kl": KLPenalty,
    "joint": JointPenalty,
    "nuclear": NuclearPenalty,
    "schatten": SchattenPenalty,
}


def get_penalty(penalty):
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
