"""Operators: the linear map A from layer coefficients to predictions, never as a matrix."""

from ..linalg.transforms import LowRankTransform
from .base import Operator
from .factored import TangentOperator
from .layer import Layer
from .layers import LayerFactors
from .streamed import StreamedOperator

__all__ = ["Layer", "LayerFactors", "LowRankTransform", "Operator", "StreamedOperator", "TangentOperator"]
