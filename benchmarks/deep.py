"""Deep networks with all layers adapted: certified fits beside ridge NTK, what each layer is worth, hard settings.

    LOWRANK_TANGENT_DATA=folder python benchmarks/deep.py --csv deep.csv --plot deep.png
    python benchmarks/deep.py --data digits synthetic --parts fits layers

Five hidden layers of 128 ReLU units, six layers of weights. Newton's method stops at a relative duality gap of 1e-6;
ridge NTK is the closed form on the same features, and the pass of the network is on neither clock. Alpha (six decades),
and for the adaptive model adaptivity (0.1, 1, 10), are chosen by three-fold cross-validation of the squared error on
the first 300 training samples. Errors are shares of the test part for classes, else mean squared errors relative to the
variance; mean ± standard deviation over the seeds, which draw weights and samples. Effective ranks are those of the
coefficients, medians over the seeds.

- fits: every data set and size, outputs='shared', and once with the outputs of the network itself.
- layers: the features of one layer alone, and of all of them.
- hard: four activations with tiny alphas and large adaptivities; is the gap reached?
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import NamedTuple

import numpy as np
from sklearn.model_selection import KFold
from sklearn.preprocessing import LabelBinarizer

from _choice import choose_strength
from _common import Log, add_outputs, machine, new_figure, print_header, print_row, progress
from lowrank_tangent import StructuredRegression, TangentFeatures, datasets, solve
from lowrank_tangent.networks import ACTIVATIONS, MLP
from lowrank_tangent.theory import effective_rank

TOL, CHOICE_TOL = 1e-6, 1e-3
ALPHAS = np.logspace(-4, 1, 6)
MODELS = {"ridge NTK": (0.0,), "adaptive": (0.1, 1.0, 10.0)}
FOLDS, MAX_CHOICE, MAX_TEST = 3, 300, 2000
#: Digits are 1,797.
MAX_DIGITS = 1500
#: Pairs of alpha and adaptivity.
HARD = [(1e-6, 1.0), (1e-4, 1e3), (0.1, 1e5)]
PARTS = ("fits", "layers", "hard")


class Setting(NamedTuple):
    """What is fitted; `layers` are indices of layers of weights, None for all."""

    part: str
    data: str
    n: int
    outputs: str
    layers: tuple | None = None
    activation: str = "relu"


class Data:
    """Training and test part with targets in columns, −1 and 1 for classes."""

    def __init__(self, name, n, seed):
        data = datasets.load(name, n, seed)
        self.X, self.X_test = data.X_train, data.X_test[:MAX_TEST]
        self.y_test = data.y_test[:MAX_TEST]
        self.is_classification = data.is_classification
        if data.is_classification:
            self.targets = LabelBinarizer(neg_label=-1).fit_transform(data.y_train).astype(float)
        else:
            self.targets = data.y_train[:, None]

    def error(self, scores):
        """Error of scores for the test part."""
        if self.is_classification:
            return float(np.mean(scores.argmax(axis=1) != self.y_test))
        return float(np.mean((scores[:, 0] - self.y_test) ** 2) / np.var(self.y_test))


def make_features(setting, options, seed):
    """Features of a setting, before they are fitted."""
    network = MLP((options.width,) * options.depth, activation=setting.activation)
    return TangentFeatures(network, setting.outputs, seed, setting.layers)


def choose(setting, data, adaptivities, options, seed):
    """Alpha and adaptivity chosen on the training part alone."""
    X, targets = data.X[:MAX_CHOICE], data.targets[:MAX_CHOICE]
    splits = KFold(FOLDS, shuffle=True, random_state=seed).split(X)
    features = make_features(setting, options, seed)
    return choose_strength(features, X, targets, splits, ALPHAS, adaptivities, CHOICE_TOL)


def fit(setting, model, strength, data, options, seed):
    """The row of one fit; of ridge NTK where adaptivity is 0."""
    features = make_features(setting, options, seed).fit(data.X, data.targets.shape[1])
    problem = StructuredRegression(features.operator(data.X), data.targets, "power", *strength, fit_intercept=True)
    start = time.perf_counter()
    solution = solve(problem, tol=TOL, callback=lambda row: row.time > options.limit)
    seconds = time.perf_counter() - start
    ranks = [effective_rank(np.linalg.svd(coef, compute_uv=False)) for coef in solution.coefs]
    return {
        **setting._asdict(),
        "layers": "all" if setting.layers is None else " ".join(map(str, setting.layers)),
        "C": data.targets.shape[1],
        "seed": seed,
        "model": model,
        "alpha": strength[0],
        "adaptivity": strength[1],
        "error": data.error(features.predict(data.X_test, solution.coefs) + solution.intercept),
        "seconds": seconds,
        "dual_gap": solution.dual_gap,
        "iterations": solution.n_iter,
        "ranks": " ".join(f"{rank:.1f}" for rank in ranks),
    }


def compare(setting, options, log):
    """Rows of both models with parameters chosen for each, for every seed."""
    rows = {model: [] for model in MODELS}
    for seed in range(options.seeds):
        data = Data(setting.data, setting.n, seed)
        for model, adaptivities in MODELS.items():
            strength = choose(setting, data, adaptivities, options, seed)
            rows[model].append(fit(setting, model, strength, data, options, seed))
            log.append(rows[model][-1])
    return rows


def spread(rows):
    """Mean ± standard deviation of the errors; of one seed the error alone."""
    errors = [row["error"] for row in rows]
    return f"{np.mean(errors):.4f}" + (f" ± {np.std(errors, ddof=1):.4f}" if len(errors) > 1 else "")


def median_ranks(rows):
    """Effective rank of every layer's coefficients."""
    return np.median([[float(rank) for rank in row["ranks"].split()] for row in rows], axis=0)


def print_comparison(label, rows):
    """A line of the tables of both models."""
    ridge, adaptive = rows["ridge NTK"], rows["adaptive"]
    seconds = [statistics.median(row["seconds"] for row in some) for some in (ridge, adaptive)]
    print_row(
        [
            *label,
            spread(ridge),
            spread(adaptive),
            f"{seconds[0]:.3g}",
            f"{seconds[1]:.3g} ({seconds[1] / seconds[0]:.1f}×)",
            f"{max(row['dual_gap'] for row in adaptive):.0e}",
            " ".join(f"{row['alpha']:g}/{row['adaptivity']:g}" for row in adaptive),
            " ".join(f"{rank:.1f}" for rank in median_ranks(adaptive)),
        ]
    )


def sizes_of(data, options):
    """Sizes that a data set has samples for."""
    return [n for n in options.sizes if data != "digits" or n <= MAX_DIGITS]


COLUMNS = ["ridge NTK", "adaptive", "ridge s", "adaptive s", "worst gap", "alpha/adaptivity", "ranks by layer"]


def run_fits(options, log):
    """Every data set and size."""
    print("\n### all layers adapted\n")
    print_header(["data", "n", "C", "outputs", *COLUMNS])
    settings = [Setting("fits", data, n, "shared") for data in options.data for n in sizes_of(data, options)]
    settings += [Setting("fits", data, options.network_size, "network") for data in options.data]
    for setting in progress(settings, "fits"):
        rows = compare(setting, options, log)
        print_comparison([setting.data, setting.n, rows["adaptive"][0]["C"], setting.outputs], rows)


def run_layers(options, log):
    """Each layer alone."""
    print("\n### features of one layer alone\n")
    print_header(["data", "n", "layers", *COLUMNS])
    choices = [None, *((layer,) for layer in range(options.depth + 1))]
    settings = [
        Setting("layers", data, options.sizes[0], "shared", layers) for data in options.data for layers in choices
    ]
    for setting in progress(settings, "layers"):
        rows = compare(setting, options, log)
        print_comparison([setting.data, setting.n, rows["adaptive"][0]["layers"]], rows)


def run_hard(options, log):
    """Every activation with strengths that are hard to solve."""
    print("\n### hard settings\n")
    print_header(["data", "n", "activation", *(f"alpha={a:g}, adaptivity={s:g}: s (iterations, gap)" for a, s in HARD)])
    n = options.sizes[0]
    for name in options.data:
        data = Data(name, n, 0)
        for activation in sorted(ACTIVATIONS):
            setting, cells = Setting("hard", name, n, "shared", None, activation), []
            for strength in HARD:
                row = fit(setting, "adaptive", strength, data, options, 0)
                log.append(row)
                cells.append(f"{row['seconds']:.3g} ({row['iterations']}, {row['dual_gap']:.0e})")
            print_row([name, n, activation, *cells])


def draw(rows, path):
    """Effective ranks by layer, and errors of single layers."""
    figure, axes = new_figure(1, 2)
    for ax, part in zip(axes.flat, ("fits", "layers"), strict=True):
        some = [row for row in rows if row["part"] == part and row["model"] == "adaptive"]
        lines = {}
        for row in some:
            key = (row["data"],) if part == "layers" else (row["data"], row["n"], row["outputs"])
            lines.setdefault(key, []).append(row)
        for key, line in lines.items():
            label = ", ".join(map(str, key))
            if part == "fits":
                ax.plot(median_ranks(line), "o-", label=label, markersize=4)
            else:
                layers = list(dict.fromkeys(row["layers"] for row in line))
                errors = [np.mean([row["error"] for row in line if row["layers"] == name]) for name in layers]
                ax.plot(layers, errors, "o", label=label)
        ax.set(xlabel="layer", ylabel={"fits": "effective rank", "layers": "test error of that layer alone"}[part])
        ax.grid(alpha=0.3)
        if lines:
            ax.legend(fontsize="small")
    figure.savefig(path, dpi=130)


def parse_arguments():
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ["digits", "mnist", "synthetic"]
    parser.add_argument("--data", nargs="+", choices=names, default=names)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[500, 1000, 2000], help="training samples; the first for layers"
    )
    parser.add_argument("--network-size", type=int, default=150, help="training samples with outputs='network'")
    parser.add_argument("--depth", type=int, default=5, help="hidden layers")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a fit is stopped (default 300)")
    add_outputs(parser)
    return parser.parse_args()


def main():
    """Run the benchmark."""
    options = parse_arguments()
    print(machine())
    log = Log(options.csv)
    warm_up = Data("digits", 60, 0)  # compiled before the clock starts
    fit(Setting("fits", "digits", 60, "shared"), "adaptive", (0.1, 1.0), warm_up, options, 0)
    for part, run in zip(PARTS, (run_fits, run_layers, run_hard), strict=True):
        if part in options.parts:
            run(options, log)
    if options.plot:
        draw(log.rows, options.plot)


if __name__ == "__main__":
    main()
