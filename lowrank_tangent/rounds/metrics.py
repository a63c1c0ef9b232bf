"""What a round stretches: one class a metric, for factors and for n × n kernels alike.

A metric looks at a fit, the `View`, and says by how much which directions of a layer's inputs are stretched. Most take
the spectrum s of some matrix, and the price of the penalty makes of it the stretch z(s/√μ):

- "coefficient": the singular values of B, as in the model of arXiv 2308.15478.
- "gradient": the root of the spectrum of B C Bᵀ, C the second moment of the gradients delta. That is the average outer
  product of B delta(x_i), the gradient of the fitted function with respect to the layer's inputs while the gates stand
  still. Directions in gates that the data hardly use do not count.
- "function": the root of the spectrum of the average outer product of the whole gradient of the fitted function. Gates
  move with the inputs: in a network of finite width they jump, which a gradient does not see; at infinite width they
  are smooth, and the kernel's derivative has them. First layer, infinite width. (Recursive feature machines, arXiv
  2212.13881, take a power of this average gradient outer product instead of a stretch.)
- "diagonal": the diagonal of the same outer product, the root mean square of the function's slope along every feature.
  Features are stretched, and no directions between them.

Two more look at no fit. At infinite width they are steps up the evidence of the current kernel (`evidence.py`), of a
length of their own: what μ and the price of the penalty say does not matter to them.

- "evidence": in all directions.
- "relevance": feature by feature (automatic relevance determination).

"gradient", "function" and "diagonal" measure slopes, per unit of a feature. The coefficients B, sums over samples of
inputs times gradients, also count how far the data reach along a direction. On images the function is steep in
directions that hardly vary: B is the better measure there. On tables of standardised columns slopes are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .._types import Array
from ..linalg.transforms import LowRankTransform
from ..networks import Network
from ..operators.layers import singular_vectors
from .evidence import Ascent, Evidence


@dataclass(frozen=True)
class Stretch:
    """Factors z along orthonormal directions of a layer's inputs, and one factor along all others.

    Attributes
    ----------
    values : ndarray of shape (k,)
        z ≥ 0. Their common scale makes no difference: a transform keeps tr(M Mᵀ) = size.
    directions : ndarray of shape (p, k) or None
        One column each; None for the features themselves, k = p.
    elsewhere : float, default=1.0
        z of every other direction.
    units : LowRankTransform, optional
        What the layer's units are multiplied by; by default they stay.
    """

    values: Array
    directions: Array | None
    elsewhere: float = 1.0
    units: LowRankTransform | None = None

    @property
    def inputs(self) -> LowRankTransform | Array:
        """What the layer's inputs are multiplied by, for `ProductTransform.then`: the values alone for features."""
        if self.directions is None:
            return self.values
        return LowRankTransform(self.directions, self.values, self.elsewhere)


class View(ABC):
    """What a metric may ask of a fit: of one layer of the current network, in the coordinates of its inputs.

    Attributes
    ----------
    basis : ndarray of shape (p, k) or None
        Orthonormal basis of the span of the samples' inputs; None where it is everything.
    shares : ndarray of shape (n,)
        Weights of the samples, which sum to 1.
    ascent : Ascent
        Length of steps up the evidence.
    """

    basis: Array | None
    shares: Array
    ascent: Ascent

    @property
    @abstractmethod
    def price(self) -> Any:
        """Penalty with the price of moving: ``stretch(s)`` and ``split(s)``."""

    @property
    @abstractmethod
    def evidence(self) -> Evidence:
        """Evidence of the current kernel."""

    @abstractmethod
    def evidence_slopes(self, by_features: bool) -> Array:
        """Slopes of the log evidence with respect to the logarithm of M: (k, k) in the basis, (p,) for features."""

    @abstractmethod
    def still_gradients(self) -> Iterator[tuple[Any, Array]]:
        """Gradients of the fitted function while gates stand still: pairs of samples and an array (p, n', C)."""

    @abstractmethod
    def whole_gradients(self) -> Iterator[tuple[Any, Array]]:
        """Gradients of the fitted function, gates moving, at infinite width: as `still_gradients`."""

    def weighted(self, gradients: Iterable[tuple[Any, Array]]) -> Iterator[Array]:
        """Columns of shape (p, n'·C) whose outer products add up to the weighted average over samples."""
        for rows, slopes in gradients:
            yield (slopes * np.sqrt(self.shares[rows])[:, None]).reshape(len(slopes), -1)

    def principal(self, gradients: Iterable[tuple[Any, Array]]) -> tuple[Array, Array]:
        """Root of the spectrum of the average outer product of gradients, (k,), and its directions, (p, k)."""
        moment: Any = 0.0
        for columns in self.weighted(gradients):
            inside = columns if self.basis is None else self.basis.T @ columns
            moment = moment + inside @ inside.T
        return self.rooted(np.asarray(moment))

    def rooted(self, moment: Array) -> tuple[Array, Array]:
        """Root of the spectrum of a matrix in the basis, and its directions in the coordinates of the inputs."""
        squares, u = np.linalg.eigh(moment)
        return np.sqrt(np.maximum(squares, 0.0)), self.outside(u)

    def outside(self, u: Array) -> Array:
        """Directions in the basis as directions of the inputs."""
        return u if self.basis is None else self.basis @ u

    def priced(self, s: Array, directions: Array | None) -> Stretch:
        """The stretch that the price of the penalty makes of a spectrum."""
        return Stretch(self.price.stretch(s), directions, float(self.price.stretch(0.0)))


class Metric(ABC):
    """Says by how much a round stretches which directions.

    A metric of one's own has a `name` and `from_factors`, and goes to ``metric=`` as an instance. Where it needs the
    coefficients of the fit, which n × n kernels do not have, it has `from_kernels` too.

    Attributes
    ----------
    name : str
    needs_kernel_derivative : bool, default=False
        Whether it asks for `whole_gradients` or the evidence: infinite width alone has them.
    follows_evidence : bool, default=False
        Whether it is a step of a length of its own: price and adaptivity then do not matter.
    by_features : bool, default=False
        Whether features are stretched, and no directions between them.

    Examples
    --------
    Recursive feature machines take a root of the spectrum and know no price:

    >>> from lowrank_tangent import AdaptiveTangentRegressor
    >>> from lowrank_tangent.datasets import make_square
    >>> from lowrank_tangent.rounds import Metric, Stretch
    >>> class RootOfGradients(Metric):
    ...     name = "root of gradients"
    ...     needs_kernel_derivative = True
    ...
    ...     def from_factors(self, view):
    ...         s, directions = view.principal(view.whole_gradients())
    ...         return Stretch(s**0.5, directions, elsewhere=0.0)
    >>> X, y = make_square(200, 10, random_state=0)
    >>> model = AdaptiveTangentRegressor((float("inf"),), adaptivity=0, metric=RootOfGradients(), n_rounds=2)
    >>> bool(model.fit(X[:100], y[:100]).score(X[100:], y[100:]) > 0.7)
    True
    """

    name: ClassVar[str]
    needs_kernel_derivative: ClassVar[bool] = False
    follows_evidence: ClassVar[bool] = False
    by_features: ClassVar[bool] = False

    @abstractmethod
    def from_factors(self, view: View) -> Stretch:
        """The stretch, of a fit with factors and coefficients."""

    def from_kernels(self, view: View) -> Stretch:
        """The same from n × n kernels alone, in the coordinates of the samples; by default as `from_factors`."""
        return self.from_factors(view)

    def checked(self, stretch: Stretch) -> Stretch:
        """The stretch, if it is of features or of directions as the metric says.

        Raises
        ------
        ValueError
        """
        if (stretch.directions is None) != self.by_features:
            raise ValueError(
                f"{type(self).__name__}.by_features is {self.by_features}, and its stretch has "
                f"{'no directions' if stretch.directions is None else 'directions'}. Give a stretch of features "
                "directions=None, and its metric by_features = True."
            )
        return stretch

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(type(self))


class CoefficientMetric(Metric):
    """The singular values of the coefficients B."""

    name = "coefficient"

    def from_factors(self, view: Any) -> Stretch:
        """From B itself; a price of both sides moves units too."""
        u, s, vt = singular_vectors(view.coefs, view.basis)
        (z, of_units), (elsewhere, units_elsewhere) = view.price.split(s), view.price.split(0.0)
        units = LowRankTransform(vt.T, of_units, float(units_elsewhere)) if (of_units != 1.0).any() else None
        return Stretch(z, u, float(elsewhere), units)

    def from_kernels(self, view: Any) -> Stretch:
        """From B Bᵀ, which kernels have."""
        return view.priced(*view.rooted(view.coefs_outer))


class GradientMetric(Metric):
    """The gradient of the fitted function while gates stand still."""

    name = "gradient"

    def from_factors(self, view: View) -> Stretch:
        """From the average outer product of the gradients."""
        return view.priced(*view.principal(view.still_gradients()))


class FunctionMetric(Metric):
    """The whole gradient of the fitted function, gates moving."""

    name = "function"
    needs_kernel_derivative = True

    def from_factors(self, view: View) -> Stretch:
        """From the average outer product of the gradients."""
        return view.priced(*view.principal(view.whole_gradients()))


class DiagonalMetric(Metric):
    """The root mean square of the function's slope along every feature."""

    name = "diagonal"
    needs_kernel_derivative = by_features = True

    def from_factors(self, view: View) -> Stretch:
        """From the average squares of the gradients."""
        squares = sum(np.sum(columns**2, axis=1) for columns in view.weighted(view.whole_gradients()))
        return view.priced(np.sqrt(squares), None)


class EvidenceMetric(Metric):
    """The slopes of the log evidence, in all directions."""

    name = "evidence"
    needs_kernel_derivative = follows_evidence = True

    def from_factors(self, view: View) -> Stretch:
        """A step up along the principal slopes."""
        slopes, u = np.linalg.eigh(view.evidence_slopes(by_features=False))
        z, elsewhere = view.ascent.stretch(view.evidence.value, slopes)
        return Stretch(z, view.outside(u), elsewhere)


class RelevanceMetric(Metric):
    """The slopes of the log evidence, feature by feature."""

    name = "relevance"
    needs_kernel_derivative = follows_evidence = by_features = True

    def from_factors(self, view: View) -> Stretch:
        """A step up along the slopes."""
        z, _ = view.ascent.stretch(view.evidence.value, view.evidence_slopes(by_features=True))
        return Stretch(z, None)


#: The metrics that have a name.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        CoefficientMetric(),
        GradientMetric(),
        FunctionMetric(),
        DiagonalMetric(),
        EvidenceMetric(),
        RelevanceMetric(),
    )
}


def get_metric(metric: str | Metric, network: Network, name: str = "metric") -> Metric:
    """The metric of a name, or an instance as it is.

    Raises
    ------
    ValueError
        For an unknown name, and for a metric that this network does not have.
    """
    known = METRICS.get(metric) if isinstance(metric, str) else metric
    if not isinstance(known, Metric):
        raise ValueError(
            f"{name} must be one of {sorted(METRICS)}; got {metric!r}. An instance of a subclass of "
            "lowrank_tangent.rounds.Metric is taken too."
        )
    if known.needs_kernel_derivative and not network.is_infinite:
        raise ValueError(
            f"{name}: {known.name!r} is for networks of infinite width, whose kernels have a derivative in closed "
            "form. Take 'gradient', or widths of np.inf."
        )
    return known
