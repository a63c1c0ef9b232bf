"""The estimators on small data, against what a user would pick instead.

    LOWRANK_TANGENT_DATA=folder python benchmarks/small_data.py --plot small_data.png
    python benchmarks/small_data.py --data square diabetes --models relinearised ridge-ntk rfm --sizes 100 --seeds 2
    python benchmarks/small_data.py --report --sizes 100 400

For every data set, size and seed: n training samples and at most 2000 others to test on, drawn at random, stratified
for classes; a data set of fewer than n + 50 samples is left out at that size. Synthetic data are drawn anew, directions
and all. Inputs are standardised by the training part, pixels with one scale for all; so are numerical targets. All
models see the same samples and, but where it says otherwise, the same five folds, beyond 1000 samples three, on which
everything that a model leaves open is chosen. Then the chosen model is fitted to all n samples and tested once.

- relinearised: AdaptiveTangent…CV as it comes: adapts, takes the features anew, and chooses when to stop.
- ridge-ntk: the same without rounds, from the same networks of infinite width, alpha by leave-one-out.
- adaptive: the paper's model, gates fixed: the network that ridge-ntk chooses, alpha and adaptivity by three folds.
  Beyond 1000 samples by successive halving: 18 candidates on a ninth of the samples, six on a third, two on all.
- krr-rbf, krr-laplace, svm-rbf, svm-laplace: kernel ridge regression and support vectors, with kernels of the
  Euclidean and of the Manhattan distance.
- gp-ard: a Gaussian process with a length for every input, by its marginal likelihood from one start, at most 100
  steps; skipped beyond 64 inputs or 3 classes.
- mlp, boosting: scikit-learn's, 12 candidates at random. Beyond 100 inputs 4 candidates; networks then have 150 epochs
  in place of 500, and boosting has up to 100 trees in place of 200, and 31 bins.
- rfm: a plain recursive feature machine (arXiv 2212.13881), Laplace kernel and average gradient outer product; up to
  10 rounds, beyond 1000 samples 5.
- xrfm: the package of that name, by its authors' protocol: a fifth of the samples is held out; skipped beyond
  1000 inputs. pip install xrfm

Errors: share of wrong classes, or mean squared error divided by the variance of the test targets. Seconds are those of
a processor, for the whole choice and the fit: on a machine that does other things, too, those of a clock say little.
Every fit is a row of the CSV file, written at once; a run that is started again goes on where the last one ended. A
model that fails has an error of NaN there, and the reason.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import json
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import sklearn.datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401 (makes HalvingGridSearchCV importable)
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, KFold, StratifiedKFold, train_test_split

import _small_tables
from _common import Log, add_outputs, machine, progress
from _rivals_small import MANY_SAMPLES, RIVALS, Fitted, Skipped, Task, ends, fitted
from lowrank_tangent import (
    AdaptiveTangentClassifier,
    AdaptiveTangentClassifierCV,
    AdaptiveTangentRegressor,
    AdaptiveTangentRegressorCV,
    datasets,
)

SIZES = (400, 100, 1500)
FOLDS, FEWER_FOLDS = 5, 3
MAX_TEST, MIN_TEST = 2000, 50
#: Successive halving, in fact by thirds: this share of the candidates goes on, with as many times the samples.
HALVING = 3
#: The paper's model is certified to this gap: its error hardly changes below.
TOL = 1e-4
ADAPTIVE = {"alpha": [1e-5, 1e-3, 1e-2, 1e-1, 1.0, 10.0], "adaptivity": [1e-2, 1.0, 100.0]}


class DataSet(NamedTuple):
    """Where samples come from: `load(n, seed)` for synthetic data, else `load()`."""

    load: Callable
    kind: str
    is_classification: bool = False


def _pooled(load):
    """All samples of a scikit-learn data set."""
    return lambda: load(return_X_y=True)


def _pixels(load):
    """Training part and test part of images."""

    def parts():
        images = load()
        return images.X_train, images.y_train, images.X_test, images.y_test

    return parts


def _synthetic(make, n_features, noise):
    """Samples of a target of known structure."""
    return DataSet(lambda n, seed: make(n, n_features, noise=noise, random_state=seed), "synthetic")


#: UCI tables and their files; scikit-learn has a "wine" of its own.
_TABLES = {
    **{name: name for name in ("airfoil", "bike", "concrete", "elevators", "energy", "parkinsons", "pol")},
    **{name: name for name in ("pumadyn32nm", "skillcraft", "stock", "yacht")},
    "winequality": "wine",
}
_TARGETS = {
    "square": (datasets.make_square, 50),
    "product": (datasets.make_product, 30),
    "gated": (datasets.make_gated, 20),
}
DATA = {
    name if noise == 0.0 else f"{name}+{noise:g}": _synthetic(make, n_features, noise)
    for (name, (make, n_features)), noise in itertools.product(_TARGETS.items(), (0.0, 0.1, 0.5))
}
DATA |= {name: DataSet(functools.partial(datasets.load_table, file), "table") for name, file in _TABLES.items()}
DATA |= {
    "diabetes": DataSet(_pooled(sklearn.datasets.load_diabetes), "table"),
    "wine": DataSet(_pooled(sklearn.datasets.load_wine), "table", True),
    "breast-cancer": DataSet(_pooled(sklearn.datasets.load_breast_cancer), "table", True),
    "digits": DataSet(_pooled(sklearn.datasets.load_digits), "pixels", True),
    "mnist": DataSet(_pixels(datasets.load_mnist), "pixels", True),
    "cifar10": DataSet(_pixels(datasets.load_cifar10), "pixels", True),
}


@functools.lru_cache(maxsize=1)
def _loaded(name):
    """Samples of a data set that is not synthetic; the last one is kept."""
    return DATA[name].load()


def samples(name, n, seed):
    """Training part and test part, standardised, as a task and a pair; None where there are too few samples."""
    data = DATA[name]
    if data.kind == "synthetic":
        X, y = data.load(n + MAX_TEST, seed)
        parts = X[:n], y[:n], X[n:], y[n:]
    else:
        parts = _drawn(_loaded(name), n, seed, data.is_classification)
    return None if parts is None else _standardised(parts, data, seed)


def _drawn(loaded, n, seed, is_classification):
    """n training samples, and what is left, or the test part that the data set has, up to the limit."""
    draw = functools.partial(train_test_split, random_state=seed)
    if len(loaded) == 4:
        X, y, X_test, y_test = loaded
        X, _, y, _ = draw(X, y, train_size=n, stratify=y)
        X_test, _, y_test, _ = draw(X_test, y_test, train_size=min(MAX_TEST, len(y_test) // 2), stratify=y_test)
        return X, y, X_test, y_test
    X, y = loaded
    if len(y) < n + MIN_TEST:
        return None
    X, X_test, y, y_test = draw(
        X, y, train_size=n, test_size=min(MAX_TEST, len(y) - n), stratify=y if is_classification else None
    )
    return X, y, X_test, y_test


def _standardised(parts, data, seed):
    """The task, and the test part on its scales."""
    X, y, X_test, y_test = parts
    mean = X.mean(axis=0)
    X, X_test = X - mean, X_test - mean
    scale = X.std() if data.kind == "pixels" else X.std(axis=0)
    scale = np.where(scale > 0.0, scale, 1.0)
    X, X_test = X / scale, X_test / scale
    n_folds = FEWER_FOLDS if len(X) > MANY_SAMPLES else FOLDS
    if data.is_classification:
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    else:
        folds = KFold(n_folds, shuffle=True, random_state=seed)
        y, y_test = (y - y.mean()) / y.std(), (y_test - y.mean()) / y.std()
    return Task(X, y, data.is_classification, list(folds.split(X, y)), seed), (X_test, y_test)


def relinearised(task, **options):
    """Adapt, take the features anew, choose everything."""
    kind = AdaptiveTangentClassifierCV if task.is_classification else AdaptiveTangentRegressorCV
    model = kind(cv=task.folds, random_state=task.seed, **options).fit(task.X, task.y)
    chosen = {name: value for name, value in model.best_params_.items() if name != "hidden_layer_sizes"}
    chosen |= {"depth": len(model.best_params_["hidden_layer_sizes"]), "alpha": float(model.best_estimator_.alpha_)}
    tried = {name: sorted(set(model.cv_results_[f"param_{name}"])) for name in ("bias", "n_rounds")}
    return Fitted(model.predict, chosen, ends(chosen, tried))


def ridge_ntk(task):
    """The same without rounds."""
    return relinearised(task, max_rounds=0)


def adaptive(task):
    """The paper's model on the network that ridge NTK chooses."""
    network = ridge_ntk(task).chosen
    kind = AdaptiveTangentClassifier if task.is_classification else AdaptiveTangentRegressor
    model = kind((np.inf,) * network["depth"], bias=network["bias"], tol=TOL, random_state=task.seed)
    folds = (StratifiedKFold if task.is_classification else KFold)(FEWER_FOLDS, shuffle=True, random_state=task.seed)
    search, options = GridSearchCV, {"cv": folds, "error_score": "raise"}
    if len(task.X) > MANY_SAMPLES:
        search, few = HalvingGridSearchCV, len(task.X) // HALVING**2
        options |= {"factor": HALVING, "min_resources": few, "random_state": task.seed}
    found = fitted(search(model, ADAPTIVE, **options).fit(task.X, task.y), ADAPTIVE)
    return found._replace(chosen={"depth": network["depth"], "bias": network["bias"], **found.chosen})


MODELS = {"relinearised": relinearised, "ridge-ntk": ridge_ntk, "adaptive": adaptive, **RIVALS}


def measure(row, task, test):
    """The row of one fit, completed."""
    found = {"error": np.nan, "chosen": "", "at_end": "", "seconds": np.nan, "predict_seconds": np.nan, "note": ""}
    X_test, y_test = test
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.process_time()
        try:
            model = MODELS[row["model"]](task)
            found["seconds"] = time.process_time() - start
            prediction = model.predict(X_test)
            found["predict_seconds"] = time.process_time() - start - found["seconds"]
            found["error"] = error_of(prediction, y_test, task.is_classification)
            found["chosen"], found["at_end"] = json.dumps(model.chosen), " ".join(model.at_end)
        except Skipped as reason:
            found["note"] = f"skipped: {reason}"
        except Exception as error:  # one model that fails is a row, and not the end of all the others
            found["note"] = f"failed: {type(error).__name__}: {error}"
    not_converged = sum(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return {**row, "n_test": len(y_test), **found, "not_converged": not_converged}


def error_of(prediction, y, is_classification):
    """Share of wrong classes, or relative squared error."""
    if not np.all(np.isfinite(prediction)):
        raise ValueError("predictions are not finite")
    return np.mean(prediction != y) if is_classification else np.mean((prediction - y) ** 2) / np.var(y)


def run(options, log):
    """Every fit that the log does not have yet: all data sets and models of one size and seed, then the next."""
    names = ("data", "n", "seed", "model")
    done = {tuple(str(row[name]) for name in names) for row in log.rows}
    wanted = [
        dict(zip(names, (data, n, seed, model), strict=True))
        for n, seed in itertools.product(options.sizes, range(options.seeds))
        for data, model in itertools.product(options.data, options.models)
    ]
    missing = [row for row in wanted if tuple(map(str, row.values())) not in done]
    if missing:
        prepare(options)
    of, drawn = None, None
    for row in progress(missing, "fits"):
        if of != (row["data"], row["n"], row["seed"]):
            of = row["data"], row["n"], row["seed"]
            drawn = samples(*of)
        if drawn is not None:
            log.append(measure(row, *drawn))


def prepare(options):
    """Find out at once what data are missing; compile and import before the clock starts."""
    for name in options.data:
        if DATA[name].kind != "synthetic":
            _loaded(name)
    task, _ = samples("gated", 40, 0)
    if {"relinearised", "adaptive"} & set(options.models):
        adaptive(task)
    if "xrfm" in options.models:
        MODELS["xrfm"](task)


def asked_for(rows, options):
    """The rows that were asked for."""
    return [
        row
        for row in rows
        if row["data"] in options.data
        and row["model"] in options.models
        and int(row["n"]) in options.sizes
        and int(row["seed"]) < options.seeds
    ]


def draws_parser(description, n, seeds, first_seed=0, data=DATA, default=None):
    """Options of a command that looks at the same draws: data sets, one size, seeds from the first on, a CSV file."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="+", choices=data, default=default or list(data), metavar="NAME", help=", ".join(data)
    )
    parser.add_argument("--n", type=int, default=n, help=f"training samples (default {n})")
    seeds_are = f"seeds {first_seed}, {first_seed + 1}, … (default {seeds})"
    parser.add_argument("--seeds", type=int, default=seeds, help=seeds_are)
    parser.add_argument("--csv", metavar="FILE", help="write the figures there")
    return parser


def parse_arguments():
    """Options, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), metavar="NAME", help=", ".join(DATA))
    parser.add_argument("--models", nargs="+", choices=MODELS, metavar="NAME", help="by default all that are installed")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, metavar="N", help="training samples, in this order"
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, … (default 5)")
    parser.add_argument(
        "--level", type=float, default=0.2, help="error at which sample sizes are compared (default 0.2)"
    )
    parser.add_argument("--report", action="store_true", help="fit nothing: tables and picture of what the file has")
    add_outputs(parser, "small_data.csv")
    options = parser.parse_args()
    if min(options.sizes) < 20 or options.seeds < 1:
        parser.error("--sizes must be at least 20, and --seeds at least 1")
    if importlib.util.find_spec("xrfm") is None:
        if options.models and "xrfm" in options.models:
            parser.error("not installed: xrfm; pip install xrfm")
        print("left out, as not installed: xrfm")
        options.models = options.models or [model for model in MODELS if model != "xrfm"]
    options.models = options.models or list(MODELS)
    return options


def main():
    """Run what is missing, then print the tables and draw the picture of everything."""
    options = parse_arguments()
    print(machine())
    log = Log(options.csv, resume=True)
    if not options.report:
        run(options, log)
    results = _small_tables.Results(asked_for(log.rows, options), options.models)
    kinds = {name: DATA[name].kind for name in options.data}
    _small_tables.print_all(results, kinds, sorted(options.sizes), options.level)
    if options.plot:
        _small_tables.draw(results, options)


if __name__ == "__main__":
    main()
