"""The structured regression problem: primal and dual objective, duality gap, optimality residual.

    minimise over B    ½‖y − A B‖² + (α/2) Σ_l Σ_j ω̃_μ(σ_j(B_l)),        μ = 1/adaptivity

    maximise over r    r·y − ½‖r‖² − (α/2) Σ_l Σ_j ω̃_μ*(2 σ_j(A_l* r)/α)

For another loss L(A B) the loss part of the dual is −L*(−r), and r = −∇L(A B) at the optimum.

Source: LeJeune & Alemohammad, arXiv 2308.15478, Theorem 2.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._checks import check_adaptivity, check_number, check_sample_weight, check_target, weight_scale
from ._types import Array, ArrayLike, Coefs
from .certificate import Certificate
from .leave_one_out import RidgePath
from .linalg.concave import concave_maximum
from .linalg.svd import singular_values, thin_svd
from .losses import Loss, LossAt, get_loss
from .operators import Operator
from .penalties import LayeredPenalty, ScaledPenalty, get_penalty
from .precision import centred_rows, finite_kernel, in_double_precision

#: The dual objective is −inf on the boundary of its domain. Dual points end at this share of the way there.
_INSIDE = 1.0 - 1e-12
#: Singular values below this share of the largest count as 0: rounding alone makes them so large.
_RANK_TOL = 1e-12


class StructuredRegression:
    """Regression on tangent features with a group approximate low-rank penalty.

    minimise  ``½‖y − A B‖² + (α/2) Σ_l Σ_j ω̃_μ(σ_j(B_l))``,  μ = 1/adaptivity

    Parameters
    ----------
    operator : Operator
        A `TangentOperator`, or another one of which products are known.
    y : array of shape (n,) or (n, C)
    penalty : str or SpectralPenalty, or a sequence of them, default="power"
        Price of stretching a direction, by name (see `lowrank_tangent.penalties.PENALTIES`) or instance; one for all
        layers, or one a layer.
    alpha : float > 0, default=1e-2
        With ``adaptivity=0`` the same alpha gives scikit-learn's ``Ridge(alpha)`` on the features.
    adaptivity : float ≥ 0 or a sequence of them, default=1.0
        How cheaply features may move, for all layers or one a layer; a layer with 0 stays as it is, 0 for all is ridge.
    loss : {"squared", "multinomial", "interpolation"} or Loss, default="squared"
        "multinomial": the cross-entropy ``Σ_i CE(y_i, softmax((A B)_i))`` in place of ½‖y − A B‖². Rows of y hold the
        probabilities of the classes; one column alone is the probability of the second of two classes, and A B its
        logit. With ``adaptivity=0`` that is scikit-learn's ``LogisticRegression(C=1/alpha)``.
        "interpolation": the linearly constrained problem, minimise ``(α/2) Σ_l Σ_j ω̃_μ(σ_j(B_l))`` subject to
        ``A B = y``. There alpha scales the objective alone; theory has 1.
        A loss of your own is an instance of `lowrank_tangent.losses.Loss`, as a rule of a `SeparableLoss`.
    sample_weight : array of shape (n,) or float, optional
        Multiplies each sample's loss; leaves out samples of weight 0.
    fit_intercept : bool, default=False
        Adds an unpenalised constant for every output, the best one for every B: by (weighted) centring for least
        squares, as part of the loss for "multinomial".

    Attributes
    ----------
    spectral : LayeredPenalty
        Penalty and adaptivity of every layer.
    design : Operator
        The operator A; for least squares with weights and centring applied.
    target : ndarray of shape (n, C)
        y; for least squares with weights and centring applied. Coefficients B are those of the plain operator; dual
        points r are those of `design` and `target`.
    ridge_path : RidgePath or None
        See `diagonalised`.

    Raises
    ------
    ValueError, TypeError
        Shapes that do not fit, NaN or infinity, parameters out of range; the message says which.
    """

    def __init__(
        self,
        operator: Operator,
        y: ArrayLike,
        penalty: Any = "power",
        alpha: float = 1e-2,
        adaptivity: Any = 1.0,
        loss: str | Loss = "squared",
        sample_weight: ArrayLike | None = None,
        fit_intercept: bool = False,
    ) -> None:
        if not isinstance(operator, Operator):
            raise TypeError(
                f"operator must be a TangentOperator; got {type(operator).__name__}. An operator of another kind is a "
                "class derived from lowrank_tangent.operators.Operator."
            )
        self.operator = operator
        self.alpha = check_number(alpha, "alpha", positive=True)
        self.sample_weight = check_sample_weight(sample_weight, operator.n_samples)
        self.fit_intercept = bool(fit_intercept)
        self.loss = get_loss(loss, self.sample_weight, self.fit_intercept)
        self.y = self.loss.check_target(check_target(y, operator))
        self.spectral = _layered(penalty, adaptivity, operator)
        self.design = self.loss.design(operator)
        self.target = centred_rows(self.design, self.y)
        self.ridge_path: RidgePath | None = None

    def rescaled(self) -> tuple[StructuredRegression, float, float]:
        """The same problem with weights near 1, if they are extreme; itself if they are not.

        Returns
        -------
        problem : StructuredRegression
            With weights and alpha divided by a scale, and so the same coefficients.
        scale, dual_scale : float
            Factors that its objective and its dual points are to be multiplied by.
        """
        scale = weight_scale(self.sample_weight)
        if self.sample_weight is None or scale == 1.0:
            return self, 1.0, 1.0
        problem = copy.copy(self)
        problem.alpha, problem.sample_weight = self.alpha / scale, self.sample_weight / scale
        problem.loss = self.loss.bound(problem.sample_weight, self.fit_intercept)
        problem.design = problem.loss.design(self.operator)
        problem.target, problem.ridge_path = centred_rows(problem.design, self.y), None
        return problem, scale, math.sqrt(scale) if self.loss.is_quadratic else scale

    def reduced(self) -> tuple[StructuredRegression, Callable[[Coefs], Coefs], Callable[[Coefs], Coefs]]:
        """The same problem on the span of the factors, and the maps of its coefficients to this one's and back.

        Returns
        -------
        problem : StructuredRegression
        expand, compress : callable
        """
        operator, expand, compress = self.operator.reduce()
        problem = self.on(operator)
        problem.ridge_path = self.ridge_path  # its kernel is the same
        return problem, expand, compress

    def on(self, operator: Any) -> StructuredRegression:
        """The same problem on another operator of the same shapes.

        Parameters
        ----------
        operator : Operator

        Returns
        -------
        StructuredRegression
        """
        problem = copy.copy(self)
        problem.operator, problem.ridge_path = operator, None
        problem.design = self.loss.design(operator)
        return problem

    def diagonalised(self) -> StructuredRegression:
        """The same problem with the eigendecomposition of its kernel, `ridge_path`.

        Ridge regressions of what is made of it by `with_strength` and `reduced` then cost n² operations each.

        Raises
        ------
        FloatingPointError
            If the kernel overflows.
        """
        with in_double_precision(self):
            kernel = finite_kernel(self.design)
        direction = None
        if self.fit_intercept:
            roots = np.ones(self.design.n_samples) if self.sample_weight is None else np.sqrt(self.sample_weight)
            direction = roots / np.linalg.norm(roots)
        problem = copy.copy(self)
        problem.ridge_path = RidgePath(kernel, self.target, direction, self.sample_weight)
        return problem

    def with_strength(self, alpha: float, adaptivity: Any) -> StructuredRegression:
        """The same problem with another alpha and adaptivity, on the same features and data."""
        problem = copy.copy(self)
        problem.alpha = check_number(alpha, "alpha", positive=True)
        problem.spectral = _layered([layer.penalty for layer in self.spectral], adaptivity, self.operator)
        return problem

    def intercept(self, prediction: Array) -> Array:
        """Best intercept for the predictions of some coefficients, shape (C,); zeros without `fit_intercept`.

        Parameters
        ----------
        prediction : ndarray of shape (n, C)
            ``operator.matvec(coefs)``.
        """
        return self.loss.intercept(self.y, prediction)

    def loss_at(self, coefs: Coefs, prediction: Array | None = None) -> LossAt:
        """The loss at A B: value, residual and curvature. `prediction` as for `certificate`."""
        if prediction is None:
            prediction = self.operator.matvec(coefs)
        return self.loss.at(self.target, self.design.to_rows(prediction))

    def penalty_value(self, coefs: Coefs) -> float:
        """(α/2) Σ_l Σ_j ω̃_μ(σ_j(B_l))."""
        spectra = self._spectra(coefs)
        for i, (values, penalty) in enumerate(zip(spectra, self.spectral, strict=True)):
            if penalty.kink > 0.0:
                # Powers q < 1 of zeros that rounding has moved, such as (1e-17)^0.1, would count.
                spectra[i] = values[values > _RANK_TOL * values[0]]
        return 0.5 * self.alpha * float(self.spectral.effective(spectra))

    def objective(self, coefs: Coefs, prediction: Array | None = None) -> float:
        """Primal objective P(B). `prediction` as for `certificate`."""
        return self.loss_at(coefs, prediction).value + self.penalty_value(coefs)

    def dual_objective(self, dual: Array) -> float:
        """Dual objective D(r), a lower bound on the optimal value; −inf outside the domain."""
        return self._dual_value(dual, self._dual_spectra(dual))

    def certificate(self, coefs: Coefs, dual: Array, prediction: Array | None = None) -> Certificate:
        """Certify coefficients by a dual point, whoever computed them.

        Parameters
        ----------
        coefs : list of ndarray
        dual : ndarray of shape (n, C)
            `best_multiple` makes one of the `residual`.
        prediction : ndarray of shape (n, C), optional
            ``operator.matvec(coefs)``, if it is known.

        Returns
        -------
        Certificate
        """
        objective = float(self.objective(coefs, prediction))
        if not self.loss.is_constraint:
            if self.spectral.is_convex:
                return Certificate.of(objective, self.dual_objective(dual))
            return Certificate(objective, math.nan, math.nan, self.optimality_residual(coefs))
        violation = self.loss_at(coefs, prediction).residual
        relative = float(np.linalg.norm(violation) / max(np.linalg.norm(self.target), np.finfo(float).tiny))
        if self.spectral.is_convex:
            # Weak duality holds for the y that is interpolated: r·(y − A B) is the price of the difference.
            return Certificate.of(objective, self.dual_objective(dual), abs(np.vdot(dual, violation)), relative)
        return Certificate(objective, math.nan, math.nan, self.optimality_residual(coefs, dual), relative)

    def residual(self, coefs: Coefs) -> Array:
        """Minus the gradient of the loss at A B, the dual point that belongs to B; y − A B for least squares."""
        return self.loss_at(coefs).residual

    def project(self, dual: Array) -> Array:
        """A dual point in the domain of the loss's conjugate, made of an array of shape (n, C)."""
        return self.loss.nearest_dual(self.target, self.design.project(dual))

    def primal_of(self, dual: Array) -> Coefs:
        """Coefficients that a dual point inside its domain stands for.

        Those at which the conjugate is attained; for a penalty that is not convex, those of ridge regression.
        """
        coefs, convex = [], self.spectral.is_convex
        for matrix, penalty in zip(self.design.rmatvec(dual), self.spectral, strict=True):
            u, s, vt = thin_svd(matrix)
            stretch = penalty.dual_stretch(2.0 / self.alpha * s) if convex else np.ones_like(s)
            coefs.append((u * (stretch**2 * s / self.alpha)) @ vt)
        return coefs

    def best_multiple(self, dual: Array, spectra: list[Array] | None = None) -> tuple[Array, float]:
        """The multiple (by 0 to 2) of a dual point with the largest dual objective, and that objective.

        Parameters
        ----------
        dual : ndarray of shape (n, C)
        spectra : list of ndarray, optional
            Singular values of A_l* r, where they are known.

        Returns
        -------
        dual : ndarray of shape (n, C)
            In the domain.
        dual_objective : float

        Raises
        ------
        FloatingPointError
            If the singular values of A_l* r, divided by alpha, overflow.
        """
        if spectra is None:
            spectra = self._dual_spectra(dual)
        limit, scaled = (
            min(2.0, self.loss.largest_factor(self.target, dual)),
            [2.0 / self.alpha * values for values in spectra],
        )
        for u, penalty in zip(scaled, self.spectral, strict=True):
            if not np.isfinite(u).all():
                raise FloatingPointError("2 A* r / alpha overflows")
            if u.max() > 0.0:
                limit = min(limit, _INSIDE * penalty.conjugate_domain / u.max())
        loss = self.loss.dual_along(self.target, dual)

        def value(factors: Array) -> Array:
            barrier = sum(
                penalty.conjugate(np.multiply.outer(factors, u)).sum(axis=-1)
                for u, penalty in zip(scaled, self.spectral, strict=True)
            )
            return loss(factors) - 0.5 * self.alpha * barrier

        factor, dual_objective = concave_maximum(value, limit, guess=1.0)
        return factor * dual, dual_objective

    def optimality_residual(self, coefs: Coefs, dual: Array | None = None) -> float:
        """Distance of ``A* r`` from the subdifferential of the penalty, relative to the norm of ``A* r``.

        Parameters
        ----------
        coefs : list of ndarray
        dual : ndarray of shape (n, C), optional
            r; by default the `residual`.
        """
        correlation = self.design.rmatvec(self.residual(coefs) if dual is None else dual)
        miss, size = 0.0, 0.0
        for gradient, coef, penalty in zip(correlation, coefs, self.spectral, strict=True):
            u, v, vt = thin_svd(coef)
            used = v > _RANK_TOL * v[0]
            u, v, vt = u[:, used], v[used], vt[used]
            difference = gradient - 0.5 * self.alpha * (u * penalty.derivative(v)) @ vt
            miss += np.sum(difference**2)
            if penalty.kink > 0.0:
                # Outside the span of B, singular values up to the kink belong to the subdifferential.
                unused = difference - u @ (u.T @ difference)
                unused -= (unused @ vt.T) @ vt
                excess = np.maximum(singular_values(unused) - 0.5 * self.alpha * penalty.kink, 0.0)
                miss += np.sum(excess**2) - np.sum(unused**2)
            size += np.sum(gradient**2)
        return float(np.sqrt(max(miss, 0.0) / (size or 1.0)))

    def _dual_spectra(self, dual: Array) -> list[Array]:
        return self._spectra(self.design.rmatvec(dual))

    def _spectra(self, matrices: Coefs) -> list[Array]:
        """Singular values of one matrix a layer; where ridge adds up their squares the root of that sum alone."""
        return [
            np.array([np.linalg.norm(matrix)]) if penalty.is_fixed else singular_values(matrix)
            for matrix, penalty in zip(matrices, self.spectral, strict=True)
        ]

    def _dual_value(self, dual: Array, spectra: list[Array]) -> float:
        barrier = sum(
            penalty.conjugate(2.0 / self.alpha * values).sum()
            for penalty, values in zip(self.spectral, spectra, strict=True)
        )
        return float(self.loss.dual_value(self.target, dual) - 0.5 * self.alpha * barrier)


def _layered(penalty: Any, adaptivity: Any, operator: Any) -> LayeredPenalty:
    """The penalty and adaptivity of every layer."""
    penalties = _one_a_layer(penalty, "penalty", operator)
    adaptivities = _one_a_layer(adaptivity, "adaptivity", operator)
    return LayeredPenalty(
        ScaledPenalty(get_penalty(price), check_adaptivity(speed))
        for price, speed in zip(penalties, adaptivities, strict=True)
    )


def _one_a_layer(value: Any, name: str, operator: Any) -> list[Any]:
    """A value for every layer, or the sequence of them that was given."""
    count = len(operator.coef_shapes)
    if isinstance(value, str) or not isinstance(value, (Sequence, np.ndarray)) or np.shape(value) == ():
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} must be one for all layers or a sequence of {count}, one a layer; got {len(value)}.")
    return list(value)
