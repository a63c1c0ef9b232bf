"""Fixed features: ridge regression in closed form, r = α (K + αI)⁻¹ y and B = A* r / α; K r = α y for interpolation."""

from __future__ import annotations

import numpy as np

from .._types import Array, Coefs
from ..linalg.cholesky import CholeskyFactor
from ..precision import finite_kernel
from ..problem import StructuredRegression
from .interpolation import check_rank
from .newton import solve_newton
from .solution import Monitor, WarmStart

#: Rounding leaves the closed form a gap up to this; a larger one than is asked for is a loss of digits in the kernel.
_ROUNDING_GAP = 1e-9
_MAX_NEWTON = 200


def solve_ridge(
    problem: StructuredRegression, monitor: Monitor, max_iter: int, warm_start: WarmStart
) -> tuple[Coefs, Array, str]:
    """Solve the problem without adaptivity by one Cholesky factorisation of its kernel, formed also of a stream.

    Where weights of the samples span more decades than double precision has, the kernel has lost the samples that weigh
    little. The certificate says so, and Newton's method, which refines by products with A, finds the solution.

    Costs n²·(p + q) + n³/3 operations for "shared" outputs, with n·C for n for "network" outputs; n² of a problem that
    is diagonalised.

    Parameters
    ----------
    problem : StructuredRegression
    monitor : Monitor
    max_iter, warm_start
        Not needed.

    Returns
    -------
    coefs, dual, message
    """
    path = problem.ridge_path
    unreachable: Array | float
    if path is not None and not problem.loss.is_constraint and problem.alpha > path.rounding:
        solution, unreachable = path.dual_coefs(problem.alpha), 0.0
    else:
        solution, unreachable = _solve(problem)
    coefs = problem.design.rmatvec(solution)
    dual = problem.alpha * solution + unreachable
    certificate = problem.certificate(coefs, dual)
    if not problem.loss.is_constraint and certificate.error > max(monitor.tol, _ROUNDING_GAP):
        other_coefs, other_dual, message = solve_newton(problem, monitor, _MAX_NEWTON, None)
        other = problem.certificate(other_coefs, other_dual)
        # Each of the two points from where it is better: a bound needs more digits than coefficients.
        coefs = coefs if certificate.objective <= other.objective else other_coefs
        dual = dual if certificate.dual_objective >= other.dual_objective else other_dual
        return coefs, dual, f"closed form, and Newton's method for digits that it lacks: {message}"
    monitor.record(1, certificate)
    return coefs, dual, "closed form"


def _solve(problem: StructuredRegression) -> tuple[Array, Array]:
    """(K + αI)⁻¹ y (K⁻¹ y for interpolation) on the range of K, and the part of y outside of it; shapes (n, C)."""
    design = problem.design
    shared = design.outputs == "shared"
    kernel = finite_kernel(design)
    target = problem.target if shared else problem.target.reshape(-1)
    if problem.loss.is_constraint:
        check_rank(problem)
        solution, _ = _solve_shifted(kernel, 0.0, target)
        unreachable = np.zeros_like(target)
    else:
        solution, unreachable = _solve_shifted(kernel, problem.alpha, target)
    return solution.reshape(problem.target.shape), unreachable.reshape(problem.target.shape)


def _solve_shifted(kernel: Array, alpha: float, rhs: Array) -> tuple[Array, Array]:
    """(K + αI)⁻¹ rhs on the range of K, and the part of rhs outside of it, for a positive semi-definite K.

    The range is told from the rest only where α drowns in the rounding of K; there the rest, divided by α, would
    drown everything.
    """
    rounding = len(kernel) * np.finfo(float).eps * np.trace(kernel)
    if alpha <= rounding:
        values, basis = np.linalg.eigh(kernel)
        coordinates = basis.T @ rhs
        reachable = values > rounding
        solution = basis[:, reachable] @ (coordinates[reachable].T / (values[reachable] + alpha)).T
        return solution, basis[:, ~reachable] @ coordinates[~reachable]
    shifted = kernel.copy()
    shifted.flat[:: len(kernel) + 1] += alpha
    factor = CholeskyFactor(shifted)
    solution = factor.solve(rhs)
    # One step of iterative refinement recovers what an ill-conditioned factor loses.
    solution += factor.solve(rhs - kernel @ solution - alpha * solution)
    return solution, np.zeros_like(rhs)
