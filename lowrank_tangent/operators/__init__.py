"""Operators: the linear map A from layer coefficients to predictions, never as a matrix."""

from ..linalg.transforms import LowRankTransform
from .factored import TangentOperator
from .layers import LayerFactors
from .streamed import StreamedOperator

__all__ = ["LayerFactors", "LowRankTransform", "StreamedOperator", "TangentOperator"]
