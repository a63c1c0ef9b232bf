"""The contract of a loss.

A loss L(f) is a convex function of predictions f of shape (n, C) with values ≥ 0. It knows the weights of the samples
and whether an unpenalised intercept is minimised over. A dual point r of the same shape proves

    L(f) ≥ −L*(−r) − r·f,  with equality for r = −∇L(f).

`Loss` is the function, `LossAt` the same at one prediction. Solvers ask for capabilities, never for names:
`is_quadratic`, `has_hessian`, `is_constraint`, `has_cvxpy`. A loss that is a sum over the entries of f is one short
class, see `SeparableLoss`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .._types import Array

_Self = TypeVar("_Self", bound="Loss")


class LossAt(ABC):
    """A loss at one prediction f.

    Members below `divergence` are for a loss that `has_hessian`: they are about a factor S of its Hessian S Sᵀ.

    Attributes
    ----------
    value : float
        L(f).
    residual : ndarray of shape (n, C)
        −∇L(f), the dual point that belongs to f; inside the domain of the conjugate.
    """

    @property
    @abstractmethod
    def value(self) -> float:
        """L(f)."""

    @property
    @abstractmethod
    def residual(self) -> Array:
        """r = −∇L(f), shape (n, C)."""

    @abstractmethod
    def divergence(self, other: Any) -> float:
        """L(f') − L(f) + r·(f' − f) ≥ 0 for the same loss at f': free of cancellation where it is small."""

    def newton_start(self, dual: Array) -> tuple[Array, Array]:
        """A dual point r' near the given one and x with ``r' = r − S x``, where Newton's equation is solved from.

        By default r itself with x = 0, as the inverse of S may be anything.
        """
        return self.residual, np.zeros_like(self.residual)

    @property
    def mean_curvature(self) -> Array | float:
        """Mean over outputs of the diagonal of S Sᵀ without the intercept, shape (n,) or one number."""
        raise NotImplementedError

    def multiply(self, values: Array) -> Array:
        """S times values of shape (n, C)."""
        raise NotImplementedError

    def adjoint(self, values: Array) -> Array:
        """Sᵀ times values of shape (n, C)."""
        raise NotImplementedError

    @property
    def blocks(self) -> Array:
        """S without the intercept, one block a sample, shape (n, C, C)."""
        raise NotImplementedError

    def conjugate_curvature(self, changes: Array) -> Array:
        """Hessian of the conjugate at r times changes of r, of shape (…, n, C)."""
        raise NotImplementedError

    @property
    def intercept_directions(self) -> Array:
        """Orthonormal directions that an intercept takes out of x, shape (k, n, C); none by default."""
        return np.empty((0, *self.residual.shape))


class Loss(ABC):
    """A loss, its weights and intercept, and the domain and value of its conjugate.

    Attributes
    ----------
    name : str
        For messages; for the losses of the library also what `get_loss` knows them by.
    is_quadratic : bool
        Whether it is ½‖y − f‖² of rows that `design` has weighted and centred.
    has_hessian : bool
        Whether `at` has the members of `LossAt` that are about S.
    is_constraint : bool
        Whether it is the constraint f = y, with the value 0.
    has_classwise_factor : bool
        Whether for C > 1 its S is ``diag(s)(I − √p √pᵀ)`` in every sample, with s and √p as `scales` and `roots` of
        `at`: what a preconditioner class by class is made for.
    has_probabilities : bool
        Whether targets are probabilities of classes and predictions logits.
    sample_weight : ndarray of shape (n,) or None
    fit_intercept : bool
        These two are those of a problem, see `bound`.
    """

    name: str = ""
    is_quadratic: bool = False
    has_hessian: bool = False
    is_constraint: bool = False
    has_classwise_factor: bool = False
    has_probabilities: bool = False
    sample_weight: Array | None = None
    fit_intercept: bool = False

    def bound(self: _Self, sample_weight: Array | None = None, fit_intercept: bool = False) -> _Self:
        """A copy with the weights and the intercept of a problem.

        Parameters
        ----------
        sample_weight : ndarray of shape (n,), optional
        fit_intercept : bool, default=False
        """
        loss = copy.copy(self)
        loss.sample_weight, loss.fit_intercept = sample_weight, fit_intercept
        return loss

    def check_target(self, y: Array) -> Array:
        """The targets of shape (n, C), if they are of the kind that the loss is for; else a ValueError."""
        return y

    def design(self, operator: Any) -> Any:
        """The operator whose products are the predictions that this loss is given: by default the plain one."""
        return operator

    @abstractmethod
    def intercept(self, y: Array, prediction: Array) -> Array:
        """Best intercept for plain targets and predictions of shape (n, C), shape (C,); zeros without one."""

    @abstractmethod
    def at(self, target: Array, prediction: Array) -> LossAt:
        """The loss at a prediction; both of shape (n, C), as rows of `design`."""

    @abstractmethod
    def largest_factor(self, target: Array, dual: Array) -> float:
        """The largest factor that keeps a dual point in the domain of the conjugate; 0 if none above 0 does."""

    @abstractmethod
    def nearest_dual(self, target: Array, dual: Array) -> Array:
        """A dual point in the domain of the conjugate, near the given one; itself if that is inside."""

    @abstractmethod
    def dual_value(self, target: Array, dual: Array) -> float:
        """Loss part of the dual objective, −L*(−r); −inf outside the domain."""

    @abstractmethod
    def dual_along(self, target: Array, dual: Array) -> Callable[[Array], Array]:
        """`dual_value` of multiples of a dual point by up to its `largest_factor`, as a function of their array."""

    def cvxpy_value(self, target: Array, prediction: Any) -> Any:
        """The loss as an expression of cvxpy; optional, see `has_cvxpy`.

        Parameters
        ----------
        target : ndarray of shape (n, C)
        prediction : cvxpy.Expression of shape (n, C)
        """
        raise NotImplementedError

    @property
    def has_cvxpy(self) -> bool:
        """Whether there is a `cvxpy_value`."""
        return type(self).cvxpy_value is not Loss.cvxpy_value

    def __repr__(self) -> str:
        settings = {key: value for key, value in vars(self).items() if key not in ("sample_weight", "fit_intercept")}
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in settings.items())})"
