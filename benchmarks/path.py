"""A regularisation path against fits from scratch: 30 alphas and 5 adaptivities.

    python benchmarks/path.py
    python benchmarks/path.py --n 1000 --width 512 --csv path.csv

One hidden layer of ReLU units, y a product of two linear forms in 50 dimensions plus noise, relative duality gap 1e-6,
for the path and for fits from scratch alike. What the path costs in fits from scratch is its time divided by their mean
time, over six of the 30 alphas, the third of every five, and all adaptivities. One more row, on neither account, is
adaptivity 0: ridge NTK, in closed form.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from _common import Log, machine, print_header, print_row
from lowrank_tangent import StructuredRegression, TangentFeatures, solve
from lowrank_tangent.datasets import make_product
from lowrank_tangent.model_selection import tangent_path
from lowrank_tangent.networks import MLP

ALPHAS, ADAPTIVITIES = np.logspace(1, -3, 30), [0.1, 1.0, 10.0, 100.0, 1000.0]
SOME = slice(2, None, 5)


def make_problem(n, n_features, width):
    """The problem of a size, for any alpha and adaptivity."""
    X, y = make_product(n, n_features, noise=0.1, random_state=0)
    features = TangentFeatures(MLP((width,)), random_state=0).fit(X)
    return StructuredRegression(features.operator(X), y, "power", fit_intercept=True)


def measure(problem, adaptivities, log):
    """Seconds of a path, the seconds of each fit from scratch and the worst gap; a line of the table per adaptivity."""
    start = time.perf_counter()
    path = tangent_path(problem, ALPHAS, adaptivities, keep=lambda problem, solution: None, verbose=1)
    seconds = time.perf_counter() - start
    everything = []
    for i, adaptivity in enumerate(adaptivities):
        scratch = []
        for alpha in ALPHAS[SOME]:
            start = time.perf_counter()
            solution = solve(problem.with_strength(alpha, adaptivity), tol=1e-6)
            scratch.append((time.perf_counter() - start, solution.n_iter))
        everything.extend(row[0] for row in scratch)
        mean, iterations = np.mean(scratch, axis=0)
        row = {
            "n": problem.operator.n_samples,
            "adaptivity": adaptivity,
            "path_seconds": path.seconds[i].mean(),
            "path_iterations": path.n_iter[i].mean(),
            "scratch_seconds": mean,
            "scratch_iterations": iterations,
        }
        log.append(row)
        print_row([f"{adaptivity:g}", *(f"{value:.3g}" for value in list(row.values())[2:])])
    return seconds, everything, path.error.max()


def main():
    """Run both at every size and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, nargs="+", default=[300, 1000, 2000])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--csv", metavar="FILE", help="write the figures there")
    options = parser.parse_args()
    print(machine())
    log = Log(options.csv)
    tangent_path(make_problem(30, 3, 4), ALPHAS[:2], [0.0, 1.0])  # compiled before the clock starts
    for n in options.n:
        problem = make_problem(n, options.features, options.width)
        print(f"\n### n = {n}\n")
        print_header(["adaptivity", "path, s a point", "iterations", "from scratch, s", "iterations"])
        measure(problem, [0.0], log)
        seconds, scratch, worst = measure(problem, ADAPTIVITIES, log)
        print(
            f"\n{len(ADAPTIVITIES) * len(ALPHAS)} solutions in {seconds:.1f} s, worst gap {worst:.1e}: as much as "
            f"{seconds / np.mean(scratch):.1f} fits from scratch, of {np.mean(scratch):.3f} s on average"
        )


if __name__ == "__main__":
    main()
