"""Progress of long work, shown where it is asked for."""

from __future__ import annotations

import contextlib


@contextlib.contextmanager
def progress(total, name, verbose):
    """A function that advances a progress bar by one step of many; silent without `verbose`."""
    if not verbose:
        yield lambda text: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=name) as bar:

        def advance(text):
            bar.set_postfix_str(text, refresh=False)
            bar.update()

        yield advance
