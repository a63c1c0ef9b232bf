"""The main job, ``python -m lowrank_tangent``: ridge NTK, the adaptive and the re-linearised model side by side.

Ridge NTK and the adaptive model have the same features of finite width. The re-linearised model chooses its network
among those of infinite width.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import Bunch

from . import (
    AdaptiveTangentClassifier,
    AdaptiveTangentClassifierCV,
    AdaptiveTangentRegressor,
    AdaptiveTangentRegressorCV,
    TangentRidge,
    TangentRidgeClassifier,
    datasets,
)
from ._types import Array
from .displays import KernelAlignmentDisplay, mean_over_outputs
from .theory import alignment, effective_rank, label_kernel

_ALPHAS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
_ADAPTIVITIES = [0.1, 10.0]
_FOLDS = 3
#: Hyper-parameters are chosen on at most so many training samples, and alignments measured on as many.
_MAX_CHOICE = 300
#: Up to so many training samples the re-linearised model takes seconds: its choice is hundreds of eigendecompositions.
_MAX_RELINEARISED = 600
#: Least and largest training part. A choice has five folds, and each takes a sample of every class: five of the rarest
#: are among so many. The test part of scikit-learn's 1,797 digits takes one of each, too.
_N_TRAIN = {"digits": (50, 1_787), "mnist": (60, 60_000), "synthetic": (5, math.inf)}
#: What a fit of the search is certified to: predictions hardly change below.
_CHOICE_TOL = 1e-3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the main job with these command-line arguments (those of the process by default)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    least, most = _N_TRAIN[options.data]
    if not least <= options.n_train <= most:
        parser.error(f"argument --n-train: {options.data} takes {_sizes(options.data)}; got {options.n_train}")
    try:
        data = datasets.load(options.data, options.n_train, options.random_state)
    except (OSError, ValueError) as error:
        parser.error(f"argument --data: {error}")
    print(_describe(options, data))
    ridge_class, adaptive_class, relinearised_class = (
        (TangentRidgeClassifier, AdaptiveTangentClassifier, AdaptiveTangentClassifierCV)
        if data.is_classification
        else (TangentRidge, AdaptiveTangentRegressor, AdaptiveTangentRegressorCV)
    )
    common = {
        "hidden_layer_sizes": (options.width,),
        "outputs": options.outputs,
        "random_state": options.random_state,
    }
    alphas = _ALPHAS if options.alpha is None else [options.alpha]
    adaptivities = _ADAPTIVITIES if options.adaptivity is None else [options.adaptivity]
    _say_what_takes_time("ridge NTK")
    ridge, ridge_seconds = _choose(ridge_class(**common), {"alpha": alphas}, data)
    grid = {"alpha": alphas, "adaptivity": adaptivities}
    _say_what_takes_time("the adaptive model")
    adaptive, adaptive_seconds = _choose(adaptive_class(**common, tol=_CHOICE_TOL), grid, data)
    adaptive.set_params(tol=options.tol, verbose=options.verbose)
    reports = {
        "ridge NTK": _report(*_fitted(ridge, data), ridge_seconds, data),
        "adaptive": _report(*_fitted(adaptive, data), adaptive_seconds, data),
    }
    if len(data.X_train) <= _MAX_RELINEARISED:
        _say_what_takes_time("the re-linearised model")
        model = relinearised_class(random_state=options.random_state, verbose=options.verbose)
        search, seconds = _fitted(model, data)
        choice_seconds = seconds - search.refit_time_
        reports["re-linearised"] = _report(search.best_estimator_, search.refit_time_, choice_seconds, data)
    print(_table(reports))
    print("\nalignment: cosine of the centred kernel and the centred label kernel; measured, not optimised")
    if len(reports) < 3:
        print(f"the re-linearised model is left out: its choice takes minutes beyond {_MAX_RELINEARISED} samples")
    if options.plot:
        KernelAlignmentDisplay.from_estimator(adaptive, data.X_train, data.y_train).figure_.savefig(
            options.plot, dpi=130
        )
        print(f"kernels drawn to {options.plot}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lowrank_tangent",
        description="Fit ridge NTK, the adaptive tangent model on the same features, and the model that takes its "
        "features anew (up to 600 samples), and compare them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    positive = _number(float, lambda value: 0.0 < value < math.inf, "a finite number > 0")
    parser.add_argument(
        "--data",
        choices=list(_N_TRAIN),
        default="digits",
        help="scikit-learn's digits; MNIST from files in the folder mnist under the one that the environment variable "
        f"{datasets.DATA_VARIABLE} names, or where it is not set fetched from OpenML; a product of two linear forms in "
        "30 dimensions",
    )
    parser.add_argument(
        "--n-train",
        type=int,
        default=300,
        metavar="N",
        help="training samples: " + ", ".join(f"{_sizes(name)} of {name}" for name in _N_TRAIN),
    )
    parser.add_argument(
        "--width",
        type=_number(int, lambda value: value > 0, "an integer > 0"),
        default=256,
        help="units of the hidden layer",
    )
    parser.add_argument("--alpha", type=positive, help="penalty; chosen by cross-validation if not given")
    parser.add_argument(
        "--adaptivity",
        type=_number(float, lambda value: 0.0 <= value < math.inf, "a finite number >= 0"),
        help="chosen by cross-validation if not given",
    )
    parser.add_argument("--outputs", choices=["shared", "network"], default="shared")
    parser.add_argument("--tol", type=positive, default=1e-6, help="relative duality gap to certify")
    parser.add_argument(
        "--random-state",
        type=_number(int, lambda value: 0 <= value < 2**32, "an integer from 0 to 4294967295"),
        default=0,
        metavar="SEED",
    )
    parser.add_argument(
        "--plot", type=_picture, metavar="FILE", help="draw initial, adapted and label kernel (needs matplotlib)"
    )
    parser.add_argument("--verbose", action="store_true", help="show the solver's progress")
    return parser


def _sizes(name: str) -> str:
    """The training parts that a data set allows, in words."""
    least, most = _N_TRAIN[name]
    return f"at least {least}" if most == math.inf else f"{least} to {most:,}"


def _number(kind: Callable[[str], Any], is_allowed: Callable[[Any], bool], allowed: str) -> Callable[[str], Any]:
    """A type of argparse: a number of this kind that is allowed, or an error that says what is."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not is_allowed(value):
            raise argparse.ArgumentTypeError(f"must be {allowed}; got {text!r}")
        return value

    return parse


def _picture(path: str) -> str:
    """Refuse a picture before anything is fitted, not after."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as error:
        raise argparse.ArgumentTypeError(f"pictures need matplotlib: pip install matplotlib ({error})") from error
    folder, suffix = Path(path).parent, Path(path).suffix.lower()
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise argparse.ArgumentTypeError(
            f"the folder of {path!r} has to exist and to be writable; make it, or name another"
        )
    suffixes = [f".{name}" for name in sorted(FigureCanvasBase.get_supported_filetypes())]
    if suffix not in suffixes:
        raise argparse.ArgumentTypeError(f"must end in one of {', '.join(suffixes)}; got {path!r}")
    return path


def _say_what_takes_time(name: str) -> None:
    """Show that something goes on; not among the results."""
    print(f"choosing {name} …", file=sys.stderr, flush=True)


def _choose(model: Any, grid: dict[str, list[float]], data: Bunch) -> tuple[Any, float]:
    """The model with the parameters of the grid of least squared error in cross-validation on the training part.

    And the seconds that took.
    """
    if all(len(values) == 1 for values in grid.values()):
        return model.set_params(**{name: values[0] for name, values in grid.items()}), 0.0
    start = time.perf_counter()
    search = GridSearchCV(model, grid, scoring=_negative_squared_error, cv=_FOLDS, refit=False)
    search.fit(data.X_train[:_MAX_CHOICE], data.y_train[:_MAX_CHOICE])
    return model.set_params(**search.best_params_), time.perf_counter() - start


def _negative_squared_error(model: Any, X: Array, y: Array) -> float:
    """Minus the mean squared error of the scores: a finer measure than the share of errors on few samples."""
    if not hasattr(model, "classes_"):
        return -float(np.mean((model.predict(X) - y) ** 2))
    targets = LabelBinarizer(neg_label=-1).fit(model.classes_).transform(y)
    return -float(np.mean((model.decision_function(X).reshape(targets.shape) - targets) ** 2))


def _fitted(model: Any, data: Bunch) -> tuple[Any, float]:
    """The model fitted to the training part, and the seconds that took."""
    start = time.perf_counter()
    model.fit(data.X_train, data.y_train)
    return model, time.perf_counter() - start


def _report(model: Any, fit_seconds: float, choice_seconds: float, data: Bunch) -> dict[str, str]:
    """Test and measure a fitted model; the rows of the table, in order."""
    score = model.score(data.X_test, data.y_test)
    X, y = data.X_train[:_MAX_CHOICE], data.y_train[:_MAX_CHOICE]
    labels = label_kernel(LabelBinarizer(neg_label=-1).fit_transform(y) if data.is_classification else y)
    n_rounds = len(model.rounds_) - 1
    adaptivity = model.round_adaptivity if n_rounds else getattr(model, "adaptivity", 0.0)
    sizes = [f"{size:g}".replace("inf", "∞") for size in model.hidden_layer_sizes]
    rows = {
        "hidden units": ", ".join(sizes),
        "alpha": f"{model.alpha_:.3g}",
        "adaptivity": "-" if adaptivity is None else f"{adaptivity:.3g}",
        "rounds": f"{n_rounds}, {model.metric}" if n_rounds else "0",
    }
    if data.is_classification:
        rows["test error (share of samples)"] = f"{1 - score:.4f}"
    else:
        rows["test error (MSE / variance)"] = f"{1 - score:.4f}"
    rows["relative duality gap"] = f"{model.dual_gap_:.1e}"
    rows["iterations"] = f"{model.n_iter_}"
    rows["seconds to choose"] = f"{choice_seconds:.2f}"
    rows["seconds to fit"] = f"{fit_seconds:.2f}"
    for layer, values in enumerate(model.adaptation_.singular_values, start=1):
        rows[f"effective rank, layer {layer}"] = f"{effective_rank(values):.1f} of {len(values)}"
    for name, kernel in (("initial", model.initial_kernel(X)), ("adapted", model.kernel(X))):
        rows[f"label alignment, {name} kernel"] = f"{alignment(mean_over_outputs(kernel, len(X)), labels):.3f}"
    return rows


def _describe(options: argparse.Namespace, data: Bunch) -> str:
    task = f"{len(np.unique(data.y_train))} classes" if data.is_classification else "regression"
    return (
        f"{options.data}: {len(data.X_train):,} training and {len(data.X_test):,} test samples, "
        f"{data.X_train.shape[1]} features, {task}\n"
        f"network: one hidden layer of {options.width} ReLU units, outputs={options.outputs!r}; re-linearised: of "
        f"infinite width\n"
    )


def _table(reports: dict[str, dict[str, str]]) -> str:
    """Reports side by side, one column each; the first one says which rows."""
    names = list(reports)
    rows = [["", *names]] + [[row, *(reports[name].get(row, "-") for name in names)] for row in reports[names[0]]]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [
        row[0].ljust(first) + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


if __name__ == "__main__":
    main()
