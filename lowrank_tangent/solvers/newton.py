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
#: Relative gap at which a stage is good enough for the next one to start from it.
_STAGE_GAP = 0.3
#: Forcing terms: conjugate gradients reduce the gradient by this factor at least...
_LOOSEST_FORCING = 0.1
#: ...and never further than this.
_TIGHTEST_FORCING = 1e-10
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
    coefs, certificate, message
    """
    final = problem.spectral
    spectral = final
    point = DualPoint.at(problem, spectral, np.zeros_like(problem.target))
    if warm_start is not None:
        start = problem.best_multiple(problem.design.project(warm_start))
        point = DualPoint.at(problem, spectral, start)
    preconditioner = _Preconditioner(problem)
    best = None
    message = f"max_iter={max_iter} reached"
    for iteration in range(max_iter + 1):
        certificate = point.certificate(final)
        if best is None or certificate.dual_gap <= best[1].dual_gap:
            best = point, certificate
        reason = monitor.record(iteration, certificate)
        if reason:
            message = reason
            break
        if iteration == max_iter:
            break
        if spectral is not final and point.stage_gap <= _STAGE_GAP:
            spectral, point = _next_stage(problem, point, final)
        direction = _newton_direction(point, preconditioner, monitor.tol)
        pull = problem.design.rmatvec(direction)
        if iteration == 0 and warm_start is None:
            spectral = _first_stage(problem, pull)
            point = DualPoint.at(problem, spectral, point.dual)
        moved = _line_search(point, direction, pull)
        if moved is None:
            message = "the dual objective cannot be improved in floating-point arithmetic"
            break
        point = moved
    point, certificate = best
    return point.coefs, certificate, message


# -- continuation in the adaptivity -----------------------------------------------------------


def _first_stage(problem, pull):
    """An adaptivity small enough for the ridge solution, whose A* r is `pull`, to lie inside the domain."""
    final = problem.spectral
    largest = max(2.0 / problem.alpha * np.linalg.norm(matrix, 2) for matrix in pull)
    if np.isfinite(final.conjugate(np.array([2.0 / _START_INSIDE * largest])))[0]:
        return final
    return ScaledPenalty(problem.penalty, (_START_INSIDE / largest) ** 2)


def _next_stage(problem, point, final):
    """The next adaptivity, and the point carried over to it: u/√μ, and with it the domain, stays as it is."""
    old = point.spectral.root
    root = max(final.root, old / _STAGE_FACTOR)
    spectral = final if root == final.root else ScaledPenalty(problem.penalty, root**-2)
    return spectral, DualPoint.at(problem, spectral, point.dual * (root / old))


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

    @property
    def stage_gap(self):
        """Relative gap for the adaptivity of this point."""
        gap = 0.5 * np.sum(self.gradient**2)
        return gap / (self.value + gap) if gap > 0 else 0.0

    def certificate(self, final):
        """Certificate of (B, r) for the adaptivity `final`, from singular values that are known already."""
        problem, alpha = self.problem, self.problem.alpha
        penalty = sum(final.effective(layer.coef_values).sum() for layer in self.layers)
        objective = problem.loss.value(problem.target, self.prediction) + 0.5 * alpha * penalty
        ratio = final.root / self.spectral.root
        barrier = sum(final.conjugate(ratio * layer.u).sum() for layer in self.layers)
        dual = ratio * self.dual
        return Certificate.of(objective, problem.loss.dual_value(problem.target, dual) - 0.5 * alpha * barrier, dual)

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
    def coef_values(self):
        """Singular values of B."""
        return self.stretch**2 * self.u / 2.0

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


def _newton_direction(point, preconditioner, tol):
    """Inexact Newton direction by preconditioned conjugate gradients."""
    gradient = point.gradient
    size = np.linalg.norm(gradient)
    scale = np.linalg.norm(point.problem.target)
    # The gap is half the squared gradient: no need to go further than what the tolerance asks for.
    wanted = 0.1 * np.sqrt(2.0 * tol * max(point.value + 0.5 * size**2, 0.0)) / size
    forcing = np.clip(max(wanted, size / scale * _LOOSEST_FORCING), _TIGHTEST_FORCING, _LOOSEST_FORCING)
    preconditioner.update(point)
    direction, inner = _conjugate_gradients(point.hessian_product, gradient, preconditioner.apply, forcing * size)
    preconditioner.spent += inner * preconditioner.product_cost
    return direction


def _conjugate_gradients(product, rhs, precondition, target):
    """Solve product(x) = rhs to a residual of norm `target`; returns x and the number of products."""
    solution = np.zeros_like(rhs)
    residual = rhs.copy()
    preconditioned = precondition(residual)
    direction = preconditioned
    weight = np.vdot(residual, preconditioned)
    for inner in range(1, _MAX_INNER + 1):
        image = product(direction)
        step = weight / np.vdot(direction, image)
        solution += step * direction
        residual -= step * image
        if np.linalg.norm(residual) <= target:
            break
        preconditioned = precondition(residual)
        previous, weight = weight, np.vdot(residual, preconditioned)
        direction = preconditioned + (weight / previous) * direction
    return solution, inner


def _line_search(point, direction, pull):
    """Largest step among 1, ½, ¼, … with a sufficient gain; the point there, or None."""
    slope = np.vdot(point.gradient, direction)
    rounding = 8 * _EPS * (abs(point.value) + np.abs(point.dual * point.problem.target).sum())
    step = 1.0
    for _ in range(_MAX_HALVINGS):
        moved_pull = [layer.pull + step * matrix for layer, matrix in zip(point.layers, pull, strict=True)]
        moved = DualPoint.from_pull(point.problem, point.spectral, point.dual + step * direction, moved_pull)
        if moved.value >= point.value + _ARMIJO * step * slope:
            return moved
        if step * slope <= rounding and np.isfinite(moved.value):
            # The gain drowns in rounding; the gradient, and with it the gap, still tells.
            better = np.linalg.norm(moved.gradient) < np.linalg.norm(point.gradient)
            return moved if better else None
        step *= _BACKTRACK
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
