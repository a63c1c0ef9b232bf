"""A primal point and its spectral calculus: gradient, Hessian and inverse Hessian of the penalty.

Everything happens on the smaller side of each layer's B. For p ≤ q, ``B Bᵀ = U diag(v²) Uᵀ`` gives
``G = Ω'(B) = α Z⁻¹ B`` with ``Z = U diag(z²) Uᵀ``, and for the penalty's Hessian H and its inverse W

    H E = α (Z⁻¹ E + U (Δ ∘ Uᵀ(B Eᵀ + E Bᵀ)U) Uᵀ B),
    W E = (Z E + U (Γ ∘ Uᵀ(G Eᵀ + E Gᵀ)U) Uᵀ G) / α,

with Δ the divided differences of z⁻² over the eigenvalues of B Bᵀ and Γ those of z² over the eigenvalues of G Gᵀ. This
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


def widened(matrix):
    """The matrix, transposed where it has more rows than columns."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def gram_singular_values(matrix):
    """Singular values to absolute accuracy √eps, far cheaper than by an SVD; the final certificate uses the SVD."""
    wide = widened(matrix)
    return np.sqrt(np.maximum(np.linalg.eigvalsh(wide @ wide.T), 0.0))


@dataclass(frozen=True)
class PrimalPoint:
    """Coefficients B and their residual r = y − A B, with what gradient and Hessian products need of them."""

    problem: object
    spectral: LayeredPenalty
    coefs: list

    def with_penalty(self, spectral):
        """The same point for another adaptivity."""
        return self if spectral is self.spectral else PrimalPoint(self.problem, spectral, self.coefs)

    @functools.cached_property
    def layers(self):
        """Spectral calculus of each layer."""
        return [
            LayerSpectrum(coef, penalty, self.problem.alpha)
            for coef, penalty in zip(self.coefs, self.spectral, strict=True)
        ]

    @functools.cached_property
    def residual(self):
        """r, computed and not updated, so that no error builds up."""
        return self.problem.residual(self.coefs)

    @functools.cached_property
    def penalty(self):
        """Penalty for the adaptivity of this point."""
        return self.penalty_for(self.spectral)

    def penalty_for(self, spectral):
        """Penalty for some adaptivity."""
        return 0.5 * self.problem.alpha * spectral.effective([layer.values for layer in self.layers])

    def objective_for(self, spectral):
        """Primal objective for some adaptivity."""
        return 0.5 * np.sum(self.residual**2) + self.penalty_for(spectral)

    def apply_curvature(self, matrices):
        """H times one matrix a layer."""
        return [layer.apply_curvature(matrix) for layer, matrix in zip(self.layers, matrices, strict=True)]

    def solve_majoriser(self, matrices):
        """Inverse D⁻¹ of the majoriser's Hessian times one matrix a layer."""
        return [layer.solve_majoriser(matrix) for layer, matrix in zip(self.layers, matrices, strict=True)]

    def solve_curvature(self, matrices):
        """W times one matrix a layer."""
        return [layer.solve_curvature(matrix) for layer, matrix in zip(self.layers, matrices, strict=True)]


class LayerSpectrum:
    """Spectral calculus of one layer's B on its smaller side (B is transposed where p > q)."""

    def __init__(self, coef, spectral, alpha):
        self.alpha = alpha
        self.spectral = spectral
        self.shape = coef.shape
        self.transposed = coef.shape[0] > coef.shape[1]
        wide = widened(coef)
        eigenvalues, self.basis = np.linalg.eigh(wide @ wide.T)
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
        """Uᵀ G, with G = Ω'(B) = α Z⁻¹ B."""
        return (self.alpha / self.stretch**2)[:, None] * self.rotated_coef

    @property
    def gradient(self):
        """G."""
        return self._orient(self.basis @ self.rotated)

    @functools.cached_property
    def differences(self):
        """Γ: divided differences of z² over the eigenvalues of G Gᵀ."""
        eigenvalues = (self.alpha * self.values / self.stretch**2) ** 2
        slope = self.spectral.stretch_slope(self.stretch) * (2.0 / self.alpha) ** 2
        return divided_differences(eigenvalues, self.stretch**2, slope)

    @functools.cached_property
    def flattening(self):
        """Δ: divided differences of z⁻² over the eigenvalues of B Bᵀ, all ≤ 0."""
        slope = -self.spectral.stretch_growth(self.stretch) / self.stretch**4
        return divided_differences(self.values**2, self.stretch**-2, slope)

    def apply_curvature(self, matrix):
        """H times a matrix: the change of G along a change of B."""
        weights, differences = self.alpha / self.stretch**2, self.alpha * self.flattening
        return self._derivative(matrix, weights, differences, self.rotated_coef)

    def solve_curvature(self, matrix):
        """W times a matrix: the change of B along a change of G."""
        weights, differences = self.stretch**2 / self.alpha, self.differences / self.alpha
        return self._derivative(matrix, weights, differences, self.rotated)

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

    def _derivative(self, matrix, weights, differences, rotated):
        change = self.basis.T @ self._orient(matrix)
        mixed = rotated @ change.T
        change *= weights[:, None]
        change += (differences * (mixed + mixed.T)) @ rotated
        return self._orient(self.basis @ change)

    def _orient(self, matrix):
        return matrix.T if self.transposed else matrix
