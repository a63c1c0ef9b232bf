"""Parameters as scikit-learn has them, and objects that are equal where their parameters are."""

from __future__ import annotations

import copy
import functools
import inspect
from typing import Any, TypeVar

Own = TypeVar("Own", bound="Parameters")


class Parameters:
    """`get_params`, `set_params`, ``==`` and ``hash`` of a class that keeps its parameters under their own names.

    A value that was computed once, a `functools.cached_property`, is neither compared nor pickled.
    """

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of the constructor by name.

        Parameters
        ----------
        deep : bool, default=True
            Whether to list the parameters of parameters too, as ``name__inner``.
        """
        params = self._parameters()
        if deep:
            for name, value in list(params.items()):
                if isinstance(value, Parameters):
                    params.update({f"{name}__{inner}": item for inner, item in value.get_params().items()})
        return params

    def set_params(self: Own, **params: Any) -> Own:
        """Change parameters, also inner ones as ``name__inner``; they are checked as in the constructor.

        Raises
        ------
        ValueError, TypeError
            For an unknown name or an impossible value. The object stays as it was.
        """
        own = self._parameters()
        inner: dict[str, dict[str, Any]] = {}
        for key, value in params.items():
            name, nested, rest = key.partition("__")
            if name not in own or (nested and not isinstance(own[name], Parameters)):
                raise ValueError(f"{key!r} is no parameter of {self!r}; it has {sorted(self.get_params())}.")
            if nested:
                inner.setdefault(name, {})[rest] = value
            else:
                own[name] = value
        for name, values in inner.items():
            # A copy: the inner object may belong to others too.
            own[name] = copy.deepcopy(own[name]).set_params(**values)
        new = type(self)(**own)
        vars(self).clear()
        vars(self).update(vars(new))
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Parameters) or type(self) is not type(other):
            return NotImplemented
        return self._parameters() == other._parameters()

    def __hash__(self) -> int:
        return hash((type(self), *self._parameters().items()))

    def __getstate__(self) -> dict[str, Any]:
        """What pickles keep: everything that cannot be computed anew."""
        return {
            name: value
            for name, value in vars(self).items()
            if not isinstance(inspect.getattr_static(type(self), name, None), functools.cached_property)
        }

    def _parameters(self) -> dict[str, Any]:
        signature = inspect.signature(type(self))
        return {name: getattr(self, name) for name in signature.parameters}
