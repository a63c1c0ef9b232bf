"""Continuation from a ridge solution to the penalty of a problem, in stages of falling √μ.

Below √μ the penalty is nearly ridge, above it nearly linear: its tail, α √μ times the nuclear norm for the named
prices. Newton's method makes no way in the tail, where there is no curvature. So √μ begins at the largest singular
value of the ridge solution, and falls from stage to stage.

Each stage has an alpha of its own: the one with which the largest singular values cost what they cost in the end. With
the alpha of the problem the tail would weigh far too much at first, and every stage would have another solution. The
ridge solution has an alpha by the same rule.
"""

from __future__ import annotations

import copy

import numpy as np

from ..spectral_point import gram_singular_values

#: √μ falls by this factor a stage.
_FACTOR = 4.0
#: A stage is done when a Newton step gains less than this share of the penalty.
_DECREMENT = 0.1
#: Most steps of the iteration for the alpha of ridge, and the share of the last one that no longer matters.
_ALPHA_STEPS = 100
_ALPHA_CHANGE = 0.1


def first_stage(ridge, problem):
    """The ridge solution as a point of the first stage of a problem."""
    return _at_stage(ridge, problem, max(layer.values.max() for layer in ridge.layers))


def is_stage_done(point, decrement):
    """Whether a Newton step with this decrement has found enough of a stage, at the point that it has led to."""
    return 0.5 * decrement <= _DECREMENT * point.penalty


def next_stage(point, problem):
    """The point of a stage in the next one."""
    return _at_stage(point, problem, point.problem.spectral.sqrt_mu / _FACTOR)


def _at_stage(point, problem, root):
    """The point in a stage of the problem: no √μ is below `root`, and the largest singular values cost the same."""
    spectral = problem.spectral.relaxed(root)
    if spectral is problem.spectral:
        return point.of(problem)
    stage = copy.copy(problem)
    largest = np.array([layer.values.max() for layer in point.layers])
    if not largest.any():
        largest[:] = root
    # A number of NumPy would take what is in single precision to double.
    stage.alpha = float(problem.alpha * problem.spectral.effective(largest) / spectral.effective(largest))
    stage.spectral = spectral
    return point.of(stage)


def ridge_alpha(zero, correlation):
    """The alpha of ridge whose largest singular values have the price that the penalty gives them.

    Where much adapts, it is a small share of the alpha of the problem, with which ridge would find next to nothing.
    The solution is estimated as ``A* r / (α + κ)``, with κ the Rayleigh quotient of the kernel A A* at r. That is exact
    to first order for the squared loss. The cross-entropy curves less, so that its solution is larger than this
    estimate. The error is on the safe side: a far smaller alpha would lead too far away from B = 0.

    Parameters
    ----------
    zero : PrimalPoint
        B = 0.
    correlation : list of ndarray
        A* r there.
    """
    problem = zero.problem
    spectra = [gram_singular_values(matrix) for matrix in correlation]
    largest, alpha = np.array([values.max() for values in spectra]), problem.alpha
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        size = sum(np.sum(values**2) for values in spectra)
        curvature = size / np.sum(zero.residual**2)
        for _ in range(_ALPHA_STEPS):
            values = largest / (alpha + curvature)
            squares = np.sum(values**2)
            if not 0.0 < squares < np.inf:
                return problem.alpha
            last, alpha = alpha, problem.alpha * problem.spectral.effective(values) / squares
            if last - alpha <= _ALPHA_CHANGE * last:
                break
    return float(alpha)
