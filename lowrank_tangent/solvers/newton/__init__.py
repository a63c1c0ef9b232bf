"""Newton's method: `method.py` is the way from start to end, every other file a part of it."""

from .method import continue_path, solve_newton

__all__ = ["continue_path", "solve_newton"]
