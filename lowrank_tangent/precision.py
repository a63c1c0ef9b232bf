"""What double precision has of a problem: kernels that overflow, targets that are rounding, and an error about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ._types import Array

#: What centring leaves of a column of y is rounding up to this share of its largest entry.
_ROUNDING = 8 * np.finfo(float).eps
#: Norms of features beyond this are a cause of numbers that leave double precision.
_LARGE_FEATURES = 1e50


def finite_kernel(design: Any) -> Array:
    """Kernel of all outputs, or the one that they share; FloatingPointError if it overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        kernel = design.mean_gram() if design.outputs == "shared" else design.gram()
    if not np.isfinite(kernel).all():
        raise FloatingPointError("the kernel overflows")
    return kernel


@contextlib.contextmanager
def in_double_precision(problem: Any) -> Iterator[None]:
    """An error that says what to do, for numbers that leave double precision."""
    try:
        yield
    except (np.linalg.LinAlgError, FloatingPointError) as error:
        adaptivity = max(layer.adaptivity for layer in problem.spectral)
        remedy = "Divide y by its standard deviation; alpha and adaptivity then need not be extreme."
        with np.errstate(over="ignore"):
            norm = np.sqrt(np.max(problem.operator.diagonal()))
        if norm > _LARGE_FEATURES:
            reach = f"reach {norm:.1e}" if np.isfinite(norm) else "are too large to be squared"
            remedy = f"Norms of features {reach}: scale them, or the data that they are made of. {remedy}"
        raise FloatingPointError(
            f"the numbers of this problem leave double precision ({error}): y reaches {np.abs(problem.y).max():.1e}, "
            f"alpha={problem.alpha:.1e}, adaptivity={adaptivity:.1e}. {remedy}"
        ) from error


def centred_rows(design: Any, y: Array) -> Array:
    """Rows of y, centred to the accuracy of what is left of it; what rounding leaves of a constant column is 0."""
    rows = design.to_rows(y)
    if not design.centred:
        return rows
    rows = design.project(rows)
    scale = 1.0 if design.row_scale is None else design.row_scale[:, None]
    rounding = _ROUNDING * np.abs(scale * y).max(axis=0)
    return np.where(np.abs(rows).max(axis=0) <= rounding, 0.0, rows)
