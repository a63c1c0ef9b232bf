"""Fixed features: ridge regression in closed form, r = α (K + αI)⁻¹ y and B = A* r / α."""

from __future__ import annotations

import numpy as np

from .._cholesky import InverseFactor


def solve_ridge(problem, monitor, max_iter, warm_start):
    """Solve the problem without adaptivity by one Cholesky factorisation of its kernel.

    Costs n²·(p + q) + n³/3 operations for "shared" outputs, with n·C for n for "network" outputs.

    Returns
    -------
    coefs, dual, message
    """
    design, alpha = problem.design, problem.alpha
    shared = design.outputs == "shared"
    kernel = design.mean_gram() if shared else design.gram()
    target = problem.target if shared else problem.target.reshape(-1)
    dual = alpha * _solve_shifted(kernel, alpha, target).reshape(problem.target.shape)
    coefs = [pull / alpha for pull in design.rmatvec(dual)]
    monitor.record(1, problem.certificate(coefs, dual))
    return coefs, dual, "closed form"


def _solve_shifted(kernel, alpha, rhs):
    """(K + αI)⁻¹ rhs for a positive semi-definite K; by eigenvalues where α drowns in rounding."""
    shifted = kernel.copy()
    shifted.flat[:: len(kernel) + 1] += alpha
    try:
        factor = InverseFactor(shifted)
    except np.linalg.LinAlgError:
        values, basis = np.linalg.eigh(kernel)
        coordinates = basis.T @ rhs
        return basis @ (coordinates.T / (np.maximum(values, 0.0) + alpha)).T
    solution = factor.solve(rhs)
    # One step of iterative refinement recovers what an ill-conditioned factor loses.
    return solution + factor.solve(rhs - kernel @ solution - alpha * solution)
