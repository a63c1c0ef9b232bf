"""Adapt, re-linearise, repeat: transforms of a fit are built into the network, whose features are taken anew.

A fit stretches the features of layer l, M1 Φ_l M2, while the gates of the network stay those of its initial weights.
Here the transforms become part of the network x ↦ f(x; M1 θ M2), with θ its initial weights as before: the gates move
too, and at unmoved gates its features are the adapted ones M1 Φ_l M2. In the first layer M1 acts on the inputs, the
network sees x M1. Every transform acts on the inputs of a layer without their constant, and keeps its scale,
tr(M Mᵀ) = size. Round after round multiplies up.

What is stretched, by z(s/√μ), is the spectrum s of a layer's coefficients B:

- "coefficient": the singular values of B, as in the model of arXiv 2308.15478.
- "gradient": the root of the spectrum of B C Bᵀ, C the second moment of the gradients delta. That is the average outer
  product of B delta(x_i), the gradient of the fitted function with respect to the layer's inputs while the gates stand
  still: the same stretch, measured on the function. Directions that live in gates which the data hardly use do not
  count.
- "function": the root of the spectrum of the average outer product of the whole gradient of the fitted function. Gates
  move with the inputs: in a network of finite width they jump, which a gradient does not see; at infinite width they
  are smooth, and the kernel's derivative has them. First layer, infinite width. (Recursive feature machines, arXiv
  2212.13881, take a power of this average gradient outer product instead of a stretch.)
- "diagonal": the diagonal of the same outer product, the root mean square of the function's slope along every feature.
  Features are stretched, and no directions between them.

Two more look at no fit. At infinite width they are steps up the evidence of the current kernel (`evidence.py`), of a
length of their own: what μ and the price of the penalty say does not matter to them.

- "evidence": in all directions.
- "relevance": feature by feature (automatic relevance determination).

"gradient", "function" and "diagonal" measure slopes, per unit of a feature; the coefficients B, sums over samples of
inputs times gradients, also count how far the data reach along a direction. On images, where the function is steep in
directions that hardly vary, that is the better measure; on tables of standardised columns slopes are.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np

from ..linalg.transforms import LowRankTransform, ProductTransform
from ..operators.layers import reduced_factor, singular_vectors
from .evidence import Ascent, Evidence, log_slopes

#: What a round stretches.
METRICS = ("coefficient", "gradient", "function", "diagonal", "evidence", "relevance")
#: Those that need the kernel's derivative in closed form, those that follow the evidence, and those of features alone.
INFINITE_METRICS = ("function", "diagonal", "evidence", "relevance")
EVIDENCE_METRICS = ("evidence", "relevance")
FEATURE_METRICS = ("diagonal", "relevance")


@dataclass(frozen=True)
class Round:
    """What one solution found on the features of one network.

    Attributes
    ----------
    alpha : float
    objective, dual_gap, stationarity : float
        Certificate of the solution, as in `Solution`.
    training_error : float
        Mean squared error on the training samples, weighted.
    leave_one_out_error : float
        The same of samples that are left out, for ``alpha="loo"``; else NaN. Exact in round 0, too small after.
    log_evidence : float
        What rounds of "evidence" and "relevance" raise, but for a constant of the data; NaN for other metrics.
    transforms : list of (left, right), one pair per layer
        Transforms M1 and M2 in the network of this round, each a `ProductTransform` or None, the identity.
    """

    alpha: float
    objective: float
    dual_gap: float
    stationarity: float
    training_error: float
    leave_one_out_error: float
    log_evidence: float
    transforms: list = field(repr=False)

    @property
    def left(self):
        """M1 of every layer as a dense matrix; None is the identity."""
        return [None if left is None else left.to_dense() for left, _ in self.transforms]

    @property
    def right(self):
        """M2 of every layer as a dense matrix; None is the identity."""
        return [None if right is None else right.to_dense() for _, right in self.transforms]


def check_metric(metric, network, name="metric"):
    """Refuse an unknown metric, and one that this network does not have.

    Raises
    ------
    ValueError
    """
    if metric not in METRICS:
        raise ValueError(f"{name} must be one of {sorted(METRICS)}; got {metric!r}.")
    if metric in INFINITE_METRICS and not network.is_infinite:
        raise ValueError(
            f"{name}: {metric!r} is for networks of infinite width, whose kernels have a derivative in closed form. "
            "Take 'gradient', or widths of np.inf."
        )


class Relinearisation:
    """Transforms of a network's layers, multiplied up over rounds.

    Parameters
    ----------
    features : TangentFeatures
        Fitted, of the network at its initial weights.
    metric : {"coefficient", "gradient", "function", "diagonal", "evidence", "relevance"}
        What is stretched; the last four need infinite width.
    adaptivity : float ≥ 0 or a sequence of them, optional
        How cheaply a round moves each used layer, at the prices of the problem; by default as the problem has it. At
        infinite width the first layer alone has a weight matrix to transform, and the others stay.

    Attributes
    ----------
    features : TangentFeatures
        Those of the current network.
    left, right : list of ProductTransform or None, one per layer
        Transforms of the current network.

    Raises
    ------
    ValueError
        For an unknown metric, or one that the network does not have.
    """

    def __init__(self, features, metric, adaptivity=None):
        check_metric(metric, features.network)
        self.features = features
        self.left = [None] * features.network.n_layers
        self.right = [None] * features.network.n_layers
        self._network, self._metric, self._adaptivity = features.network, metric, adaptivity
        self._ascent, self._evidence = Ascent(), (None, None)
        self._movable = [layer for layer in features.layers_ if layer in features.network.movable_layers]

    def advance(self, problem, solution, X):
        """Build the stretch of a solution into the network, and take its features anew.

        Parameters
        ----------
        problem : StructuredRegression
            On the current features of the training samples X.
        solution : Solution
        X : ndarray of shape (n, n_features)

        Raises
        ------
        ValueError
            If no used layer can move, or a two-sided penalty has no units of its own to move.
        """
        if not self._movable:
            raise ValueError(self._immovable())
        for layer in self._movable:
            left, right = self._stretch(layer, problem, solution)
            if right is not None:
                self._check_two_sided(problem)
            self.left[layer] = self._composed(layer, left, X)
            if right is not None:
                before = self.right[layer] or ProductTransform(np.eye(right.shape[0]))
                after = before.transposed.then(right)
                self.right[layer] = after and after.transposed
        network = self._network.stretched(list(self.left), list(self.right))
        self.features = self.features.relinearised(network, X, problem.sample_weight)

    def input_transform(self, problem, solution, X):
        """M of the network's inputs with the stretch of a solution on top, a `ProductTransform`; X as for `advance`."""
        stretch = self._stretch(0, problem, solution)[0] if 0 in self._movable else None
        return self._composed(0, stretch, X) or ProductTransform(np.ones(X.shape[1]))

    def _composed(self, layer, stretch, X):
        """M1 of a layer with another stretch; None is the identity.

        Inputs of more features than samples stretch in the span of the samples alone, which no stretch leaves.
        """
        known = self.left[layer]
        if stretch is None:
            return known
        if known is None:
            if isinstance(stretch, np.ndarray):
                known = ProductTransform(np.ones(len(stretch)))
            else:
                basis = reduced_factor(X)[1] if layer == 0 else None
                known = ProductTransform(np.eye(stretch.shape[0] if basis is None else basis.shape[1]), basis)
        return known.then(stretch)

    def log_evidence(self, problem):
        """What the metric raises, of a problem; NaN if it does not look at it."""
        return self._evidence_of(problem).value if self._metric in EVIDENCE_METRICS else math.nan

    def _evidence_of(self, problem):
        """Evidence of the problem's kernel, kept for the last problem."""
        if problem.loss.name != "squared":
            raise ValueError(f"metric={self._metric!r} is for loss='squared'; got loss={problem.loss.name!r}.")
        if self._evidence[0] is not problem:
            known = problem if problem.ridge_path is not None else problem.diagonalised()
            self._evidence = problem, Evidence(known.ridge_path)
        return self._evidence[1]

    def _stretch(self, layer, problem, solution):
        """Left and right stretch of a layer for `ProductTransform.then`; None for a side that does not move."""
        if self._metric in EVIDENCE_METRICS:
            return self._step(problem), None
        index = self.features.layers_.index(layer)
        prices = problem if self._adaptivity is None else problem.with_strength(problem.alpha, self._adaptivity)
        price = prices.spectral[index]
        if price.is_fixed:
            return None, None
        factors, coef = problem.operator.layers[index], solution.coefs[index]
        n_inputs = factors.shape[0] - self._network.input_has_constant(layer)
        basis = None if problem.operator.is_streamed else reduced_factor(factors.h[..., :n_inputs])[1]
        if self._metric == "diagonal":
            return price.stretch(np.sqrt(self._mean(problem, solution, layer, _squares))), None
        if self._metric != "coefficient":
            outer = self._mean(problem, solution, layer, functools.partial(_outer_products, basis))
            eigenvalues, u = np.linalg.eigh(outer)
            s = np.sqrt(np.maximum(eigenvalues, 0.0))
            return _stretch_along(basis, u, price.stretch(s), price.stretch(0.0)), None
        u, s, vt = singular_vectors(coef[:n_inputs], basis)
        (first, second), (unused1, unused2) = price.split(s), price.split(0.0)
        moves_units = (second != 1.0).any()
        right = LowRankTransform(vt.T, second, float(unused2)) if moves_units else None
        return LowRankTransform(u, first, float(unused1)), right

    def _step(self, problem):
        """Stretch of the inputs that raises the evidence."""
        Z, tangent = self.features.tangent()
        roots = np.ones(len(Z)) if problem.sample_weight is None else np.sqrt(problem.sample_weight)
        evidence = self._evidence_of(problem)
        weights = roots[:, None] * evidence.weights() * roots
        if self._metric == "relevance":
            return self._ascent.stretch(evidence.value, log_slopes(weights, tangent, Z, True))[0]
        coordinates, basis = reduced_factor(Z)
        eigenvalues, u = np.linalg.eigh(log_slopes(weights, tangent, coordinates, False))
        return _stretch_along(basis, u, *self._ascent.stretch(evidence.value, eigenvalues))

    def _mean(self, problem, solution, layer, moment):
        """Weighted average over samples of a moment of the slopes, summed over outputs."""
        weights = np.ones(problem.operator.n_samples) if problem.sample_weight is None else problem.sample_weight
        shares = weights / weights.sum()
        return sum(
            moment((slopes * np.sqrt(shares[rows])[:, None]).reshape(len(slopes), -1))
            for rows, slopes in self._slopes(problem, solution, layer)
        )

    def _slopes(self, problem, solution, layer):
        """Gradients of the fitted function with respect to a layer's inputs: pairs of samples and shape (p, n, C)."""
        if self._metric in INFINITE_METRICS:
            yield slice(None), self.features.input_gradients(solution.coefs).transpose(1, 0, 2)
            return
        index = self.features.layers_.index(layer)
        n_inputs = problem.operator.layers[index].shape[0] - self._network.input_has_constant(layer)
        coef = solution.coefs[index][:n_inputs] * self._network.forward_scale(n_inputs)
        for rows, layers in problem.operator.batches():
            yield rows, _layer_gradients(layers[index].delta, coef)

    def _immovable(self):
        if self._network.is_infinite:
            return f"rounds at infinite width move the first layer, and layers={self.features.layers!r} leaves it out."
        return (
            f"rounds move layers {list(self._network.movable_layers)} of this network, its `movable_layers`, and none "
            f"of them is used: layers={self.features.layers!r}. Use one of them, or no rounds."
        )

    def _check_two_sided(self, problem):
        if self._network.is_infinite or (problem.operator.outputs == "shared" and problem.y.shape[1] > 1):
            raise ValueError(
                "rounds with a penalty that moves both sides need units to move: a network of finite width, and "
                "outputs='network' for several targets. Use a one-sided penalty ('power', 'kl') or metric='gradient'."
            )


def run_rounds(relinearisation, X, n_rounds, solve_on):
    """A solution on the features of the initial network, and one after each of `n_rounds` rounds.

    Parameters
    ----------
    relinearisation : Relinearisation
    X : ndarray of shape (n, n_features)
    n_rounds : int
    solve_on : callable
        Called with features; returns (problem, solution, leave-one-out error).

    Returns
    -------
    problem, solution
        The last ones.
    rounds : list of Round
        One for every solution, n_rounds + 1 in all.
    """
    rounds = []
    while True:
        problem, solution, left_out = solve_on(relinearisation.features)
        residuals = problem.y - solution.prediction - solution.intercept
        rounds.append(
            Round(
                alpha=problem.alpha,
                objective=solution.objective,
                dual_gap=solution.dual_gap,
                stationarity=solution.stationarity,
                training_error=float(np.average(np.mean(residuals**2, axis=1), weights=problem.sample_weight)),
                leave_one_out_error=left_out,
                log_evidence=relinearisation.log_evidence(problem),
                transforms=list(zip(relinearisation.left, relinearisation.right, strict=True)),
            )
        )
        if len(rounds) > n_rounds:
            return problem, solution, rounds
        relinearisation.advance(problem, solution, X)


def _layer_gradients(delta, coef):
    """B delta of every sample and output, shape (p, n, C)."""
    n_outputs, _, q = delta.shape[1:]
    if n_outputs > 1:
        return np.einsum("pq,ncq->pnc", coef, delta[:, :, 0], optimize=True)
    return np.einsum("pcq,nq->pnc", coef.reshape(len(coef), -1, q), delta[:, 0, 0], optimize=True)


def _squares(columns):
    """Sums of squares of the rows, shape (p,)."""
    return np.sum(columns**2, axis=1)


def _outer_products(basis, columns):
    """Sum of the outer products of columns, in a basis of their span (None: as they are)."""
    columns = columns if basis is None else basis.T @ columns
    return columns @ columns.T


def _stretch_along(basis, u, stretch, unused):
    """Stretch of directions u in a basis (None: as they are), and of every other direction."""
    return LowRankTransform(u if basis is None else basis @ u, stretch, float(unused))
