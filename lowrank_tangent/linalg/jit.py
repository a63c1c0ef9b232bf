"""Compiled loops, kept for the next process wherever there is a place for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator ``numba.njit(cache=True, **options)``, but without the cache where numba finds no folder for it.

    That is where neither the package nor the user's home can be written. Numba refuses the function there, which would
    forbid the import; now every process compiles anew what it calls.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # of the cache alone: nothing is compiled before the first call
            return njit(**options)(function)

    return decorate
