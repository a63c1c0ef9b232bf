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
from dataclasses import dataclass

import numpy as np

from ..penalties import LayeredPenalty, divided_differences
from ..transforms import LowRankTransform

#: Share of A B, squared, below which a residual is small.
_SMALL_RESIDUAL = 1e-8


def widened(matrix):
    """The matrix, transposed where it has more rows than columns."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def gram_singular_values(matrix):
    """Singular values to absolute accuracy √eps, far cheaper than by an SVD; the final certificate uses the SVD."""
    wide = widened(matrix)
    return np.sqrt(np.maximum(np.linalg.eigvalsh(wide @ wide.T), 0.0))


@dataclass(frozen=True)
class PrimalPoint:
    """Coefficients B, the loss at A B, and what gradient and Hessian products need of them."""

    problem: object
    spectral: LayeredPenalty
    coefs: list
    known_prediction: np.ndarray | None = None

    def with_penalty(self, spectral):
        """The same point for another adaptivity."""
        if spectral is self.spectral:
            return self
        return PrimalPoint(self.problem, spectral, self.coefs, self.prediction)

    def moved(self, length, change, prediction):
        """The point B + length · dB, with A dB known."""
        coefs = [coef + length * part for coef, part in zip(self.coefs, change, strict=True)]
        moved = PrimalPoint(self.problem, self.spectral, coefs, self.prediction + length * prediction)
        # Where little is left of it, A B is computed anew, so that no error builds up in the residual.
        if np.sum(moved.residual**2) >= _SMALL_RESIDUAL * np.sum(self.prediction**2):
            return moved
        return PrimalPoint(self.problem, self.spectral, coefs)

    @functools.cached_property
    def layers(self):
        """Spectral calculus of each layer."""
        return [
            LayerSpectrum(coef, penalty, self.problem.alpha)
            for coef, penalty in zip(self.coefs, self.spectral, strict=True)
        ]

    @functools.cached_property
    def prediction(self):
        """A B."""
        return self.problem.design.matvec(self.coefs) if self.known_prediction is None else self.known_prediction

    @functools.cached_property
    def loss(self):
        """The loss at A B."""
        return self.problem.loss.at(self.problem.target, self.prediction)

    @property
    def residual(self):
        """r, minus the gradient of the loss."""
        return self.loss.residual

    @functools.cached_property
    def penalty(self):
        """Penalty for the adaptivity of this point."""
        return self.penalty_for(self.spectral)

    def penalty_for(self, spectral):
        """Penalty for some adaptivity."""
        return 0.5 * self.problem.alpha * spectral.effective([layer.values for layer in self.layers])

    def objective_for(self, spectral):
        """Primal objective for some adaptivity."""
        return self.loss.value + self.penalty_for(spectral)

    def apply_curvature(self, matrices):
        """H times one matrix a layer."""
        return [layer.apply_curvature(matrix) for layer, matrix in zip(self.layers, matrices, strict=True)]

    def solve_majoriser(self, matrices):
        """Inverse D⁻¹ of the majoriser's Hessian times one matrix a layer."""
        return [layer.solve_majoriser(matrix) for layer, matrix in zip(self.layers, matrices, strict=True)]

    def solve_curvature(self, matrices):
        """W times one matrix a layer."""
        return [layer.curvature_solver()(matrix) for layer, matrix in zip(self.layers, matrices, strict=True)]


class LayerSpectrum:
    """Spectral calculus of one layer's B on its smaller side (B is transposed where p > q)."""

    def __init__(self, coef, spectral, alpha):
        self.alpha = alpha
        self.spectral = spectral
        self.shape = coef.shape
        self.transposed = coef.shape[0] > coef.shape[1]
        wide = widened(coef)
        with np.errstate(over="ignore", invalid="ignore"):
            gram = wide @ wide.T
        if not np.isfinite(gram).all():
            raise FloatingPointError("squares of coefficients overflow")
        eigenvalues, self.basis = np.linalg.eigh(gram)
        self.values = np.sqrt(np.maximum(eigenvalues, 0.0))
        self._coef = coef

    @functools.cached_property
    def stretch(self):
        """Stretch z of each singular value."""
        return self.spectral.stretch(self.values)

    @functools.cached_property
    def rotated_coef(self):
        """Uᵀ B."""
        return self.basis.T @ widened(self._coef)

    @functools.cached_property
    def rotated(self):
        """Uᵀ Θ, with Θ = Z⁻¹ B."""
        return self.rotated_coef / self.stretch[:, None] ** 2

    @property
    def gradient(self):
        """G = α Θ."""
        return self._orient(self.basis @ (self.alpha * self.rotated))

    @functools.cached_property
    def differences(self):
        """Γ: divided differences of z² over the eigenvalues of Θ Θᵀ."""
        slope = 4.0 * self.spectral.stretch_slope(self.stretch)
        return divided_differences((self.values / self.stretch**2) ** 2, self.stretch**2, slope)

    @functools.cached_property
    def flattening(self):
        """Δ: divided differences of z⁻² over the eigenvalues of B Bᵀ, all ≤ 0."""
        slope = -self.spectral.stretch_growth(self.stretch) / self.stretch**4
        return divided_differences(self.values**2, self.stretch**-2, slope)

    def apply_curvature(self, matrix):
        """H times a matrix: the change of G along a change of B."""
        weights, differences = self.alpha / self.stretch**2, self.alpha * self.flattening
        return _Derivative(self, weights, differences, self.rotated_coef)(matrix)

    def curvature_solver(self, dtype=np.float64):
        """W as a function of a matrix, in some precision: the change of B along a change of G."""
        return _Derivative(self, self.stretch**2 / self.alpha, self.differences / self.alpha, self.rotated, dtype)

    def solve_majoriser(self, matrix):
        """D⁻¹ = Z / α times a matrix."""
        return self._orient(
            self.basis @ ((self.stretch**2 / self.alpha)[:, None] * (self.basis.T @ self._orient(matrix)))
        )

    @property
    def transforms(self):
        """Left and right transform of the features: the stretch on the smaller side, the identity on the other."""
        moving, fixed = LowRankTransform(self.basis, self.stretch), LowRankTransform.identity(max(self.shape))
        return (fixed, moving) if self.transposed else (moving, fixed)

    def _orient(self, matrix):
        return matrix.T if self.transposed else matrix


class _Derivative:
    """Derivative of a spectral function of one layer's matrix: E ↦ U (diag(w) Uᵀ E + (D ∘ Uᵀ(X Eᵀ + E Xᵀ)U) Uᵀ X)."""

    def __init__(self, spectrum, weights, differences, rotated, dtype=np.float64):
        self._transposed = spectrum.transposed
        self._basis, self._weights, self._differences, self._rotated = (
            array.astype(dtype, copy=False) for array in (spectrum.basis, weights, differences, rotated)
        )

    def __call__(self, matrix):
        change = self._basis.T @ (matrix.T if self._transposed else matrix)
        mixed = self._rotated @ change.T
        change *= self._weights[:, None]
        change += (self._differences * (mixed + mixed.T)) @ self._rotated
        change = self._basis @ change
        return change.T if self._transposed else change
