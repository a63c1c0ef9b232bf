"""Every solver by name, what it needs, and which one a problem gets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..linalg.memory import available_memory
from ..losses import Loss
from ..problem import StructuredRegression
from .bilinear import interpolate_bilinear, solve_bilinear
from .interpolation import by_multipliers
from .newton import solve_newton
from .proximal import solve_proximal
from .reference import solve_cvxpy
from .reweighted import solve_reweighted
from .ridge import solve_ridge
from .solution import SolverFunction

logger = logging.getLogger("lowrank_tangent")

#: What a solver may need of a problem, and how to say that it is missing.
_NEEDS: dict[str, Callable[[Any], bool]] = {
    "fixed": lambda problem: problem.spectral.is_fixed,
    "smooth": lambda problem: problem.spectral.is_smooth,
    "convex": lambda problem: problem.spectral.is_convex,
    "quadratic": lambda problem: problem.loss.is_quadratic,
    "hessian": lambda problem: problem.loss.has_hessian,
    "cvxpy": lambda problem: problem.loss.has_cvxpy,
}
#: How a message begins, by what is missing of the loss.
_WITHOUT = {
    "quadratic": "Beyond least squares, ",
    "hessian": "Without a Hessian of the loss (`Loss.has_hessian`), ",
    "cvxpy": "Without an expression of the loss (`Loss.cvxpy_value`), ",
    "constrained": "Where the loss is a constraint, ",
}


@dataclass(frozen=True)
class Solver:
    """A solver and what it needs of a problem.

    Attributes
    ----------
    solve : callable
        Called with (problem, monitor, max_iter, warm_start); returns coefficients, a dual point and the reason to stop.
        It works with ``problem.design``, ``problem.target``, ``problem.spectral`` and ``problem.loss`` alone, reports
        certificates to ``monitor.record(iteration, certificate)``, and stops when that returns a reason. The warm
        start is None or a pair (coefs, dual), of which dual may be None.
    max_iter : int, default=1000
        Default iteration limit.
    needs : frozenset of str, default=frozenset()
        "fixed" (no layer adapts), "smooth" or "convex": of the penalty. "quadratic", "hessian" or "cvxpy": of the
        loss, see `Loss`. Every solver may use the value and the residual of the loss.
    constrained : callable or None, default=None
        What solves problems whose loss is a constraint, called alike. None where nothing does.
    is_closed_form : bool, default=False
        Whether more iterations or a larger `tol` change nothing.

    Raises
    ------
    ValueError
        For a need that is none of these.
    """

    solve: SolverFunction
    max_iter: int = 1000
    needs: frozenset[str] = frozenset()
    constrained: SolverFunction | None = None
    is_closed_form: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(set(self.needs) - set(_NEEDS))
        if unknown:
            raise ValueError(f"a solver may need {sorted(_NEEDS)}; got {unknown}.")

    def function(self, loss: Loss) -> SolverFunction | None:
        """What solves problems with this loss, if anything does."""
        return self.constrained if loss.is_constraint else self.solve


#: Every solver by name.
SOLVERS = {
    "newton": Solver(
        solve_newton, 200, frozenset({"convex", "smooth", "hessian"}), constrained=by_multipliers(solve_newton)
    ),
    "reweighted": Solver(
        solve_reweighted, 500, frozenset({"smooth", "quadratic"}), constrained=by_multipliers(solve_reweighted)
    ),
    "proximal": Solver(solve_proximal, 20_000),
    "bilinear": Solver(solve_bilinear, 20_000, constrained=interpolate_bilinear),
    "cvxpy": Solver(solve_cvxpy, 200, frozenset({"convex", "cvxpy"}), constrained=solve_cvxpy),
    "ridge": Solver(solve_ridge, 1, frozenset({"fixed", "quadratic"}), constrained=solve_ridge, is_closed_form=True),
}

#: Share of the memory that the kernel of the closed form may take before `auto` iterates instead.
_KERNEL_SHARE = 0.1


def choose(problem: StructuredRegression) -> str:
    """The name of the solver that `auto` is for a problem; the log says it, and the reason."""
    able = _able(problem)
    usual, reason = _usual(problem, able)
    if usual not in able:
        usual, reason = able[0], f"method={usual!r} does not solve this loss"
    logger.info("method='auto' takes %r: %s.", usual, reason)
    return usual


def _usual(problem: StructuredRegression, able: list[str]) -> tuple[str, str]:
    """The best solver, if it is able, and the reason."""
    if not problem.spectral.is_smooth:
        return "proximal", "the penalty does more than stretch"
    if not problem.spectral.is_convex:
        return "reweighted" if "reweighted" in able else "proximal", "the penalty is not convex"
    if not problem.loss.is_constraint and not problem.loss.has_hessian:
        return "proximal", "the loss has no Hessian"
    if "ridge" not in able:
        return "newton", "the penalty is convex, and no closed form applies"
    design = problem.design
    if design.is_streamed and not problem.loss.is_constraint:
        return "newton", "the kernel of a stream is for those who ask for it"
    rows = design.n_samples * (1 if design.outputs == "shared" else design.n_outputs)
    size, limit = 8.0 * rows**2, _KERNEL_SHARE * available_memory()
    sizes = (
        f"a kernel of {size / 2**20:,.1f} MiB, and {limit / 2**20:,.1f} MiB are a {_KERNEL_SHARE:.0%} share of memory"
    )
    return ("ridge" if size <= limit else "newton"), f"the closed form needs {sizes}"


def capable(method: str | Solver | SolverFunction, problem: StructuredRegression) -> tuple[SolverFunction, int]:
    """The function of a solver for this problem and its iteration limit, or an error that names what is missing.

    Parameters
    ----------
    method : str, Solver or callable
        A callable is a solver that needs nothing.
    problem : StructuredRegression
    """
    solver, name = solver_of(method), name_of(method)
    missing, cause = _missing(solver, problem)
    if missing:
        raise ValueError(f"{cause}method={name!r} {missing}; use method='auto' or one of {sorted(_able(problem))}.")
    function = solver.function(problem.loss)
    assert function is not None
    return function, solver.max_iter


def solver_of(method: str | Solver | SolverFunction) -> Solver:
    """The solver that a name, a solver or a callable stands for."""
    if isinstance(method, Solver):
        return method
    if isinstance(method, str) and method in SOLVERS:
        return SOLVERS[method]
    if callable(method):
        return Solver(method, constrained=method)
    raise ValueError(f"method must be 'auto' or one of {sorted(SOLVERS)}, a Solver or a callable; got {method!r}.")


def name_of(method: str | Solver | SolverFunction) -> str:
    """The name of a solver: that of its function for one that is not registered."""
    if isinstance(method, str):
        return method
    function = method.solve if isinstance(method, Solver) else method
    return getattr(function, "__name__", type(function).__name__)


def _able(problem: StructuredRegression) -> list[str]:
    """Names of what solves a problem with this penalty and this loss; "bilinear" always does."""
    return [name for name, solver in SOLVERS.items() if not _missing(solver, problem)[0]]


def _missing(solver: Solver, problem: StructuredRegression) -> tuple[str, str]:
    """What a solver cannot do of this problem, and how a message about it begins; two empty strings if it can."""
    penalty, lacks = problem.spectral, {need for need in solver.needs if not _NEEDS[need](problem)}
    if "fixed" in lacks:
        return "is the closed form for adaptivity=0", ""
    if "smooth" in lacks:
        return f"needs a penalty that only stretches, not {penalty!r}", ""
    if "convex" in lacks:
        return f"needs a convex penalty, not {penalty!r}", ""
    if solver.function(problem.loss) is None:
        lacks.add("constrained")
    elif problem.loss.is_constraint:
        return "", ""
    causes = [cause for need, cause in _WITHOUT.items() if need in lacks]
    return (f"cannot solve loss={problem.loss.name!r}", causes[0]) if causes else ("", "")
