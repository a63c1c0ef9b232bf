"""Solvers: an operator, a penalty and a loss go in, a certified solution comes out."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from .._memory import physical_memory
from ..problem import StructuredRegression, check_number
from ._solution import Iteration, Monitor, Solution
from .newton import solve_newton
from .proximal import solve_proximal
from .reference import solve_cvxpy
from .ridge import solve_ridge

#: Every solver by name, with its default iteration limit. A solver is called with
#: (problem, monitor, max_iter, warm_start) and returns (coefs, dual, message).
SOLVERS = {
    "newton": (solve_newton, 200),
    "proximal": (solve_proximal, 20_000),
    "cvxpy": (solve_cvxpy, 200),
    "ridge": (solve_ridge, 1),
}

#: Share of the memory that the kernel of the closed form may take before `auto` iterates instead.
_KERNEL_SHARE = 0.1


def solve(problem, method="auto", tol=1e-6, max_iter=None, warm_start=None, verbose=0, callback=None):
    """Solve a structured regression problem.

    minimise  ``½‖y − A B‖² + (α/2) Σ_l Σ_j ω̃_μ(σ_j(B_l))``,  μ = 1/adaptivity

    Parameters
    ----------
    problem : StructuredRegression
    method : {"auto", "newton", "proximal", "cvxpy", "ridge"}, default="auto"
        "newton": second-order, by systems of the dual's size. "proximal": accelerated proximal gradient. "cvxpy": the
        semidefinite program, for reference. "ridge": closed form for ``adaptivity=0``. "auto": "ridge"
        where it applies and its kernel is small against the memory, else "newton".
    tol : float > 0, default=1e-6
        Relative duality gap at which to stop.
    max_iter : int ≥ 0, optional
        By default 200 for "newton" and "cvxpy", 20,000 for "proximal".
    warm_start : Solution or ndarray of shape (n, C), optional
        Solution of a problem with the same features (other y, alpha or adaptivity), or a dual point, to start
        from ("newton" and "proximal").
    verbose : int, default=0
        1 shows a progress bar with the gap.
    callback : callable, optional
        Called with every `Iteration`; a true return value stops the solver at its best point so far.

    Returns
    -------
    Solution
        Never assumed converged: ``converged`` says whether the gap of the returned point is below `tol`.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range.
    RuntimeError
        If "cvxpy" ends without a solution.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent import StructuredRegression, solve
    >>> from lowrank_tangent.operators import LayerFactors, TangentOperator
    >>> rng = np.random.default_rng(0)
    >>> operator = TangentOperator([LayerFactors(rng.normal(size=(40, 5)), rng.normal(size=(40, 8)))])
    >>> problem = StructuredRegression(operator, rng.normal(size=40), penalty="kl", alpha=0.1)
    >>> solution = solve(problem, tol=1e-9)
    >>> bool(solution.dual_gap <= 1e-9)
    True
    """
    if not isinstance(problem, StructuredRegression):
        raise TypeError(f"problem must be a StructuredRegression; got {type(problem).__name__}.")
    tol = check_number(tol, "tol", positive=True)
    if method == "auto":
        method = _choose(problem)
    if method not in SOLVERS:
        raise ValueError(f"method must be 'auto' or one of {sorted(SOLVERS)}; got {method!r}.")
    if method == "ridge" and not problem.spectral.is_fixed:
        raise ValueError("method='ridge' is the closed form for adaptivity=0; use method='newton' or 'auto'.")
    solver, limit = SOLVERS[method]
    max_iter = limit if max_iter is None else _check_count(max_iter)
    reduced, expand, compress = problem.reduced()
    start = None if warm_start is None else _starting_point(warm_start, problem, compress)
    monitor = Monitor(tol, verbose, callback)
    try:
        coefs, dual, message = solver(reduced, monitor, max_iter, start)
    finally:
        monitor.close()
    # Certified anew, from the definition: the figures are those of the point that is returned.
    certificate = reduced.certificate(coefs, dual)
    coefs = expand(coefs)
    return Solution(
        coefs=coefs,
        dual=dual,
        intercept=problem.intercept(coefs),
        objective=certificate.objective,
        dual_objective=certificate.dual_objective,
        dual_gap=certificate.dual_gap,
        n_iter=monitor.history[-1].iteration,
        converged=certificate.dual_gap <= tol,
        message=message,
        method=method,
        history=monitor.history,
    )


def _choose(problem):
    if not problem.spectral.is_fixed:
        return "newton"
    design = problem.design
    rows = design.n_samples * (1 if design.outputs == "shared" else design.n_outputs)
    return "ridge" if 8.0 * rows**2 <= _KERNEL_SHARE * physical_memory() else "newton"


def _check_count(max_iter):
    if isinstance(max_iter, (bool, np.bool_)) or not isinstance(max_iter, Integral) or max_iter < 0:
        raise ValueError(f"max_iter must be an integer >= 0; got {max_iter!r}.")
    return int(max_iter)


def _starting_point(warm_start, problem, compress):
    """Coefficients and dual point to start from, checked, in the coordinates of the reduced problem."""
    known = isinstance(warm_start, Solution)
    dual = np.asarray(warm_start.dual if known else warm_start, dtype=np.float64)
    if dual.shape != problem.target.shape or not np.isfinite(dual).all():
        raise ValueError(
            f"warm_start must be a Solution or a finite dual point of shape {problem.target.shape}; "
            f"got shape {dual.shape}."
        )
    dual, _ = problem.best_multiple(problem.design.project(dual))
    coefs = warm_start.coefs if known else problem.primal_of(dual)
    if [coef.shape for coef in coefs] != problem.design.coef_shapes:
        raise ValueError("warm_start is a solution for other features: its coefficients differ in shape.")
    return compress(coefs), dual


__all__ = ["SOLVERS", "Iteration", "Solution", "solve"]
