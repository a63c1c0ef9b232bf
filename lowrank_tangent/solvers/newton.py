"""Newton's method on the dual, with a duality gap as certificate.

The dual is smooth, strongly concave and has n·C unknowns r. With ``G = A* r`` and ``B = B(r)`` the point at
which the conjugate is attained, its gradient is ``y − A B(r) − r`` and the gap of the pair (B(r), r) is exactly
half its squared norm: each digit of the gradient is worth two of the certificate.

Everything spectral happens on the smaller side of G. For p ≤ q, ``G Gᵀ = U diag(s) Uᵀ`` gives

    B  = Z G / α,      dB = (Z E + U (Γ ∘ Uᵀ(G Eᵀ + E Gᵀ)U) Uᵀ G) / α,       Z = U diag(z²) Uᵀ,

with Γ the divided differences of z² over s. This is the Daleckii–Krein formula with the complement of
a non-square G included, and it needs neither the right singular vectors nor small singular values to full
relative accuracy.

Directions come from conjugate gradients, preconditioned by the ridge kernel of the *stretched* features: the
Hessian without its Γ term. Small problems add that term and have the Hessian itself.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from ..operators import LayerFactors
from ..penalties import ScaledPenalty, divided_differences
from ..problem import Certificate
from ..transforms import LowRankTransform

#: Armijo's constant: the share of the linear gain that a step has to realise.
_ARMIJO = 1e-4
_BACKTRACK = 0.5
_MAX_HALVINGS = 60
#: Continuation in the adaptivity starts where the ridge solution has u/√μ at this value (a barrier is at 2) and
#: lets √μ fall by this factor a stage.
_START_INSIDE = 1.0
_STAGE_FACTOR = 4.0
#: A stage is done when a Newton step gains less than this share of the objective.
_STAGE_DECREMENT = 0.1
#: Conjugate gradients stop where a further step gains less than this share of all gains...
_LOOSEST_FORCING = 0.1
#: ...or where the residual is this small against what the tolerance asks for.
_INNER_MARGIN = 0.3
_MAX_INNER = 500
#: Largest number of dual unknowns, and of operations, for which the Hessian is assembled.
_EXACT_UNKNOWNS = 1500
_EXACT_OPERATIONS = 2e9
#: Largest number of samples whose n × n kernel serves as preconditioner.
_KERNEL_SAMPLES = 12_000
#: What calling a dozen NumPy functions costs, in floating-point operations.
_CALL_OVERHEAD = 5e6
_EPS = np.finfo(float).eps


def solve_newton(problem, monitor, max_iter, warm_start):
    """Maximise the dual by Newton's method; see the module for the formulas.

    Parameters
    ----------
    problem : StructuredRegression
        With a convex penalty.
    monitor : Monitor
    max_iter : int
    warm_start : ndarray of shape (n, C) or None
        Dual point to start from.

    Returns
    -------
    coefs, dual, message
    """
    final = problem.spectral
    start = np.zeros_like(problem.target)
    if warm_start is not None:
        start = problem.best_multiple(problem.design.project(warm_start))
    point = DualPoint.at(problem, final, start)
    best = _BestPair(point)
    preconditioner = _Preconditioner(problem)
    for iteration in range(max_iter + 1):
        message = monitor.record(iteration, best.certificate)
        if message:
            break
        if iteration == max_iter:
            message = f"max_iter={max_iter} reached"
            break
        step = _newton_step(point, preconditioner, monitor.tol * best.objective)
        if iteration == 0 and warm_start is None:
            point = _first_stage(point, step)
        moved = _line_search(point, step)
        best.offer_primal(*_linearised_primal(point, step))
        if moved is None:
            message = "the dual objective cannot be improved in floating-point arithmetic"
            break
        point = moved
        best.offer_dual(point)
        if point.spectral is not final and step.decrement <= _STAGE_DECREMENT * abs(point.value):
            point = _next_stage(point, final)
    return best.coefs, best.dual, message


# -- continuation in the adaptivity -----------------------------------------------------------


def _first_stage(point, step):
    """The point for an adaptivity small enough that the ridge solution, `step` from 0, lies inside the domain."""
    final = point.spectral
    alpha = point.problem.alpha
    largest = max(2.0 / alpha * np.linalg.norm(matrix, 2) for matrix in step.pull)
    if np.isfinite(final.conjugate(2.0 / _START_INSIDE * largest)):
        return point
    return point.with_penalty(ScaledPenalty(point.problem.penalty, (_START_INSIDE / largest) ** 2), 1.0)


def _next_stage(point, final):
    """The point for the next adaptivity: u/√μ, and with it the domain, stays as it is."""
    old = point.spectral.root
    root = max(final.root, old / _STAGE_FACTOR)
    spectral = final if root == final.root else ScaledPenalty(point.problem.penalty, root**-2)
    return point.with_penalty(spectral, root / old)


class _BestPair:
    """The best primal and the best dual point so far, for the adaptivity that is asked for."""

    def __init__(self, point):
        self.problem = point.problem
        self.final = point.spectral
        self.objective, self.dual_objective = np.inf, -np.inf
        self.offer_primal(point.coefs, point.prediction)
        self.offer_dual(point)

    @property
    def certificate(self):
        """What the two points prove about each other."""
        return Certificate.of(self.objective, self.dual_objective)

    def offer_primal(self, coefs, prediction):
        """Keep these coefficients if their objective is lower."""
        penalty = sum(self.final.effective(_gram_singular_values(coef)).sum() for coef in coefs)
        loss = self.problem.loss.value(self.problem.target, prediction)
        objective = loss + 0.5 * self.problem.alpha * penalty
        if objective < self.objective:
            self.objective, self.coefs = objective, coefs

    def offer_dual(self, point):
        """Keep this dual point, scaled to the final domain, if its objective is higher."""
        ratio = self.final.root / point.spectral.root
        dual = ratio * point.dual
        barrier = sum(self.final.conjugate(ratio * layer.u).sum() for layer in point.layers)
        dual_objective = self.problem.loss.dual_value(self.problem.target, dual) - 0.5 * self.problem.alpha * barrier
        if dual_objective > self.dual_objective:
            self.dual_objective, self.dual = dual_objective, dual


def _gram_singular_values(matrix):
    """Singular values to absolute accuracy √eps, far cheaper than by an SVD; the final certificate uses the SVD."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return np.sqrt(np.maximum(np.linalg.eigvalsh(wide @ wide.T), 0.0))


# -- one dual point ---------------------------------------------------------------------------


@dataclass(frozen=True)
class DualPoint:
    """A dual point with what value, gradient and Hessian products need of it."""

    problem: object
    spectral: ScaledPenalty
    dual: np.ndarray
    layers: list

    @classmethod
    def at(cls, problem, spectral, dual):
        """The point r, by one product with A*."""
        return cls.from_pull(problem, spectral, dual, problem.design.rmatvec(dual))

    @classmethod
    def from_pull(cls, problem, spectral, dual, pull):
        """The point r where A* r is known."""
        return cls(problem, spectral, dual, [LayerSpectrum(matrix, spectral, problem.alpha) for matrix in pull])

    @functools.cached_property
    def value(self):
        """Dual objective, −inf outside the domain."""
        barrier = sum(layer.conjugate for layer in self.layers)
        return self.problem.loss.dual_value(self.problem.target, self.dual) - 0.5 * self.problem.alpha * barrier

    @functools.cached_property
    def coefs(self):
        """Primal point B(r)."""
        return [layer.coefs for layer in self.layers]

    @functools.cached_property
    def prediction(self):
        """A B(r)."""
        return self.problem.design.matvec(self.coefs)

    @functools.cached_property
    def gradient(self):
        """Gradient of the dual objective, y − r − A B(r)."""
        return self.problem.loss.dual_gradient(self.problem.target, self.dual) - self.prediction

    def with_penalty(self, spectral, factor):
        """The point times a factor, for another adaptivity."""
        pull = [factor * layer.pull for layer in self.layers]
        return DualPoint.from_pull(self.problem, spectral, factor * self.dual, pull)

    def hessian_product(self, direction):
        """Minus the Hessian times a direction, (I + A ∇²Ω* A*) d."""
        pull = self.problem.design.rmatvec(direction)
        change = [layer.derivative(matrix) for layer, matrix in zip(self.layers, pull, strict=True)]
        return direction + self.problem.design.matvec(change)


class LayerSpectrum:
    """Spectral calculus of one layer's G = A* r on its smaller side (G is transposed where p > q)."""

    def __init__(self, pull, spectral, alpha):
        self.pull = pull
        self.alpha = alpha
        self.transposed = pull.shape[0] > pull.shape[1]
        wide = self._orient(pull)
        eigenvalues, self.basis = linalg.eigh(wide @ wide.T, driver="evd", check_finite=False)
        self.eigenvalues = np.maximum(eigenvalues, 0.0)
        self.u = 2.0 / alpha * np.sqrt(self.eigenvalues)
        self.spectral = spectral
        self.conjugate = spectral.conjugate(self.u).sum()
        if np.isfinite(self.conjugate):
            self.stretch = spectral.dual_stretch(self.u)

    def _orient(self, matrix):
        return matrix.T if self.transposed else matrix

    @functools.cached_property
    def rotated(self):
        """Uᵀ G."""
        return self.basis.T @ self._orient(self.pull)

    @property
    def coefs(self):
        """B = Z G / α."""
        return self._orient(self.basis @ ((self.stretch**2 / self.alpha)[:, None] * self.rotated))

    @functools.cached_property
    def differences(self):
        """Γ: divided differences of z² over the eigenvalues of G Gᵀ."""
        slope = self.spectral.dual_stretch_slope(self.u) * (2.0 / self.alpha) ** 2
        return divided_differences(self.eigenvalues, self.stretch**2, slope)

    def derivative(self, direction):
        """dB along a change of G."""
        change = self.basis.T @ self._orient(direction)
        mixed = self.rotated @ change.T
        change *= (self.stretch**2)[:, None]
        change += (self.differences * (mixed + mixed.T)) @ self.rotated
        return self._orient(self.basis @ change) / self.alpha


# -- directions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """A Newton direction d.

    Attributes
    ----------
    direction, residual : ndarray of shape (n, C)
        d, and what conjugate gradients left of the Newton equation.
    pull : list of ndarray
        A* d.
    decrement : float
        What the quadratic model gains along d, half of Newton's decrement squared.
    """

    direction: np.ndarray
    residual: np.ndarray
    pull: list
    decrement: float


def _newton_step(point, preconditioner, wanted_gap):
    """Inexact Newton direction by preconditioned conjugate gradients."""
    preconditioner.update(point)
    # At the solution the gap is half the squared gradient: no need to solve for more than is asked.
    residual_target = _INNER_MARGIN * np.sqrt(2.0 * wanted_gap)
    direction, residual, inner = _conjugate_gradients(
        point.hessian_product, point.gradient, preconditioner.apply, residual_target, abs(point.value)
    )
    preconditioner.spent += inner * preconditioner.product_cost
    decrement = 0.5 * np.vdot(point.gradient, direction)
    return _Step(direction, residual, point.problem.design.rmatvec(direction), decrement)


def _conjugate_gradients(product, rhs, precondition, residual_target, scale):
    """Solve product(x) = rhs until the residual is small or further steps gain little; x, residual, products."""
    solution = np.zeros_like(rhs)
    residual = rhs.copy()
    preconditioned = precondition(residual)
    direction = preconditioned
    weight = np.vdot(residual, preconditioned)
    gained = 0.0
    for inner in range(1, _MAX_INNER + 1):
        image = product(direction)
        step = weight / np.vdot(direction, image)
        solution += step * direction
        residual -= step * image
        gain = step * weight
        gained += gain
        # Nash & Sofer's truncation, tightened as the method converges so that convergence is superlinear.
        forcing = min(_LOOSEST_FORCING, gained / scale if scale > 0 else 1.0)
        if np.linalg.norm(residual) <= residual_target or inner * gain <= forcing * gained:
            break
        preconditioned = precondition(residual)
        previous, weight = weight, np.vdot(residual, preconditioned)
        direction = preconditioned + (weight / previous) * direction
    return solution, residual, inner


def _linearised_primal(point, step):
    """B(r) + dB, and A (B + dB) from the Newton equation without another product.

    Near a barrier B(r) overshoots wildly; its linearisation does not, and its gap is as small at the solution.
    """
    coefs = [
        coef + layer.derivative(matrix)
        for coef, layer, matrix in zip(point.coefs, point.layers, step.pull, strict=True)
    ]
    return coefs, point.prediction + point.gradient - step.residual - step.direction


def _line_search(point, step):
    """Largest length among 1, ½, ¼, … with a sufficient gain; the point there, or None."""
    slope = 2.0 * step.decrement
    rounding = 8 * _EPS * (abs(point.value) + np.abs(point.dual * point.problem.target).sum())
    length = 1.0
    for _ in range(_MAX_HALVINGS):
        pull = [layer.pull + length * matrix for layer, matrix in zip(point.layers, step.pull, strict=True)]
        moved = DualPoint.from_pull(point.problem, point.spectral, point.dual + length * step.direction, pull)
        if moved.value >= point.value + _ARMIJO * length * slope:
            return moved
        if length * slope <= rounding and np.isfinite(moved.value):
            # The gain drowns in rounding; the gradient, and with it the gap, still tells.
            better = np.linalg.norm(moved.gradient) < np.linalg.norm(point.gradient)
            return moved if better else None
        length *= _BACKTRACK
    return None


class _Preconditioner:
    """Inverse of the Hessian of some recent point: exact for small problems, without its Γ term and averaged over
    outputs for large ones. It is renewed once conjugate gradients have cost as much as renewing it."""

    def __init__(self, problem):
        design = problem.design
        self.problem = problem
        self.spent = np.inf
        self._solve = None
        n, C = design.n_samples, design.n_outputs
        smaller = [min(shape) for shape in design.coef_shapes]
        pairs = sum(m * (m + 1) // 2 for m in smaller)
        features = sum(p + q for p, q in design.coef_shapes)
        sizes = [layer.h.shape[1] * p * q for layer, (p, q) in zip(design.layers, design.coef_shapes, strict=True)]
        spectral = sum(8 * m * min(shape) * max(shape) for m, shape in zip(smaller, design.coef_shapes, strict=True))
        self.product_cost = 4 * n * sum(sizes) + spectral + _CALL_OVERHEAD
        exact_cost = (n * C) ** 2 * (pairs + features) + (n * C) ** 3 / 3
        self.exact = n * C <= _EXACT_UNKNOWNS and exact_cost <= _EXACT_OPERATIONS
        self.renewal_cost = (exact_cost if self.exact else n**2 * features + n**3 / 3) + _CALL_OVERHEAD
        self.usable = n <= _KERNEL_SAMPLES

    def update(self, point):
        """Renew at this point, if the work since the last time has paid for it."""
        if self.spent < self.renewal_cost or not self.usable:
            return
        self.spent = 0.0
        alpha = self.problem.alpha
        kernel = _hessian_kernel(point) if self.exact else _stretched_mean_kernel(point)
        kernel.flat[:: len(kernel) + 1] += alpha
        try:
            factor = linalg.cho_factor(kernel, lower=True, overwrite_a=True, check_finite=False)
        except linalg.LinAlgError:
            # alpha is lost in the rounding of the kernel's largest eigenvalue; a larger shift is still a
            # preconditioner.
            kernel = _hessian_kernel(point) if self.exact else _stretched_mean_kernel(point)
            kernel.flat[:: len(kernel) + 1] += alpha + 10 * len(kernel) * _EPS * np.trace(kernel)
            factor = linalg.cho_factor(kernel, lower=True, overwrite_a=True, check_finite=False)
        self._solve = functools.partial(linalg.cho_solve, factor, check_finite=False)

    def apply(self, residual):
        """Approximate inverse Hessian times `residual` of shape (n, C)."""
        if self._solve is None:
            return residual
        rhs = residual.reshape(-1) if self.exact else residual
        return self.problem.alpha * self._solve(rhs).reshape(residual.shape)


def _stretched_mean_kernel(point):
    """Mean kernel of the features stretched on the smaller side of each layer, n × n."""
    design = point.problem.design
    layers = []
    for layer, spectrum in zip(design.layers, point.layers, strict=True):
        if not spectrum.transposed:
            transform = LowRankTransform(spectrum.basis, spectrum.stretch)
            layers.append(LayerFactors(transform.apply(layer.h), layer.delta))
        else:
            transform = _mean_transform(spectrum, layer.shape[1])
            layers.append(LayerFactors(layer.h, transform.apply(layer.delta)))
    return design.with_layers(layers, keep_rows=True).mean_gram()


def _mean_transform(spectrum, q):
    """Right transform of width q: for stacked outputs, root of the mean of the diagonal blocks of its square."""
    blocks = spectrum.basis.reshape(-1, q, spectrum.basis.shape[1])
    square = np.eye(q) + np.einsum("cij,j,ckj->ik", blocks, spectrum.stretch**2 - 1.0, blocks) / len(blocks)
    values, basis = np.linalg.eigh(square)
    return LowRankTransform(basis, np.sqrt(values))


def _hessian_kernel(point):
    """α (H − I) for the exact Hessian H, n·C × n·C: the kernel of the stretched features plus the Γ term."""
    design = point.problem.design
    left, right = [], []
    for layer, spectrum in zip(design.layers, point.layers, strict=True):
        transform = LowRankTransform(spectrum.basis, spectrum.stretch)
        width = spectrum.pull.shape[1]
        left.append(LowRankTransform.identity(layer.shape[0]) if spectrum.transposed else transform)
        right.append(transform if spectrum.transposed else LowRankTransform.identity(width))
    kernel = design.transformed(left, right).gram()
    for layer, spectrum in zip(design.layers, point.layers, strict=True):
        pairs = _pair_features(design, layer, spectrum)
        kernel += pairs @ pairs.T
    return kernel


def _pair_features(design, layer, spectrum):
    """Rows √(2Γ) ∘ sym(Uᵀ Φ Gᵀ U), one a sample and output, upper triangle with off-diagonal entries counted twice."""
    if spectrum.transposed:
        on_h, on_delta = spectrum.rotated.T, spectrum.basis
    else:
        on_h, on_delta = spectrum.basis, spectrum.rotated.T
    q = layer.shape[1]
    a = layer.h @ on_h
    if design.outputs == "shared":
        b = np.einsum("ntq,cqm->nctm", layer.delta[:, 0], on_delta.reshape(-1, q, on_delta.shape[1]))
    else:
        b = layer.delta @ on_delta
    product = np.einsum("nti,nctj->ncij", a, b, optimize=True)
    rows, cols = np.triu_indices(product.shape[-1])
    symmetric = product[..., rows, cols] + product[..., cols, rows]
    weight = np.sqrt(spectrum.differences[rows, cols] * np.where(rows == cols, 0.5, 1.0))
    return design.to_rows(symmetric * weight).reshape(design.n_samples * design.n_outputs, -1)
