"""What a loss with a Hessian S Sᵀ promises of the factor S, against differences and its matrix."""

from __future__ import annotations

import numpy as np

from .._types import Array
from ..losses import LossAt
from .findings import agree, expect
from .loss_case import LossCase, Setting

#: Step of central differences.
_STEP = 1e-5
#: Identities without differences hold to this.
_EXACT = 1e-9


def check_hessian(case: LossCase, rng: np.random.Generator) -> None:
    """S Sᵀ is the Hessian, by differences of the residual, and `adjoint` is that of `multiply`."""
    case.hessian()
    for one in case.settings():
        rows = one.rows(one.draw(rng))
        here = one.at_rows(rows)
        x, z = one.rows(rng.standard_normal(rows.shape)), rng.standard_normal(rows.shape)
        size = float(np.linalg.norm(x) * np.linalg.norm(z))
        agree(
            f"⟨S z, x⟩ against ⟨z, Sᵀ x⟩{one}", np.vdot(here.multiply(z), x), np.vdot(z, here.adjoint(x)), _EXACT, size
        )
        ends = [one.at_rows(rows + sign * _STEP * x).residual for sign in (-1.0, 1.0)]
        expected = (ends[0] - ends[1]) / (2.0 * _STEP)
        got = one.rows_again(here.multiply(here.adjoint(x)))
        agree(
            f"S Sᵀ x against differences of r{one}",
            got,
            one.rows_again(expected),
            1e-5,
            max(1e-3, float(np.abs(expected).max())),
        )


def _without_intercept(case: LossCase) -> list[Setting]:
    return [one for one in case.settings() if not one.loss.fit_intercept]


def _columns(here: LossAt, shape: tuple[int, ...]) -> Array:
    """S without an intercept as an array (n, C, n, C)."""
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    images = np.array([here.multiply(unit) for unit in units]).reshape(*shape, *shape)
    return np.moveaxis(images, (2, 3), (0, 1))


def check_mean_curvature(case: LossCase, rng: np.random.Generator) -> None:
    """`mean_curvature` is the mean diagonal of S Sᵀ."""
    case.hessian()
    for one in _without_intercept(case):
        here = one.at(one.draw(rng))
        diagonal = np.sum(_columns(here, one.y.shape) ** 2, axis=(2, 3))
        got = np.broadcast_to(here.mean_curvature, (len(one.y),))
        agree(f"mean_curvature against the diagonal of S Sᵀ{one}", got, diagonal.mean(axis=1), _EXACT)


def check_blocks(case: LossCase, rng: np.random.Generator) -> None:
    """`blocks` are those of S, one a sample."""
    case.hessian()
    for one in _without_intercept(case):
        here = one.at(one.draw(rng))
        columns, n = _columns(here, one.y.shape), np.arange(len(one.y))
        agree(
            f"blocks against S column by column{one}",
            here.blocks,
            columns[n, :, n],
            _EXACT,
            float(np.abs(columns).max()),
        )


def check_conjugate_curvature(case: LossCase, rng: np.random.Generator) -> None:
    """`conjugate_curvature` inverts S Sᵀ."""
    case.hessian()
    for one in _without_intercept(case):
        here = one.at(one.draw(rng))
        change = here.multiply(here.adjoint(rng.standard_normal(one.y.shape)))
        back = here.multiply(here.adjoint(here.conjugate_curvature(change)))
        agree(f"S Sᵀ times conjugate_curvature of a change of r against the change{one}", back, change, 1e-7)
        pair = here.conjugate_curvature(np.stack([change, -2.0 * change]))
        expected = here.conjugate_curvature(change)
        agree("conjugate_curvature of an array (2, n, C)", pair, np.stack([expected, -2.0 * expected]), _EXACT)


def check_intercept_directions(case: LossCase, rng: np.random.Generator) -> None:
    """`intercept_directions` are orthonormal, and S leaves nothing of them."""
    case.hessian()
    for one in case.settings():
        here = one.at(one.draw(rng))
        directions = np.asarray(here.intercept_directions)
        k = len(directions)
        expect(directions.shape == (k, *one.y.shape), f"intercept_directions must have shape (k, n, C){one}")
        if not one.loss.fit_intercept or case.loss.is_quadratic:  # the intercept of least squares is in its rows
            expect(k == 0, f"without an intercept nothing is taken out; got {k} directions")
            continue
        flat = directions.reshape(k, -1)
        agree(f"intercept_directions, which are orthonormal{one}", flat @ flat.T, np.eye(k), _EXACT)
        for direction in directions:
            agree(
                f"S times a direction that the intercept takes out{one}",
                here.multiply(direction),
                np.zeros(one.y.shape),
                1e-8,
                1.0,
            )


def check_newton_start(case: LossCase, rng: np.random.Generator) -> None:
    """`newton_start` returns r′ and x with r′ = r − S x."""
    case.hessian()
    for one in case.settings():
        here = one.at(one.draw(rng))
        dual, x = here.newton_start(0.5 * one.at(one.draw(rng)).residual)
        expected = here.residual - here.multiply(x)
        agree(f"newton_start against r − S x{one}", dual, expected, _EXACT, max(1.0, float(np.abs(expected).max())))
