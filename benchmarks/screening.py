"""What it costs and saves to try networks and metrics on few samples first (`screening_samples`).

    python benchmarks/screening.py --data square product gated
    LOWRANK_TANGENT_DATA=folder python benchmarks/screening.py --n 1500 --csv screening.csv

AdaptiveTangent…CV as it comes, and with screening_samples=None, on the same samples and folds, drawn as in
small_data.py, but with seeds from ten on. Seconds are those of a processor, for the choice and the fit.
"""

from __future__ import annotations

import itertools
import time

from small_data import draws_parser, error_of, samples

from _common import Log, machine, print_header, print_row, progress
from lowrank_tangent import AdaptiveTangentClassifierCV, AdaptiveTangentRegressorCV

FIRST_SEED = 10


def measure(name, n, seed, few):
    """Row of a data set: seconds, error in the folds and test error, with screening and without; None if too small."""
    drawn = samples(name, n, seed)
    if drawn is None:
        return None
    task, (X_test, y_test) = drawn
    kind = AdaptiveTangentClassifierCV if task.is_classification else AdaptiveTangentRegressorCV
    row = {"data": name, "n": n, "seed": seed}
    for label, size in (("all", None), ("few", few)):
        start = time.process_time()
        model = kind(cv=task.folds, screening_samples=size, random_state=seed).fit(task.X, task.y)
        row[f"seconds_{label}"] = time.process_time() - start
        row[f"fold_error_{label}"] = -model.best_score_
        row[f"test_error_{label}"] = error_of(model.predict(X_test), y_test, task.is_classification)
    return row


def main():
    """One line a data set and seed."""
    parser = draws_parser(__doc__, n=1500, seeds=1, first_seed=FIRST_SEED)
    parser.add_argument("--samples", type=int, default=400, help="samples of the first run (default 400)")
    options = parser.parse_args()
    print(machine())
    samples_of = itertools.product(range(FIRST_SEED, FIRST_SEED + options.seeds), options.data)
    log = Log(options.csv)
    measure("square", 40, 0, 10)  # compiled before the clock starts
    print_header(["data", "seed", "all, s", "few first, s", "error in folds", "few first", "test error", "few first"])
    for seed, name in progress(list(samples_of), "choices"):
        row = measure(name, options.n, seed, options.samples)
        if row is None:
            continue
        log.append(row)
        figures = [row[f"{key}_{label}"] for key in ("seconds", "fold_error", "test_error") for label in ("all", "few")]
        print_row([name, seed, *(f"{figure:.3g}" for figure in figures)])


if __name__ == "__main__":
    main()
