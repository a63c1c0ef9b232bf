"""Rounds: transforms of a fit are built into the network, whose features are taken anew."""

from .metrics import METRICS, Metric, Stretch, View
from .relinearisation import Relinearisation, Round, run_rounds

__all__ = ["METRICS", "Metric", "Relinearisation", "Round", "Stretch", "View", "run_rounds"]
