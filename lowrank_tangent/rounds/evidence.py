"""The evidence of a kernel, and the stretches of the inputs that raise it.

The evidence is the marginal likelihood of the targets under a Gaussian process with kernel K(x M, x' M) and noise. With
A = K + αI, q = Σ_c y_cᵀ A⁻¹ y_c and N samples (one less with an intercept: it is left out of everything),

    log p = −(N C / 2) log q − (C / 2) log det A + constant,        ∂ log p = ½ ⟨W, ∂K⟩,   W = C (N r rᵀ / q − A⁻¹),

r = A⁻¹ y, of the size of the targets that is most likely. So it weighs what the targets say, r rᵀ, against what targets
without any structure would say, A⁻¹: directions in which the fitted function happens to be steep do not count. Source:
Rasmussen & Williams, Gaussian Processes for Machine Learning, 5.4.1.

A sample of weight w has noise of a variance in proportion to 1/w, and N counts the samples that have a weight: a factor
of all weights makes no difference. (Of w equal samples N would count each.)

A round is a step up: M ← M U exp(E) Uᵀ with E along the slopes of log p with respect to the logarithm of M. The scale
of M is kept, so that only differences of slopes count; they set the direction, and the step its length.
"""

from __future__ import annotations

import math

import numpy as np

from .._types import Array
from ..leave_one_out import ALPHAS, RidgePath
from ..networks.infinite import Tangent

#: Where a first fit sees nothing, the evidence is largest for endless noise, where it has no slopes. So the noise is at
#: most this share of the mean diagonal of the kernel, at the mean weight.
_LARGEST_ALPHA = 0.1
#: Root mean square of the logarithms of the stretches of a first step, and the largest of them.
_FIRST_STEP = 0.3
_LARGEST_LOG = 2.0
#: Share of a step that is left where the last one went too far.
_SHORTER = 0.5
#: Slopes below this share of the largest are none.
_ROUNDING = 1e-12


class Evidence:
    """Log evidence of a kernel, at the alpha of its own that makes it largest.

    Parameters
    ----------
    path : RidgePath
        Of a kernel of a mean diagonal of about 1, for outputs that share it.

    Attributes
    ----------
    alpha : float
    value : float
        log p, but for a constant of the data; 0 for targets that are constant.
    """

    def __init__(self, path: RidgePath) -> None:
        alphas = path.alphas[ALPHAS <= _LARGEST_ALPHA * (1.0 + 1e-9)]
        values = path.log_evidence(alphas)
        best = int(np.argmax(values))
        self.alpha, self.value = float(alphas[best]), float(values[best])
        self._path = path

    def weights(self) -> Array:
        """W, shape (n, n); with the weights and the centring of the samples, as the kernel of the path has them."""
        return self._path.evidence_weights(self.alpha)


def log_slopes(weights: Array, tangent: Tangent, Z: Array, by_features: bool) -> Array:
    """Slopes of the log evidence with respect to the logarithm of M.

    Parameters
    ----------
    weights : ndarray of shape (n, n)
        W, for the kernel whose slopes are given.
    tangent : Tangent
        Gradient of the kernel with respect to z.
    Z : ndarray of shape (n, p)
        Samples x M, or their coordinates in some basis.
    by_features : bool

    Returns
    -------
    ndarray of shape (p, p), symmetric; of shape (p,), its diagonal, if `by_features`
    """
    pairs, own = (weights * tangent.along) @ Z, np.sum(weights * tangent.radial, axis=1)[:, None] * Z
    if by_features:
        return np.sum(Z * (pairs + own), axis=0)
    matrix = Z.T @ (pairs + own)
    return 0.5 * (matrix + matrix.T)


class Ascent:
    """Steps up the evidence, of a length that is halved where it has fallen.

    Directions in which the samples do not vary have no slope. Nothing is known of them, and they are taken to matter as
    little as the one that matters least.
    """

    def __init__(self) -> None:
        self._step, self._last = _FIRST_STEP, -math.inf

    def stretch(self, value: float, slopes: Array) -> tuple[Array, float]:
        """Factors z along directions of these slopes, and along any direction that is not among them.

        Parameters
        ----------
        value : float
            Log evidence, to be compared with that of the last step.
        slopes : ndarray of shape (p,)

        Returns
        -------
        z : ndarray of shape (p,)
        elsewhere : float
        """
        if value < self._last:
            self._step *= _SHORTER
        self._last = value
        steepest = np.abs(slopes).max()
        varies = np.abs(slopes) > _ROUNDING * steepest
        if not varies.any():
            return np.ones_like(slopes), 1.0
        slopes = slopes / steepest  # only ratios matter, and squares of huge ones would overflow
        seen = slopes[varies]
        spread = seen.std()
        logs = np.append(np.where(varies, slopes, seen.min()), seen.min()) - seen.mean()
        logs *= self._step / spread if spread > 0.0 else 0.0
        z = np.exp(np.clip(logs, -_LARGEST_LOG, _LARGEST_LOG))
        return z[:-1], float(z[-1])
