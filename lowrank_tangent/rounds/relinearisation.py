"""Adapt, re-linearise, repeat: transforms of a fit are built into the network, whose features are taken anew.

A fit stretches the features of layer l, M1 Φ_l M2, while the gates of the network stay those of its initial weights.
Here the transforms become part of the network x ↦ f(x; M1 θ M2), with θ its initial weights as before: the gates move
too, and at unmoved gates its features are the adapted ones M1 Φ_l M2. In the first layer M1 acts on the inputs, the
network sees x M1. Every transform acts on the inputs of a layer without their constant, and keeps its scale,
tr(M Mᵀ) = size. Round after round multiplies up.

What is stretched is the metric's to say, see `metrics.py`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._types import Array
from ..features import TangentFeatures
from ..linalg.transforms import ProductTransform
from ..operators.layers import reduced_factor
from ..problem import StructuredRegression
from ..solvers.solution import Solution
from .evidence import Ascent, Evidence
from .factor_view import FactorView
from .metrics import Metric, Stretch, get_metric


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
    transforms: list[tuple[ProductTransform | None, ProductTransform | None]] = field(repr=False)

    @property
    def left(self) -> list[Array | None]:
        """M1 of every layer as a dense matrix; None is the identity."""
        return [None if left is None else left.to_dense() for left, _ in self.transforms]

    @property
    def right(self) -> list[Array | None]:
        """M2 of every layer as a dense matrix; None is the identity."""
        return [None if right is None else right.to_dense() for _, right in self.transforms]


class Relinearisation:
    """Transforms of a network's layers, multiplied up over rounds.

    Parameters
    ----------
    features : TangentFeatures
        Fitted, of the network at its initial weights.
    metric : {"coefficient", "gradient", "function", "diagonal", "evidence", "relevance"} or Metric
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

    def __init__(self, features: TangentFeatures, metric: str | Metric, adaptivity: Any = None) -> None:
        self.features = features
        self.left: list[ProductTransform | None] = [None] * features.network.n_layers
        self.right: list[ProductTransform | None] = [None] * features.network.n_layers
        self._metric = get_metric(metric, features.network)
        self._network, self._adaptivity = features.network, adaptivity
        self._ascent = Ascent()
        self._evidence: tuple[StructuredRegression, Evidence] | None = None
        self._movable = [layer for layer in features.layers_ if layer in features.network.movable_layers]

    def advance(self, problem: StructuredRegression, solution: Solution, X: Array) -> None:
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
            stretch = self._stretch(layer, problem, solution)
            if stretch is None:
                continue
            if stretch.units is not None:
                self._check_two_sided(problem)
            self.left[layer] = self._composed(layer, stretch, X)
            if stretch.units is not None:
                before = self.right[layer] or ProductTransform(np.eye(stretch.units.shape[0]))
                after = before.transposed.then(stretch.units)
                self.right[layer] = after and after.transposed
        network = self._network.stretched(list(self.left), list(self.right))
        self.features = self.features.relinearised(network, X, problem.sample_weight)

    def input_transform(self, problem: StructuredRegression, solution: Solution, X: Array) -> ProductTransform:
        """M of the network's inputs with the stretch of a solution on top; X as for `advance`."""
        stretch = self._stretch(0, problem, solution) if 0 in self._movable else None
        known = self.left[0] if stretch is None else self._composed(0, stretch, X)
        return known or ProductTransform(np.ones(X.shape[1]))

    def log_evidence(self, problem: StructuredRegression) -> float:
        """What the metric raises, of a problem; NaN if it does not look at it."""
        return self._evidence_of(problem).value if self._metric.follows_evidence else math.nan

    def _stretch(self, layer: int, problem: StructuredRegression, solution: Solution) -> Stretch | None:
        """What the metric says; None where the price forbids every stretch."""
        view = FactorView(
            self.features,
            layer,
            problem,
            solution,
            self._adaptivity,
            functools.partial(self._evidence_of, problem),
            self._ascent,
        )
        if not self._metric.follows_evidence and view.price.is_fixed:
            return None
        return self._metric.checked(self._metric.from_factors(view))

    def _composed(self, layer: int, stretch: Stretch, X: Array) -> ProductTransform | None:
        """M1 of a layer with another stretch; None is the identity.

        Inputs of more features than samples stretch in the span of the samples alone, which no stretch leaves.
        """
        known = self.left[layer]
        if known is None:
            known = ProductTransform(np.ones(len(stretch.values)))
            if stretch.directions is not None:
                basis = reduced_factor(X)[1] if layer == 0 else None
                known = ProductTransform(np.eye(len(stretch.directions) if basis is None else basis.shape[1]), basis)
        return known.then(stretch.inputs)

    def _evidence_of(self, problem: StructuredRegression) -> Evidence:
        """Evidence of the problem's kernel, kept for the last problem."""
        if not problem.loss.is_quadratic or problem.loss.is_constraint:
            raise ValueError(f"metric={self._metric.name!r} is for loss='squared'; got loss={problem.loss.name!r}.")
        if self._evidence is None or self._evidence[0] is not problem:
            known = problem if problem.ridge_path is not None else problem.diagonalised()
            assert known.ridge_path is not None
            self._evidence = problem, Evidence(known.ridge_path)
        return self._evidence[1]

    def _immovable(self) -> str:
        if self._network.is_infinite:
            return f"rounds at infinite width move the first layer, and layers={self.features.layers!r} leaves it out."
        return (
            f"rounds move layers {list(self._network.movable_layers)} of this network, its `movable_layers`, and none "
            f"of them is used: layers={self.features.layers!r}. Use one of them, or no rounds."
        )

    def _check_two_sided(self, problem: StructuredRegression) -> None:
        if self._network.is_infinite or (problem.operator.outputs == "shared" and problem.y.shape[1] > 1):
            raise ValueError(
                "rounds with a penalty that moves both sides need units to move: a network of finite width, and "
                "outputs='network' for several targets. Use a one-sided penalty ('power', 'kl') or metric='gradient'."
            )


def run_rounds(
    relinearisation: Relinearisation,
    X: Array,
    n_rounds: int,
    solve_on: Callable[[TangentFeatures], tuple[StructuredRegression, Solution, float]],
) -> tuple[StructuredRegression, Solution, list[Round]]:
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
    rounds: list[Round] = []
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
