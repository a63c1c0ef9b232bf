"""The joint problem over parameters and transforms, minimised as it stands: a witness, not a competitor.

    min_{θ, M}  ½‖y − A(M1 θ M2)‖² + (α/2) Σ_l [ ‖θ_l‖² + Σ_j μ ω1(σ_j(M1_l)) + Σ_j μ ω2(σ_j(M2_l)) ]

Limited-memory BFGS on dense transforms, by the gradients alone; it knows nothing of the structured problem that theory
says is equivalent. A side whose price is `RidgePenalty` stays at the identity.

Source: LeJeune & Alemohammad, arXiv 2308.15478, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import minimize

from .._types import Array, Coefs
from ..linalg.svd import thin_svd
from ..penalties import RidgePenalty
from ..problem import StructuredRegression
from .interpolation import by_multipliers
from .solution import Monitor, WarmStart

#: A triple (θ, M1, M2) a layer.
Variables: TypeAlias = list[tuple[Array, Array, Array]]

#: A price with a slope at z = 1 has a kink there, where optimal transforms have most of their singular values. It is
#: rounded off within these distances of 1, one after the other, each time from the last solution.
_ROUNDINGS = (1e-2, 1e-4, 1e-6, 1e-8)
#: Pairs that L-BFGS remembers; a decrease in floating-point arithmetic stops it, its own tolerances hardly do.
_MEMORY = 30
_LEAST_DECREASE = 1e-16
#: The certificate costs more than a step of so small a problem; it is computed this often.
_CHECK_EVERY = 20


def solve_bilinear(
    problem: StructuredRegression, monitor: Monitor, max_iter: int, warm_start: WarmStart
) -> tuple[Coefs, Array, str]:
    """Minimise the joint problem from the identity (or the transforms of a given point).

    Returns
    -------
    coefs, dual, message
    """
    return JointSolver()(problem, monitor, max_iter, warm_start)


def interpolate_bilinear(
    problem: StructuredRegression, monitor: Monitor, max_iter: int, warm_start: WarmStart
) -> tuple[Coefs, Array, str]:
    """The same for the linearly constrained joint problem."""
    return by_multipliers(JointSolver())(problem, monitor, max_iter, warm_start)


class JointSolver:
    """A solver that keeps θ, M1 and M2 from one call to the next.

    Parameters
    ----------
    variables : list of triples, optional
        Where to start; by default the identity, or the transforms of the warm start.
    """

    def __init__(self, variables: Variables | None = None) -> None:
        self.variables = variables

    def __call__(
        self, problem: StructuredRegression, monitor: Monitor, max_iter: int, warm_start: WarmStart
    ) -> tuple[Coefs, Array, str]:
        """Called as every solver is."""
        joint = JointProblem(problem)
        if self.variables is None:
            # B = 0 would be kept where unused directions are given up: M1 = 0 and θ = 0 do not move each other.
            if warm_start is not None and any(coef.any() for coef in warm_start[0]):
                self.variables = joint.factors(warm_start[0])
            else:
                self.variables = joint.identity()

        def check(iteration: int, variables: Variables) -> str:
            coefs = joint.coefs(variables)
            return monitor.record(iteration, problem.certificate(coefs, _dual(problem, coefs)))

        self.variables, message = joint.minimise(self.variables, max_iter, check)
        coefs = joint.coefs(self.variables)
        return coefs, _dual(problem, coefs), message


def _dual(problem: StructuredRegression, coefs: Coefs) -> Array:
    residual = problem.residual(coefs)
    return problem.best_multiple(residual)[0] if problem.spectral.is_convex else residual


class JointProblem:
    """The joint problem that belongs to a structured one.

    Its variables are a list with one triple (θ, M1, M2) a layer, dense matrices of shapes (p, q), (p, p) and (q, q).

    Parameters
    ----------
    problem : StructuredRegression
    """

    def __init__(self, problem: StructuredRegression) -> None:
        self.problem = problem
        #: Prices of M1 and M2 of every layer; None leaves that side at the identity.
        self._sides = [
            [None if isinstance(side, RidgePenalty) else side for side in layer.base.sides]
            for layer in problem.spectral
        ]

    def identity(self) -> Variables:
        """θ = 0, M1 = M2 = I."""
        return [(np.zeros((p, q)), np.eye(p), np.eye(q)) for p, q in self.problem.design.coef_shapes]

    def perturbed(self, scale: float, rng: np.random.Generator) -> Variables:
        """θ = 0 and transforms I + N with N Gaussian of that spectral scale; sides that are fixed stay fixed."""
        variables = []
        for (theta, *transforms), sides in zip(self.identity(), self._sides, strict=True):
            m1, m2 = (
                m if side is None else m + 0.5 * scale * rng.standard_normal(m.shape) / math.sqrt(len(m))
                for m, side in zip(transforms, sides, strict=True)
            )
            variables.append((theta, m1, m2))
        return variables

    def factors(self, coefs: Coefs) -> Variables:
        """The triple of each layer that theory recovers from coefficients."""
        variables = []
        for coef, penalty in zip(coefs, self.problem.spectral, strict=True):
            u, v, vt = thin_svd(coef)
            z1, z2 = penalty.split(v)
            z = z1 * z2
            theta = (u * np.divide(v, z, out=np.zeros_like(v), where=z > 0)) @ vt
            m1 = np.eye(len(u)) + (u * (z1 - 1.0)) @ u.T
            m2 = np.eye(vt.shape[1]) + (vt.T * (z2 - 1.0)) @ vt
            variables.append((theta, m1, m2))
        return variables

    @staticmethod
    def coefs(variables: Variables) -> Coefs:
        """B = M1 θ M2 of each layer."""
        return [m1 @ theta @ m2 for theta, m1, m2 in variables]

    def objective(self, variables: Variables) -> float:
        """Value of the joint problem; without the loss where that is a constraint."""
        return float(self._value_and_gradient(variables, 0.0)[0])

    def minimise(
        self, start: Any, max_iter: int, check: Callable[[int, Variables], str] | None = None
    ) -> tuple[Variables, str]:
        """A local minimum by L-BFGS.

        Parameters
        ----------
        start : list of triples
        max_iter : int
        check : callable, optional
            Called with (iteration, variables) now and then; a true return value, the reason, stops the iteration.

        Returns
        -------
        variables : list of triples
        message : str
        """
        prices = [side for sides in self._sides for side in sides if side is not None]
        kinked = any(float(price.slope(1.0)) > 0.0 for price in prices)
        flat, iteration, reason = self._pack(start), 0, ""

        def after_step(intermediate_result: Any) -> None:
            nonlocal iteration, flat, reason
            iteration += 1
            flat = intermediate_result.x.copy()
            if check is not None and iteration % _CHECK_EVERY == 0:
                reason = check(iteration, self._unpack(flat))
                if reason:
                    raise StopIteration

        message = ""
        for rounding in _ROUNDINGS if kinked else (0.0,):
            result = minimize(
                self._flat_value_and_gradient,
                flat,
                args=(rounding,),
                jac=True,
                method="L-BFGS-B",
                callback=after_step,
                options={
                    "maxiter": max(max_iter - iteration, 0),
                    "maxfun": 20 * max_iter + 100,
                    "maxcor": _MEMORY,
                    "ftol": _LEAST_DECREASE,
                    "gtol": 0.0,
                },
            )
            message = reason or str(result.message)
            if reason or iteration >= max_iter:
                break
            flat = result.x
        if check is not None and not reason:
            message = check(iteration, self._unpack(flat)) or message
        if iteration >= max_iter:
            message = f"max_iter={max_iter} reached"
        return self._unpack(flat), message

    def _value_and_gradient(self, variables: Variables, rounding: float) -> tuple[float, list[list[Array]]]:
        design, alpha = self.problem.design, self.problem.alpha
        loss = self.problem.loss_at(self.coefs(variables))
        value, gradients = loss.value, []
        layers = zip(variables, design.rmatvec(loss.residual), self._sides, self.problem.spectral, strict=True)
        for (theta, m1, m2), correlation, sides, layer in layers:
            value += 0.5 * alpha * np.sum(theta**2)
            triple = [
                alpha * theta - m1.T @ correlation @ m2.T,
                -correlation @ (theta @ m2).T,
                -(m1 @ theta).T @ correlation,
            ]
            weight = 0.5 * alpha * layer.sqrt_mu**2
            for k, (matrix, side) in enumerate(zip((m1, m2), sides, strict=True), start=1):
                if side is None:
                    triple[k] = np.zeros_like(matrix)
                    continue
                price, slope = _price_of(matrix, side, rounding)
                value += weight * price
                triple[k] += weight * slope
            gradients.append(triple)
        return value, gradients

    def _flat_value_and_gradient(self, flat: Array, rounding: float) -> tuple[float, Array]:
        value, gradients = self._value_and_gradient(self._unpack(flat), rounding)
        return value, self._pack(gradients)

    @staticmethod
    def _pack(variables: Iterable[Iterable[Array]]) -> Array:
        return np.concatenate([matrix.ravel() for triple in variables for matrix in triple])

    def _unpack(self, flat: Array) -> Variables:
        variables, start = [], 0
        for p, q in self.problem.design.coef_shapes:
            matrices = []
            for shape in ((p, q), (p, p), (q, q)):
                size = shape[0] * shape[1]
                matrices.append(flat[start : start + size].reshape(shape))
                start += size
            theta, m1, m2 = matrices
            variables.append((theta, m1, m2))
        return variables


def _price_of(matrix: Array, side: Any, rounding: float) -> tuple[float, Array]:
    """Σ_j ω(σ_j(M)) and its gradient, with the kink at 1 rounded off: |z − 1| becomes √(|z − 1|² + ε²) − ε."""
    u, z, vt = np.linalg.svd(matrix)
    z = np.maximum(z, np.finfo(float).tiny)
    if rounding == 0.0:
        return np.sum(side.value(z)), (u * side.slope(z)) @ vt
    distance = np.hypot(z - 1.0, rounding)
    rounded = np.where(
        z < 1.0, np.maximum(1.0 - (distance - rounding), np.finfo(float).tiny), 1.0 + distance - rounding
    )
    slope = np.where(rounded == 1.0, 0.0, side.slope(rounded)) * np.abs(z - 1.0) / distance
    return np.sum(side.value(rounded)), (u * slope) @ vt
