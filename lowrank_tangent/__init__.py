"""Adaptive tangent features with certificates: ridge NTK whose features may move."""

from .problem import StructuredRegression
from .solvers import solve

__version__ = "0.1.0"
