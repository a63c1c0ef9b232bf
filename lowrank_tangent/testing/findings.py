"""Checks by name, and the findings of those that fail."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from .._types import ArrayLike

_logger = logging.getLogger("lowrank_tangent")
#: Longer representations, such as those of arrays, give way to the name of the class.
_LONGEST = 120
_Case = TypeVar("_Case")


class Finding(Exception):
    """A promise that is not kept: the message says what was expected and what came."""


class _Skipped(Exception):
    """A check that does not apply to what is checked."""


def skip(reason: str) -> NoReturn:
    """Leave a check out: its name is not among those that are returned."""
    raise _Skipped(reason)


def run_checks(
    subject: object,
    case: _Case,
    checks: Mapping[str, Callable[[_Case, np.random.Generator], None]],
    random_state: int,
    verbose: int,
) -> list[str]:
    """Run all checks, whatever the first of them find.

    Parameters
    ----------
    subject : object
        What is checked, for the message.
    case : object
        What every check is called with, beside a generator of its own that starts from `random_state`.
    checks : mapping of name to callable
        A check raises a `Finding`, or anything else, where a promise is broken.
    random_state : int
    verbose : int
        From 1 on every check is logged as it is done, by the logger "lowrank_tangent" at level INFO.

    Returns
    -------
    list of str
        Names of the checks that apply, all of which passed.

    Raises
    ------
    AssertionError
        With one line a finding, which begins with the name of its check.
    """
    findings, passed = [], []
    for name, check in checks.items():
        line = f"{name}: passed"
        try:
            check(case, np.random.default_rng(random_state))
            passed.append(name)
        except _Skipped as reason:
            line = f"{name}: left out, {reason}"
        except Finding as finding:
            line = f"{name}: {finding}"
            findings.append(line)
        except Exception as error:
            line = f"{name}: raised {type(error).__name__}: {error}"
            findings.append(line)
        if verbose:
            _logger.info("%s: %s", type(subject).__name__, line)
    if findings:
        name = repr(subject)
        shown = name if len(name) <= _LONGEST else type(subject).__name__
        title = f"{shown}: {len(findings)} of {len(findings) + len(passed)} checks failed"
        raise AssertionError("\n".join([title, *findings]))
    return passed


def expect(condition: object, message: str) -> None:
    """A finding with that message unless the condition holds."""
    if not condition:
        raise Finding(message)


def agree(what: str, got: ArrayLike, expected: ArrayLike, tol: float, scale: float | None = None) -> None:
    """A finding unless two arrays have one shape and differ by at most `tol` times their size.

    Parameters
    ----------
    what : str
        Name of the quantity, for the message.
    got, expected : array
    tol : float
    scale : float, optional
        The size; by default the largest absolute value that is expected.
    """
    got, expected = np.asarray(got), np.asarray(expected)
    expect(got.shape == expected.shape, f"{what}: expected shape {expected.shape}, got {got.shape}")
    if got.size == 0:
        return
    size = float(np.abs(expected).max()) if scale is None else scale
    apart = np.abs(got.astype(np.float64) - expected)
    worst = np.unravel_index(np.argmax(np.where(np.isnan(apart), np.inf, apart)), apart.shape)
    expect(
        apart[worst] <= tol * size,
        f"{what}: expected {expected[worst]:.10g}, got {got[worst]:.10g}{_place(worst)}; "
        f"allowed is a difference of {tol * size:.1e}",
    )


def agree_each(what: str, got: ArrayLike, expected: ArrayLike, tol: float) -> None:
    """A finding unless every entry differs by at most `tol` times its own size."""
    got, expected = np.asarray(got, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    expect(got.shape == expected.shape, f"{what}: expected shape {expected.shape}, got {got.shape}")
    with np.errstate(invalid="ignore"):
        wrong = ~((got == expected) | (np.abs(got - expected) <= tol * np.abs(expected)))
    if wrong.any():
        worst = np.unravel_index(np.argmax(wrong), wrong.shape)
        raise Finding(
            f"{what}: expected {expected[worst]:.10g}, got {got[worst]:.10g}{_place(worst)}; "
            f"allowed is a relative difference of {tol:.0e}"
        )


def same_dtype(what: str, got: np.ndarray, dtype: npt.DTypeLike) -> None:
    """A finding unless an array has that precision."""
    expect(got.dtype == dtype, f"{what}: expected dtype {np.dtype(dtype)}, got {got.dtype}")


def unchanged(what: str, arrays: Any, copies: Any) -> None:
    """A finding unless arrays that were given to a method still hold what they held."""
    for array, copy in zip(arrays, copies, strict=True):
        expect(np.array_equal(array, copy), f"{what} was changed by a call that it was given to")


def pickled(subject: Any) -> Any:
    """The object, pickled and loaded again."""
    try:
        data = pickle.dumps(subject)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Finding(
            f"cannot be pickled ({error}); classes and functions need a name of their own at the top of a module, as a "
            "lambda has none"
        ) from error
    return pickle.loads(data)


def _place(index: tuple[Any, ...]) -> str:
    return f" at {tuple(int(i) for i in index)}" if index else ""
