"""Reference path: the problem as a semidefinite program, solved by cvxpy.

Written from the definition of the stretched problem, without the package's penalties: with S = M Mᵀ ⪰ I,

    Σ_j μ ω̃(σ_j(B)/√μ) = min_{S ⪰ I}  tr(Bᵀ S⁻¹ B) + μ Ω(S),
    Ω(S) = tr S − 2 tr S^{1/2} + p    for ω(z) = (z − 1)²,       tr S^{1/2} = max tr X : [[S, X], [X, I]] ⪰ 0
    Ω(S) = tr S − log det S − p       for KL.

The loss writes itself, see `Loss.cvxpy_value`.

Small problems only: interior-point methods need minutes where p or n reach a few hundred.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._types import Array, Coefs
from ..penalties import KLPenalty, NuclearPenalty, PowerPenalty
from ..problem import StructuredRegression
from .interpolation import check_rank
from .solution import Monitor, WarmStart


def solve_cvxpy(
    problem: StructuredRegression, monitor: Monitor, max_iter: int, warm_start: WarmStart
) -> tuple[Coefs, Array, str]:
    """Solve the semidefinite program with Clarabel.

    Raises
    ------
    ImportError
        If cvxpy is not installed.
    ValueError
        For a penalty that has no semidefinite form here.
    RuntimeError
        If the cone solver fails or calls the problem infeasible or unbounded.

    Returns
    -------
    coefs, dual, message
    """
    try:
        import cvxpy as cp
    except ImportError as error:
        raise ImportError("method='cvxpy' needs cvxpy: pip install cvxpy.") from error
    design, alpha = problem.design, problem.alpha
    coefs = [cp.Variable(shape) for shape in design.coef_shapes]
    prediction = _prediction(cp, design, coefs)
    penalties, constraints = [], []
    for coef, layer in zip(coefs, problem.spectral, strict=True):
        value, extra = _penalty(cp, coef, layer)
        penalties.append(value)
        constraints += extra
    objective = 0.5 * alpha * sum(penalties)
    if problem.loss.is_constraint:
        check_rank(problem)
        constraints.append(problem.target - prediction == 0)
    else:
        objective = objective + problem.loss.cvxpy_value(problem.target, prediction)
    program = cp.Problem(cp.Minimize(objective), constraints)
    try:
        program.solve(solver=cp.CLARABEL, max_iter=max_iter)
    except (cp.error.SolverError, np.linalg.LinAlgError) as error:
        raise RuntimeError(f"cvxpy's solver failed: {error}. {_ADVICE}") from error
    if program.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise RuntimeError(f"cvxpy returned the status {program.status!r} and no solution. {_ADVICE}")
    values = [np.asarray(coef.value) for coef in coefs]
    dual = constraints[-1].dual_value if problem.loss.is_constraint else problem.residual(values)
    dual, _ = problem.best_multiple(problem.project(dual))
    monitor.record(program.solver_stats.num_iters or 0, problem.certificate(values, dual))
    return values, dual, f"cvxpy status {program.status}"


_ADVICE = "Rescale X and y to unit variance, or use method='newton'."


def _prediction(cp: Any, design: Any, coefs: list[Any]) -> Any:
    """A B as a cvxpy expression, by the dense matrix of A."""
    stacked = cp.hstack([cp.reshape(coef, (coef.size,), order="C") for coef in coefs])
    return cp.reshape(design.to_dense() @ stacked, (design.n_samples, design.n_outputs), order="C")


def _penalty(cp: Any, coef: Any, layer: Any) -> tuple[Any, list[Any]]:
    if layer.is_fixed:
        return cp.sum_squares(coef), []
    penalty, price = layer.penalty, 1.0 / layer.adaptivity
    if isinstance(penalty, NuclearPenalty):
        return 2.0 * np.sqrt(price) * cp.norm(coef, "nuc"), []
    if coef.shape[0] > coef.shape[1]:
        coef = coef.T
    p = coef.shape[0]
    square = cp.Variable((p, p), symmetric=True)
    stretched = cp.matrix_frac(coef, square)
    constraints = [square >> np.eye(p)]
    if isinstance(penalty, PowerPenalty) and penalty.p == 2:
        root = cp.Variable((p, p), symmetric=True)
        constraints.append(cp.bmat([[square, root], [root, np.eye(p)]]) >> 0)
        return stretched + price * (cp.trace(square) - 2 * cp.trace(root) + p), constraints
    if isinstance(penalty, KLPenalty):
        return stretched + price * (cp.trace(square) - cp.log_det(square) - p), constraints
    raise ValueError(
        f"method='cvxpy' knows PowerPenalty(2), KLPenalty, NuclearPenalty and adaptivity=0; got {penalty!r}."
    )
