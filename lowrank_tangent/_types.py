"""Names of types that signatures share."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

#: An array of numbers, single or double precision; docstrings give its shape.
Array: TypeAlias = npt.NDArray[Any]
#: Anything that becomes an array.
ArrayLike: TypeAlias = npt.ArrayLike
#: One matrix of coefficients a layer.
Coefs: TypeAlias = list[Array]
#: What a caller may give to make results repeatable.
RandomState: TypeAlias = int | np.random.RandomState | np.random.Generator | None
