"""Solvers: an operator, a penalty and a loss go in, a certified solution comes out."""

from .path import solve_path
from .registry import SOLVERS, Solver
from .run import solve
from .solution import Iteration, Monitor, Solution

__all__ = ["SOLVERS", "Iteration", "Monitor", "Solution", "Solver", "solve", "solve_path"]
