"""A fit that fails leaves the estimator as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def all_or_nothing(model: object) -> Iterator[None]:
    """Restore the attributes of an estimator if what happens inside is not finished.

    Whatever ends it counts: an error, an interrupt from the keyboard, a warning that is made an error. Attributes are
    put back as they were, not copied: a fit makes new ones and changes none in place.

    Parameters
    ----------
    model : object
    """
    before = dict(vars(model))
    try:
        yield
    except BaseException:
        vars(model).clear()
        vars(model).update(before)
        raise
