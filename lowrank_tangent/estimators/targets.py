"""What is predicted: real targets, or class labels by one column of targets a class."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from .._checks import check_dtype, check_sample_weight, check_target_scale
from .._types import Array, ArrayLike
from ..choice.folds import class_indices
from ..losses import LOSSES, get_loss, probabilities_of
from .all_or_nothing import all_or_nothing

if TYPE_CHECKING:
    from typing_extensions import Self

#: Ratio of the standard deviations of two outputs beyond which the smaller one hardly counts.
_UNLIKE_SCALES = 10.0


class TangentRegressor(RegressorMixin):
    """Fit to real targets, and predict them."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit the model.

        Parameters
        ----------
        X : array of shape (n, n_features)
            Dense; standardised columns are a good start.
        y : array of shape (n,) or (n, C)
            Several outputs share the features that adapt to them, so let them have similar scales.
        sample_weight : array of shape (n,), optional
            Multiplies each sample's loss.
        groups : array of shape (n,), optional
            Labels of samples that ``alpha="loo"`` leaves out together, such as measurements of one patient. Copies of
            a row of X are left out together in any case.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For bad data or parameters; the message says what to do.

        Warns
        -----
        ConvergenceWarning
            If the duality gap is above `tol`.
        """
        with all_or_nothing(self):
            samples, targets = self._validated(X, y)
            return self._fit(samples, targets, check_sample_weight(sample_weight, len(samples)), groups)

    def _validated(self, X: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        """Samples, and targets of shape (n, C)."""
        if get_loss(self.loss).has_probabilities:
            raise ValueError(f"loss={self.loss!r} is for class labels; use a classifier, or loss='squared'.")
        samples, values = validate_data(
            self, X, y, dtype=check_dtype(self.dtype), y_numeric=True, multi_output=True, ensure_min_samples=2
        )
        self._single_output = values.ndim == 1
        targets = np.asarray(values, dtype=np.float64).reshape(len(samples), -1)
        check_target_scale(targets)  # here, too: a choice would find out after minutes
        _warn_of_unlike_scales(targets)
        return samples, targets

    def predict(self, X: ArrayLike) -> Array:
        """Predictions, of the shape of y: (n,) or (n, C)."""
        prediction = self._decision(X)
        return prediction[:, 0] if self._single_output else prediction


def _warn_of_unlike_scales(targets: Array) -> None:
    """Squared errors of all outputs are added up: what is adapted and chosen is for the largest."""
    deviations = targets.std(axis=0)
    deviations = deviations[deviations > 0.0]
    if len(deviations) > 1 and deviations.max() > _UNLIKE_SCALES * deviations.min():
        warnings.warn(
            f"the columns of y have standard deviations from {deviations.min():.3g} to {deviations.max():.3g}: "
            "features adapt to the largest, and the others may be lost. Standardise y, as with "
            "sklearn.compose.TransformedTargetRegressor(model, transformer=StandardScaler()).",
            UserWarning,
            stacklevel=4,
        )


def _has_probabilities(model: Any) -> bool:
    loss = LOSSES.get(model.loss) if isinstance(model.loss, str) else model.loss
    if not getattr(loss, "has_probabilities", False):
        raise AttributeError(f"loss={model.loss!r} has scores and no probabilities; use loss='multinomial' for them.")
    return True


class TangentClassifier(ClassifierMixin):
    """Fit to class labels, and predict them."""

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit the model to targets −1 and 1, or 0 and 1 for "multinomial": one column a class, one alone for two.

        Parameters
        ----------
        X : array of shape (n, n_features)
            Dense; standardised columns are a good start.
        y : array of shape (n,)
            Class labels of any type.
        sample_weight : array of shape (n,), optional
            Multiplies each sample's loss.
        groups : array of shape (n,), optional
            Labels of samples that ``alpha="loo"`` leaves out together, such as measurements of one patient. Copies of
            a row of X are left out together in any case.

        Returns
        -------
        self

        Raises
        ------
        ValueError, TypeError
            For bad data or parameters, or fewer than two classes; the message says what to do.

        Warns
        -----
        ConvergenceWarning
            If the duality gap is above `tol`.
        """
        with all_or_nothing(self):
            samples, targets = self._validated(X, y)
            return self._fit(samples, targets, check_sample_weight(sample_weight, len(samples)), groups)

    def _validated(self, X: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
        """Samples, and targets −1 and 1 (0 and 1 for "multinomial") of shape (n, C)."""
        samples, labels = validate_data(self, X, y, dtype=check_dtype(self.dtype), ensure_min_samples=2)
        check_classification_targets(labels)
        binarizer = LabelBinarizer(neg_label=0 if get_loss(self.loss).has_probabilities else -1).fit(labels)
        self.classes_ = binarizer.classes_
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes; the data contains only one class: "
                f"{self.classes_[0]!r}."
            )
        return samples, binarizer.transform(labels).astype(np.float64)

    def decision_function(self, X: ArrayLike) -> Array:
        """Scores, shape (n,) for two classes and (n, C) otherwise; the largest (or the sign) decides.

        For ``loss="multinomial"`` they are logits: that of the second class, or those of all classes.
        """
        scores = self._decision(X)
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X: ArrayLike) -> Array:
        """Class labels, shape (n,)."""
        return self._labels(self._decision(X))

    @available_if(_has_probabilities)
    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities of the classes, shape (n, n_classes) in the order of `classes_`; for ``loss="multinomial"``."""
        return probabilities_of(self._decision(X))[0]

    @available_if(_has_probabilities)
    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Logarithms of `predict_proba`, which do not underflow."""
        return probabilities_of(self._decision(X))[1]

    def _labels(self, scores: Array) -> Array:
        """Class labels of scores (or targets) of shape (n, C), one column for two classes."""
        return self.classes_[class_indices(scores)]
