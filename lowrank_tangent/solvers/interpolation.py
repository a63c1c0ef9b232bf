"""The linearly constrained problem by the method of multipliers, on top of any solver of the penalised one.

    minimise (α/2) Σ_l Σ_j ω̃_μ(σ_j(B_l))  subject to  A B = y

is solved by a few penalised problems with a small weight ρ on the penalty, whose targets are shifted by the multipliers
so far: minimise ``½‖y + ρ r − A B‖² + ρ (α/2) Σ ω̃``, then ``ρ r ← y + ρ r − A B``. Each of them shrinks the residual of
the constraint by a factor of about ρα / (ρα + λ) with λ the smallest eigenvalue of the kernel, which ρ makes small.

Source: Bertsekas, Constrained Optimization and Lagrange Multiplier Methods (1982), chapter 2.
"""

from __future__ import annotations

import copy

import numpy as np

from .._types import Array, Coefs
from ..losses import Squared
from ..precision import finite_kernel
from ..problem import StructuredRegression
from .solution import Monitor, SolverFunction, WarmStart

#: ρα as a share of the smallest eigenvalue of the kernel; three or four problems then do.
_SHARE = 1e-2
#: ...but no less than this share of the largest, below which the penalty drowns in the rounding of the loss.
_LEAST_SHARE = 1e-9
_MAX_UPDATES = 50
#: Updates in a row without progress after which there will be none.
_MAX_STALLED = 3
#: The penalised problems are solved to this share of `tol`; squared for a gap, which is of second order in the error
#: of the point, and no further than rounding allows.
_INNER_MARGIN = 0.1
_LEAST_GAP = 1e-15
_EPS = np.finfo(float).eps


def check_rank(problem: StructuredRegression) -> Array:
    """Nonzero eigenvalues of the kernel, smallest first, for independent constraints.

    Raises
    ------
    ValueError
        If the constraints depend on each other; the message names their rank.
    """
    design, target = problem.design, problem.target
    shared = design.outputs == "shared"
    kernel = finite_kernel(design)
    values, basis = np.linalg.eigh(kernel)
    copies = 1 if shared else design.n_outputs
    counted = design.n_samples if design.row_scale is None else int(np.count_nonzero(design.row_scale))
    expected = (counted - bool(design.centred)) * copies
    reached = values > len(kernel) * _EPS * max(values[-1], 0.0)
    rank = int(np.count_nonzero(reached))
    if rank < expected:
        flat = target if shared else target.reshape(-1)
        missed = np.linalg.norm(basis[:, ~reached].T @ flat) / (np.linalg.norm(flat) or 1.0)
        raise ValueError(
            f"loss='interpolation' needs independent constraints: {expected} are asked for and their rank is {rank}. "
            f"The share of y that no coefficients reach is {missed:.1e}. Remove duplicate samples, use a wider "
            "network, or loss='squared' with a small alpha."
        )
    return values[len(values) - rank :]


def by_multipliers(inner: SolverFunction) -> SolverFunction:
    """A solver of the linearly constrained problem, from one of the penalised problem.

    Parameters
    ----------
    inner : callable
        Called with (problem, monitor, max_iter, warm_start); returns (coefs, dual, message).

    Returns
    -------
    callable
        Of the same kind.
    """

    def solve(
        problem: StructuredRegression, monitor: Monitor, max_iter: int, warm_start: WarmStart
    ) -> tuple[Coefs, Array, str]:
        eigenvalues = check_rank(problem)
        if not len(eigenvalues):
            # One sample, which the intercept meets alone.
            coefs, dual = problem.design.zeros(), np.zeros_like(problem.target)
            return coefs, dual, monitor.record(0, problem.certificate(coefs, dual))
        weight = max(_SHARE * eigenvalues[0], _LEAST_SHARE * eigenvalues[-1])
        penalised = copy.copy(problem)
        penalised.loss = Squared()
        penalised.alpha = weight
        shift, start = np.zeros_like(problem.target), warm_start
        if warm_start is not None:
            coefs, known = warm_start
            if known is not None:
                shift = known * (weight / problem.alpha)
            start = coefs, shift
        tol = _INNER_MARGIN * monitor.tol
        if problem.spectral.is_convex:
            tol = max(tol**2, _LEAST_GAP)
        spent, stalled, best_error = 0, 0, np.inf
        best: tuple[Coefs, Array] | None = None
        for _ in range(_MAX_UPDATES):
            penalised.target = problem.target + shift
            quiet = Monitor(tol)
            coefs, _, _ = inner(penalised, quiet, max_iter - spent, start)
            spent += quiet.history[-1].iteration
            shift = penalised.residual(coefs)
            start = coefs, shift
            dual = shift * (problem.alpha / weight)
            if problem.spectral.is_convex:
                dual, _ = problem.best_multiple(dual)
            certificate = problem.certificate(coefs, dual)
            message = monitor.record(spent, certificate)
            stalled = 0 if certificate.error < best_error else stalled + 1
            if best is None or certificate.error < best_error:
                best, best_error = (coefs, dual), certificate.error
            if message:
                break
            if spent >= max_iter:
                message = f"max_iter={max_iter} reached"
                break
            if stalled == _MAX_STALLED:
                message = "multipliers cannot be improved in floating-point arithmetic"
                break
        assert best is not None
        return *best, message or f"{_MAX_UPDATES} updates of the multipliers were not enough"

    return solve
