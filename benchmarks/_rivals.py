"""Solvers of other projects on our problem: cone solvers through cvxpy, and first-order methods that take a prox.

Each function takes (problem, tol, limit) and returns coefficients, a dual point and iterations. It stops once `limit`
seconds are over; `tol` is the gap for first-order methods, and a cone solver's own tolerance. Problems have one layer,
one position a sample and one output, and the penalty "power" or "kl". First-order methods are given the package's own
operator and proximal map, and the step 1/L for the largest eigenvalue L of A*A, computed on their clock.
"""

from __future__ import annotations

import time

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from lowrank_tangent.certificate import Certificate
from lowrank_tangent.penalties import KLPenalty

#: Tolerances of the cone solvers, from loose to tight: the first that our certificate is content with counts.
CONE_TOLERANCES = {"clarabel": (1e-8, 1e-9, 1e-10), "scs": (1e-6, 1e-7, 1e-8, 1e-9, 1e-10)}
#: Steps between two certificates, as in the package's own proximal method.
_CHECK_EVERY = 10
_MAX_STEPS = 10**7
#: A step this much shorter than 1/L makes up for what the computed L may lack.
_MARGIN = 1e-3


def by_clarabel(problem, tol, limit):
    """The semidefinite program by the interior-point solver Clarabel."""
    tolerances = dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tol)
    return _solve_cone(problem, "CLARABEL", time_limit=limit, **tolerances)


def by_scs(problem, tol, limit):
    """The semidefinite program by the operator-splitting solver SCS."""
    return _solve_cone(problem, "SCS", eps_abs=tol, eps_rel=tol, max_iters=_MAX_STEPS, time_limit_secs=limit)


def by_pyproximal(problem, tol, limit):
    """FISTA of pyproximal, with its penalty on singular values (an SVD a step)."""
    import pylops
    import pyproximal
    from pylops.optimization.callback import Callbacks
    from pyproximal.optimization.cls_primal import ProximalGradient

    class OnSingularValues(pyproximal.ProxOperator):
        def __call__(self, values):
            return weight * scaled.effective(values).sum()

        def prox(self, values, tau):
            return scaled.prox(values, weight * tau)

    class Stop(Callbacks):
        stop = False

        def on_step_end(self, solver, x):
            self.stop = rule(x)

    (shape,), (scaled,) = problem.design.coef_shapes, problem.spectral
    weight, rule = 0.5 * problem.alpha, _StopRule(problem, tol, limit)
    operator = pylops.FunctionOperator(
        lambda x: problem.design.matvec([x.reshape(shape)]).ravel(),
        lambda r: problem.design.rmatvec(r[:, None])[0].ravel(),
        problem.design.n_samples,
        shape[0] * shape[1],
    )
    solver = ProximalGradient(callbacks=[Stop()])
    x, *_ = solver.solve(
        pyproximal.L2(operator, problem.target[:, 0]),
        pyproximal.SingularValuePenalty(shape, OnSingularValues()),
        np.zeros(operator.shape[1]),
        tau=_step_length(problem.design),
        acceleration="fista",
        niter=_MAX_STEPS,
    )
    return _certified(problem, x, rule.steps)


def by_copt(problem, tol, limit):
    """Accelerated proximal gradient of copt, with shrinkage by eigenvalues of the smaller Gram matrix."""
    import copt

    def value_and_gradient(x):
        residual = problem.residual([x.reshape(shape)])
        return 0.5 * np.sum(residual**2), -problem.design.rmatvec(residual)[0].ravel()

    def prox(x, tau):
        return _shrink(x.reshape(shape), scaled, 0.5 * problem.alpha * tau).ravel()

    (shape,), (scaled,) = problem.design.coef_shapes, problem.spectral
    rule, length = _StopRule(problem, tol, limit), _step_length(problem.design)
    result = copt.minimize_proximal_gradient(
        value_and_gradient,
        np.zeros(shape[0] * shape[1]),
        prox,
        jac=True,
        tol=0.0,
        max_iter=_MAX_STEPS,
        callback=lambda local: not rule(local["x"]),
        step=lambda local: length,
        accelerated=True,
    )
    return _certified(problem, result.x, rule.steps)


class _StopRule:
    """Whether to stop, asked with the coefficients at every step: the gap is below `tol`, or time is up."""

    def __init__(self, problem, tol, limit):
        self.steps = 0
        self._problem, self._tol = problem, tol
        self._end = time.perf_counter() + limit

    def __call__(self, x):
        self.steps += 1
        if self.steps % _CHECK_EVERY:
            return False
        coefs = [x.reshape(self._problem.design.coef_shapes[0])]
        _, dual_objective = self._problem.best_multiple(self._problem.residual(coefs))
        gap = Certificate.of(self._problem.objective(coefs), dual_objective).dual_gap
        return gap <= self._tol or time.perf_counter() > self._end


def _certified(problem, x, iterations):
    """Coefficients with the dual point that their residual stands for."""
    coefs = [np.reshape(x, problem.design.coef_shapes[0])]
    return coefs, problem.best_multiple(problem.residual(coefs))[0], iterations


def _step_length(design):
    """1/L by Lanczos' method on A A*."""
    n = design.n_samples
    kernel = LinearOperator((n, n), matvec=lambda r: design.matvec(design.rmatvec(r.reshape(n, 1)))[:, 0], dtype=float)
    (largest,) = eigsh(kernel, k=1, v0=np.ones(n), tol=_MARGIN, return_eigenvectors=False)
    return 1.0 / ((1.0 + _MARGIN) * largest)


def _shrink(matrix, scaled, tau):
    """The proximal map of τ Σ ω̃_μ(σ_j)."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares, basis = np.linalg.eigh(wide @ wide.T)
    values = np.sqrt(np.maximum(squares, np.finfo(float).tiny))
    shrunk = (basis * (scaled.prox(values, tau) / values)) @ (basis.T @ wide)
    return shrunk if wide is matrix else shrunk.T


def _solve_cone(problem, solver, **options):
    """Coefficients from the semidefinite program. Those of a solver that gives up at once are zero."""
    import cvxpy as cp

    program, coef = _semidefinite_program(cp, problem)
    try:
        program.solve(solver=solver, **options)
    except cp.error.SolverError:
        return _certified(problem, np.zeros(coef.shape), 0)
    found = np.zeros(coef.shape) if coef.value is None else coef.value
    return _certified(problem, found, program.solver_stats.num_iters or 0)


def _semidefinite_program(cp, problem):
    """The problem written with S = M Mᵀ, from the definition of a stretch.

    Σ_j μ ω̃(σ_j(B)/√μ) is the minimum over S ⪰ I of tr(Bᵀ S⁻¹ B) + μ Ω(S), where Ω(S) = tr S − 2 tr S^½ + p for
    "power", with tr S^½ = max tr X : [[S, X], [X, I]] ⪰ 0, and tr S − log det S − p for "kl".
    """
    (layer,), (scaled,) = problem.operator.layers, problem.spectral
    coef = cp.Variable(problem.operator.coef_shapes[0])
    prediction = cp.sum(cp.multiply(layer.h[:, 0] @ coef, layer.delta[:, 0, 0]), axis=1)
    wide = coef if coef.shape[0] <= coef.shape[1] else coef.T
    p = wide.shape[0]
    square = cp.Variable((p, p), symmetric=True)
    constraints = [square >> np.eye(p)]
    if isinstance(scaled.penalty, KLPenalty):
        price = cp.trace(square) - cp.log_det(square) - p
    else:
        root = cp.Variable((p, p), symmetric=True)
        constraints.append(cp.bmat([[square, root], [root, np.eye(p)]]) >> 0)
        price = cp.trace(square) - 2 * cp.trace(root) + p
    penalty = cp.matrix_frac(wide, square) + price / scaled.adaptivity
    loss = cp.sum_squares(problem.target[:, 0] - prediction)
    return cp.Problem(cp.Minimize(0.5 * loss + 0.5 * problem.alpha * penalty), constraints), coef
