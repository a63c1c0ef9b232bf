"""Penalties on the singular values of each layer's coefficients."""

from ._scalar import divided_differences
from .spectral import (
    PENALTIES,
    KLPenalty,
    PowerPenalty,
    RidgePenalty,
    ScaledPenalty,
    SpectralPenalty,
    get_penalty,
)

__all__ = [
    "PENALTIES",
    "KLPenalty",
    "PowerPenalty",
    "RidgePenalty",
    "ScaledPenalty",
    "SpectralPenalty",
    "divided_differences",
    "get_penalty",
]
