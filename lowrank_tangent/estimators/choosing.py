"""What both estimators that choose do: candidates, folds, the rule, and the fit of the chosen one to all samples.

After a round the features have seen the targets, and every error that is computed with them, leave-one-out included, is
too small. So each fold is left out of everything: rounds, transforms and alpha are found anew on the others. Within a
round alpha is chosen by leave-one-out in closed form, which is exact before the first round and still good enough for
alpha after it.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from sklearn.base import is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import check_cv
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping
from sklearn.utils.validation import check_is_fitted, check_memory, has_fit_parameter

from .._checks import check_sample_weight, draw_seed
from .._types import Array, ArrayLike, RandomState
from ..choice import Candidate, screening
from ..choice.candidates import scores_of
from ..choice.folds import Found, Samples, Splits, in_folds, n_workers, seconds_of
from ..choice.rule import judge
from ..choice.splits import splits_of
from ..leave_one_out import left_out_together
from ..linalg.transforms import ProductTransform
from ..networks import Network
from .all_or_nothing import all_or_nothing
from .grid import chains_of, max_rounds_of, warn_of_unused
from .importances import gradient_importances, slope_importances
from .inputs import FoundLater, InputTransformer
from .model import TangentModel

logger = logging.getLogger("lowrank_tangent")

#: What takes longer is warned of.
_LONG = 60.0


class AdaptiveTangentModelCV(InputTransformer):
    """A choice by cross-validation, for targets of shape (n, C)."""

    #: Rounds and alpha are judged by squared errors.
    loss = "squared"
    dtype = np.float64
    # Whether `fit` may be given groups by a meta-estimator is the splitter's to say.
    __metadata_request__fit: ClassVar[dict[str, str]] = {"groups": UNUSED}

    def __init__(
        self,
        depths: int | Sequence[int] = (1, 2),
        widths: float | Sequence[float] = (np.inf,),
        activations: str | Sequence[str] = ("relu",),
        biases: float | Sequence[float] = (1.0, 10.0),
        metrics: Any = None,
        adaptivities: float | Sequence[float] = (300.0,),
        max_rounds: int = 24,
        screening_samples: int | None = 400,
        penalty: Any = "power",
        cv: Any = None,
        refit: bool = True,
        fit_intercept: bool = True,
        n_jobs: int | None = None,
        verbose: int = 0,
        random_state: RandomState = None,
        network: Network | Sequence[Network] | None = None,
        candidates: Sequence[Candidate] | None = None,
        memory: Any = None,
    ) -> None:
        self.depths = depths
        self.widths = widths
        self.activations = activations
        self.biases = biases
        self.metrics = metrics
        self.adaptivities = adaptivities
        self.max_rounds = max_rounds
        self.screening_samples = screening_samples
        self.penalty = penalty
        self.cv = cv
        self.refit = refit
        self.fit_intercept = fit_intercept
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state
        self.network = network
        self.candidates = candidates
        self.memory = memory

    def fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None, groups: ArrayLike | None = None
    ) -> AdaptiveTangentModelCV:
        """Choose among the candidates, and fit the chosen one to all samples.

        Parameters
        ----------
        X : array of shape (n, n_features)
            Dense; standardised columns are a good start.
        y : array of shape (n,) or (n, C)
            Targets, of similar scales if there are several; for classifiers the class labels, of shape (n,).
        sample_weight : array of shape (n,), optional
            Multiplies each sample's squared error, in the fits and in the errors that choose. A factor of all weights
            makes no difference, and a fold without any weight is left out.
        groups : array of shape (n,), optional
            Labels of samples that belong together, such as measurements of one patient. They stay in one fold (of a
            splitter, if it is one for groups), and leave-one-out, which chooses alpha, leaves them out together. Copies
            of a row of X are kept together in any case.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For bad data or parameters; the message says what to do.

        Warns
        -----
        UserWarning
            If a parameter makes no difference to any candidate.
        """
        cv = self._listed_cv()
        with all_or_nothing(self):
            samples, targets = self._validated(X, y)
            values = self._as_given(targets)
            counted = check_sample_weight(sample_weight, len(samples))
            self._choose(samples, targets, values, counted, self._weighted(values, counted), groups, cv, X)
        return self

    def _choose(
        self,
        X: Array,
        targets: Array,
        y: Array,
        counted: Array | None,
        sample_weight: Array | None,
        groups: ArrayLike | None,
        cv: Any,
        given: ArrayLike,
    ) -> None:
        """All of `fit` but its checks; `counted` are the weights that were given, without those of classes."""
        seed, classifies = draw_seed(self.random_state), is_classifier(self)
        template = self._template(seed)
        chains = chains_of(self, template, targets, sample_weight)
        others = self._others()
        splits = splits_of(cv, X, y, groups, sample_weight, classifies)
        warn_of_unused(self, chains)
        labels, classes = (y, self.classes_) if classifies else (None, None)
        samples = Samples(X, targets, sample_weight, left_out_together(X, groups), labels, classes)
        run = functools.partial(
            in_folds,
            samples=samples,
            n_jobs=self.n_jobs,
            verbose=self.verbose,
            memory=None if self.memory is None else check_memory(self.memory),
        )
        kept_chains: Sequence[Candidate] = chains
        screening_results = None
        few_samples = self.screening_samples
        if few_samples is not None and max_rounds_of(self) and screening.pays(chains, splits, few_samples):
            few = screening.thinned(splits, few_samples, sample_weight)
            self._announce("screening", chains, few, X.shape[1])
            kept_chains, screening_results = _screened(chains, run(chains, few, title="screening"))
        candidates = [*kept_chains, *others]
        self._announce("choosing among", candidates, splits, X.shape[1])
        table, rows, kept, last = [], [], [], None
        found = run(candidates, splits, title="cross-validation", keep_predictions=classifies)
        for candidate, (errors, predictions) in zip(candidates, found, strict=True):
            # Before the first round all candidates of one start are the same.
            for n_rounds in range(int(candidate.start == last), len(errors)):
                table.append((candidate, n_rounds))
                rows.append(errors[n_rounds])
                kept.append(predictions and predictions[n_rounds])
            last = candidate.start
        errors, left_out, wrong = np.moveaxis(np.array(rows), 2, 0)
        parameters = [candidate.parameters(n_rounds) for candidate, n_rounds in table]
        results, index = judge(parameters, errors, left_out, wrong if classifies else None)
        self.screening_results_, self.cv_results_, self.best_index_ = screening_results, results, index
        self.n_splits_, self.best_params_ = len(splits), parameters[index]
        self.best_score_ = float(results["mean_test_score"][index])
        predicted = np.concatenate([test for _, test in splits])
        self._calibrate(kept[index], y[predicted], None if counted is None else counted[predicted])
        for fitted in ("best_estimator_", "refit_time_", "_input_transform", "_importances"):
            self.__dict__.pop(fitted, None)  # of an earlier fit
        if self.refit:
            self._refit(*table[index], X, y, sample_weight, groups, given)

    def _refit(
        self,
        candidate: Candidate,
        n_rounds: int,
        X: Array,
        y: Array,
        sample_weight: Array | None,
        groups: ArrayLike | None,
        given: ArrayLike,
    ) -> None:
        """Fit the chosen candidate to all samples."""
        model = candidate.estimator().set_params(**candidate.parameters(n_rounds))
        arguments = {"sample_weight": sample_weight, "groups": groups}
        arguments = {
            name: value for name, value in arguments.items() if value is not None and has_fit_parameter(model, name)
        }
        start = time.perf_counter()
        self.best_estimator_ = model.fit(given, y, **arguments)
        self.refit_time_ = time.perf_counter() - start
        # Of a model without rounds the folds say that its inputs are best left alone.
        unmoved = FoundLater(lambda: ProductTransform(np.ones(X.shape[1])))
        self._input_transform = model._input_transform if n_rounds > 0 else unmoved
        self._importances = FoundLater(lambda: self._importances_of(model, X, sample_weight))

    def _importances_of(self, model: Any, X: Array, sample_weight: Array | None) -> Array:
        """Importances of features to the chosen model: in closed form where it has gradients, else by differences."""
        if isinstance(model, TangentModel) and model.has_input_gradients:
            return gradient_importances(model.input_gradients(), X, sample_weight)
        classes = getattr(self, "classes_", None)
        return slope_importances(lambda Z: scores_of(model, Z, classes), X, sample_weight)

    def kernel(self, X: ArrayLike, Y: ArrayLike | None = None) -> Array:
        """Kernel of the chosen model, as `AdaptiveTangentRegressor.kernel` has it."""
        return self._of_rounds("kernel")(X, Y)

    def initial_kernel(self, X: ArrayLike, Y: ArrayLike | None = None) -> Array:
        """Neural tangent kernel of the chosen network before the first round, as `AdaptiveTangentRegressor` has it."""
        return self._of_rounds("initial_kernel")(X, Y)

    @property
    def feature_importances_(self) -> Array:
        """Share of every feature in the mean squared slopes of the predictions, per standard deviation.

        Shape (n_features,). They sum to 1; of constant predictions all are 0.
        """
        check_is_fitted(self, "_importances")
        return self._importances.value

    def get_metadata_routing(self) -> MetadataRouter:
        """Groups go to the splitter where it asks for them, as `GridSearchCV` has it."""
        splitter = check_cv(self._listed_cv(), classifier=is_classifier(self))
        return (
            MetadataRouter(owner=type(self).__name__)
            .add_self_request(self)
            .add(splitter=splitter, method_mapping=MethodMapping().add(caller="fit", callee="split"))
        )

    def _decision(self, X: ArrayLike) -> Array:
        """Predictions of shape (n, C)."""
        return scores_of(self._chosen, X, getattr(self, "classes_", None))

    @property
    def _chosen(self) -> Any:
        """The fitted model, which validates what it is given."""
        check_is_fitted(self, "cv_results_")
        if not hasattr(self, "best_estimator_"):
            raise NotFittedError(
                f"this {type(self).__name__} has chosen, but with refit=False it has no model to predict with. Fit "
                "AdaptiveTangent…(**best_params_, alpha='loo', adaptivity=0), or take refit=True."
            )
        return self.best_estimator_

    def _of_rounds(self, name: str) -> Any:
        """What a model on tangent features has, and another candidate has not."""
        if not isinstance(self._chosen, TangentModel):
            raise AttributeError(
                f"the folds have chosen {self.best_estimator_!r}, which has no {name}: that is for candidates on "
                "tangent features."
            )
        return getattr(self.best_estimator_, name)

    def _listed_cv(self) -> Any:
        """`cv`, with splits that come once only listed."""
        if not isinstance(self.cv, Iterator):
            return self.cv
        if getattr(self, "_splits_listed", (None, None))[0] is not self.cv:
            self._splits_listed = self.cv, list(self.cv)
        return self._splits_listed[1]

    def _others(self) -> list[Candidate]:
        """Candidates that were given."""
        others = [] if self.candidates is None else list(self.candidates)
        for candidate in others:
            if not isinstance(candidate, Candidate):
                raise TypeError(
                    f"candidates must hold instances of lowrank_tangent.choice.Candidate; got {candidate!r}. An "
                    "estimator becomes one as EstimatorCandidate(estimator)."
                )
            if is_classifier(candidate.estimator()) != is_classifier(self):
                kind = "classifiers" if is_classifier(self) else "regressors"
                raise ValueError(f"{type(self).__name__} chooses among {kind}; got the candidate {candidate!r}.")
        return others

    def _as_given(self, targets: Array) -> Array:
        """Class labels, or targets of the shape that `fit` was given."""
        if is_classifier(self):
            return self._labels(targets)
        return targets[:, 0] if self._single_output else targets

    def _weighted(self, y: Array, sample_weight: Array | None) -> Array | None:
        """Weights of the samples in fits and errors."""
        return sample_weight

    def _calibrate(self, scores: Any, y: Array, sample_weight: Array | None) -> None:
        """Take what scores of samples that were left out say; of targets nothing."""

    def _announce(self, purpose: str, candidates: Sequence[Candidate], splits: Splits, n_features: int) -> None:
        """Say the cost before it arises."""
        n_starts = len({candidate.start for candidate in candidates})
        text = "%s up to %d candidates: up to %d ridge regressions in %d folds, of up to %d samples each."
        numbers = (
            n_starts + sum(candidate.max_rounds for candidate in candidates),
            sum(candidate.max_rounds + 1 for candidate in candidates) * len(splits),
            len(splits),
            max(len(train) for train, _ in splits),
        )
        logger.info(text, purpose, *numbers)
        seconds = seconds_of(candidates, splits, n_features)
        if seconds is None:
            return
        seconds /= n_workers(candidates, self.n_jobs, seconds)
        if seconds > _LONG:
            logger.warning(
                text + " That may take %.0f minutes. Fewer depths, biases or metrics, max_rounds or folds take less; "
                "n_jobs=-1 takes all cores.",
                purpose,
                *numbers,
                seconds / 60.0,
            )


def _screened(chains: Sequence[Candidate], found: Iterator[Found]) -> tuple[list[Candidate], dict[str, Any]]:
    """The chains that are worth all samples, and what is told of all."""
    errors = [of_one.errors[:, :, 0].mean(axis=1) for of_one in found]
    remaining, kept = screening.survivors(chains, errors)
    best = [chain.parameters(int(np.argmin(e))) for chain, e in zip(chains, errors, strict=True)]
    return remaining, {"params": best, "mean_test_score": np.array([-np.min(e) for e in errors]), "kept": kept}
