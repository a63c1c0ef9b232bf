"""A regularisation path against fits from scratch: 30 alphas and 5 adaptivities.

    python benchmarks/path.py
    python benchmarks/path.py --n 2000 --width 512

One hidden layer of ReLU units, y a product of two linear forms in 50 dimensions plus noise, relative duality gap 1e-6.
The cost of the path is given in fits from scratch: the mean over every fifth alpha for each adaptivity.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from lowrank_tangent import StructuredRegression, TangentFeatures, solve
from lowrank_tangent.datasets import make_product
from lowrank_tangent.model_selection import tangent_path
from lowrank_tangent.networks import MLP

ALPHAS, ADAPTIVITIES = np.logspace(-3, 1, 30), [0.1, 1.0, 10.0, 100.0, 1000.0]


def main():
    """Run both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--features", type=int, default=50)
    options = parser.parse_args()
    X, y = make_product(options.n, options.features, noise=0.1, random_state=0)
    features = TangentFeatures(MLP((options.width,)), random_state=0).fit(X)
    problem = StructuredRegression(features.operator(X), y, "power", fit_intercept=True)
    tangent_path(problem, ALPHAS[:2], [1.0])  # compiled before the clock starts

    start = time.perf_counter()
    path = tangent_path(problem, ALPHAS, ADAPTIVITIES, keep=lambda problem, solution: None, verbose=1)
    seconds = time.perf_counter() - start
    print("| adaptivity | path, s a point | iterations | from scratch, s | iterations |")
    print("|---|---|---|---|---|")
    everything = []
    for i, adaptivity in enumerate(ADAPTIVITIES):
        scratch = []
        for alpha in ALPHAS[::5]:
            start = time.perf_counter()
            solution = solve(problem.with_strength(alpha, adaptivity), tol=1e-6)
            scratch.append((time.perf_counter() - start, solution.n_iter))
        mean, iterations = np.mean(scratch, axis=0)
        everything.extend(row[0] for row in scratch)
        print(
            f"| {adaptivity:g} | {path.seconds[i].mean():.3f} | {path.n_iter[i].mean():.1f} | {mean:.3f} | "
            f"{iterations:.1f} |"
        )
    print(
        f"\n{path.seconds.size} solutions in {seconds:.1f} s, worst gap {path.error.max():.1e}: as much as "
        f"{seconds / np.mean(everything):.1f} fits from scratch"
    )


if __name__ == "__main__":
    main()
