"""Small problems of all kinds, what a solver makes of them, and their objectives by dense matrices."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from .._types import Array
from ..losses import SeparableLoss
from ..operators import LayerFactors, TangentOperator
from ..penalties import JointPenalty, KLPenalty, NuclearPenalty, PowerPenalty, RidgePenalty
from ..problem import StructuredRegression
from ..solvers import Solution, Solver, solve
from ..solvers.registry import capable
from ..solvers.solution import SolverFunction
from .findings import Finding

#: Strong enough for plain gradient steps to converge in some hundreds, weak enough for every penalty to stretch.
_ALPHA = 1.5

Method: TypeAlias = "str | Solver | SolverFunction"


class Straight(SeparableLoss):
    """Huber's loss with its bend at 1, as one that has no Hessian."""

    name = "straight"

    def values(self, y: Array, f: Array) -> Array:
        """½ e² for |e| ≤ 1, else |e| − ½."""
        error = np.abs(y - f)
        cost: Array = np.where(error <= 1.0, 0.5 * error**2, error - 0.5)
        return cost

    def slopes(self, y: Array, f: Array) -> Array:
        """f − y, no further than 1 from 0."""
        slope: Array = np.clip(f - y, -1.0, 1.0)
        return slope

    def dual_values(self, y: Array, r: Array) -> Array:
        """r y − ½ r²."""
        return r * y - 0.5 * r**2

    def dual_bounds(self, y: Array) -> tuple[float, float]:
        """−1 and 1."""
        return -1.0, 1.0


def problems(rng: np.random.Generator) -> dict[str, StructuredRegression]:
    """One problem of each kind, small enough for a dense matrix and a semidefinite program."""

    def layer(n: int, C: int, p: int, q: int) -> LayerFactors:
        return LayerFactors(rng.standard_normal((n, p)), rng.standard_normal((n, C, q)) / np.sqrt(q))

    n = 12
    shared = TangentOperator([layer(n, 1, 3, 2)], "shared", 2)
    deep = TangentOperator([layer(n, 2, 3, 4), layer(n, 2, 4, 2)])
    single = TangentOperator([layer(n, 1, 3, 4)])
    wide = TangentOperator([layer(5, 1, 4, 6)])
    y = 2.0 * rng.standard_normal((n, 2))
    weights = rng.uniform(0.3, 2.0, n)
    weights[1] = 0.0
    labels = (y[:, :1] > 0.0).astype(np.float64)
    rest: dict[str, Any] = {"sample_weight": weights, "fit_intercept": True}
    return {
        "least squares, KL": StructuredRegression(shared, y, KLPenalty(), _ALPHA),
        "least squares, power, weights and intercept": StructuredRegression(deep, y, PowerPenalty(2), _ALPHA, **rest),
        "least squares, ridge": StructuredRegression(deep, y, RidgePenalty(), _ALPHA, **rest),
        "least squares, nuclear norm": StructuredRegression(single, y[:, :1], NuclearPenalty(), _ALPHA),
        "least squares, not convex": StructuredRegression(single, y[:, :1], JointPenalty(), _ALPHA),
        "cross-entropy, KL, weights and intercept": StructuredRegression(
            single, labels, KLPenalty(), _ALPHA, loss="multinomial", **rest
        ),
        "straight loss, power, weights": StructuredRegression(
            single, y[:, :1], PowerPenalty(2), _ALPHA, loss=Straight(), sample_weight=weights
        ),
        "interpolation, power": StructuredRegression(wide, y[:5, :1], PowerPenalty(2), 1.0, loss="interpolation"),
    }


class SolverCase:
    """A solver, the problems that it says it can solve, and its solutions.

    Parameters
    ----------
    method : str, Solver or callable
    tol : float
    seed : int
    """

    def __init__(self, method: Method, tol: float, seed: int) -> None:
        self.method, self.tol = method, tol
        self._all = problems(np.random.default_rng(seed))
        self._solutions: dict[str, Solution] = {}

    @functools.cached_property
    def problems(self) -> Mapping[str, StructuredRegression]:
        """Those that the solver can do."""
        able = {}
        for name, problem in self._all.items():
            try:
                capable(self.method, problem)
            except ValueError:
                continue
            able[name] = problem
        if not able:
            raise Finding(f"it can solve none of {sorted(self._all)}")
        return able

    def solve(self, problem: StructuredRegression, **options: Any) -> Solution:
        """What the solver makes of a problem."""
        return solve(problem, method=self.method, **{"tol": self.tol, "random_state": 0, **options})

    def limited(self, problem: StructuredRegression, max_iter: int, **options: Any) -> Solution | None:
        """The same with few iterations; None where the solver says by a RuntimeError that it has no point yet."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a point that is not accurate, which nobody expects here
            try:
                return self.solve(problem, max_iter=max_iter, **options)
            except RuntimeError:
                return None

    def solution(self, name: str) -> Solution:
        """Its solution to one of the problems."""
        if name not in self._solutions:
            self._solutions[name] = self.solve(self.problems[name])
        return self._solutions[name]

    def other(self, name: str) -> Solution:
        """Its solution to the same problem with twice the penalty."""
        key = f"{name}, twice the penalty"
        if key not in self._solutions:
            problem = self.problems[name]
            adaptivities = [layer.adaptivity for layer in problem.spectral]
            self._solutions[key] = self.solve(problem.with_strength(2.0 * problem.alpha, adaptivities))
        return self._solutions[key]


def reference(problem: StructuredRegression, method: Method) -> Solution:
    """A solution by another solver: the semidefinite program, or proximal gradient steps."""
    for other in ("cvxpy", "proximal", "bilinear", "newton"):
        if other == method:
            continue
        try:
            capable(other, problem)
        except ValueError:
            continue
        return solve(problem, method=other, tol=1e-6)
    raise Finding("no other solver can do this problem")
