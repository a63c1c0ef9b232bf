"""What test samples far outside of the training samples cost, and what is left of it where inputs are clipped.

    LOWRANK_TANGENT_DATA=folder python benchmarks/outliers.py --csv outliers.csv
    python benchmarks/outliers.py --data diabetes --models ridge-ntk krr-rbf --seeds 2

Models, samples and choices of small_data.py. Each fitted model predicts the test samples twice: as they are, and with
every input clipped to the range that it has among the training samples. "One sample": the largest share of the error,
as they are, that a single test sample makes up in any seed, and its largest input in standard deviations.
"""

from __future__ import annotations

import itertools

import numpy as np
from small_data import DATA, MODELS, draws_parser, error_of, samples

from _common import Log, machine, print_header, print_row, progress


def measure(name, n, seed, model):
    """Row of a fit: errors with test samples as they are and clipped, and what the worst of them adds."""
    task, (X_test, y_test) = samples(name, n, seed)
    predict = MODELS[model](task).predict
    prediction = predict(X_test)
    errors = (prediction - y_test) ** 2
    clipped = predict(np.clip(X_test, task.X.min(axis=0), task.X.max(axis=0)))
    return {
        "data": name,
        "n": n,
        "seed": seed,
        "model": model,
        "error": error_of(prediction, y_test, False),
        "one_sample": errors.max() / errors.sum(),
        "its_largest_input": np.abs(X_test[errors.argmax()]).max(),
        "clipped_error": error_of(clipped, y_test, False),
    }


def main():
    """One line a data set and model."""
    tables = [name for name, data in DATA.items() if not data.is_classification]
    parser = draws_parser(__doc__, n=400, seeds=5, data=tables, default=["skillcraft"])
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=["relinearised", "ridge-ntk", "mlp", "krr-rbf"], metavar="NAME"
    )
    options = parser.parse_args()
    print(machine())
    log = Log(options.csv)
    for seed, name, model in progress(
        list(itertools.product(range(options.seeds), options.data, options.models)), "fits"
    ):
        log.append(measure(name, options.n, seed, model))
    print_header(["data", "model", "error", "one sample", "clipped"])
    for name, model in itertools.product(options.data, options.models):
        rows = [row for row in log.rows if (row["data"], row["model"]) == (name, model)]
        error, clipped = (
            f"{np.mean(values):.3g} ± {np.std(values, ddof=min(1, len(values) - 1)):.2g}"
            for values in ([row[key] for row in rows] for key in ("error", "clipped_error"))
        )
        worst = max(rows, key=lambda row: row["one_sample"])
        print_row([name, model, error, f"{worst['one_sample']:.0%}, at {worst['its_largest_input']:.3g}", clipped])


if __name__ == "__main__":
    main()
