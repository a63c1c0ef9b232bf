"""Time to a certified solution: Newton beside cvxpy, proximal gradient and one ridge NTK fit.

    python benchmarks/solvers.py            # everything: the cone solver and proximal gradient take minutes
    python benchmarks/solvers.py --quick    # small sizes only

The target is a product of two linear forms plus noise, alpha = 0.01 and adaptivity = 100. All solvers run in this
process on the same problem, compiled before the clock starts, and stop at the same relative duality gap (cvxpy at
its own tolerances, its gap is printed). Times are medians of several runs where a run is short.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
import warnings

import numpy as np

from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.operators import LayerFactors, TangentOperator

ALPHA, ADAPTIVITY, NOISE = 0.01, 100.0, 0.1
SMALL = [(40, 10, 20), (60, 20, 30), (100, 30, 60)]
LARGE = [(300, 30, 200), (1000, 50, 400)]
SHORT = 5.0


def make_problem(n, p, q, penalty, adaptivity=ADAPTIVITY):
    """One layer of Gaussian factors with unit-variance features; y is a product of two linear forms plus noise."""
    rng = np.random.default_rng(0)
    h, delta = rng.standard_normal((n, p)), rng.standard_normal((n, q))
    y = (h @ rng.standard_normal(p)) * (delta @ rng.standard_normal(q)) / np.sqrt(p * q)
    y += NOISE * rng.standard_normal(n)
    operator = TangentOperator([LayerFactors(h / np.sqrt(p), delta / np.sqrt(q))])
    return StructuredRegression(operator, y, penalty, ALPHA, adaptivity)


def timed(function, repeats):
    """Median seconds of a call and its result; a long call is not repeated."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > SHORT:
            break
    return statistics.median(seconds), result


def ridge_ntk(problem):
    """One ridge NTK fit on the same features: kernel, Cholesky factor, prediction."""
    kernel = problem.design.mean_gram()
    factor = np.linalg.cholesky(kernel + problem.alpha * np.eye(len(kernel)))
    return kernel @ np.linalg.solve(factor.T, np.linalg.solve(factor, problem.target))


def measure(size, penalty, method, tol, limit, repeats):
    """Seconds, gap and iterations of one solver; it is stopped after `limit` seconds."""
    problem = make_problem(*size, penalty)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds, solution = timed(
            lambda: solve(problem, method, tol, max_iter=10**7 if method == "proximal" else None,
                          callback=lambda row: row.time > limit),
            repeats,
        )  # fmt: skip
    return {
        "n": size[0],
        "p": size[1],
        "q": size[2],
        "penalty": penalty,
        "method": method,
        "seconds": seconds,
        "dual_gap": solution.dual_gap,
        "iterations": solution.n_iter,
        "objective": solution.objective,
    }


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tol", type=float, default=1e-6, help="relative duality gap at which to stop")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a solver is stopped")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--csv", metavar="FILE", help="write the rows")
    options = parser.parse_args()
    for penalty in ("power", "kl"):
        for method in ("newton", "proximal", "cvxpy"):
            measure((20, 4, 5), penalty, method, options.tol, 60.0, 1)  # compile
    rows = []
    sizes = [(size, "cvxpy") for size in SMALL] + [(size, "proximal") for size in LARGE if not options.quick]
    for penalty in ("power", "kl"):
        print(f"\n{penalty} penalty, alpha={ALPHA}, adaptivity={ADAPTIVITY:g}, gap {options.tol:g}")
        print(f"{'(n, p, q)':>16} {'newton':>10} {'gap':>8} {'steps':>6}  {'against':>9} {'seconds':>9} {'gap':>8} "
              f"{'ratio':>9}  {'ridge NTK':>10} {'ratio':>6}")  # fmt: skip
        for size, rival in sizes:
            newton = measure(size, penalty, "newton", options.tol, options.limit, options.repeats)
            other = measure(size, penalty, rival, options.tol, options.limit, 1)
            ridge = make_problem(*size, penalty)
            ridge_seconds, _ = timed(lambda ridge=ridge: ridge_ntk(ridge), 4 * options.repeats)
            rows += [newton, other, {**newton, "method": "ridge NTK", "seconds": ridge_seconds, "dual_gap": 0.0}]
            stopped = ">" if other["seconds"] >= options.limit else ""
            print(f"{size!s:>16} {newton['seconds']:9.4f}s {newton['dual_gap']:8.0e} {newton['iterations']:6d}  "
                  f"{rival:>9} {stopped + format(other['seconds'], '.2f'):>8}s {other['dual_gap']:8.0e} "
                  f"{stopped + format(other['seconds'] / newton['seconds'], '.0f'):>8}x  {ridge_seconds:9.4f}s "
                  f"{newton['seconds'] / ridge_seconds:5.0f}x", flush=True)  # fmt: skip
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
