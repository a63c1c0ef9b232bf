"""Networks of infinite width: their tangent kernel in closed form, and finite factors that have it exactly.

Let the units of every hidden layer of `MLP` (init="ntk") become infinitely many. The layer inputs h and the gradients
delta then have fixed inner products over two samples x and x',

    Σ_0 = (x·x' + b²) / p,    Σ_{l+1} = E[φ(u) φ(v)],    D_{l+1} = E[φ'(u) φ'(v)],    (u, v) normal with covariance Σ_l,
    ⟨h_l, h'_l⟩ = Σ_l,        ⟨delta_l, delta'_l⟩ = D_{l+1} ··· D_depth,

and the tangent kernel is the sum over layers of their products. On n training points, Cholesky factors of these
matrices are n-dimensional layer inputs and gradients with the same products: no width, no noise, same model.

Sources: Jacot, Gabriel & Hongler (arXiv 1806.07572); Cho & Saul, Kernel Methods for Deep Learning (NIPS 2009) for
ReLU; Williams, Computing with Infinite Networks (NIPS 1996) for erf.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
from scipy.linalg import solve_triangular

logger = logging.getLogger("lowrank_tangent")

_EPS = np.finfo(float).eps
#: Cosines of equal directions miss 1 by a few roundings, their angle misses 0 by the root: such pairs count as equal.
_PARALLEL = 1.0 - 16.0 * _EPS
#: A singular matrix is given 10, 100, … times its rounding; more decades than this, and something else is wrong.
_MAX_DECADES = 8


def _relu_moments(covariance, variance, other):
    """E[φ(u) φ(v)] and E[φ'(u) φ'(v)]: arc-cosine kernels of order 1 and 0, halved."""
    size = np.sqrt(variance) * np.sqrt(other)
    cosine = np.clip(covariance / size, -1.0, 1.0)
    cosine = np.where(cosine > _PARALLEL, 1.0, cosine)
    remaining = math.pi - np.arccos(cosine)
    sine = np.sqrt((1.0 - cosine) * (1.0 + cosine))
    return size * (sine + remaining * cosine) / (2.0 * math.pi), remaining / (2.0 * math.pi)


def _erf_moments(covariance, variance, other):
    """E[φ(u) φ(v)] and E[φ'(u) φ'(v)] for φ(u) = erf(u)."""
    size = np.sqrt(1.0 + 2.0 * variance) * np.sqrt(1.0 + 2.0 * other)
    sine = np.clip(2.0 * covariance / size, -1.0, 1.0)
    slopes = 4.0 / math.pi / (size * np.sqrt((1.0 - sine) * (1.0 + sine)))
    return 2.0 / math.pi * np.arcsin(sine), slopes


def _relu_slopes(covariance, variance, other):
    """Derivatives of the first moment by its variance, and of the second by the covariance and that variance.

    The second is a cusp where two samples are parallel. Its slopes cancel there, from one side and the other.
    """
    root, other_root = np.sqrt(variance), np.sqrt(other)
    cosine = covariance / root / other_root
    square = (1.0 - cosine) * (1.0 + cosine)
    cusp = square <= 2.0 * (1.0 - _PARALLEL)
    sine = np.sqrt(np.where(cusp, 0.0, square))
    change = np.where(cusp, 0.0, 0.5 / math.pi / np.where(cusp, 1.0, sine))
    return sine * (other_root / root / (4.0 * math.pi)), change / root / other_root, cosine * change * (-0.5 / variance)


def _erf_slopes(covariance, variance, other):
    """The same for φ(u) = erf(u)."""
    first = 1.0 + 2.0 * variance
    size = np.sqrt(first) * np.sqrt(1.0 + 2.0 * other)
    sine = np.clip(2.0 * covariance / size, -1.0, 1.0)
    square = (1.0 - sine) * (1.0 + sine)
    slope = 4.0 / math.pi / (size * np.sqrt(square))
    return -slope * covariance / first, 2.0 * slope * sine / (size * square), -slope / (first * square)


#: Moments of an activation and of its slope under a bivariate normal distribution with these variances.
MOMENTS = {"relu": _relu_moments, "erf": _erf_moments}
#: Their derivatives; that of the first moment by the covariance is the second (Price's theorem).
SLOPES = {"relu": _relu_slopes, "erf": _erf_slopes}


@dataclass(frozen=True)
class Anchors:
    """Training points of a network of infinite width, with the factors of each layer's matrices.

    Attributes
    ----------
    X : ndarray of shape (n, n_features)
    inputs, gradients : list of ndarray of shape (n, n) or None, one per layer
        Lower Cholesky factors of ⟨h, h'⟩ and ⟨delta, delta'⟩; None where h are the samples, and where delta is 1.
    jitter : float
        Largest share of its mean diagonal that a singular matrix was given on top; 0 if none was singular.
    """

    X: np.ndarray
    inputs: list
    gradients: list
    jitter: float


@dataclass(frozen=True)
class InfiniteMLP:
    """Multilayer perceptron with infinitely many units in every hidden layer, the limit of ``MLP`` with init="ntk".

    Parameters
    ----------
    depth : int ≥ 1, default=1
        Number of hidden layers; the network has one layer of weights more.
    activation : {"relu", "erf"}, default="relu"
    bias : bool or float, default=True
        Constant appended to the input of the first layer, as for `MLP`. That of later layers vanishes in the limit.

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent.networks import InfiniteMLP
    >>> X = np.random.default_rng(0).normal(size=(5, 3))
    >>> network = InfiniteMLP(depth=2)
    >>> layers = network.factors(network.anchor(X), X)
    >>> kernel = sum((h @ h.T) * (delta @ delta.T) for h, delta in layers)
    >>> bool(np.allclose(kernel, network.kernel(X)))
    True
    """

    depth: int = 1
    activation: str = "relu"
    bias: float = True

    def __post_init__(self):
        if isinstance(self.depth, bool) or not isinstance(self.depth, Integral) or self.depth < 1:
            raise ValueError(f"depth must be an integer >= 1, the number of hidden layers; got {self.depth!r}.")
        if self.activation not in MOMENTS:
            raise ValueError(
                f"activation must be one of {sorted(MOMENTS)} at infinite width, whose kernels have closed forms; "
                f"got {self.activation!r}."
            )
        if not isinstance(self.bias, (bool, np.bool_, Real)) or not math.isfinite(self.bias) or self.bias < 0:
            raise ValueError(f"bias must be True, False or a finite number >= 0; got {self.bias!r}.")

    @property
    def n_layers(self):
        """Number of layers of weights."""
        return self.depth + 1

    def layer_products(self, X, Y=None):
        """Inner products of the layer inputs and of the gradients of two sets of samples.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)
        Y : ndarray of shape (n', n_features), optional
            `X` by default.

        Returns
        -------
        inputs, gradients : lists of ndarray of shape (n, n'), one per layer
            Σ_l = ⟨h, h'⟩ and ⟨delta, delta'⟩, from the first layer to the last.

        Raises
        ------
        ValueError
            For shapes that do not fit; if the values of X overflow; for ReLU without a bias, if a sample is zero: it
            has no direction.
        """
        inputs, slopes, _ = self._recursion(X, Y)
        gradients = [np.ones_like(inputs[0])]
        for slope in slopes[::-1]:
            gradients.append(gradients[-1] * slope)
        return inputs, gradients[::-1]

    def kernel(self, X, Y=None):
        """Neural tangent kernel, shape (n, n'); arguments and errors as for `layer_products`."""
        inputs, gradients = self.layer_products(X, Y)
        return sum(first * second for first, second in zip(inputs, gradients, strict=True))

    def layer_slopes(self, X):
        """Gradients of the layers' products of samples x, x' with respect to x, for all pairs of rows of X.

        A gradient is ``along · x' + radial · x``. It includes what the gates do while x moves: the products of the
        gradients change with x as those of the inputs do.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)

        Returns
        -------
        inputs, gradients : lists of pairs (along, radial), ndarrays of shape (n, n), one per layer
            Of Σ_l = ⟨h, h'⟩ and of ⟨delta, delta'⟩, from the first layer to the last.
        """
        return self._slopes(X, *self._recursion(X))

    def kernel_slopes(self, X, layer_weights=None):
        """The same of the neural tangent kernel: one pair (along, radial).

        Parameters
        ----------
        X : ndarray of shape (n, n_features)
        layer_weights : sequence of float, one per layer, optional
            Weights of the layers in the kernel; 1 by default.
        """
        recursion = inputs, slopes, _ = self._recursion(X)
        weights = np.ones(self.n_layers) if layer_weights is None else layer_weights
        changes = [1.0, *np.cumprod(slopes[::-1], axis=0)][::-1], *self._slopes(X, *recursion)
        return tuple(
            sum(
                weight * (first[side] * gradient + product * second[side])
                for weight, product, gradient, first, second in zip(weights, inputs, *changes, strict=True)
            )
            for side in (0, 1)
        )

    def anchor(self, X):
        """Factorise the layers' matrices on the training points, in about n³ operations each.

        Repeated samples make them singular, and so do parallel ones for ReLU without a bias. Then, and only then,
        the least multiple of the identity that makes them regular is added; `Anchors.jitter` and the log say so.

        Parameters
        ----------
        X : ndarray of shape (n, n_features)

        Returns
        -------
        Anchors
        """
        inputs, gradients = self.layer_products(X)
        pairs = [_factorise(matrix) for matrix in (*inputs[1:], *gradients[:-1])]
        jitter = max(share for _, share in pairs)
        if jitter > 0.0:
            logger.info("singular kernel of infinite width: %.1e of its mean diagonal was added to it.", jitter)
        factors = [factor for factor, _ in pairs]
        return Anchors(X.copy(), [None, *factors[: self.depth]], [*factors[self.depth :], None], jitter)

    def factors(self, anchors, X):
        """Factors (h, delta) of every layer's tangent feature: a list of pairs, input side first.

        With a training point on one side, the products of these factors are those of `layer_products`. Of two new
        points they are the products of their projections onto the span of the training points.

        Parameters
        ----------
        anchors : Anchors
        X : ndarray of shape (n', n_features)

        Returns
        -------
        list of pairs of ndarray: shapes (n', n_features + 1) and (n', n) for the first layer (n_features without a
        bias), (n', n) and (n', n) in between, (n', n) and (n', 1) for the last
        """
        inputs, gradients = self.layer_products(X, anchors.X)
        rows = np.hstack([X, np.full((len(X), 1), float(self.bias))]) if self.bias else X
        h = [rows * self.forward_scale(X.shape[1])]
        h += [_whitened(products, factor) for products, factor in zip(inputs[1:], anchors.inputs[1:], strict=True)]
        delta = [
            _whitened(products, factor) for products, factor in zip(gradients[:-1], anchors.gradients[:-1], strict=True)
        ]
        return list(zip(h, [*delta, np.ones((len(X), 1))], strict=True))

    def input_gradients(self, anchors, coefs):
        """Gradients of x ↦ Σ_l h_lᵀ B_l delta_l at the training points, in about n³ operations a layer.

        Parameters
        ----------
        anchors : Anchors
        coefs : list of ndarray of shape (p, q) or None, one per layer
            Coefficients B_l of the factors; None for a layer that is not used.

        Returns
        -------
        ndarray of shape (n, n_features)
        """
        X = anchors.X
        layers = zip(
            self.factors(anchors, X), coefs, anchors.inputs, anchors.gradients, *self.layer_slopes(X), strict=True
        )
        along, radial, total = np.zeros((len(X), len(X))), np.zeros(len(X)), np.zeros_like(X)
        for (h, delta), coef, input_factor, gradient_factor, input_slopes, gradient_slopes in layers:
            if coef is None:
                continue
            moving = [(delta @ coef.T, input_factor, input_slopes), (h @ coef, gradient_factor, gradient_slopes)]
            if input_factor is None:
                # The samples themselves.
                total += moving.pop(0)[0][:, : X.shape[1]] * self.forward_scale(X.shape[1])
            for rows, factor, (by_other, by_own) in moving:
                if factor is not None:
                    weights = solve_triangular(factor, rows.T, lower=True, trans=1).T
                    along += by_other * weights
                    radial += np.sum(by_own * weights, axis=1)
        return total + along @ X + radial[:, None] * X

    def forward_scale(self, fan_in):
        """Factor of the first layer's input in the forward pass."""
        return 1.0 / math.sqrt(fan_in)

    def _recursion(self, X, Y=None):
        """Σ of every layer, the slopes' moments D of every hidden one, and the variances of every layer's inputs."""
        moments = MOMENTS[self.activation]
        Y = X if Y is None else Y
        if X.ndim != 2 or Y.ndim != 2 or X.shape[1] != Y.shape[1]:
            raise ValueError(
                f"both sets of samples must have shape (n, n_features), with the same number of features; got "
                f"{X.shape} and {Y.shape}."
            )
        variance, other = self._variances(X), self._variances(Y)
        inputs = [(X @ Y.T + float(self.bias) ** 2) / X.shape[1]]
        slopes, variances = [], [variance]
        for _ in range(self.depth):
            covariance, slope = moments(inputs[-1], variance[:, None], other[None, :])
            if X is Y:
                # Of a sample with itself there is no angle to round.
                covariance.flat[:: len(X) + 1], slope.flat[:: len(X) + 1] = moments(variance, variance, variance)
            variance, other = moments(variance, variance, variance)[0], moments(other, other, other)[0]
            inputs.append(covariance)
            slopes.append(slope)
            variances.append(variance)
        return inputs, slopes, variances

    def _slopes(self, X, inputs, slopes, variances):
        """`layer_slopes` from what the recursion found."""
        growth = np.full((len(X), 1), 2.0 / X.shape[1])  # the variance of x changes by growth · x
        along, radial = np.full_like(inputs[0], 1.0 / X.shape[1]), np.zeros_like(inputs[0])
        of_inputs, of_slopes = [(along, radial)], []
        for covariance, slope, variance in zip(inputs, slopes, variances, strict=False):
            derivatives = SLOPES[self.activation]
            by_variance, slope_by_covariance, slope_by_variance = derivatives(covariance, variance[:, None], variance)
            of_slopes.append((slope_by_covariance * along, slope_by_covariance * radial + slope_by_variance * growth))
            along, radial = slope * along, slope * radial + by_variance * growth
            of_inputs.append((along, radial))
            own = MOMENTS[self.activation](variance, variance, variance)[1]
            growth = growth * (own + 2.0 * derivatives(variance, variance, variance)[0])[:, None]
        product, of_gradients = 1.0, [(np.zeros_like(along), np.zeros_like(along))]
        for slope, changes in zip(slopes[::-1], of_slopes[::-1], strict=True):
            of_gradients.append(
                tuple(later * slope + product * change for later, change in zip(of_gradients[-1], changes, strict=True))
            )
            product = product * slope
        return of_inputs, of_gradients[::-1]

    def _variances(self, X):
        """Diagonal of Σ_0."""
        with np.errstate(over="ignore"):
            variances = (np.einsum("np,np->n", X, X) + float(self.bias) ** 2) / X.shape[1]
        if not np.isfinite(variances).all():
            raise ValueError(f"the kernel overflows: the values of X reach {np.abs(X).max():.3g}. Standardise X first.")
        zero = np.flatnonzero(variances == 0.0)
        if self.activation == "relu" and zero.size:
            raise ValueError(
                f"{zero.size} of {len(X)} samples are zero (the first is sample {zero[0]}): without a bias ReLU units "
                "of infinite width see the direction of a sample alone, and zero has none. Use bias=True, "
                "activation='erf', or leave these samples out."
            )
        return variances


def _whitened(rows, factor):
    """Rows times L⁻ᵀ: rows of K = L Lᵀ become those of L. Times Lᵀ they are the rows again, to rounding."""
    return solve_triangular(factor, rows.T, lower=True).T


def _factorise(matrix):
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
