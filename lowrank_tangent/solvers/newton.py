"""Newton's method with a duality gap as certificate.

Newton's equation for the primal has as many unknowns as there are coefficients. With r = y − A B, G = Ω'(B) the
gradient of the penalty and W the inverse of its Hessian, both at B, it has n·C when written for the next dual point r':

    (I + A W A*) r' = r + A W G,          dB = W (A* r' − G).

This is the Hessian of the dual, linearised at G and not at ``A* r``. Both agree at the solution, and the gap of r'
vanishes quadratically; but G never leaves the domain of the conjugate, whereas iterates of Newton's method on the dual
jam at its boundary when the penalty is nearly the nuclear norm.

Everything spectral happens on the smaller side of B. For p ≤ q, ``B Bᵀ = U diag(v²) Uᵀ`` gives ``G = α Z⁻¹ B`` and

    W E = (Z E + U (Γ ∘ Uᵀ(G Eᵀ + E Gᵀ)U) Uᵀ G) / α,             Z = U diag(z²) Uᵀ,

with Γ the divided differences of z² over the eigenvalues of G Gᵀ. This is the Daleckii–Krein formula with the
complement of a non-square B included, and needs neither right singular vectors nor small singular values to full
relative accuracy.

The equation is solved by conjugate gradients, preconditioned by the ridge kernel of the *stretched* features: the
system without its Γ term. Small problems add that term and have the system itself.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from .._cholesky import InverseFactor
from ..operators import LayerFactors
from ..penalties import ScaledPenalty, divided_differences
from ..problem import Certificate
from ..transforms import LowRankTransform

#: Armijo's constant: the share of the linear gain that a step has to realise.
_ARMIJO = 1e-4
#: A step length will do where the slope has fallen to this share, or where it is known to this relative accuracy.
_FLAT = 0.05
_SHORTEST_INTERVAL = 1e-3
#: Continuation in the adaptivity starts where √μ is the largest singular value of the ridge solution, and lets √μ
#: fall by this factor a stage: far into the tail of the penalty its curvature says nothing about the way.
_STAGE_FACTOR = 8.0
#: A stage is done when a Newton step gains less than this share of the penalty.
_STAGE_DECREMENT = 0.1
#: Conjugate gradients leave an error of at most this share of Newton's decrement, and less as the method converges...
_LOOSEST_FORCING = 0.1
#: ...but no less than this share of the gap that is asked for, or of what the barrier of the dual weighs.
_INNER_MARGIN = 0.05
_MAX_INNER = 500
#: Gap to which the ridge solution is solved, relative to the objective of B = 0.
_RIDGE_TOL = 1e-20
#: Largest number of dual unknowns, and of operations, for which the system is assembled.
_EXACT_UNKNOWNS = 2000
_EXACT_OPERATIONS = 1e10
#: Largest number of samples whose n × n kernel serves as preconditioner.
_KERNEL_SAMPLES = 12_000
#: What calling a dozen NumPy functions costs, in floating-point operations.
_CALL_OVERHEAD = 5e6
_EPS = np.finfo(float).eps


def solve_newton(problem, monitor, max_iter, warm_start):
    """Minimise the primal by Newton's method in the dual unknowns; see the module for the formulas.

    Parameters
    ----------
    problem : StructuredRegression
        With a convex penalty.
    monitor : Monitor
    max_iter : int
    warm_start : (coefs, dual) or None
        Point to start from.

    Returns
    -------
    coefs, dual, message
    """
    final = problem.spectral
    preconditioner = _Preconditioner(problem)
    if warm_start is None:
        dual, coefs = _ridge(problem, preconditioner)
        point = PrimalPoint(problem, final, coefs)
        best = _BestPair(point, dual)
        point = point.with_penalty(_stage(problem, max(layer.values.max() for layer in point.layers), final))
    else:
        coefs, dual = warm_start
        point = PrimalPoint(problem, final, coefs)
        best = _BestPair(point, dual)
    for iteration in range(max_iter + 1):
        message = monitor.record(iteration, best.certificate)
        if message:
            break
        if iteration == max_iter:
            message = f"max_iter={max_iter} reached"
            break
        step = _newton_step(point, dual, preconditioner, monitor.tol * best.objective)
        dual = step.dual
        best.offer_dual(dual, step.pull)
        moved = _line_search(point, step)
        if moved is not None:
            best.offer_primal(moved)
            point = moved
        elif point.spectral is final:
            message = "the objective cannot be improved in floating-point arithmetic"
            monitor.record(iteration + 1, best.certificate)
            break
        if point.spectral is not final and (moved is None or step.decrement <= _STAGE_DECREMENT * point.penalty):
            point = point.with_penalty(_stage(problem, point.spectral.root / _STAGE_FACTOR, final))
    return best.coefs, best.dual, message


def _ridge(problem, preconditioner):
    """Dual point and coefficients of ridge: (I + A A*/α) r = y, B = A* r / α."""
    design, alpha = problem.design, problem.alpha
    zero = PrimalPoint(problem, problem.spectral, [np.zeros(shape) for shape in design.coef_shapes])
    preconditioner.update(zero)
    system = _System(zero, np.zeros_like(problem.target))
    system.solve(preconditioner, 0.5 * _RIDGE_TOL * np.sum(problem.target**2), 0.0)
    return system.dual, [pull / alpha for pull in design.rmatvec(system.dual)]


def _stage(problem, root, final):
    """The penalty with √μ = `root`, or `final` if that is further on the way."""
    return final if root <= final.root else ScaledPenalty(problem.penalty, root**-2)


class _BestPair:
    """The best primal and the best dual point so far, for the adaptivity that is asked for."""

    def __init__(self, point, dual):
        self.problem = point.problem
        self.objective, self.dual_objective = np.inf, -np.inf
        self.offer_primal(point)
        self.offer_dual(dual, self.problem.design.rmatvec(dual))

    @property
    def certificate(self):
        """What the two points prove about each other."""
        return Certificate.of(self.objective, self.dual_objective)

    def offer_primal(self, point):
        """Keep these coefficients if their objective is lower."""
        objective = point.objective_for(self.problem.spectral)
        if objective < self.objective:
            self.objective, self.coefs = objective, point.coefs

    def offer_dual(self, dual, pull):
        """Keep the best multiple of a dual point if its objective is higher."""
        spectra = [_gram_singular_values(matrix) for matrix in pull]
        dual, dual_objective = self.problem.best_multiple(dual, spectra)
        if dual_objective > self.dual_objective:
            self.dual, self.dual_objective = dual, dual_objective


def _wide(matrix):
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def _gram_singular_values(matrix):
    """Singular values to absolute accuracy √eps, far cheaper than by an SVD; the final certificate uses the SVD."""
    wide = _wide(matrix)
    return np.sqrt(np.maximum(np.linalg.eigvalsh(wide @ wide.T), 0.0))


# -- one primal point -------------------------------------------------------------------------


@dataclass(frozen=True)
class PrimalPoint:
    """Coefficients B and their residual r = y − A B, with what gradient and Hessian products need of them."""

    problem: object
    spectral: ScaledPenalty
    coefs: list

    def with_penalty(self, spectral):
        """The same point for another adaptivity."""
        return self if spectral is self.spectral else PrimalPoint(self.problem, spectral, self.coefs)

    @functools.cached_property
    def layers(self):
        """Spectral calculus of each layer."""
        return [LayerSpectrum(coef, self.spectral, self.problem.alpha) for coef in self.coefs]

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
        return 0.5 * self.problem.alpha * sum(spectral.effective(layer.values).sum() for layer in self.layers)

    def objective_for(self, spectral):
        """Primal objective for some adaptivity."""
        return 0.5 * np.sum(self.residual**2) + self.penalty_for(spectral)

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
        wide = _wide(coef)
        eigenvalues, self.basis = np.linalg.eigh(wide @ wide.T)
        self.values = np.sqrt(np.maximum(eigenvalues, 0.0))
        self._coef = coef

    @functools.cached_property
    def stretch(self):
        """Stretch z of each singular value."""
        return self.spectral.stretch(self.values)

    @functools.cached_property
    def rotated(self):
        """Uᵀ G, with G = Ω'(B) = α Z⁻¹ B."""
        return (self.alpha / self.stretch**2)[:, None] * (self.basis.T @ _wide(self._coef))

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

    def solve_curvature(self, matrix):
        """W times a matrix: the change of B along a change of G."""
        change = self.basis.T @ self._orient(matrix)
        mixed = self.rotated @ change.T
        change *= (self.stretch**2 / self.alpha)[:, None]
        change += (self.differences * (mixed + mixed.T) / self.alpha) @ self.rotated
        return self._orient(self.basis @ change)

    def _orient(self, matrix):
        return matrix.T if self.transposed else matrix


# -- directions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    """A Newton step.

    Attributes
    ----------
    coefs : list of ndarray
        dB.
    prediction : ndarray of shape (n, C)
        A dB.
    dual : ndarray of shape (n, C)
        The dual point r'.
    pull : list of ndarray
        A* r'.
    decrement : float
        What the quadratic model gains, half of Newton's decrement squared.
    slope : float
        Derivative of the objective along dB; −2 × decrement if the system is solved exactly.
    """

    coefs: list
    prediction: np.ndarray
    dual: np.ndarray
    pull: list
    decrement: float
    slope: float


def _newton_step(point, dual, preconditioner, wanted_gap):
    """Inexact Newton step by preconditioned conjugate gradients, from a dual point near the next one."""
    preconditioner.update(point)
    system = _System(point, dual)
    barrier = point.problem.alpha * point.spectral.root**2
    system.solve(preconditioner, _INNER_MARGIN * min(wanted_gap, barrier), point.penalty)
    pull = [layer.gradient + matrix for layer, matrix in zip(point.layers, system.mismatch, strict=True)]
    prediction = point.problem.design.matvec(system.change)
    return _Step(system.change, prediction, system.dual, pull, 0.5 * system.decrement, -system.descent)


class _System:
    """Newton's equation at a point, and an approximate solution r' with all that follows from it.

    Attributes
    ----------
    dual : ndarray of shape (n, C)
        r'.
    mismatch, change : list of ndarray
        A* r' − G, and W times it: dB.
    residual : ndarray of shape (n, C)
        r − r' − A dB, what r' misses of the equation.
    """

    def __init__(self, point, dual):
        self.point = point
        self.design = point.problem.design
        self.dual = dual
        self.mismatch = [a - layer.gradient for a, layer in zip(self.design.rmatvec(dual), point.layers, strict=True)]
        self.change = point.solve_curvature(self.mismatch)
        self.residual = point.residual - dual - self.design.matvec(self.change)

    @property
    def decrement(self):
        """Newton's decrement squared, ⟨dB, (W⁻¹ + A*A) dB⟩; without cancellation, as r' and not its change is known."""
        return _inner(self.change, self.mismatch) + np.sum((self.point.residual - self.dual) ** 2)

    @property
    def descent(self):
        """Minus the derivative of the objective along dB."""
        return self.decrement - np.vdot(self.point.residual - self.dual, self.residual)

    def solve(self, preconditioner, gap_target, penalty):
        """Improve r' by preconditioned conjugate gradients.

        The error of dB in the primal's energy norm is that of the residual in the Euclidean norm. Its square is
        brought below twice `gap_target`, or below a small share of the decrement if dB is a descent direction by then.
        """
        direction, previous = 0.0, 1.0
        for _ in range(_MAX_INNER):
            error = np.sum(self.residual**2)
            decrement = self.decrement
            forcing = min(_LOOSEST_FORCING, decrement / penalty) if penalty > 0 else 0.0
            if error <= max(2.0 * gap_target, forcing * decrement) and self.descent >= 0.5 * decrement:
                break
            preconditioned = preconditioner.apply(self.residual)
            energy = np.vdot(self.residual, preconditioned)
            direction = preconditioned + (energy / previous) * direction
            self._advance(direction, energy)
            preconditioner.spend_product()
            previous = energy

    def _advance(self, direction, energy):
        pull = self.design.rmatvec(direction)
        change = self.point.solve_curvature(pull)
        image = direction + self.design.matvec(change)
        step = energy / np.vdot(direction, image)
        self.dual = self.dual + step * direction
        self.residual = self.residual - step * image
        for total, part in zip(self.mismatch, pull, strict=True):
            total += step * part
        for total, part in zip(self.change, change, strict=True):
            total += step * part


def _inner(these, those):
    return sum(np.vdot(a, b) for a, b in zip(these, those, strict=True))


def _line_search(point, step):
    """The point near the minimum of the objective along dB, not beyond the full step; None if rounding hides it.

    Trial points cost an eigenvalue decomposition but no product with A, so a good length is cheaper than another
    Newton step. Decreases are summed from differences: where the loss dwarfs the penalty, that of two objectives
    would be rounding.
    """
    linear = np.vdot(point.residual, step.prediction)
    quadratic = np.sum(step.prediction**2)
    low, high, length = 0.0, 1.0, 1.0
    best = None
    while high - low > _SHORTEST_INTERVAL * high:
        coefs = [coef + length * change for coef, change in zip(point.coefs, step.coefs, strict=True)]
        moved = PrimalPoint(point.problem, point.spectral, coefs)
        terms = (-length * linear, 0.5 * length**2 * quadratic, moved.penalty, -point.penalty)
        slope = -linear + length * quadratic + _inner([layer.gradient for layer in moved.layers], step.coefs)
        if sum(terms) <= _ARMIJO * length * step.slope:
            best = moved
            if abs(slope) <= _FLAT * abs(step.slope) or (length == 1.0 and slope < 0.0):
                break
        elif -length * step.slope <= 8 * _EPS * max(abs(term) for term in terms):
            break
        low, high = (low, length) if slope > 0.0 else (length, high)
        length = 0.5 * (low + high)
    return best


class _Preconditioner:
    """Inverse of the system of some recent point: exact for small problems, without its Γ term and averaged over
    outputs for large ones. It is renewed once conjugate gradients have cost as much as renewing it."""

    def __init__(self, problem):
        design = problem.design
        self.problem = problem
        self.spent = np.inf
        self._factor = None
        n, C = design.n_samples, design.n_outputs
        smaller = [min(shape) for shape in design.coef_shapes]
        pairs = sum(m * (m + 1) // 2 for m in smaller)
        features = sum(p + q for p, q in design.coef_shapes)
        sizes = [layer.h.shape[1] * p * q for layer, (p, q) in zip(design.layers, design.coef_shapes, strict=True)]
        spectral = sum(8 * m * min(shape) * max(shape) for m, shape in zip(smaller, design.coef_shapes, strict=True))
        self.product_cost = 4 * n * sum(sizes) + spectral + _CALL_OVERHEAD
        exact_cost = (n * C) ** 2 * (pairs + 2 * features) + (n * C) ** 3
        self.exact = n * C <= _EXACT_UNKNOWNS and exact_cost <= _EXACT_OPERATIONS
        self.renewal_cost = (exact_cost if self.exact else 2 * n**2 * features + n**3) + _CALL_OVERHEAD
        self.usable = n <= _KERNEL_SAMPLES

    def update(self, point):
        """Renew at this point, if the work since the last time has paid for it."""
        if self.spent < self.renewal_cost or not self.usable:
            return
        self.spent = 0.0
        kernel = _system_kernel(point) if self.exact else _stretched_mean_kernel(point)
        diagonal = kernel.diagonal().copy()
        kernel.flat[:: len(kernel) + 1] = diagonal + self.problem.alpha
        try:
            self._factor = InverseFactor(kernel)
        except np.linalg.LinAlgError:
            # alpha is lost in the rounding of the largest eigenvalue; a larger shift is still a preconditioner.
            kernel.flat[:: len(kernel) + 1] = diagonal + self.problem.alpha + _EPS * 10 * len(kernel) * diagonal.sum()
            self._factor = InverseFactor(kernel)

    def spend_product(self):
        """Account for one product with the system."""
        self.spent += self.product_cost

    def apply(self, residual):
        """Approximate inverse of the system times `residual` of shape (n, C)."""
        if self._factor is None:
            return residual
        rhs = residual.reshape(-1) if self.exact else residual
        return self.problem.alpha * self._factor.solve(rhs).reshape(residual.shape)


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


def _system_kernel(point):
    """α A W A*, n·C × n·C: the kernel of the stretched features plus the Γ term."""
    design = point.problem.design
    left, right = [], []
    for layer, spectrum in zip(design.layers, point.layers, strict=True):
        transform = LowRankTransform(spectrum.basis, spectrum.stretch)
        width = spectrum.shape[1]
        left.append(LowRankTransform.identity(layer.shape[0]) if spectrum.transposed else transform)
        right.append(transform if spectrum.transposed else LowRankTransform.identity(width))
    kernel = design.transformed(left, right).gram()
    for layer, spectrum in zip(design.layers, point.layers, strict=True):
        if spectrum.values.any():
            pairs = _pair_features(design, layer, spectrum)
            kernel += pairs @ pairs.T
    return kernel


def _pair_features(design, layer, spectrum):
    """Rows √(2Γ) ∘ sym(Uᵀ Φ Gᵀ U), one a sample and output, upper triangle with off-diagonal entries counted twice."""
    if spectrum.transposed:
        on_h, on_delta = spectrum.rotated.T, spectrum.basis
    else:
        on_h, on_delta = spectrum.basis, spectrum.rotated.T
    q, m = layer.shape[1], on_h.shape[1]
    C = design.n_outputs
    h = np.repeat(layer.h, C, axis=0) @ on_h
    if design.outputs == "shared":
        delta = np.einsum("ntq,cqm->nctm", layer.delta[:, 0], on_delta.reshape(C, q, m), optimize=True)
    else:
        delta = layer.delta @ on_delta
    # Pairs along the first axis, so that every operation below runs over contiguous memory.
    h, delta = (np.ascontiguousarray(np.moveaxis(x.reshape(len(h), -1, m), 0, -1)) for x in (h, delta))
    pairs = np.zeros((m * (m + 1) // 2, h.shape[2]))
    start = 0
    for i in range(m):
        part = pairs[start : start + m - i]
        for h_t, delta_t in zip(h, delta, strict=True):
            part += h_t[i] * delta_t[i:] + h_t[i:] * delta_t[i]
        weight = np.sqrt(spectrum.differences[i, i:])
        weight[0] *= np.sqrt(0.5)
        part *= weight[:, None]
        start += m - i
    rows = pairs.T
    if design.changes_rows:
        rows = design.to_rows(rows.reshape(design.n_samples, -1)).reshape(rows.shape)
    return rows
