"""From a solution back to what the network learned: parameters, transforms and the adapted kernel.

With the thin SVD ``B = U diag(v) Vᵀ`` of a layer and the stretch z = z1·z2 of its singular values

    M1 = I + U diag(z1 − 1) Uᵀ,   M2 = I + V diag(z2 − 1) Vᵀ,   θ = U diag(v/z) Vᵀ,   B = M1 θ M2.

Nuclear and Schatten penalties give unused directions up: M1 = U diag(z) Uᵀ there.

Whatever the loss L, its gradient −r at the solution gives the parameters, θ = M1 A*(r) M2 / α, and so the predictions
A B = K r / α with the adapted kernel K: β = r / α minimises ``L(K β) + (α/2) βᵀ K β``, which is kernel ridge regression
for the squared loss and kernel logistic regression for the cross-entropy.

Source: LeJeune & Alemohammad, arXiv 2308.15478, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ._types import Array, Coefs
from .linalg.transforms import LowRankTransform
from .operators import Operator
from .operators.layers import singular_vectors
from .problem import StructuredRegression
from .solvers import Solution

_EPS = np.finfo(float).eps


@dataclass(frozen=True, eq=False)
class Adaptation:
    """Parameters and feature transforms of each layer.

    Attributes
    ----------
    theta : list of ndarray
        Parameters θ, of the shapes of the coefficients.
    left, right : list of LowRankTransform
        M1 and M2; directions that are not stretched are left out of them.
    singular_values : list of ndarray
        Singular values v of each layer's coefficients, largest first.
    """

    theta: Coefs
    left: list[LowRankTransform]
    right: list[LowRankTransform]
    singular_values: list[Array]

    def transform(self, operator: Operator) -> Operator:
        """The operator on adapted features ``M1 Φ M2``."""
        return operator.transformed(self.left, self.right)

    def kernel(self, op1: Operator, op2: Operator | None = None) -> Array:
        """Adapted kernel ``K = Σ_l ⟨M1 Φ_l M2, M1 Φ'_l M2⟩``.

        Kernel ridge with this kernel and the same alpha gives the predictions of the solution; kernel logistic
        regression does for ``loss="multinomial"``.

        Parameters
        ----------
        op1, op2 : TangentOperator
            Features of two sets of samples; `op2` is `op1` by default.

        Returns
        -------
        ndarray of shape (n·C, n'·C), row i·C + c for sample i and output c
        """
        return self.transform(op1).gram(None if op2 is None else self.transform(op2))

    def mean_kernel(self, op1: Operator, op2: Operator | None = None) -> Array:
        """Adapted kernel averaged over outputs, shape (n, n'); that of every output for "shared" outputs."""
        return self.transform(op1).mean_gram(None if op2 is None else self.transform(op2))


def adapt(problem: StructuredRegression, solution: Solution) -> Adaptation:
    """Parameters and transforms that belong to a solution.

    Parameters
    ----------
    problem : StructuredRegression
    solution : Solution

    Returns
    -------
    Adaptation

    Examples
    --------
    >>> import numpy as np
    >>> from lowrank_tangent import StructuredRegression, adapt, solve
    >>> from lowrank_tangent.operators import LayerFactors, TangentOperator
    >>> rng = np.random.default_rng(0)
    >>> operator = TangentOperator([LayerFactors(rng.normal(size=(30, 4)), rng.normal(size=(30, 6)))])
    >>> problem = StructuredRegression(operator, rng.normal(size=30), alpha=0.1)
    >>> adaptation = adapt(problem, solve(problem))
    >>> adaptation.left[0].shape, adaptation.kernel(operator).shape
    ((4, 4), (30, 30))
    """
    theta, left, right, values = [], [], [], []
    for basis, coef, penalty in zip(problem.operator.input_bases, solution.coefs, problem.spectral, strict=True):
        u, v, vt = singular_vectors(coef, basis)
        z1, z2 = penalty.split(v)
        z = z1 * z2
        theta.append((u * np.divide(v, z, out=np.zeros_like(v), where=z > 0.0)) @ vt)
        unused1, unused2 = penalty.split(np.zeros(()))
        left.append(_transform(u, z1, float(unused1)))
        right.append(_transform(vt.T, z2, float(unused2)))
        values.append(v)
    return Adaptation(theta, left, right, values)


def _transform(basis: Array, stretch: Array, unused: float) -> LowRankTransform:
    moved = stretch - unused > _EPS
    return LowRankTransform(np.ascontiguousarray(basis[:, moved]), stretch[moved], unused)
