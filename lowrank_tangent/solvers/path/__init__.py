"""Paths over alpha and adaptivity: each solution from where the last ones point."""

from .walk import solve_path

__all__ = ["solve_path"]
