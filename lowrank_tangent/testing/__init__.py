"""Checks of classes that you bring: whether they keep what the library's contracts promise.

Every check compares with an independent source, such as brute force, differences or a dense matrix. All checks of an
object are run. Those that fail are reported together by one AssertionError, a line each, which begins with the name of
the check and says what was expected and what came.
"""

from .candidate import check_candidate
from .layer import check_layer
from .loss import check_loss
from .metric import check_metric
from .network import check_network
from .operator import check_operator
from .penalty import check_penalty
from .solver import check_solver

__all__ = [
    "check_candidate",
    "check_layer",
    "check_loss",
    "check_metric",
    "check_network",
    "check_operator",
    "check_penalty",
    "check_solver",
]
