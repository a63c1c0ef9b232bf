"""The training points of a network of infinite width: factors of the layers' matrices on them."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import solve_triangular

from .._types import Array
from ..linalg.memory import check_fits_in_memory
from ..progress import announce

if TYPE_CHECKING:
    from .infinite import InfiniteMLP

logger = logging.getLogger("lowrank_tangent")

_EPS = float(np.finfo(float).eps)
#: A singular matrix is given 10, 100, … times its rounding; more decades than this, and something else is wrong.
_MAX_DECADES = 8
#: Factors and kernels of n samples take about this many seconds times n³ a layer, on one core.
_SECONDS_PER_CUBE = 2e-10
_REMEDY = (
    "Use fewer samples, or a network of finite width, such as hidden_layer_sizes=(512,) with batch_size=1000, or "
    "widths=(512,) to choose from: its memory grows with the number of samples, not with the square."
)


def check_matrices(n: int, other: int, count: int) -> None:
    """Refuse samples whose n × n' matrices, so many at a time, this process cannot hold.

    Raises
    ------
    MemoryError
    """
    check_fits_in_memory(
        (count, n, other), f"the matrices of {n} samples of a network of infinite width", remedy=_REMEDY
    )


class Anchors:
    """Training points of a network of infinite width, with the factors of each layer's matrices.

    Factors are made when they are first asked for, in about n³ operations each, and left out of pickles. Repeated
    samples make matrices singular, and so do parallel ones for ReLU without a bias. Then, and only then, the least
    multiple of the identity that makes them regular is added; `jitter` and the log say so.

    Parameters
    ----------
    network : InfiniteMLP
    X : ndarray of shape (n, n_features)
    """

    def __init__(self, network: InfiniteMLP, X: Array) -> None:
        self.network, self.X = network, X

    @property
    def inputs(self) -> list[Array | None]:
        """Lower Cholesky factors of ⟨h, h'⟩, (n, n), one per layer; None for the first, where h are the samples."""
        return [None, *self._found[0]]

    @property
    def gradients(self) -> list[Array | None]:
        """Lower Cholesky factors of ⟨delta, delta'⟩, (n, n), one per layer; None for the last, where delta is 1."""
        return [*self._found[1], None]

    @property
    def jitter(self) -> float:
        """Largest share of its mean diagonal that a singular matrix was given on top; 0 if none was singular."""
        return self._found[2]

    @property
    def own(self) -> tuple[list[Array], list[Array]]:
        """Factors h of all layers but the first, and delta of all but the last, of the points themselves."""
        return self._found[:2]

    @functools.cached_property
    def _found(self) -> tuple[list[Array], list[Array], float]:
        n, n_layers = len(self.X), self.network.n_layers
        announce(_SECONDS_PER_CUBE * n_layers * n**3, f"features of {n} samples at infinite width")
        # Two products and two factors of every hidden layer, and what computing them takes.
        check_matrices(n, n, 4 * n_layers)
        inputs, gradients = self.network.layer_products(self.X)
        pairs = [_factorise(matrix) for matrix in (*inputs[1:], *gradients[:-1])]
        jitter = max(share for _, share in pairs)
        if jitter > 0.0:
            logger.info("singular kernel of infinite width: %.1e of its mean diagonal was added to it.", jitter)
        factors = [factor for factor, _ in pairs]
        return factors[: n_layers - 1], factors[n_layers - 1 :], jitter

    def factors(self, inputs: list[Array], gradients: list[Array]) -> tuple[list[Array], list[Array]]:
        """Factors h of all layers but the first, and delta of all but the last, of their products with the points.

        These are rows times L⁻ᵀ: rows of K = L Lᵀ become those of L. Times Lᵀ they are the rows again, to rounding.
        """
        known_inputs, known_gradients, _ = self._found
        return list(map(_whitened, inputs, known_inputs)), list(map(_whitened, gradients, known_gradients))

    def for_products(self, coefs: Sequence[Array | None]) -> list[Array | None]:
        """L⁻ᵀ B M⁻¹ with the factors L and M of each layer: coefficients for products in place of factors."""
        found = []
        for coef, left, right in zip(coefs, self.inputs, self.gradients, strict=True):
            if coef is not None and left is not None:
                coef = solve_triangular(left, coef, lower=True, trans=1)
            if coef is not None and right is not None:
                blocks, shape = coef.reshape(-1, len(right)).T, coef.shape
                coef = solve_triangular(right, blocks, lower=True, trans=1).T.reshape(shape)
            found.append(coef)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {"network": self.network, "X": self.X}


def _whitened(rows: Array, factor: Array) -> Array:
    whitened: Array = solve_triangular(factor, rows.T, lower=True).T
    return whitened


def _factorise(matrix: Array) -> tuple[Array, float]:
    """Cholesky factor of a positive semi-definite matrix, and the share of its mean diagonal that had to be added."""
    size, rounding = np.mean(np.diagonal(matrix)), len(matrix) * _EPS
    for share in (0.0, *(rounding * 10.0**k for k in range(1, _MAX_DECADES))):
        shifted = matrix.copy()
        shifted.flat[:: len(matrix) + 1] += share * size
        try:
            factor = np.linalg.cholesky(shifted)
        except np.linalg.LinAlgError:
            continue
        # A pivot that is nothing but rounding is no better than none.
        if np.min(np.diagonal(factor)) ** 2 > rounding * size:
            return factor, share
    raise np.linalg.LinAlgError("the kernel of infinite width is not positive semi-definite; standardise X.")
