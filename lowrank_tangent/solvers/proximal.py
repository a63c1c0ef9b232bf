"""Accelerated proximal gradient with restarts and backtracking, on the primal.

The first-order baseline: each step costs one product with A and A* and a singular-value shrinkage.
Source: Beck & Teboulle, A fast iterative shrinkage-thresholding algorithm (2009); gradient restart of
O'Donoghue & Candès, Adaptive restart for accelerated gradient schemes (2015).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._types import Array, Coefs
from ..certificate import Certificate
from ..problem import StructuredRegression
from .reweighted import ridge_start
from .solution import Monitor, WarmStart
from .spectral_point import widened

#: Backtracking multiplies the Lipschitz estimate by this factor.
_GROW = 1.5
#: An estimate that has passed is tried a little smaller at the next step.
_RELAX = 0.98
#: The certificate costs about as much as a step; it is computed after every tenth.
_CHECK_EVERY = 10
#: The first estimate is no less than this share of ‖A A* r‖ / ‖y‖, the curvature of least squares.
_LEAST_CURVATURE = 1e-3
_EPS = np.finfo(float).eps


def solve_proximal(
    problem: StructuredRegression, monitor: Monitor, max_iter: int, warm_start: WarmStart
) -> tuple[Coefs, Array, str]:
    """Minimise the primal by restarted accelerated proximal gradient steps.

    The step is accepted only when the quadratic model at the current point majorises the loss at the
    new one, so its length never rests on an estimate of the Lipschitz constant alone.

    Returns
    -------
    coefs, dual, message
    """
    design, target, loss, convex = problem.design, problem.target, problem.loss, problem.spectral.is_convex
    if warm_start is not None:
        coefs = warm_start[0]
    elif convex:
        coefs = design.zeros()
    else:
        # B = 0 may be stationary where there is no convexity.
        coefs = ridge_start(problem)
    prediction = design.matvec(coefs)
    ahead, ahead_prediction, momentum = coefs, prediction, 1.0
    lipschitz = _largest_curvature_guess(problem, prediction)
    best: tuple[Coefs, Array, float] | None = None
    lowest = np.inf
    for iteration in range(max_iter + 1):
        if iteration % _CHECK_EVERY == 0 or iteration == max_iter:
            dual = loss.at(target, prediction).residual
            if convex:
                dual, dual_objective = problem.best_multiple(dual)
                certificate = Certificate.of(problem.objective(coefs), dual_objective)
            else:
                certificate = problem.certificate(coefs, dual)
            if best is None or not convex or certificate.error <= best[2]:
                best = coefs, dual, certificate.error
            message = monitor.record(iteration, certificate)
            if message:
                break
            if iteration == max_iter:
                message = f"max_iter={max_iter} reached"
                break
        here = loss.at(target, ahead_prediction)
        correlation = design.rmatvec(here.residual)
        lipschitz *= _RELAX
        while True:
            weight = 0.5 * problem.alpha / lipschitz
            if not 0.0 < weight < np.inf:
                raise FloatingPointError("step lengths leave double precision")
            new = [
                _shrink(b + g / lipschitz, penalty, weight)
                for b, g, penalty in zip(ahead, correlation, problem.spectral, strict=True)
            ]
            new_prediction = design.matvec(new)
            travelled = sum(np.sum((b - a) ** 2) for b, a in zip(new, ahead, strict=True))
            there = loss.at(target, new_prediction)
            if here.divergence(there) <= 0.5 * lipschitz * travelled * (1 + 8 * _EPS) or travelled == 0.0:
                break
            lipschitz *= _GROW
        if not convex:
            # Momentum may climb where there is no convexity; without it a step never does.
            objective = there.value + problem.penalty_value(new)
            if objective > lowest and momentum > 1.0:
                ahead, ahead_prediction, momentum = coefs, prediction, 1.0
                continue
            lowest = objective
        steps = [b - a for b, a in zip(new, coefs, strict=True)]
        uphill = sum(np.vdot(a - b, step) for a, b, step in zip(ahead, new, steps, strict=True)) > 0.0
        next_momentum = 1.0 if uphill else 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        inertia = 0.0 if uphill else (momentum - 1.0) / next_momentum
        ahead = [b + inertia * step for b, step in zip(new, steps, strict=True)]
        ahead_prediction = new_prediction + inertia * (new_prediction - prediction)
        coefs, prediction, momentum = new, new_prediction, next_momentum
    assert best is not None
    coefs, dual, _ = best
    return coefs, dual, message


def _largest_curvature_guess(problem: StructuredRegression, prediction: Array) -> float:
    """A lower estimate of the largest eigenvalue of A* S Sᵀ A by a few power iterations; backtracking does the rest."""
    design, target, loss = problem.design, problem.target, problem.loss
    here = loss.at(target, prediction)
    vector = design.project(np.random.default_rng(0).standard_normal((design.n_samples, design.n_outputs)))
    estimate: Any = 0.0
    for _ in range(5):
        size = np.linalg.norm(vector)
        if size == 0.0:
            break
        if loss.has_hessian:
            image = here.adjoint(design.matvec(design.rmatvec(here.multiply(vector / size))))
        else:
            moved = prediction + design.matvec(design.rmatvec(vector / size))
            image = here.residual - loss.at(target, moved).residual
        estimate, vector = np.linalg.norm(image), image
    # Where the loss is straight its curvature says nothing; the first step is then to be of the size of the targets.
    step = np.linalg.norm(design.matvec(design.rmatvec(here.residual)))
    size = np.linalg.norm(target) + np.linalg.norm(prediction)
    least = _LEAST_CURVATURE * step / size if size > 0.0 else 0.0
    return max(estimate, least, np.finfo(float).tiny)


def _shrink(matrix: Array, penalty: Any, weight: float) -> Array:
    """Proximal map of the penalty: singular-value shrinkage, on the smaller side of the matrix.

    From its Gram matrix: the shrinkage *factor* is a smooth function of the squared singular values, so that
    nothing of relevance is lost to the squaring.
    """
    wide = widened(matrix)
    eigenvalues, basis = np.linalg.eigh(wide @ wide.T)
    s = np.sqrt(np.maximum(eigenvalues, 0.0))
    # Directions at the level of rounding are zero already; any finite factor keeps them there.
    s = np.maximum(s, max(_EPS * s[-1], np.finfo(float).tiny))
    factor = penalty.prox(s, weight) / s
    mapped = basis @ (factor[:, None] * (basis.T @ wide))
    return mapped if wide is matrix else mapped.T
