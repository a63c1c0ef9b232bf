"""Rounds: transforms of a fit are built into the network, whose features are taken anew."""

from .relinearisation import METRICS, Relinearisation, Round, run_rounds

__all__ = ["METRICS", "Relinearisation", "Round", "run_rounds"]
