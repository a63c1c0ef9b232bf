"""Statements of the theory, checked on a given problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import check_number, generator
from .._types import Array, RandomState
from ..adaptation import adapt
from ..problem import StructuredRegression
from ..progress import progress
from ..solvers import Monitor, Solution, solve
from ..solvers.bilinear import JointProblem, JointSolver
from ..solvers.interpolation import by_multipliers

#: The structured problem is solved to this gap or stationarity: the error of a point is the square root of its gap.
_STRUCTURED_TOL = {"gap": 1e-14, "stationarity": 1e-10}
#: Theory holds if no error is larger. L-BFGS finds values to 1e-8, and to 1e-5 where a price has a kink; where theory
#: was wrong, by a factor 2 in a term say, errors would be of order 0.1.
_ACCURACY = 1e-4
_TINY = np.finfo(float).tiny


@dataclass(frozen=True, eq=False)
class EquivalenceReport:
    """The joint and the structured problem, side by side.

    Attributes
    ----------
    structured : float
        Value of the structured problem, solved on its own.
    recovered : float
        Value of the joint problem at the (θ, M1, M2) that theory recovers from that solution.
    joint : float
        Lowest value of the joint problem that L-BFGS found on its own.
    joint_values : ndarray of shape (n_starts,)
        Its value from every start; the first is the identity.
    dual_gap, stationarity : float
        Certificate of the structured solution.
    constraint_violation : float
        Largest ‖y − A B‖ / ‖y‖ of both solutions, for interpolation; else 0.
    prediction_difference : float
        Largest difference of the predictions of both solutions, relative to the largest target.
    parameters_identity : float
        Identity 1, θ = M1 A*(r) M2 / α: relative error.
    kernel_identity : float
        Identity 1, kernel ridge with the adapted kernel predicts the same (for other losses, K r / α does): largest
        difference, relative to the largest target.
    objective_identity : float
        Identity 2, ‖θ‖² + Σ ω1(M1) + Σ ω2(M2) = Σ ω̃(σ(B)): relative error.
    alignment_identity : float
        Identity 3, K = K0 + c f̂ f̂ᵀ for one group of vectors: relative error; NaN where the problem is of another kind.
    """

    structured: float
    recovered: float
    joint: float
    joint_values: np.ndarray
    dual_gap: float
    stationarity: float
    constraint_violation: float
    prediction_difference: float
    parameters_identity: float
    kernel_identity: float
    objective_identity: float
    alignment_identity: float

    @property
    def errors(self) -> dict[str, float]:
        """The statement that each error is of, and its size; all of them would be 0 without rounding.

        Differences of predictions count squared: values are of second order in them. Without convexity both solutions
        are stationary points of values that may differ, and these are left out.
        """
        convex = not np.isnan(self.dual_gap)
        errors = {
            "certificate of the structured problem": self.dual_gap if convex else self.stationarity,
            "joint objective of (θ, M1, M2)": abs(self.recovered / self.structured - 1.0) if self.structured else 0.0,
            "constraint violation": self.constraint_violation,
            "identity 1, parameters": self.parameters_identity,
            "identity 1, predictions": self.kernel_identity,
            "identity 2": self.objective_identity,
        }
        if convex:
            errors["value of the joint problem"] = abs(self.joint / self.structured - 1.0) if self.structured else 0.0
            errors["predictions of both solutions, squared,"] = self.prediction_difference**2
        if not np.isnan(self.alignment_identity):
            errors["identity 3"] = self.alignment_identity
        return errors

    @property
    def accuracy(self) -> float:
        """The largest of the `errors`."""
        return float(np.max(list(self.errors.values())))

    @property
    def holds(self) -> bool:
        """Whether no error exceeds 1e-4, which is far above that of L-BFGS and far below that of a wrong theory."""
        return bool(self.accuracy <= _ACCURACY)

    @property
    def _verdict(self) -> str:
        if self.holds:
            where = " at a stationary point" if np.isnan(self.dual_gap) else ""
            return f"theory holds{where}, to {self.accuracy:.1e} (the largest of all errors; {_ACCURACY:.0e} is enough)"
        name, error = max(self.errors.items(), key=lambda item: (np.isnan(item[1]), item[1]))
        return f"theory is not confirmed: {name} is off by {error:.1e} (at most {_ACCURACY:.0e} is asked for)" + (
            "; the joint problem ended above the other one: try more starts or a larger max_iter"
            if name == "value of the joint problem" and self.joint > self.structured
            else ""
        )

    @property
    def excess(self) -> Array:
        """(joint − structured) / structured for every start: how far the joint problem ends above the other's value."""
        return self.joint_values / self.structured - 1.0

    def __str__(self) -> str:
        proof = f"gap {self.dual_gap:.1e}" if not np.isnan(self.dual_gap) else f"stationarity {self.stationarity:.1e}"
        rows = [
            ("value of the structured problem", f"{self.structured:.9g}  ({proof})"),
            ("  joint objective of its (θ, M1, M2)", f"{self.recovered:.9g}"),
            ("value of the joint problem", f"{self.joint:.9g}  ({self.excess.min():+.1e} relative)"),
            ("constraint violation", f"{self.constraint_violation:.1e}"),
            ("largest difference of predictions", f"{self.prediction_difference:.1e}"),
            ("identity 1: θ = M1 A*(r) M2 / α", f"{self.parameters_identity:.1e}"),
            ("            predictions of adapted kernel", f"{self.kernel_identity:.1e}"),
            ("identity 2: equal penalties", f"{self.objective_identity:.1e}"),
            ("identity 3: K = K0 + c f fᵀ", f"{self.alignment_identity:.1e}"),
        ]
        if np.isnan(self.alignment_identity):
            rows[-1] = (rows[-1][0], "needs one vector group")
        if len(self.joint_values) > 1:
            far = self.excess > 1e-4
            rows.insert(
                3, ("  starts that end above by > 1e-4", f"{far.sum()} of {far.size} (largest {self.excess.max():.1e})")
            )
        width = max(len(name) for name, _ in rows)
        return "\n".join([*(f"{name:<{width}}  {value}" for name, value in rows), self._verdict])


def verify_equivalence(
    problem: StructuredRegression,
    n_starts: int = 1,
    scale: float = 1.0,
    max_iter: int = 20_000,
    random_state: RandomState = None,
    verbose: int = 0,
) -> EquivalenceReport:
    """Solve a problem in both of its forms and check what theory says of them.

    The joint problem over (θ, M1, M2) is minimised by its gradients alone, from the identity and, if asked for, from
    Gaussian transforms farther away. Small problems only: its transforms are dense.

    Parameters
    ----------
    problem : StructuredRegression
    n_starts : int, default=1
        Starts of the joint problem: the identity, then ``I + N`` with N Gaussian.
    scale : float > 0, default=1.0
        Spectral norm of N, about.
    max_iter : int, default=20000
        Of the joint problem, for every start.
    random_state : int, RandomState, Generator or None, default=None
    verbose : int, default=0
        1 shows progress: at a few dozen samples every start takes up to a minute.

    Returns
    -------
    EquivalenceReport
        ``print(report)`` shows it as a table, whose last line is a verdict; see `EquivalenceReport.holds`.

    Notes
    -----
    Theorem 2 and the identities of section 3 of arXiv 2308.15478. For penalties that are not convex both solutions are
    stationary points, and may be different ones.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent import StructuredRegression
    >>> from lowrank_tangent.operators import LayerFactors, TangentOperator
    >>> from lowrank_tangent.theory import verify_equivalence
    >>> rng = np.random.default_rng(0)
    >>> operator = TangentOperator([LayerFactors(rng.normal(size=(12, 3)), rng.normal(size=(12, 4)))])
    >>> report = verify_equivalence(StructuredRegression(operator, rng.normal(size=12), "kl", alpha=0.5))
    >>> report.holds, report.accuracy < 1e-6
    (True, True)
    """
    if not isinstance(problem, StructuredRegression):
        raise TypeError(f"problem must be a StructuredRegression; got {type(problem).__name__}.")
    scale = check_number(scale, "scale", positive=True)
    if n_starts < 1:
        raise ValueError(f"n_starts must be an integer >= 1; got {n_starts!r}.")
    rng = generator(random_state)
    problem, _, _ = problem.reduced()
    with progress(1 + n_starts, "verify equivalence", verbose) as advance:
        return _verified(problem, n_starts, scale, max_iter, rng, advance)


def _verified(
    problem: StructuredRegression,
    n_starts: int,
    scale: float,
    max_iter: int,
    rng: np.random.Generator,
    advance: Callable[..., None],
) -> EquivalenceReport:
    solution = solve(problem, tol=_STRUCTURED_TOL["gap" if problem.spectral.is_convex else "stationarity"])
    joint = JointProblem(problem)
    starts = [joint.identity()] + [joint.perturbed(scale, rng) for _ in range(n_starts - 1)]
    advance(f"structured problem solved: {solution.objective:.6g}")
    ends = []
    for number, start in enumerate(starts, start=1):
        advance(f"start {number} of {n_starts}", 0)
        ends.append(_minimise_joint(problem, start, max_iter, advance))
        advance(f"start {number} of {n_starts}: {joint.objective(ends[-1]):.6g}")
    values = np.array([joint.objective(variables) for variables in ends])
    best = joint.coefs(ends[int(np.argmin(values))])

    design, size = problem.design, max(np.abs(problem.target).max(), _TINY)
    prediction = design.matvec(solution.coefs)
    recovered = joint.objective(joint.factors(solution.coefs))
    length = max(np.linalg.norm(problem.target), _TINY)
    violated = [np.linalg.norm(problem.residual(coefs)) / length for coefs in (solution.coefs, best)]
    return EquivalenceReport(
        structured=solution.objective,
        recovered=recovered,
        joint=float(values.min()),
        joint_values=values,
        dual_gap=solution.dual_gap,
        stationarity=solution.stationarity,
        constraint_violation=float(max(violated)) if problem.loss.is_constraint else 0.0,
        prediction_difference=float(np.abs(design.matvec(best) - prediction).max() / size),
        objective_identity=abs(recovered - solution.objective) / max(problem.penalty_value(solution.coefs), _TINY),
        **_identities(problem, solution, prediction, size),
    )


def _minimise_joint(problem: StructuredRegression, start: Any, max_iter: int, advance: Callable[..., None]) -> Any:
    def show(row: Any) -> None:
        advance(f"joint problem, iteration {row.iteration}: {row.objective:.6g}", 0)

    solver = JointSolver(start)
    # The witness is not to be stopped by a certificate of the other problem.
    run = by_multipliers(solver) if problem.loss.is_constraint else solver
    run(problem, Monitor(tol=_TINY, callback=show), max_iter, None)
    return solver.variables


def _identities(problem: StructuredRegression, solution: Solution, prediction: Array, size: float) -> dict[str, float]:
    """Relative errors of identities 1 and 3."""
    design, alpha = problem.design, problem.alpha
    dual = solution.dual if problem.loss.is_constraint else problem.residual(solution.coefs)
    adaptation = adapt(problem, solution)
    triples = zip(adaptation.theta, adaptation.left, adaptation.right, design.rmatvec(dual), strict=True)
    differences = [theta - m2.apply(m1.apply(correlation.T).T) / alpha for theta, m1, m2, correlation in triples]
    missed = np.sqrt(
        sum(np.sum(part**2) for part in differences) / max(sum(np.sum(t**2) for t in adaptation.theta), _TINY)
    )

    kernel, flat = adaptation.kernel(design), problem.target.reshape(-1)
    if problem.loss.is_quadratic and not problem.loss.is_constraint:
        weights = np.linalg.solve(kernel + alpha * np.eye(len(kernel)), flat)
    else:
        weights = dual.reshape(-1) / alpha
    ridge = (kernel @ weights).reshape(prediction.shape)
    return {
        "parameters_identity": float(missed),
        "kernel_identity": float(np.abs(ridge - prediction).max() / size),
        "alignment_identity": _alignment_error(problem, solution, kernel, prediction),
    }


def _alignment_error(problem: StructuredRegression, solution: Solution, kernel: Array, prediction: Array) -> float:
    """Identity 3, K = z2² (K0 + (z1² − 1)/‖B‖² f̂ f̂ᵀ) for B a column; the sides change places for a row."""
    if len(solution.coefs) > 1 or problem.design.n_outputs > 1 or min(solution.coefs[0].shape) > 1:
        return float("nan")
    (coef,) = solution.coefs
    norm = np.maximum(np.linalg.norm(coef), _TINY)
    z1, z2 = problem.spectral[0].split(norm)
    across, along = (z1, z2) if coef.shape[1] > 1 else (z2, z1)
    flat = prediction.reshape(-1)
    expected = across**2 * (problem.design.gram() + (along**2 - 1.0) / norm**2 * np.outer(flat, flat))
    return float(np.linalg.norm(kernel - expected) / np.linalg.norm(kernel))
