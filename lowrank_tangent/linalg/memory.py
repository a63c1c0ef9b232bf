"""Refuses arrays that the machine cannot hold, before the operating system does it less politely."""

from __future__ import annotations

import math
import os

_GIB = 2.0**30


def physical_memory():
    """Bytes of main memory, or infinity where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def check_fits_in_memory(shape, what, itemsize=8):
    """Raise MemoryError, with the size, if an array of `shape` exceeds the memory of the machine."""
    size = math.prod(shape) * itemsize
    available = physical_memory()
    if size > available:
        raise MemoryError(
            f"{what} of shape {tuple(shape)} needs {size / _GIB:,.1f} GiB and this machine has "
            f"{available / _GIB:,.1f} GiB. Use fewer samples, or outputs='shared', whose kernel is n x n."
        )
