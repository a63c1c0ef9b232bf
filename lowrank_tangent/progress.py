"""Progress of long work, shown where it is asked for, and its time, said beforehand."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

logger = logging.getLogger("lowrank_tangent")

#: Work that may take longer than so many seconds is announced.
_LONG = 60.0


def announce(seconds: float, what: str) -> None:
    """Say before work begins that it takes more than a minute.

    Parameters
    ----------
    seconds : float
        Estimate, on one core.
    what : str
        Name of the work.
    """
    if seconds > _LONG:
        logger.warning("%s: this takes about %.0f minutes on one core.", what, seconds / 60.0)


@contextlib.contextmanager
def progress(total: int, name: str, verbose: int) -> Iterator[Callable[..., None]]:
    """A function that advances a progress bar by a step of many, or by none to show a text; silent if not `verbose`."""
    if not verbose:
        yield lambda text, steps=1: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=name) as bar:

        def advance(text: str, steps: int = 1) -> None:
            bar.set_postfix_str(text, refresh=not steps)
            bar.update(steps)

        yield advance
