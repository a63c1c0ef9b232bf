"""What a loss promises: derivatives against differences, weights against repeated rows, the conjugate by duality."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize

from .._types import Array
from ..losses import Loss
from .findings import agree, expect, pickled, run_checks, skip
from .hessian import (
    check_blocks,
    check_conjugate_curvature,
    check_hessian,
    check_intercept_directions,
    check_mean_curvature,
    check_newton_start,
)
from .loss_case import LossCase, Setting

#: Steps of central differences, and their error as a share of the size of what they are taken of.
_STEP, _DIFFERENCES = 1e-5, 1e-6
#: Identities without differences hold to this.
_EXACT = 1e-9
#: Changes of a prediction so small that the loss itself would cancel.
_TINY = 1e-6


def check_loss(loss: Loss, *, target: Array | None = None, random_state: int = 0, verbose: int = 0) -> list[str]:
    """Check a loss against differences, repeated rows and weak duality.

    Every check is made with and without weights, one of which is zero, and with and without an intercept.

    Parameters
    ----------
    loss : Loss
        An instance.
    target : ndarray of shape (n, C), optional
        Targets of the kind that the loss is for, a handful. By default normal numbers with one and with two outputs,
        or for a loss that `has_probabilities` labels of two and of three classes and mixtures of them.
    random_state : int, default=0
        Draws targets, predictions and directions.
    verbose : int, default=0
        From 1 on every check is logged.

    Returns
    -------
    list of str
        Names of the checks that apply, of "value", "convexity", "residual", "weights", "intercept", "divergence",
        "hessian", "mean-curvature", "blocks", "conjugate-curvature", "intercept-directions", "newton-start",
        "fenchel-young", "dual-along", "domain", "cvxpy", "bound", "extremes", "immutability", "pickling".

    Raises
    ------
    AssertionError
        With one line a finding.

    Examples
    --------
    >>> from lowrank_tangent.losses import Multinomial
    >>> from lowrank_tangent.testing import check_loss
    >>> check_loss(Multinomial())[:3]
    ['value', 'convexity', 'residual']
    """
    return run_checks(loss, LossCase(loss, target, random_state), _CHECKS, random_state, verbose)


def _value(case: LossCase, rng: np.random.Generator) -> None:
    for one in case.settings():
        value = one.at(one.draw(rng)).value
        expect(np.ndim(value) == 0 and np.isfinite(value), f"value must be a number; got {value!r}{one}")
        expect(value >= 0.0, f"a loss must be >= 0; got {value:.6g}{one}")


def _convexity(case: LossCase, rng: np.random.Generator) -> None:
    for one in case.settings():
        ends = one.draw(rng), one.draw(rng)
        middle = one.value(0.5 * (ends[0] + ends[1]))
        mean = 0.5 * (one.value(ends[0]) + one.value(ends[1]))
        expect(
            middle <= mean * (1.0 + _EXACT),
            f"L in the middle of two predictions, {middle:.8g}, exceeds the mean of "
            f"L at both, {mean:.8g}: not convex{one}",
        )


def _residual(case: LossCase, rng: np.random.Generator) -> None:
    case.unconstrained()
    for one in case.settings():
        prediction = one.draw(rng)
        gradient = -one.plain_residual(prediction)
        size = max(float(np.abs(gradient).max()), 1e-3)
        for _ in range(3):
            step = rng.standard_normal(prediction.shape)
            ends = [one.value(prediction + sign * _STEP * step) for sign in (1.0, -1.0)]
            expected = (ends[0] - ends[1]) / (2.0 * _STEP)
            agree(
                f"−r along a direction against differences of L{one}",
                np.vdot(gradient, step),
                expected,
                10.0 * _DIFFERENCES,
                size * step.size,
            )


def _weights(case: LossCase, rng: np.random.Generator) -> None:
    case.unconstrained()
    for target in case.targets:
        counts = 1 + np.arange(len(target)) % 3
        for fit_intercept in (False, True):
            one = Setting(case.loss, target, counts.astype(np.float64), fit_intercept)
            repeated = Setting(case.loss, np.repeat(target, counts, axis=0), None, fit_intercept)
            prediction = one.draw(rng)
            others = np.repeat(prediction, counts, axis=0)
            agree(
                f"L with weights against repeated samples{one}", one.value(prediction), repeated.value(others), _EXACT
            )
            sums = np.add.reduceat(repeated.plain_residual(others), np.cumsum(counts) - counts, axis=0)
            agree(
                f"r with weights against sums over repeated samples{one}",
                one.plain_residual(prediction),
                sums,
                1e-7,
                max(1.0, float(np.abs(sums).max())),
            )


def _intercept(case: LossCase, rng: np.random.Generator) -> None:
    for one in case.settings():
        prediction = one.draw(rng)
        bias = np.asarray(one.loss.intercept(one.y, prediction))
        expect(bias.shape == one.y.shape[1:], f"intercept must have shape (C,) = {one.y.shape[1:]}; got {bias.shape}")
        if not one.loss.fit_intercept:
            expect(not bias.any(), f"without an intercept it must be 0; got {bias.tolist()}")
            continue
        if case.loss.is_constraint:
            continue
        fixed = Setting(case.loss, one.y, one.loss.sample_weight, False)
        agree(
            f"L with an intercept against L at f + b{one}",
            one.value(prediction),
            fixed.value(prediction + bias),
            _EXACT,
        )
        found = minimize(
            lambda b, fixed=fixed, f=prediction: fixed.value(f + b),
            bias + 0.3,
            method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000},
        )
        expect(
            fixed.value(prediction + bias) <= found.fun * (1.0 + _EXACT),
            f"the intercept {bias.tolist()} costs {fixed.value(prediction + bias):.10g}, and {found.x.tolist()} "
            f"{found.fun:.10g}{one}",
        )


def _divergence(case: LossCase, rng: np.random.Generator) -> None:
    case.unconstrained()
    for one in case.settings():
        rows, step = one.rows(one.draw(rng)), one.rows(one.draw(rng))
        here, there = one.at_rows(rows), one.at_rows(rows + step)
        expected = there.value - here.value + np.vdot(here.residual, step)
        agree(
            f"divergence against L(f') − L(f) + r·(f' − f){one}",
            here.divergence(there),
            expected,
            1e-8,
            here.value + there.value + abs(expected),
        )
        if not case.loss.has_hessian:
            continue
        tiny = here.divergence(one.at_rows(rows + _TINY * step))
        expected = 0.5 * _TINY**2 * np.sum(here.adjoint(step) ** 2)
        agree(
            f"divergence over {_TINY:.0e} of a step against half of its curvature, free of cancellation{one}",
            tiny,
            expected,
            1e-3,
        )


def _fenchel_young(case: LossCase, rng: np.random.Generator) -> None:
    for one in case.settings():
        points = [one.rows(one.draw(rng)) for _ in range(4)]
        if case.loss.is_constraint:
            points = [one.target]
        duals = [one.at_rows(one.rows(one.draw(rng))).residual for _ in range(3)]
        duals += [share * dual for dual in duals for share in (0.0, 0.3)]
        for rows in points:
            here = one.at_rows(rows)
            for dual in duals:
                bound = one.loss.dual_value(one.target, dual) - np.vdot(dual, rows)
                slack = _EXACT * (here.value + abs(np.vdot(dual, rows)) + abs(bound))
                expect(here.value >= bound - slack, f"L(f) ≥ −L*(−r) − r·f fails by {bound - here.value:.3e}{one}")
            dual = here.residual
            bound = one.loss.dual_value(one.target, dual) - np.vdot(dual, rows)
            agree(
                f"−L*(−r) − r·f at r = −∇L(f) against L(f){one}",
                bound,
                here.value,
                1e-8,
                here.value + abs(np.vdot(dual, rows)) + 1e-3,
            )


def _dual_along(case: LossCase, rng: np.random.Generator) -> None:
    for one in case.settings():
        dual = one.at_rows(one.rows(one.draw(rng))).residual
        end = min(2.0, float(one.loss.largest_factor(one.target, dual)))
        factors = np.linspace(0.0, end * (1.0 - 1e-9), 5)
        expected = np.array([one.loss.dual_value(one.target, factor * dual) for factor in factors])
        got = one.loss.dual_along(one.target, dual)(factors)
        agree(f"dual_along against dual_value of multiples{one}", got, expected, _EXACT, 1.0 + np.abs(expected).max())


def _domain(case: LossCase, rng: np.random.Generator) -> None:
    for one in case.settings():
        dual = one.at_rows(one.rows(one.draw(rng))).residual
        factor = float(one.loss.largest_factor(one.target, dual))
        expect(factor >= 1.0 - 1e-9, f"a residual is inside the domain, but its largest_factor is {factor:.6g}{one}")
        agree(f"nearest_dual of a point inside{one}", one.loss.nearest_dual(one.target, dual), dual, _EXACT)
        if np.isfinite(factor):
            outside = one.loss.dual_value(one.target, 1.001 * factor * dual)
            expect(
                outside == -np.inf, f"beyond its largest_factor a dual point must have the value −inf; got {outside}"
            )
        anywhere = one.design.project(rng.standard_normal(dual.shape))
        near = one.loss.nearest_dual(one.target, anywhere)
        expect(np.shape(near) == dual.shape, f"nearest_dual must have shape {dual.shape}; got {np.shape(near)}")
        expect(np.isfinite(one.loss.dual_value(one.target, near)), f"nearest_dual is outside the domain{one}")


def _cvxpy(case: LossCase, rng: np.random.Generator) -> None:
    if not case.loss.has_cvxpy or case.loss.is_constraint:
        skip("it has no expression for cvxpy")
    import cvxpy as cp

    for one in case.settings():
        rows = one.rows(one.draw(rng))
        problem = cp.Problem(cp.Minimize(one.loss.cvxpy_value(one.target, cp.Constant(rows))))
        agree(
            f"cvxpy_value against L{one}",
            problem.solve(solver=cp.CLARABEL),
            one.at_rows(rows).value,
            1e-4,
            1.0 + one.at_rows(rows).value,
        )


def _bound(case: LossCase, rng: np.random.Generator) -> None:
    weights = np.ones(3)
    other = case.loss.bound(weights, True)
    expect(other is not case.loss and type(other) is type(case.loss), "bound must return another loss of its class")
    kept = other.sample_weight is weights and other.fit_intercept is True
    expect(kept, "bound has lost the weights or the intercept")
    now = vars(case.loss)
    same = now.keys() == case.given.keys() and all(now[name] is value for name, value in case.given.items())
    expect(same, f"the loss that bound was called on has changed: it had {case.given}, and has {now}")


def _extremes(case: LossCase, rng: np.random.Generator) -> None:
    case.unconstrained()
    for one in case.settings():
        for scale in (0.0, 1e-150, 1e3, 1e8):
            here = one.at(scale * one.draw(rng))
            expect(np.isfinite(here.value) and here.value >= 0.0, f"L of predictions times {scale:g} is {here.value}")
            expect(np.isfinite(here.residual).all(), f"r of predictions times {scale:g} is not finite")


def _immutability(case: LossCase, rng: np.random.Generator) -> None:
    for one in case.settings():
        rows, target = one.rows(one.draw(rng)).copy(), one.target.copy()
        dual = np.array(one.at_rows(rows).residual)
        copies = [array.copy() for array in (rows, target, dual)]
        here = one.loss.at(target, rows)
        here.value, here.residual, here.divergence(here)
        one.loss.dual_value(target, dual), one.loss.nearest_dual(target, dual), one.loss.largest_factor(target, dual)
        one.loss.dual_along(target, dual)(np.ones(1))
        for array, copy in zip((rows, target, dual), copies, strict=True):
            expect(np.array_equal(array, copy), f"an array was changed by a call that it was given to{one}")


def _pickling(case: LossCase, rng: np.random.Generator) -> None:
    for one in case.settings():
        rows = one.rows(one.draw(rng))
        loaded = pickled(one.loss)
        agree(f"L of the loaded loss{one}", loaded.at(one.target, rows).value, one.at_rows(rows).value, 0.0)


_CHECKS: dict[str, Callable[[LossCase, np.random.Generator], None]] = {
    "value": _value,
    "convexity": _convexity,
    "residual": _residual,
    "weights": _weights,
    "intercept": _intercept,
    "divergence": _divergence,
    "hessian": check_hessian,
    "mean-curvature": check_mean_curvature,
    "blocks": check_blocks,
    "conjugate-curvature": check_conjugate_curvature,
    "intercept-directions": check_intercept_directions,
    "newton-start": check_newton_start,
    "fenchel-young": _fenchel_young,
    "dual-along": _dual_along,
    "domain": _domain,
    "cvxpy": _cvxpy,
    "bound": _bound,
    "extremes": _extremes,
    "immutability": _immutability,
    "pickling": _pickling,
}
