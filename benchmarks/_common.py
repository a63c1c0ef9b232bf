"""What several benchmarks share: the clock, tables, CSV files, pictures, and one ridge NTK fit as a unit of cost."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import scipy
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_info
from tqdm import tqdm

#: A call that takes longer than this many seconds is not repeated.
_SHORT = 5.0


def median_seconds(function, repeats):
    """Median seconds of a call, and what the last one returned; a long call is not repeated."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > _SHORT:
            break
    return statistics.median(seconds), result


def ridge_ntk(problem):
    """One ridge NTK fit on the features of a problem: kernel, Cholesky factor, predictions for its samples.

    In plain NumPy and SciPy, for one position a sample and one kernel for all outputs, without weights or intercept. It
    costs n²·(p + q) + n³/3 operations; K c = y − α c spares the product with the kernel.
    """
    n = problem.operator.n_samples
    kernel = np.zeros((n, n))
    for layer in problem.operator.layers:
        h, delta = layer.h[:, 0], layer.delta[:, 0, 0]
        part = h @ h.T
        part *= delta @ delta.T
        kernel += part
    kernel.flat[:: n + 1] += problem.alpha
    # The transpose of the symmetric kernel is stored as LAPACK wants it, and is overwritten.
    factor = cho_factor(kernel.T, lower=True, overwrite_a=True, check_finite=False)
    return problem.target - problem.alpha * cho_solve(factor, problem.target, check_finite=False)


class Log:
    """Rows of figures, in memory and, where a file is named, in a CSV file to which each is appended at once.

    Parameters
    ----------
    path : str, optional
    resume : bool, default=False
        Go on with the rows that the file has; otherwise it is written anew.
    """

    def __init__(self, path=None, resume=False):
        self.rows = []
        self._path = None if path is None else Path(path)
        if self._path is None:
            return
        if resume and self._path.exists():
            with self._path.open(newline="", encoding="utf-8") as file:
                self.rows = list(csv.DictReader(file))
        else:
            self._path.write_text("", encoding="utf-8")

    def append(self, row):
        """Keep a dict; all have the same keys."""
        if self.rows and list(row) != list(self.rows[0]):
            raise ValueError(
                f"{self._path} has the columns {list(self.rows[0])} and not {list(row)}: it comes from another version "
                "of this benchmark. Move it away, or name another file."
            )
        if self._path is not None:
            with self._path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(row))
                if not self.rows:
                    writer.writeheader()
                writer.writerow(row)
        self.rows.append(row)


def print_header(names):
    """Head of a markdown table."""
    print_row(names)
    print(f"|{'---|' * len(names)}", flush=True)


def print_row(cells):
    """One row of a markdown table."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def progress(steps, name):
    """The steps with a progress bar."""
    return tqdm(steps, desc=name)


def add_outputs(parser, csv_file=None):
    """The options --csv and --plot."""
    default = "" if csv_file is None else f" (default {csv_file})"
    parser.add_argument("--csv", metavar="FILE", default=csv_file, help=f"write the figures there{default}")
    parser.add_argument("--plot", metavar="FILE", type=_picture_file, help="draw them there (needs matplotlib)")


def strength_pair(text):
    """A pair alpha,adaptivity from the command line."""
    values = tuple(float(part) for part in text.split(","))
    if len(values) != 2 or values[0] <= 0 or values[1] < 0:
        raise argparse.ArgumentTypeError(
            f"a strength is alpha,adaptivity with alpha > 0 and adaptivity >= 0; got {text!r}"
        )
    return values


def _picture_file(path):
    """Refuse a picture before anything is measured, not after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise argparse.ArgumentTypeError("pictures need matplotlib: pip install matplotlib")
    return path


def new_figure(n_rows, n_columns):
    """A figure and its axes, of shape (n_rows, n_columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * n_columns, 3.9 * n_rows), layout="constrained")
    return figure, figure.subplots(n_rows, n_columns, squeeze=False)


def label_sizes(ax, sizes):
    """Sizes written out on a logarithmic axis, and nothing else."""
    ax.set_xticks(sizes, [f"{size:,}" for size in sizes])
    ax.set_xticks([], minor=True)


def machine():
    """What the figures were measured with."""
    pools = {f"{pool['internal_api']} with {pool['num_threads']} thread(s)" for pool in threadpool_info()}
    return (
        f"Python {platform.python_version()}, NumPy {np.__version__}, SciPy {scipy.__version__}; "
        f"{', '.join(sorted(pools))}; {os.cpu_count()} cores"
    )
