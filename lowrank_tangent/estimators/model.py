"""What all four estimators do: features, problem, solver and adaptation, one after the other."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted, validate_data

from .._checks import check_dtype
from .._types import Array, ArrayLike, RandomState
from ..adaptation import Adaptation, adapt
from ..features import TangentFeatures
from ..leave_one_out import left_out_together
from ..losses import Loss
from ..networks import Network, network_of
from ..operators import Operator
from ..problem import StructuredRegression
from ..rounds import Relinearisation, Round, run_rounds
from ..solvers import SOLVERS, Solution, solve
from .infinite_coefs import kept, predict
from .inputs import InputTransformer, transform_of_inputs

if TYPE_CHECKING:
    from typing_extensions import Self

#: Parameters that are a short way to say a network.
_SHORT_PARAMETERS = ("hidden_layer_sizes", "activation", "init", "bias")


@dataclass(frozen=True)
class Settings:
    """What an estimator asks of the solver and of the rounds; by default the ridge regression on features as they are.

    Attributes are the parameters of `AdaptiveTangentRegressor` of the same name.
    """

    penalty: Any = "ridge"
    adaptivity: Any = 0.0
    solver: Any = "auto"
    max_iter: int | None = None
    warm_start: bool = False
    verbose: int = 0
    n_init: int = 1
    n_rounds: int = 0
    metric: Any = "coefficient"
    round_adaptivity: Any = None


class TangentModel:
    """One regression on tangent features, with targets of shape (n, C)."""

    hidden_layer_sizes: Any
    activation: str
    init: str
    bias: float
    network: Network | None
    loss: str | Loss
    alpha: float | str
    outputs: Literal["shared", "network"]
    layers: Sequence[int] | None
    layer_weights: Sequence[float] | None
    tol: float
    fit_intercept: bool
    random_state: RandomState
    dtype: Any
    batch_size: int | None

    initial_features_: TangentFeatures
    features_: TangentFeatures
    solution_: Solution
    adaptation_: Adaptation
    rounds_: list[Round]

    def _settings(self) -> Settings:
        """What the solver and the rounds are asked for."""
        raise NotImplementedError

    def _fit(self, X: Array, targets: Array, sample_weight: Array | None, groups: ArrayLike | None = None) -> Self:
        self._warn_if_nothing_to_learn(X, targets)
        settings = self._settings()
        network = self._network()
        features = TangentFeatures(
            network,
            self.outputs,
            self.random_state,
            self.layers,
            self.layer_weights,
            self.dtype,
            self.batch_size,
        )
        continued = settings.warm_start and self._continues(features, X, targets)
        if continued:  # with the same weights, and the scale of these samples
            initial = features.continuing(self.initial_features_, X, sample_weight)
        else:
            initial = features.fit(X, targets.shape[1], sample_weight)
        unfinished: list[Solution] = []

        def solve_on(features: TangentFeatures) -> tuple[StructuredRegression, Solution, float]:
            problem, left_out = self._problem(features.operator(X), targets, sample_weight, settings, X, groups)
            solution = solve(
                problem,
                settings.solver,
                self.tol,
                settings.max_iter,
                warm_start=self.solution_ if continued else None,
                verbose=settings.verbose,
                n_init=settings.n_init,
                random_state=self.random_state,
            )
            if not solution.converged:
                unfinished.append(solution)
            return problem, solution, left_out

        relinearisation = Relinearisation(initial, settings.metric, settings.round_adaptivity)
        problem, solution, rounds = run_rounds(relinearisation, X, settings.n_rounds, solve_on)
        if unfinished:
            warnings.warn(_not_converged(unfinished[-1], self.tol), ConvergenceWarning, stacklevel=3)
        solution, adaptation = kept(relinearisation.features, X, problem, solution, adapt(problem, solution))
        if isinstance(self, InputTransformer):
            self._input_transform = transform_of_inputs(relinearisation, problem, solution, X)
        self.initial_features_, self.features_, self.rounds_ = initial, relinearisation.features, rounds
        self.alpha_ = problem.alpha
        self.solution_ = solution
        self.adaptation_ = adaptation
        self.coefs_ = solution.coefs
        self.intercept_ = solution.intercept
        self.transforms_ = list(zip(adaptation.left, adaptation.right, strict=True))
        self.dual_gap_ = solution.dual_gap
        self.stationarity_ = solution.stationarity
        self.objective_ = solution.objective
        self.n_iter_ = solution.n_iter
        return self

    def _network(self) -> Network:
        """The network that was given, or the one that the short parameters say."""
        short = {name: getattr(self, name) for name in _SHORT_PARAMETERS}
        if self.network is None:
            return network_of(**short)
        defaults = inspect.signature(type(self)).parameters
        doubled = [f"{name}={value!r}" for name, value in short.items() if value != defaults[name].default]
        if doubled:
            raise ValueError(
                f"network={self.network!r} says all of the network; leave out {', '.join(doubled)}, or give them to it."
            )
        return self.network

    def _problem(
        self,
        operator: Operator,
        targets: Array,
        sample_weight: Array | None,
        settings: Settings,
        X: Array,
        groups: ArrayLike | None,
    ) -> tuple[StructuredRegression, float]:
        """The problem on these features, and the leave-one-out error of a chosen alpha, else NaN."""
        chosen = isinstance(self.alpha, str) and self.alpha == "loo"
        alpha: Any = 1.0 if chosen else self.alpha  # any other text is refused
        problem = StructuredRegression(
            operator,
            targets,
            settings.penalty,
            alpha,
            settings.adaptivity,
            self.loss,
            sample_weight,
            fit_intercept=self.fit_intercept,
        )
        if not chosen:
            return problem, math.nan
        if not problem.loss.is_quadratic or problem.loss.is_constraint:
            raise ValueError(f"alpha='loo' is for loss='squared'; got loss={self.loss!r}. Give alpha as a number.")
        if not problem.spectral.is_fixed:
            raise ValueError(
                "alpha='loo' chooses alpha by a closed form of ridge regression, which adaptivity=0 is (rounds may "
                f"still move, by round_adaptivity); got adaptivity={settings.adaptivity!r}. Give alpha as a number."
            )
        problem = problem.diagonalised()
        assert problem.ridge_path is not None
        alpha, error = problem.ridge_path.best_alpha(left_out_together(X, groups))
        count = len(targets) if sample_weight is None else sample_weight.sum()
        return problem.with_strength(alpha, settings.adaptivity), error / (count * targets.shape[1])

    def _continues(self, features: TangentFeatures, X: Array, targets: Array) -> bool:
        """Whether the last fit had the same network and data of the same shape, so that its solution serves again."""
        return bool(
            hasattr(self, "solution_")
            and self._settings().n_rounds == 0 == len(self.rounds_) - 1
            and self.features_.network == features.network
            and self.features_.outputs == features.outputs
            and self.features_.dtype == features.dtype
            and _as_list(self.features_.layers) == _as_list(features.layers)
            and _as_list(self.features_.layer_weights) == _as_list(features.layer_weights)
            and self.features_.serves(X)
            and self.solution_.dual.shape == targets.shape
        )

    @staticmethod
    def _warn_if_nothing_to_learn(X: Array, targets: Array) -> None:
        if not np.ptp(X, axis=0).any():
            warnings.warn(
                "every sample has the same features: predictions will be constant. Check how X was built.",
                UserWarning,
                stacklevel=4,
            )
        if not np.ptp(targets, axis=0).any():
            warnings.warn("y is constant: predictions will be that constant.", UserWarning, stacklevel=4)

    def _decision(self, X: ArrayLike) -> Array:
        """Predictions of shape (n, C)."""
        check_is_fitted(self)
        samples = validate_data(self, X, reset=False, dtype=check_dtype(self.dtype))
        return predict(self.features_, samples, self.coefs_) + self.intercept_

    def kernel(self, X: ArrayLike, Y: ArrayLike | None = None) -> Array:
        """Adapted kernel: kernel ridge with it and the same alpha makes this model's predictions.

        They agree as closely as `dual_gap_` is small. With an intercept, kernel and targets are to be centred first
        (``KernelCenterer``). For ``loss="multinomial"`` it is kernel logistic regression that does, with an intercept
        of its own and nothing centred; for ``loss="interpolation"`` kernel interpolation, which has no alpha. At
        infinite width one of the two sets of samples is to be the training set: features of new samples are projected
        onto the span of its features, which changes no prediction.

        Parameters
        ----------
        X : array of shape (n, n_features)
        Y : array of shape (n', n_features), optional
            `X` by default.

        Returns
        -------
        ndarray of shape (n, n') where all outputs have the same kernel: ``outputs="shared"`` and transforms on the
        left only; else (n·C, n'·C), row i·C + c for sample i and output c
        """
        check_is_fitted(self)
        return self._kernel(X, Y, self.features_, self.adaptation_.transform)

    def initial_kernel(self, X: ArrayLike, Y: ArrayLike | None = None) -> Array:
        """Neural tangent kernel K0 at initialisation; arguments and shape as for `kernel`."""
        check_is_fitted(self)
        return self._kernel(X, Y, self.initial_features_, lambda operator: operator)

    @property
    def has_input_gradients(self) -> bool:
        """Whether predictions have gradients in closed form: at infinite width."""
        check_is_fitted(self)
        return self.features_.network.is_infinite

    def input_gradients(self) -> Array:
        """Gradients of the predictions with respect to the inputs, at the training points.

        Costs about n³ operations for every layer and target, whatever the number of features.

        Returns
        -------
        ndarray of shape (n, n_features, C)
            Of scores, for classes; of logits, for ``loss="multinomial"``.

        Raises
        ------
        ValueError
            At finite width, where gates jump.
        """
        if not self.has_input_gradients:
            raise ValueError(
                "input_gradients are for networks of infinite width: at finite width gates jump, and slopes between "
                "them say little. Take differences of predict, or widths of np.inf."
            )
        slopes = self.features_.input_gradients(list(self.coefs_))
        seen = self.rounds_[-1].transforms[0][0]  # the network sees x M
        return slopes if seen is None else seen.transposed.apply(slopes.transpose(0, 2, 1)).transpose(0, 2, 1)

    def _kernel(
        self,
        X: ArrayLike,
        Y: ArrayLike | None,
        features: TangentFeatures,
        transform: Callable[[Operator], Operator],
    ) -> Array:
        def operator(Z: ArrayLike) -> Operator:
            return transform(features.operator(validate_data(self, Z, reset=False, dtype=check_dtype(self.dtype))))

        first, second = operator(X), None if Y is None else operator(Y)
        return first.mean_gram(second) if first.outputs == "shared" else first.gram(second)


def _as_list(values: Sequence[float] | None) -> list[float] | None:
    return None if values is None else list(values)


def _not_converged(solution: Solution, tol: float) -> str:
    solver = SOLVERS.get(solution.method)
    remedy = "Increase max_iter or tol, or standardise X and y."
    if solver is not None and solver.is_closed_form:
        remedy = "Rounding is all that a closed form misses: take a larger alpha, or standardise X and y."
    start = f"{solution.method} stopped after {solution.n_iter} iterations at a"
    end = f"({solution.message}). {remedy}"
    if np.isnan(solution.dual_gap):
        return f"{start} stationarity residual of {solution.stationarity:.2e} > tol={tol:.2e} {end}"
    return (
        f"{start} relative duality gap of {solution.dual_gap:.2e} > tol={tol:.2e}: the objective is that close to the "
        f"optimum {end}"
    )
