"""Test error and seconds of the adaptive model and of ridge NTK, against the number of training samples.

    LOWRANK_TANGENT_DATA=folder python benchmarks/error_curves.py --plot error_curves.png
    python benchmarks/error_curves.py --data digits --sizes 100 200 --seeds 2

For every seed: a random training pool and the test part; the training sets are its first n samples, so that they are
nested and both models see the same ones. Both have the same network with the same initial weights. Hyper-parameters are
chosen on the training set alone, of more than 1000 samples on the first 1000, by three-fold cross-validation of the
squared error of the scores: alpha for ridge NTK, alpha and adaptivity for the adaptive model, from the same alphas,
folds and measure. The chosen model is then fitted to all n samples, timed, and tested once.

Every fit is a row of the CSV file, written at once; a run that is started again goes on where the last one ended. The
file knows data, size, seed, model and width: keep one for every other setting.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import LabelBinarizer

from _choice import choose_strength
from _common import (
    Log,
    add_outputs,
    label_sizes,
    machine,
    new_figure,
    print_header,
    print_row,
    progress,
)
from lowrank_tangent import AdaptiveTangentClassifier, TangentFeatures, TangentRidgeClassifier, datasets
from lowrank_tangent.networks import MLP

#: Samples of the pool from which the nested training sets are taken.
POOLS = {"digits": 1200, "mnist": 10_000}
SIZES = {"digits": (100, 200, 400, 800, 1200), "mnist": (100, 300, 1000, 3000, 10_000)}
#: Largest first, as paths go.
ALPHAS = np.logspace(1, -4, 6)
#: Adaptivities to choose from. The adaptive model has to adapt: 0 is ridge NTK.
GRIDS = {"ridge NTK": (0.0,), "adaptive": (1e-2, 1e-1, 1.0, 10.0)}
FOLDS, MAX_CHOICE = 3, 1000
#: What a fit of the search is certified to: its error hardly changes below.
CHOICE_TOL = 1e-3


class Choices:
    """Chosen hyper-parameters, remembered: larger training sets share the samples on which they are chosen."""

    def __init__(self, rows):
        self._known = {self._key(row): (float(row["alpha"]), float(row["adaptivity"])) for row in rows}

    @staticmethod
    def _key(row):
        return (row["data"], int(row["seed"]), row["model"], int(row["width"]), min(int(row["n"]), MAX_CHOICE))

    def of(self, row, X, y):
        """Alpha and adaptivity for the model, data, seed and size of this row."""
        key = self._key(row)
        if key not in self._known:
            some = slice(MAX_CHOICE)
            self._known[key] = cross_validate(X[some], y[some], GRIDS[row["model"]], row["width"], row["seed"])
        return self._known[key]


def cross_validate(X, y, adaptivities, width, seed):
    """Alpha and adaptivity of the least squared error of the scores on held-out folds."""
    targets = LabelBinarizer(neg_label=-1).fit_transform(y).astype(float)
    features = TangentFeatures(MLP((width,)), random_state=seed)
    splits = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(X, y)
    return choose_strength(features, X, targets, splits, ALPHAS, adaptivities, CHOICE_TOL)


def make_model(name, alpha, adaptivity, width, seed):
    """The estimator of a model's name."""
    common = {"hidden_layer_sizes": (width,), "alpha": alpha, "random_state": seed}
    if name == "adaptive":
        return AdaptiveTangentClassifier(adaptivity=adaptivity, **common)
    return TangentRidgeClassifier(**common)


def fit(row, choices, X, y, test):
    """The row of one fit, completed."""
    alpha, adaptivity = choices.of(row, X, y)
    model = make_model(row["model"], alpha, adaptivity, row["width"], row["seed"])
    start = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - start
    X_test, y_test = test
    return {
        **row,
        "alpha": alpha,
        "adaptivity": adaptivity,
        "n_test": len(y_test),
        "error": np.mean(model.predict(X_test) != y_test),
        "dual_gap": model.dual_gap_,
        "seconds": seconds,
    }


def run(options, log):
    """Every fit that the log does not have yet."""
    names = ("data", "n", "seed", "model", "width")
    done = {tuple(str(row[name]) for name in names) for row in log.rows}
    choices = Choices(log.rows)
    wanted = [
        dict(zip(names, (data, n, seed, model, options.width), strict=True))
        for data, seed in itertools.product(options.data, range(options.seeds))
        for n, model in itertools.product(sizes_of(data, options), GRIDS)
    ]
    missing = [row for row in wanted if tuple(map(str, row.values())) not in done]
    small = datasets.load("digits", 40)
    for name, grid in GRIDS.items():  # compiled before the clock starts
        make_model(name, 1.0, grid[0], 4, 0).fit(small.X_train, small.y_train)
    loaded = None
    for row in progress(missing, "fits"):
        if loaded != (row["data"], row["seed"]):
            loaded = row["data"], row["seed"]
            part = datasets.load(row["data"], POOLS[row["data"]], row["seed"])
        n = row["n"]
        log.append(fit(row, choices, part.X_train[:n], part.y_train[:n], (part.X_test, part.y_test)))


def sizes_of(data, options):
    """Training samples, smallest first, as far as the pool goes."""
    return sorted({n for n in options.sizes or SIZES[data] if n <= POOLS[data]})


def rows_of(data, options, log):
    """The rows that were asked for, of one data set."""
    rows = [row for row in log.rows if row["data"] == data and int(row["width"]) == options.width]
    rows = [row for row in rows if int(row["n"]) in sizes_of(data, options) and int(row["seed"]) < options.seeds]
    return sorted(rows, key=lambda row: int(row["seed"]))


def curve(rows, model, quantity):
    """Values of one model over the seeds, by number of training samples."""
    mine = [row for row in rows if row["model"] == model]
    sizes = sorted({int(row["n"]) for row in mine})
    return {n: np.array([float(row[quantity]) for row in mine if int(row["n"]) == n]) for n in sizes}


def print_table(data, rows, options):
    """Means, standard deviations and paired differences over the seeds, and how often a grid was too small."""
    errors = [curve(rows, model, "error") for model in GRIDS]
    seconds = [curve(rows, model, "seconds") for model in GRIDS]
    print(f"\n### {data}, width {options.width}, {options.seeds} seeds\n")
    print_header(["n", "ridge NTK", "adaptive", "adaptive − ridge, paired", "adaptive better", "ridge s", "adaptive s"])
    for n, ridge, adaptive in zip(errors[0], *(by_size.values() for by_size in errors), strict=True):
        difference = adaptive - ridge
        better = f"{np.sum(difference < 0)} of {len(difference)}"
        medians = [f"{np.median(by_size[n]):.3g}" for by_size in seconds]
        print_row([n, spread(ridge), spread(adaptive), spread(difference, "+"), better, *medians])
    print("\nChosen at an end of the grid:", "; ".join(at_the_ends(rows, model) for model in GRIDS))


def at_the_ends(rows, model):
    """How often the least or the largest of the values to choose from was chosen."""
    mine = [row for row in rows if row["model"] == model]
    parts = []
    for name, grid in (("alpha", ALPHAS), ("adaptivity", GRIDS[model])):
        for end in (min(grid), max(grid)) if len(grid) > 1 else ():
            count = sum(np.isclose(float(row[name]), end) for row in mine)
            parts += [f"{name} {end:g} in {count} of {len(mine)}"] * bool(count)
    return f"{model}, {' and '.join(parts) or 'never'}"


def spread(values, sign=""):
    """Mean and standard deviation."""
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.4f}{deviation}"


def draw(tables, options):
    """Learning curves: mean errors and median seconds, bands from the least to the largest."""
    figure, axes = new_figure(2, len(tables))
    for column, (data, rows) in zip(axes.T, tables.items(), strict=True):
        for (ax, quantity), model in itertools.product(zip(column, ("error", "seconds"), strict=True), GRIDS):
            by_size = curve(rows, model, quantity)
            sizes, values = list(by_size), list(by_size.values())
            middle = np.mean if quantity == "error" else np.median
            ax.loglog(sizes, [middle(v) for v in values], "o-", label=model, markersize=4)
            ax.fill_between(sizes, [v.min() for v in values], [v.max() for v in values], alpha=0.2)
            label_sizes(ax, sizes)
            ax.set(xlabel="training samples", ylabel="test error" if quantity == "error" else "seconds a fit")
            ax.grid(alpha=0.3)
        column[0].set_title(f"{data}, width {options.width}")
    axes[0, 0].legend()
    figure.savefig(options.plot, dpi=130)


def parse_arguments():
    """Options, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=POOLS, default=list(POOLS))
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="other numbers of training samples")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, … (default 5)")
    parser.add_argument("--width", type=int, default=256, help="units of the hidden layer (default 256)")
    add_outputs(parser, "error_curves.csv")
    options = parser.parse_args()
    for data in options.data:
        if not sizes_of(data, options):
            parser.error(f"{data} has a pool of {POOLS[data]} training samples; no size is within it")
    return options


def main():
    """Run what is missing, then print the table and draw the picture of everything."""
    options = parse_arguments()
    print(machine())
    log = Log(options.csv, resume=True)
    run(options, log)
    tables = {data: rows_of(data, options, log) for data in options.data}
    for data, rows in tables.items():
        print_table(data, rows, options)
    if options.plot:
        draw(tables, options)


if __name__ == "__main__":
    main()
