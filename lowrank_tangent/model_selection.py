"""Regularisation paths: solutions on a grid of alpha and adaptivity, each one the start of the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._checks import check_number
from ._types import Array, ArrayLike
from .problem import StructuredRegression
from .progress import progress
from .solvers import Solution, solve_path


@dataclass(frozen=True)
class TangentPath:
    """Solutions on a grid.

    Attributes
    ----------
    alphas : ndarray of shape (n_alphas,)
        Largest first.
    adaptivities : ndarray of shape (n_adaptivities,)
        Smallest first.
    results : list of lists
        ``results[i][j]``: what was kept of the solution for ``adaptivities[i]`` and ``alphas[j]``.
    objective, error, n_iter, seconds : ndarray of shape (n_adaptivities, n_alphas)
        Objective, error of the certificate (duality gap, or stationarity without one), iterations (0 where the last
        solutions had it) and seconds.
    """

    alphas: np.ndarray
    adaptivities: np.ndarray
    results: list[list[Any]]
    objective: np.ndarray
    error: np.ndarray
    n_iter: np.ndarray
    seconds: np.ndarray


def tangent_path(
    problem: StructuredRegression,
    alphas: ArrayLike,
    adaptivities: ArrayLike,
    tol: float = 1e-6,
    keep: Callable[[StructuredRegression, Solution], Any] | None = None,
    verbose: int = 0,
) -> TangentPath:
    """Solve a problem for every alpha and adaptivity of a grid, warm-started.

    Everything that does not depend on alpha and adaptivity is done once: reduction to the span of the factors, weights
    and centring; with ``adaptivity=0`` an eigendecomposition of the kernel. For each other adaptivity alpha decreases,
    from the best that the span of the last solutions has (often good enough, certified like every other), and begins
    with the solutions for the last adaptivity whose alpha / √adaptivity is about the same; the preconditioner is kept
    as long as it serves.

    Parameters
    ----------
    problem : StructuredRegression
        Its own alpha and adaptivity do not matter.
    alphas : array of float > 0
    adaptivities : array of float ≥ 0
    tol : float > 0, default=1e-6
        Relative duality gap (or stationarity) of every solution.
    keep : callable, optional
        Called with (problem, solution); what it returns is kept instead of the `Solution`, whose coefficients may be
        large. Called with the problem of that alpha and adaptivity.
    verbose : int, default=0
        1 shows a progress bar.

    Returns
    -------
    TangentPath

    Raises
    ------
    ValueError, TypeError
        For an empty grid or values out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent import StructuredRegression, TangentFeatures
    >>> from lowrank_tangent.model_selection import tangent_path
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(40, 3))
    >>> problem = StructuredRegression(TangentFeatures(random_state=0).fit(X).operator(X), X[:, 0] * X[:, 1])
    >>> path = tangent_path(problem, [1.0, 0.1, 0.01], [0.0, 1.0])
    >>> path.error.shape, bool(path.error.max() <= 1e-6)
    ((2, 3), True)
    """
    if not isinstance(problem, StructuredRegression):
        raise TypeError(f"problem must be a StructuredRegression; got {type(problem).__name__}.")
    tol = check_number(tol, "tol", positive=True)
    alphas = np.sort(_grid(alphas, "alphas", positive=True))[::-1]
    adaptivities = np.sort(_grid(adaptivities, "adaptivities", positive=False))
    kept, rows = [], []
    with progress(len(alphas) * len(adaptivities), "path", verbose) as advance:
        last = time.perf_counter()

        def visit(point: StructuredRegression, solution: Solution) -> None:
            nonlocal last
            now = time.perf_counter()
            error = solution.stationarity if np.isnan(solution.dual_gap) else solution.dual_gap
            error = max(error, solution.constraint_residual)
            rows.append((solution.objective, error, solution.n_iter, now - last))
            kept.append(solution if keep is None else keep(point, solution))
            last = time.perf_counter()
            advance(f"alpha {point.alpha:.1e}")

        solve_path(problem, alphas, adaptivities, tol, visit)
    table = np.array(rows).reshape(len(adaptivities), len(alphas), 4)
    return TangentPath(
        alphas=alphas,
        adaptivities=adaptivities,
        results=[kept[i : i + len(alphas)] for i in range(0, len(kept), len(alphas))],
        objective=table[..., 0],
        error=table[..., 1],
        n_iter=table[..., 2].astype(int),
        seconds=table[..., 3],
    )


def _grid(values: ArrayLike, name: str, positive: bool) -> Array:
    flat = np.asarray(values, dtype=object).ravel()
    if flat.size == 0:
        raise ValueError(f"{name} is empty; give at least one value.")
    return np.array([check_number(value, name, positive) for value in flat])
