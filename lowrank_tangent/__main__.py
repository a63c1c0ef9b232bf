"""The main job, ``python -m lowrank_tangent``: ridge NTK and the adaptive model on the same features, side by side."""

from __future__ import annotations

import argparse
import time

import numpy as np
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import LabelBinarizer

from . import (
    AdaptiveTangentClassifier,
    AdaptiveTangentRegressor,
    TangentRidge,
    TangentRidgeClassifier,
    datasets,
)
from .displays import KernelAlignmentDisplay, mean_over_outputs
from .theory import alignment, effective_rank, label_kernel

_ALPHAS = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
_ADAPTIVITIES = [0.1, 10.0]
_FOLDS = 3
#: Hyper-parameters are chosen on at most so many training samples, and alignments measured on as many.
_MAX_CHOICE = 300
#: What a fit of the search is certified to: predictions hardly change below.
_CHOICE_TOL = 1e-3


def main(arguments=None):
    """Run the main job with these command-line arguments (those of the process by default)."""
    options = _parser().parse_args(arguments)
    data = datasets.load(options.data, options.n_train, options.random_state)
    print(_describe(options, data))
    ridge_class, adaptive_class = (
        (TangentRidgeClassifier, AdaptiveTangentClassifier)
        if data.is_classification
        else (TangentRidge, AdaptiveTangentRegressor)
    )
    common = {
        "hidden_layer_sizes": (options.width,),
        "outputs": options.outputs,
        "random_state": options.random_state,
    }
    alphas = _ALPHAS if options.alpha is None else [options.alpha]
    adaptivities = _ADAPTIVITIES if options.adaptivity is None else [options.adaptivity]
    ridge = _choose(ridge_class(**common), {"alpha": alphas}, data)
    adaptive = _choose(
        adaptive_class(**common, tol=_CHOICE_TOL), {"alpha": alphas, "adaptivity": adaptivities}, data
    ).set_params(tol=options.tol, verbose=options.verbose)
    reports = {"ridge NTK": _report(ridge, data), "adaptive": _report(adaptive, data)}
    print(_table(reports))
    print("\nalignment: cosine of the centred kernel and the centred label kernel; measured, not optimised")
    if options.plot:
        KernelAlignmentDisplay.from_estimator(adaptive, data.X_train, data.y_train).figure_.savefig(
            options.plot, dpi=130
        )
        print(f"kernels drawn to {options.plot}")


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m lowrank_tangent",
        description="Fit ridge NTK and the adaptive tangent model on the same features and compare them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", choices=["digits", "mnist", "synthetic"], default="digits")
    parser.add_argument("--n-train", type=int, default=300, metavar="N", help="training samples")
    parser.add_argument("--width", type=int, default=256, help="units of the hidden layer")
    parser.add_argument("--alpha", type=float, help="penalty; chosen by cross-validation if not given")
    parser.add_argument("--adaptivity", type=float, help="chosen by cross-validation if not given")
    parser.add_argument("--outputs", choices=["shared", "network"], default="shared")
    parser.add_argument("--tol", type=float, default=1e-6, help="relative duality gap to certify")
    parser.add_argument("--random-state", type=int, default=0, metavar="SEED")
    parser.add_argument("--plot", metavar="FILE", help="draw initial, adapted and label kernel (needs matplotlib)")
    parser.add_argument("--verbose", action="store_true", help="show the solver's progress")
    return parser


def _choose(model, grid, data):
    """The model with the parameters of the grid of least squared error in cross-validation on the training part."""
    if all(len(values) == 1 for values in grid.values()):
        return model.set_params(**{name: values[0] for name, values in grid.items()})
    search = GridSearchCV(model, grid, scoring=_negative_squared_error, cv=_FOLDS, refit=False)
    search.fit(data.X_train[:_MAX_CHOICE], data.y_train[:_MAX_CHOICE])
    return model.set_params(**search.best_params_)


def _negative_squared_error(model, X, y):
    """Minus the mean squared error of the scores: a finer measure than the share of errors on few samples."""
    if not hasattr(model, "classes_"):
        return -np.mean((model.predict(X) - y) ** 2)
    targets = LabelBinarizer(neg_label=-1).fit(model.classes_).transform(y)
    return -np.mean((model.decision_function(X).reshape(targets.shape) - targets) ** 2)


def _report(model, data):
    """Fit, test and measure a model; the rows of the table, in order."""
    start = time.perf_counter()
    model.fit(data.X_train, data.y_train)
    seconds = time.perf_counter() - start
    score = model.score(data.X_test, data.y_test)
    X, y = data.X_train[:_MAX_CHOICE], data.y_train[:_MAX_CHOICE]
    labels = label_kernel(LabelBinarizer(neg_label=-1).fit_transform(y) if data.is_classification else y)
    rows = {"alpha": f"{model.alpha:g}", "adaptivity": f"{getattr(model, 'adaptivity', 0):g}"}
    if data.is_classification:
        rows["test error (share of samples)"] = f"{1 - score:.4f}"
    else:
        rows["test error (MSE / variance)"] = f"{1 - score:.4f}"
    rows["relative duality gap"] = f"{model.dual_gap_:.1e}"
    rows["iterations"] = f"{model.n_iter_}"
    rows["seconds to fit"] = f"{seconds:.2f}"
    for layer, values in enumerate(model.adaptation_.singular_values, start=1):
        rows[f"effective rank, layer {layer}"] = f"{effective_rank(values):.1f} of {len(values)}"
    for name, kernel in (("initial", model.initial_kernel(X)), ("adapted", model.kernel(X))):
        rows[f"label alignment, {name} kernel"] = f"{alignment(mean_over_outputs(kernel, len(X)), labels):.3f}"
    return rows


def _describe(options, data):
    task = f"{len(np.unique(data.y_train))} classes" if data.is_classification else "regression"
    return (
        f"{options.data}: {len(data.X_train):,} training and {len(data.X_test):,} test samples, "
        f"{data.X_train.shape[1]} features, {task}\n"
        f"network: one hidden layer of {options.width} ReLU units, outputs={options.outputs!r}\n"
    )


def _table(reports):
    """Reports side by side, one column each."""
    names = list(reports)
    rows = [["", *names]] + [[row, *(reports[name][row] for name in names)] for row in reports[names[0]]]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [
        row[0].ljust(first) + "".join("  " + cell.rjust(width) for cell, width in zip(row[1:], others, strict=True))
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


if __name__ == "__main__":
    main()
