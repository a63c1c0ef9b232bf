"""Compiled loops, kept for the next process wherever there is a place for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(**options: Any) -> Callable[[_Function], _Function]:
    """Decorator ``numba.njit(cache=True, **options)``, but without the cache where numba finds no folder for it.

    That is where neither the package nor the user's home can be written. Numba refuses the function there, which would
    forbid the import; now every process compiles anew what it calls.
    """

    def decorate(function: _Function) -> _Function:
        try:
            loop: _Function = njit(cache=True, **options)(function)
        except RuntimeError:  # of the cache alone: nothing is compiled before the first call
            loop = njit(**options)(function)
        return loop

    return decorate
