"""Statements of the theory, checked on a given problem, and its quantities: alignment, effective rank."""

from .equivalence import EquivalenceReport, verify_equivalence
from .quantities import alignment, effective_rank, label_kernel

__all__ = ["EquivalenceReport", "alignment", "effective_rank", "label_kernel", "verify_equivalence"]
