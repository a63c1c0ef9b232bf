"""Every solver by name, what it can do, and which one a problem gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..linalg.memory import available_memory
from .bilinear import interpolate_bilinear, solve_bilinear
from .interpolation import by_multipliers
from .newton import solve_newton
from .proximal import solve_proximal
from .reference import solve_cvxpy
from .reweighted import solve_reweighted
from .ridge import solve_ridge


@dataclass(frozen=True)
class Solver:
    """A solver and what it can do.

    Attributes
    ----------
    max_iter : int
        Default iteration limit.
    needs : frozenset of {"convex", "smooth", "fixed"}
        What the penalty has to be.
    squared, multinomial, interpolation : callable or None
        What solves the problem with that loss: called with (problem, monitor, max_iter, warm_start), returns
        (coefs, dual, message). None where nothing does.
    """

    max_iter: int
    needs: frozenset = frozenset()
    squared: Callable | None = None
    multinomial: Callable | None = None
    interpolation: Callable | None = None


#: Every solver by name.
SOLVERS = {
    "newton": Solver(
        200,
        frozenset({"convex", "smooth"}),
        squared=solve_newton,
        multinomial=solve_newton,
        interpolation=by_multipliers(solve_newton),
    ),
    "reweighted": Solver(
        500, frozenset({"smooth"}), squared=solve_reweighted, interpolation=by_multipliers(solve_reweighted)
    ),
    "proximal": Solver(20_000, squared=solve_proximal, multinomial=solve_proximal),
    "bilinear": Solver(20_000, squared=solve_bilinear, multinomial=solve_bilinear, interpolation=interpolate_bilinear),
    "cvxpy": Solver(
        200, frozenset({"convex"}), squared=solve_cvxpy, multinomial=solve_cvxpy, interpolation=solve_cvxpy
    ),
    "ridge": Solver(1, frozenset({"fixed"}), squared=solve_ridge, interpolation=solve_ridge),
}

#: Share of the memory that the kernel of the closed form may take before `auto` iterates instead.
_KERNEL_SHARE = 0.1


def choose(problem):
    usual, able = _usual(problem), _able(problem)
    return usual if usual in able else able[0]


def _usual(problem):
    if not problem.spectral.is_smooth:
        return "proximal"
    if not problem.spectral.is_convex:
        return "reweighted" if "reweighted" in _able(problem) else "proximal"
    if "ridge" not in _able(problem):
        return "newton"
    design = problem.design
    rows = design.n_samples * (1 if design.outputs == "shared" else design.n_outputs)
    return "ridge" if 8.0 * rows**2 <= _KERNEL_SHARE * available_memory() else "newton"


def capable(method, problem):
    """The function of a solver for this problem and its iteration limit, or an error that names what is missing."""
    if method not in SOLVERS:
        raise ValueError(f"method must be 'auto' or one of {sorted(SOLVERS)}; got {method!r}.")
    missing = _missing(method, problem)
    if missing:
        raise ValueError(f"method={method!r} {missing}; use method='auto' or one of {sorted(_able(problem))}.")
    return getattr(SOLVERS[method], problem.loss.name), SOLVERS[method].max_iter


def _able(problem):
    """Names of what solves a problem with this penalty and this loss; "bilinear" always does."""
    return [name for name in SOLVERS if not _missing(name, problem)]


def _missing(method, problem):
    """What a solver lacks for this problem, or an empty string."""
    solver, penalty = SOLVERS[method], problem.spectral
    if "fixed" in solver.needs and not penalty.is_fixed:
        return "is the closed form for adaptivity=0"
    if "smooth" in solver.needs and not penalty.is_smooth:
        return f"needs a penalty that only stretches, not {penalty!r}"
    if "convex" in solver.needs and not penalty.is_convex:
        return f"needs a convex penalty, not {penalty!r}"
    if getattr(solver, problem.loss.name) is None:
        return f"cannot solve loss={problem.loss.name!r}"
    return ""
