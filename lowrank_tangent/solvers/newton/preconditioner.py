"""Preconditioner of Newton's system I + A W A*: the ridge kernel of the stretched features.

Without its Γ term, W stretches features: A W A* is the kernel of features stretched by z, and ridge with it is what
iteratively reweighted least squares would solve. This kernel, averaged over outputs (exact for "shared" ones, the
limit of wide networks for "network" ones), is factorised for problems of medium size, with the Γ term, and then the
system itself, if there is one output; it is approximated by landmarks for large ones. Small problems of several outputs
have the system itself, too. With the cross-entropy of several classes there is a factor for each class
(`classwise.py`), where it saves more than it costs.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from ...linalg.cholesky import CholeskyFactor
from .classwise import ClasswiseFactor, ConstrainedFactor
from .kernels import is_outer, kernel_fits, output_kernels, stretched
from .nystrom import NystromFactor
from .pairs import MOST_DIRECTIONS, pair_kernels
from .products import SystemProducts, skinny_cost, stretch_cost

#: Largest number of dual unknowns and of operations for which the system is assembled where nothing else helps, and of
#: operations for which it is assembled from the start.
_EXACT_UNKNOWNS = 2000
_EXACT_OPERATIONS = 1e10
_CHEAP_OPERATIONS = 2e8
#: Operations an entry that Γ terms take, for every direction on the smaller side, for every one of the strongest, and
#: whatever the number of them; and that factorising takes beyond its n³/3.
_PAIR_DIRECTION, _PAIR_STRONG, _PAIR_ENTRY = 4, 12, 300
_CHOLESKY_ENTRY = 700
#: What the calls of a descent take for every layer, in operations; and about how many products it saves where there is
#: no Γ term in the preconditioner. Where there is one, it saves the cost of that.
_DESCENT_CALLS = 1.5e9
_DESCENT_PRODUCTS = 100
#: With fewer samples for every direction on the largest smaller side it takes more steps, and saves nothing.
_DESCENT_SAMPLES_PAIRS, _DESCENT_SAMPLES = 32, 16
#: It does not save them far in the tail of the penalty, which is where the alpha of the ridge solution to start from is
#: less than this share of that of the problem, with a Γ term in the preconditioner and without.
_DESCENT_SHARE_PAIRS, _DESCENT_SHARE = 0.02, 0.001
#: Products that a preconditioner class by class saves before it has to be renewed, about.
_CLASSWISE_PRODUCTS = 250
#: Landmarks for samples whose whole kernel is not formed: as many as cost as much as so many products, no fewer than
#: the first number, and no more than memory is for (their kernel with all samples has that many entries).
_LEAST_LANDMARKS = 1500
_LANDMARK_PRODUCTS = 2.0
_LANDMARK_ENTRIES = 2**28
#: What calling a dozen NumPy functions costs, in floating-point operations.
_CALL_OVERHEAD = 5e6


class Preconditioner:
    """Inverse of the system of some recent point.

    It is renewed once its age has cost as much as that, in steps of conjugate gradients beyond those of the system that
    it was made for. What it leaves out of the system costs steps too, but those a new one would not save.

    Attributes
    ----------
    products : SystemProducts
        The products with the system that it is the preconditioner of.
    is_fresh : bool
        Whether it was made at the latest point.
    is_metric : bool
        Whether without the Γ term it is the inverse of one matrix for all outputs, as `descent.py` needs it, and of a
        problem so large that to begin with that may pay.
    metric_cost, descent_cost : float
        Operations of such a one, and of a step of that descent; only of a metric.
    """

    def __init__(self, problem):
        design = problem.design
        n, C = design.n_samples, design.n_outputs
        exact_cost = _exact_cost(design)
        self.may_be_exact = not design.is_streamed and n * C <= _EXACT_UNKNOWNS and exact_cost <= _EXACT_OPERATIONS
        self.exact = self.may_be_exact and exact_cost <= _CHEAP_OPERATIONS
        self.is_metric = self._has_pairs = False
        self.products = SystemProducts(problem, single=not self.exact)
        width = sum(p + layer.n_outputs * q for layer in design.layers for p, q in [layer.shape])
        if self.exact:
            self._factor_at, self.renewal_cost, solve_cost = self._exact, exact_cost, skinny_cost(n * C, 1)
        elif kernel_fits(design):
            smaller = [min(shape) for shape in design.coef_shapes]
            sides = sum(smaller)
            self._has_pairs = C == 1 and all(is_outer(layer) for layer in design.layers)
            self._factor_at, solve_cost = self._kernel, skinny_cost(n, C)
            self.renewal_cost = self.metric_cost = stretch_cost(n, sides) + n**2 * (n / 3 + _CHOLESKY_ENTRY)
            self.descent_cost = self.products.factor_cost + solve_cost + _CALL_OVERHEAD
            if self._has_pairs:
                strong = sum(min(side, MOST_DIRECTIONS) for side in smaller)
                self.renewal_cost += n**2 * (_PAIR_DIRECTION * sides + _PAIR_STRONG * strong + _PAIR_ENTRY)
            if problem.loss.is_quadratic and (C == 1 or design.outputs == "shared"):
                saved = _DESCENT_PRODUCTS * (self.products.cost + solve_cost + _CALL_OVERHEAD)
                saved = self.renewal_cost - self.metric_cost if self._has_pairs else saved
                enough = n >= (_DESCENT_SAMPLES_PAIRS if self._has_pairs else _DESCENT_SAMPLES) * max(smaller)
                self.is_metric = enough and saved >= _DESCENT_CALLS * len(smaller)
            if C > 1 and problem.loss.has_classwise_factor and kernel_fits(design, others=C + 1):
                classwise_cost = stretch_cost(n, sides) + C * n**2 * (n + _CHOLESKY_ENTRY)
                if classwise_cost <= _CLASSWISE_PRODUCTS * (self.products.cost + solve_cost):
                    self._factor_at, self.renewal_cost = self._classwise, classwise_cost
                    solve_cost = (2 * C + 1) * skinny_cost(n, 1)
        else:
            m = _affordable_landmarks(n, width, self.products.cost)
            self._landmarks = np.sort(np.random.default_rng(0).choice(n, m, replace=False))
            self._factor_at, self.renewal_cost, solve_cost = self._nystrom, n * m * (2 * width + 3 * m), 4 * n * m * C
        self.renewal_cost += _CALL_OVERHEAD
        self.product_cost = self.products.cost + solve_cost + _CALL_OVERHEAD
        self.expire()

    def leads_descent(self, share):
        """Whether to begin with a descent pays, where the alpha of ridge is this share of that of the problem."""
        return self.is_metric and share >= (_DESCENT_SHARE_PAIRS if self._has_pairs else _DESCENT_SHARE)

    def update(self, point):
        """Renew at this point, if the age of the last one has cost as much."""
        if self._fresh_steps is None:
            self._fresh_steps = self._steps
        self._lost_steps += max(self._steps - self._fresh_steps, 0)
        self._steps = 0
        self.is_fresh = False
        if self._lost_steps * self.product_cost >= self.renewal_cost:
            self.renew(point)

    def renew(self, point, pairs=True):
        """Renew at this point, whatever the age; in double precision where α is lost in the rounding of single.

        Without the Γ term unless with `pairs`.
        """
        self._forget()
        self.is_fresh, self._alpha = True, point.problem.alpha
        self._with_pairs = self._has_pairs and pairs
        if self._has_pairs and not pairs:
            self._fresh_steps = 0  # a new one, with that term, would save all the steps of its system
        try:
            self._factor = self._constrained_at(point)
        except np.linalg.LinAlgError:
            if not self.products.is_single:
                raise
            self.products.widen()
            self._factor = self._constrained_at(point)

    def widen(self, point):
        """Go on in double precision, from this point."""
        self.products.widen()
        self.renew(point)

    def sharpen(self, point):
        """Make the best of this point: double precision, then the system itself. Whether there was a better way."""
        if self.products.is_single:
            self.widen(point)
        elif self.may_be_exact and not self.exact:
            self.exact, self._factor_at = True, self._exact
            self.renew(point)
        else:
            return False
        return True

    def spend_product(self):
        """Account for one product with the system."""
        self._steps += 1

    def expire(self):
        """Renew at the next point, whatever that costs."""
        self._forget()
        self._lost_steps = np.inf

    def _forget(self):
        """Begin to count again: steps of this system, of the first one, and those lost since."""
        self._steps, self._fresh_steps, self._lost_steps = 0, None, 0

    def apply(self, residual):
        """Approximate inverse of the system times `residual` of shape (n, C)."""
        rhs = residual.reshape(-1) if self.exact else residual
        return self._alpha * self._factor.solve(rhs).reshape(residual.shape)

    def _constrained_at(self, point):
        """Factor of the system without what a loss takes out for an intercept, which least squares has in the rows."""
        factor = self._factor_at(point)
        directions = () if point.problem.loss.is_quadratic else point.loss.intercept_directions
        if not len(directions):
            return factor
        if self.exact:
            directions = directions.reshape(len(directions), -1)
        return ConstrainedFactor(factor, point.problem.alpha, directions.astype(self.products.design.dtype))

    def _exact(self, point):
        return _shifted_factor(lambda: _system_kernel(point), point.problem.alpha)

    def _kernel(self, point):
        return _shifted_factor(lambda: self._curved_kernel(point), point.problem.alpha)

    def _classwise(self, point):
        design, loss = self.products.design, point.loss
        if design.outputs == "shared":
            kernels = itertools.repeat(self.products.kernels.mean(point), design.n_outputs)
        else:
            kernels = output_kernels(design, point)

        def scaled(kernel, scale):
            return _shifted_factor(lambda: scale[:, None] * kernel * scale, point.problem.alpha)

        factors = map(scaled, kernels, loss.scales.T.astype(design.dtype))
        return ClasswiseFactor(factors, point.problem.alpha, loss.roots.astype(design.dtype))

    def _curved_kernel(self, point):
        """Mean kernel with the Γ term of one output and the curvature of the loss."""
        design = self.products.design
        kernel = self.products.kernels.mean(point, pair_kernels(design, point) if self._with_pairs else ())
        if not point.problem.loss.is_quadratic:
            roots = _roots(point, design.dtype)
            kernel *= roots[:, None]
            kernel *= roots
        return kernel

    def _nystrom(self, point):
        design = self.products.design
        features = stretched(design, point)
        landmarks = features.rows(self._landmarks)
        diagonal = features.diagonal().mean(axis=1)
        if design.row_scale is not None:
            diagonal = diagonal * design.row_scale**2
        roots = _roots(point, design.dtype)
        columns = features.mean_gram(landmarks) * roots[:, None]
        return NystromFactor(columns, landmarks.mean_gram(), diagonal * roots**2, point.problem.alpha)


def _roots(point, dtype):
    """Roots of the curvature of the loss, averaged over outputs; shape (n,)."""
    return np.sqrt(np.broadcast_to(point.loss.mean_curvature, len(point.residual))).astype(dtype)


def _affordable_landmarks(n, width, product_cost):
    """How many of n samples are landmarks, where kernels cost 2·width an entry and n·m² are factorised three times."""
    allowance = _LANDMARK_PRODUCTS * product_cost / (3.0 * n)
    m = int(math.sqrt(allowance + (width / 3.0) ** 2) - width / 3.0)
    return min(max(m, _LEAST_LANDMARKS), max(_LANDMARK_ENTRIES // n, 1), n)


def _exact_cost(design):
    """Operations of the system and its factorisation, n³/3 of them in the time in which products do n³."""
    unknowns = design.n_samples * design.n_outputs
    smaller = [min(shape) for shape in design.coef_shapes]
    pairs = sum(m * (m + 1) // 2 for m in smaller)
    features = sum(p + q for p, q in design.coef_shapes)
    return unknowns**2 * (pairs + 2 * features + unknowns)


def _shifted_factor(make_kernel, alpha):
    """Factor of K + αI, in the place of K.

    Where α is lost in the rounding of the largest eigenvalue the shift is larger, and the factor one of another
    matrix: good enough to precondition with.
    """
    kernel = make_kernel()
    kernel.flat[:: len(kernel) + 1] += kernel.dtype.type(alpha)
    try:
        return CholeskyFactor(kernel)
    except np.linalg.LinAlgError:
        if kernel.dtype == np.float32:
            raise
    kernel = make_kernel()
    kernel.flat[:: len(kernel) + 1] += alpha + 10 * len(kernel) * np.finfo(kernel.dtype).eps * np.trace(kernel)
    return CholeskyFactor(kernel)


def _system_kernel(point):
    """α Sᵀ A W A* S, n·C × n·C: the kernel of the stretched features plus the Γ term, curved by the loss."""
    design = point.problem.design
    left, right = zip(*(spectrum.transforms for spectrum in point.layers), strict=True)
    kernel = design.transformed(left, right).gram()
    for layer, spectrum in zip(design.layers, point.layers, strict=True):
        if spectrum.values.any():
            pairs = _pair_features(design, layer, spectrum)
            kernel += pairs @ pairs.T
    if not point.problem.loss.is_quadratic:
        blocks = point.loss.blocks.transpose(0, 2, 1)
        for _ in range(2):  # one side, then the other of a symmetric matrix
            kernel = (blocks @ kernel.reshape(*blocks.shape[:2], -1)).reshape(kernel.shape).T
    return kernel


def _pair_features(design, layer, spectrum):
    """Rows √(2Γ) ∘ sym(Uᵀ Φ Gᵀ U), one a sample and output, upper triangle with off-diagonal entries counted twice."""
    left, right = spectrum.basis, spectrum.rotated.T
    if spectrum.transposed:
        left, right = right, left
    projected = layer.projected(left, right, design.n_outputs)
    i, j = np.triu_indices(len(projected))
    pairs = projected[i, j]
    pairs += projected[j, i]
    weights = np.sqrt(spectrum.differences[i, j])
    weights[i == j] *= np.sqrt(0.5)
    pairs *= weights[:, None, None]
    rows = pairs.reshape(len(pairs), -1).T
    if design.changes_rows:
        rows = design.to_rows(rows.reshape(design.n_samples, -1)).reshape(rows.shape)
    return rows
