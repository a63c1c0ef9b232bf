"""Whether the plain recursive feature machine of small_data.py would do better with a wider grid and more rounds.

    python benchmarks/wider.py --data square product gated
    LOWRANK_TANGENT_DATA=folder python benchmarks/wider.py --data parkinsons pol --n 1500 --rounds 10 --csv wider.csv

There it often takes the least alpha and the largest number of rounds that it is offered. Here it is offered alphas of
1e-8 and 1e-6 too, or more rounds, or both, on the samples and folds of small_data.py.
"""

from __future__ import annotations

import itertools

import numpy as np
from small_data import draws_parser, error_of, samples

from _common import Log, machine, print_header, print_row, progress
from _rivals_small import MANY_SAMPLES, RFM, RFM_FEWER_ROUNDS, RFM_ROUNDS, best_machine, machine_errors

WIDER = {**RFM, "alpha": [1e-8, 1e-6, *RFM["alpha"]]}


def measure(name, n, seed, max_rounds):
    """Row of a draw: test errors as it is, with either limit widened and with both; None for too few samples."""
    drawn = samples(name, n, seed)
    if drawn is None:
        return None
    task, (X_test, y_test) = drawn
    errors = machine_errors(task, WIDER, max_rounds)
    is_new = np.array([alpha not in RFM["alpha"] for _, alpha, _ in itertools.product(*WIDER.values())])
    usual = 1 + (RFM_FEWER_ROUNDS if n > MANY_SAMPLES else RFM_ROUNDS)
    row = {"data": name, "n": n, "seed": seed}
    for label, more_alphas, n_rounds in (
        ("rfm", False, usual),
        ("alphas", True, usual),
        ("rounds", False, None),
        ("both", True, None),
    ):
        offered = np.where(is_new[:, None] & (not more_alphas), np.inf, errors)[:, :n_rounds]
        model = best_machine(task, WIDER, offered)
        row[label] = error_of(model.predict(X_test), y_test, task.is_classification)
    return row


def main():
    """One line a data set and seed."""
    parser = draws_parser(__doc__, n=400, seeds=1)
    parser.add_argument("--rounds", type=int, default=24, help="the larger number of rounds (default 24)")
    options = parser.parse_args()
    print(machine())
    log = Log(options.csv)
    print_header(["data", "seed", "as it is", "smaller alphas", "more rounds", "both"])
    for seed, name in progress(list(itertools.product(range(options.seeds), options.data)), "draws"):
        row = measure(name, options.n, seed, options.rounds)
        if row is not None:
            log.append(row)
            print_row([name, seed, *(f"{row[label]:.3g}" for label in ("rfm", "alphas", "rounds", "both"))])


if __name__ == "__main__":
    main()
