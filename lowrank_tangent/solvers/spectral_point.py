"""A primal point and its spectral calculus: gradient, Hessian and inverse Hessian of the penalty.

Everything happens on the smaller side of each layer's B. For p ≤ q, ``B Bᵀ = U diag(v²) Uᵀ`` gives
``G = Ω'(B) = α Θ`` with ``Θ = Z⁻¹ B``, ``Z = U diag(z²) Uᵀ``, and for the penalty's Hessian H and its inverse W

    H E = α (Z⁻¹ E + U (Δ ∘ Uᵀ(B Eᵀ + E Bᵀ)U) Uᵀ B),
    W E = (Z E + U (Γ ∘ Uᵀ(Θ Eᵀ + E Θᵀ)U) Uᵀ Θ) / α,

with Δ the divided differences of z⁻² over the eigenvalues of B Bᵀ and Γ those of z² over the eigenvalues of Θ Θᵀ. This
is the Daleckii–Krein formula with the complement of a non-square B included, and needs neither right singular vectors
nor small singular values to full relative accuracy. W exists for convex penalties only. As the effective penalty is
concave in v², ``H ≼ D = α Z⁻¹``: fixed transforms give a quadratic that touches the penalty from above.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .._types import Array, Coefs
from ..linalg.transforms import LowRankTransform
from ..losses import LossAt
from ..operators import Layer
from ..penalties import ScaledPenalty, divided_differences
from ..problem import StructuredRegression

#: One matrix a layer, or what stands for it in another way to write coefficients, as `samples.py` has.
Parts: TypeAlias = list[Any]

#: Share of A B, squared, below which a residual is small.
_SMALL_RESIDUAL = 1e-8


def widened(matrix: Array) -> Array:
    """The matrix, transposed where it has more rows than columns."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def inner_product(these: Coefs, those: Coefs) -> float:
    """Inner product of two lists of matrices, one a layer."""
    return sum(float(np.vdot(a, b)) for a, b in zip(these, those, strict=True))


def gram_singular_values(matrix: Any) -> Array:
    """Singular values to absolute accuracy √eps, far cheaper than an SVD, which the final certificate uses."""
    return np.sqrt(np.maximum(np.linalg.eigvalsh(_finite(gram_of(matrix))), 0.0))


def _finite(gram: Array) -> Array:
    """The Gram matrix, unless it has overflowed."""
    if not np.isfinite(gram).all():
        raise FloatingPointError("squares of coefficients overflow")
    return gram


# Coefficients, their changes and correlations A* r are matrices, entry by entry. Another way to write them registers
# its classes with the three functions below, as `samples.py` does.


@functools.singledispatch
def gram_of(matrix: Any) -> Array:
    """Inner products of a matrix with itself on its smaller side."""
    wide = widened(matrix)
    with np.errstate(over="ignore", invalid="ignore"):
        return wide @ wide.T


@functools.singledispatch
def spectrum_of(coef: Any, eigen: Eigen, penalty: ScaledPenalty, alpha: float, dtype: npt.DTypeLike) -> Any:
    """Spectral calculus of one layer's coefficients."""
    return LayerSpectrum(coef, penalty, alpha, dtype, eigen)


@functools.singledispatch
def entries_of(coef: Any) -> Array:
    """Coefficients as a matrix, entry by entry."""
    return coef


@dataclass(frozen=True, eq=False)
class PrimalPoint:
    """Coefficients B, the loss at A B, and what gradient and Hessian products need of them."""

    problem: StructuredRegression
    coefs: Parts
    known_prediction: Array | None = None
    known_eigen: list[Eigen] | None = None

    def of(self, problem: StructuredRegression) -> PrimalPoint:
        """The same point of a problem that differs in alpha and penalty alone."""
        return PrimalPoint(problem, self.coefs, self.prediction, self.eigen)

    def moved(self, length: float, change: Parts, prediction: Array) -> PrimalPoint:
        """The point B + length · dB, with A dB known."""
        coefs = [layer.moved(length, part) for layer, part in zip(self.layers, change, strict=True)]
        moved = PrimalPoint(self.problem, coefs, self.prediction + length * prediction)
        # Where little is left of it, A B is computed anew, so that no error builds up in the residual.
        if np.sum(moved.residual**2) >= _SMALL_RESIDUAL * np.sum(self.prediction**2):
            return moved
        return PrimalPoint(self.problem, coefs)

    @functools.cached_property
    def eigen(self) -> list[Eigen]:
        """Eigenvalues and eigenvectors of each layer's Gram matrix."""
        return [Eigen(gram_of(coef)) for coef in self.coefs] if self.known_eigen is None else self.known_eigen

    @functools.cached_property
    def layers(self) -> list[Any]:
        """Spectral calculus of each layer."""
        return [
            spectrum_of(coef, eigen, penalty, self.problem.alpha, self.problem.design.dtype)
            for coef, eigen, penalty in zip(self.coefs, self.eigen, self.problem.spectral, strict=True)
        ]

    @functools.cached_property
    def prediction(self) -> Array:
        """A B."""
        return self.problem.design.matvec(self.coefs) if self.known_prediction is None else self.known_prediction

    @functools.cached_property
    def loss(self) -> LossAt:
        """The loss at A B."""
        return self.problem.loss.at(self.problem.target, self.prediction)

    @property
    def residual(self) -> Array:
        """r, minus the gradient of the loss."""
        return self.loss.residual

    @functools.cached_property
    def penalty(self) -> float:
        """Penalty."""
        return self._penalty_of(self.problem)

    @property
    def objective(self) -> float:
        """Primal objective."""
        return self.loss.value + self.penalty

    def objective_of(self, problem: StructuredRegression) -> float:
        """Primal objective of a problem that differs in alpha and penalty alone."""
        return self.loss.value + self._penalty_of(problem)

    def _penalty_of(self, problem: StructuredRegression) -> float:
        return 0.5 * problem.alpha * problem.spectral.effective([layer.values for layer in self.layers])

    def apply_curvature(self, matrices: Coefs) -> Coefs:
        """H times one matrix a layer."""
        return [layer.curvature(matrix) for layer, matrix in zip(self.layers, matrices, strict=True)]

    def solve_majoriser(self, matrices: Coefs) -> Coefs:
        """Inverse D⁻¹ of the majoriser's Hessian times one matrix a layer."""
        return [layer.solve_majoriser(matrix) for layer, matrix in zip(self.layers, matrices, strict=True)]

    def curvature_products(self, directions: Sequence[Coefs]) -> Array:
        """Inner products ⟨E, H E'⟩ of some directions of B, of one matrix a layer each."""
        layers = zip(self.layers, zip(*directions, strict=True), strict=True)
        return sum(layer.curvature.inner_products(matrices) for layer, matrices in layers)

    def inverse_curvature_products(self, directions: Sequence[Coefs]) -> Array:
        """Inner products ⟨E, W E'⟩ of some directions of G, of one matrix a layer each."""
        layers = zip(self.layers, zip(*directions, strict=True), strict=True)
        return sum(layer.curvature_solver().inner_products(matrices) for layer, matrices in layers)

    def newton_change(self, correlation: Parts, dtype: npt.DTypeLike) -> tuple[Parts, float]:
        """``dB = W (X − G)`` of one matrix X a layer, and ⟨dB, X − G⟩, in some precision where B is in entries."""
        found = [layer.newton_change(matrix, dtype) for layer, matrix in zip(self.layers, correlation, strict=True)]
        return [change for change, _ in found], sum(energy for _, energy in found)


class Eigen:
    """Singular values v and left singular vectors U of one layer's B, from its Gram matrix on the smaller side."""

    def __init__(self, gram: Array) -> None:
        self.gram = _finite(gram)
        eigenvalues, self.basis = np.linalg.eigh(gram)
        self.values = np.sqrt(np.maximum(eigenvalues, 0.0))


class Spectrum:
    """Singular values of one layer's B and their stretches."""

    def __init__(self, eigen: Eigen, spectral: ScaledPenalty) -> None:
        self.gram, self.basis, self.values = eigen.gram, eigen.basis, eigen.values
        self.spectral = spectral

    @functools.cached_property
    def stretch(self) -> Array:
        """Stretch z of each singular value."""
        return self.spectral.stretch(self.values)

    @functools.cached_property
    def differences(self) -> Array:
        """Γ: divided differences of z² over the eigenvalues of Θ Θᵀ."""
        with np.errstate(over="ignore", invalid="ignore"):
            slope = 4.0 * self.spectral.stretch_slope(self.stretch)
            differences = divided_differences((self.values / self.stretch**2) ** 2, self.stretch**2, slope)
        if not np.isfinite(differences).all():
            raise FloatingPointError("inverse curvatures of the penalty overflow")
        return differences


class LayerSpectrum(Spectrum):
    """Spectral calculus of one layer's B on its smaller side (B is transposed where p > q).

    Eigenvalues are in double precision, products with B in that of `dtype`.
    """

    def __init__(
        self,
        coef: Array,
        spectral: ScaledPenalty,
        alpha: float,
        dtype: npt.DTypeLike = np.float64,
        eigen: Eigen | None = None,
    ) -> None:
        super().__init__(Eigen(gram_of(coef)) if eigen is None else eigen, spectral)
        self.alpha = alpha
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape: tuple[int, ...] = coef.shape
        self.transposed = coef.shape[0] > coef.shape[1]
        self._coef = coef

    @functools.cached_property
    def rotated_coef(self) -> Array:
        """Uᵀ B."""
        return self.basis.astype(self.dtype, copy=False).T @ widened(self._coef).astype(self.dtype, copy=False)

    @functools.cached_property
    def rotated(self) -> Array:
        """Uᵀ Θ, with Θ = Z⁻¹ B."""
        return self.rotated_coef / (self.stretch[:, None] ** 2).astype(self.dtype)

    @functools.cached_property
    def gradient(self) -> Array:
        """G = α Θ."""
        return self._orient(self.basis.astype(self.dtype, copy=False) @ (self.dtype.type(self.alpha) * self.rotated))

    @functools.cached_property
    def flattening(self) -> Array:
        """Δ: divided differences of z⁻² over the eigenvalues of B Bᵀ, all ≤ 0."""
        slope = -self.spectral.stretch_growth(self.stretch) / self.stretch**4
        return divided_differences(self.values**2, self.stretch**-2, slope)

    @property
    def curvature(self) -> _Derivative:
        """H as a function of a matrix: the change of G along a change of B."""
        weights, differences = self.alpha / self.stretch**2, self.alpha * self.flattening
        return _Derivative(self, weights, differences, self.rotated_coef, self.dtype)

    def curvature_solver(self, dtype: npt.DTypeLike = np.float64) -> _Derivative:
        """W as a function of a matrix, in some precision: the change of B along a change of G."""
        with np.errstate(over="ignore"):
            weights, differences = self.stretch**2 / self.alpha, self.differences / self.alpha
        if not (np.isfinite(weights).all() and np.isfinite(differences).all()):
            raise FloatingPointError("inverse curvatures of the penalty overflow")
        return _Derivative(self, weights, differences, self.rotated, dtype)

    def newton_change(self, matrix: Array, dtype: npt.DTypeLike) -> tuple[Array, float]:
        """``dB = W (X − G)`` of a matrix X, and ⟨dB, X − G⟩, in some precision."""
        solver = self.curvature_solver(dtype)
        if dtype == self.dtype:
            rotated = solver.rotate(matrix)
            rotated -= self.dtype.type(self.alpha) * self.rotated
        else:  # rounded after the difference, which may be small
            rotated = solver.rotate(matrix - self.gradient)
        change = solver.apply(rotated)
        energy = np.einsum("ij,ij", change, rotated, dtype=np.float64)
        return solver.rotate_back(change).astype(np.float64, copy=False), energy

    def solve_majoriser(self, matrix: Array) -> Array:
        """D⁻¹ = Z / α times a matrix."""
        return self._orient(
            self.basis @ ((self.stretch**2 / self.alpha)[:, None] * (self.basis.T @ self._orient(matrix)))
        )

    def pair_factors(self, factors: Layer, dtype: npt.DTypeLike) -> tuple[Array, Array]:
        """What Γ terms of products are made of, see `pairs.py`."""
        return pair_factors(factors, self, dtype)

    def along(self, change: Array) -> tuple[Array, Array]:
        """B dBᵀ and dB dBᵀ on the smaller side."""
        coef, change = widened(self._coef), widened(change)
        return coef @ change.T, change @ change.T

    def moved(self, length: float, change: Array) -> Array:
        """B + length · dB."""
        return self._coef + length * change

    @property
    def transforms(self) -> tuple[LowRankTransform, LowRankTransform]:
        """Left and right transform of the features: the stretch on the smaller side, the identity on the other."""
        moving, fixed = LowRankTransform(self.basis, self.stretch), LowRankTransform.identity(max(self.shape))
        return (fixed, moving) if self.transposed else (moving, fixed)

    def _orient(self, matrix: Array) -> Array:
        return matrix.T if self.transposed else matrix


class _Derivative:
    """Derivative of a spectral function of one layer's matrix: E ↦ U (diag(w) Uᵀ E + (D ∘ Uᵀ(X Eᵀ + E Xᵀ)U) Uᵀ X)."""

    def __init__(
        self, spectrum: LayerSpectrum, weights: Array, differences: Array, rotated: Array, dtype: npt.DTypeLike
    ) -> None:
        self._transposed = spectrum.transposed
        self._dtype = dtype
        self._basis, self._weights, self._differences, self._x = (
            array.astype(dtype, copy=False) for array in (spectrum.basis, weights, differences, rotated)
        )

    def __call__(self, matrix: Array) -> Array:
        return self.rotate_back(self.apply(self.rotate(matrix)))

    def rotate(self, matrix: Array) -> Array:
        """Uᵀ E."""
        return self._basis.T @ (matrix.T if self._transposed else matrix).astype(self._dtype, copy=False)

    def apply(self, matrix: Array) -> Array:
        """Uᵀ times the derivative, of Uᵀ E."""
        mixed = self._x @ matrix.T
        change = (self._differences * (mixed + mixed.T)) @ self._x
        change += self._weights[:, None] * matrix
        return change

    def inner_products(self, matrices: Sequence[Array]) -> Array:
        """Inner products of some matrices with the derivatives along them."""
        rotated = np.stack([self.rotate(matrix) for matrix in matrices])
        mixed = rotated @ self._x.T
        mixed = mixed + mixed.transpose(0, 2, 1)
        parts = (rotated, self._weights[:, None] * rotated), (mixed, 0.5 * self._differences * mixed)
        first, second = (left.reshape(len(matrices), -1) @ right.reshape(len(matrices), -1).T for left, right in parts)
        return first + second

    def rotate_back(self, matrix: Array) -> Array:
        """E of Uᵀ E."""
        matrix = self._basis @ matrix
        return matrix.T if self._transposed else matrix


class PenaltyLine:
    """The penalty at B + t dB for any length t, by matrices on the smaller sides alone.

    Trial points of a line search so cost no product with B, which may be far wider than its smaller side.
    """

    def __init__(self, point: PrimalPoint, change: Parts) -> None:
        self._problem = point.problem
        self._products: list[tuple[Array, Array, Array]] = []
        for layer, part in zip(point.layers, change, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):
                self._products.append((layer.gram, *layer.along(part)))

    def at(self, length: float) -> tuple[float, float]:
        """The penalty at this length, and its derivative there, ⟨G, dB⟩."""
        alpha, spectral = self._problem.alpha, self._problem.spectral
        spectra, slope = [], 0.0
        for penalty, (gram, cross, square) in zip(spectral, self._products, strict=True):
            with np.errstate(over="ignore", invalid="ignore"):
                along = cross + length * square  # (B + t dB) dBᵀ
                moved = gram + length * (cross + along.T)
            layer = Spectrum(Eigen(moved), penalty)
            slope += np.sum(np.einsum("ij,ij->j", layer.basis, along @ layer.basis) / layer.stretch**2)
            spectra.append(layer.values)
        return 0.5 * alpha * spectral.effective(spectra), alpha * slope


def pair_factors(
    layer: Layer, spectrum: LayerSpectrum, dtype: npt.DTypeLike, count: int | None = None
) -> tuple[Array, Array]:
    """a of shape (n, m), and b of shape (n, C, m), or of the `count` strongest directions alone."""
    factors = layer.astype(dtype).outer
    assert factors is not None, "the layer has one position"
    h, delta = factors
    small, wide = (delta[:, 0], h) if spectrum.transposed else (h, delta[:, 0])
    rotated, size = spectrum.rotated[-count:] if count else spectrum.rotated, wide.shape[1]
    m = len(rotated)
    weights = rotated.reshape(m, -1, size).transpose(2, 1, 0).reshape(size, -1).astype(dtype)
    return small @ spectrum.basis.astype(dtype), (wide @ weights).reshape(len(wide), -1, m)
