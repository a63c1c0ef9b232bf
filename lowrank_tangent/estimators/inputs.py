"""What a fit says about its inputs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .._checks import check_dtype
from .._types import Array, ArrayLike
from ..linalg.transforms import ProductTransform
from ..problem import StructuredRegression
from ..rounds import Relinearisation
from ..solvers import Solution

#: Attributes that are dense matrices over the features, and the number of features up to which `dir` lists them.
_DENSE = frozenset({"input_transform_", "input_metric_"})
_FEW = 1000


class FoundLater:
    """A value that is found when it is asked for, and before it is written to a pickle.

    Parameters
    ----------
    find : callable
        Called once; what it refers to is kept until then.
    """

    def __init__(self, find: Callable[[], Any]) -> None:
        self._find = find

    @functools.cached_property
    def value(self) -> Any:
        """What `find` returns."""
        value = self._find()
        del self._find  # and what it refers to
        return value

    def __getstate__(self) -> dict[str, Any]:
        return {"value": self.value}


def transform_of_inputs(
    relinearisation: Relinearisation, problem: StructuredRegression, solution: Solution, X: Array
) -> FoundLater:
    """The input transform of a fit, for later: many a model only predicts.

    Features are taken anew then, so that their factors take no memory until then.
    """
    lean = copy.copy(problem)
    lean.operator = lean.design = lean.ridge_path = None  # type: ignore[assignment]

    def find() -> ProductTransform:
        return relinearisation.input_transform(lean.on(relinearisation.features.operator(X)), solution, X)

    return FoundLater(find)


class InputTransformer(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """What a fit says about its inputs: their transform, metric and importance.

    Of many features the transform is kept in the span of the samples; dense matrices are made when they are asked for.
    """

    dtype: Any
    _input_transform: FoundLater

    def __dir__(self) -> list[str]:
        """Names of attributes; of many features without dense matrices, for displays read all that is listed."""
        hidden = _DENSE if getattr(self, "n_features_in_", 0) > _FEW else frozenset()
        # As scikit-learn does, without those that are not there; its own method would read the dense ones too.
        return [name for name in object.__dir__(self) if name not in hidden and hasattr(self, name)]

    @property
    def input_transform_(self) -> Array:
        """M, shape (n_features, n_features): the next round's network would see x M.

        That is what the network of this fit sees, ``rounds_[-1].left[0]``, with what the fit would stretch on top.
        """
        return self._fitted_transform.to_dense()

    @property
    def input_metric_(self) -> Array:
        """M Mᵀ, shape (n_features, n_features): x and x' are compared by xᵀ M Mᵀ x'."""
        return self._fitted_transform.transposed.apply(self.input_transform_)

    @property
    def feature_importances_(self) -> Array:
        """Share of every feature in the metric, shape (n_features,): its diagonal, divided by its trace."""
        shares = self._fitted_transform.row_squares
        return shares / shares.sum()

    def transform(self, X: ArrayLike) -> Array:
        """Adapted inputs x M, shape (n, n_features): directions that matter to the fit are stretched.

        Parameters
        ----------
        X : array of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_features)
        """
        transform = self._fitted_transform
        return transform.apply(validate_data(self, X, reset=False, dtype=check_dtype(self.dtype)))

    @property
    def _n_features_out(self) -> int:
        return self._fitted_transform.size

    @property
    def _fitted_transform(self) -> ProductTransform:
        check_is_fitted(self, "_input_transform")
        return self._input_transform.value
