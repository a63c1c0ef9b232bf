"""Time to a certified solution: Newton beside cvxpy, proximal gradient and one ridge NTK fit.

    python benchmarks/solvers.py            # everything: the cone solver and proximal gradient take minutes
    python benchmarks/solvers.py --quick    # small sizes only

The target is a product of two linear forms (of unit variance) plus noise, alpha = 0.01 and adaptivity = 100. The
factors are Gaussian, either as drawn ("raw": the kernel's mean diagonal is p·q and the solution little adapted) or
scaled to a mean diagonal of 1 ("unit", as estimators scale them: the penalty is close to the nuclear norm). All
solvers run in this process on the same problem, compiled before the clock starts, and stop at the same relative
duality gap (cvxpy at its own tolerances, its gap is printed). Times are medians of several runs where a run is short.
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


def make_problem(n, p, q, penalty, scaling):
    """One layer of Gaussian factors; y is a product of two linear forms of unit variance plus noise."""
    rng = np.random.default_rng(0)
    h, delta = rng.standard_normal((n, p)), rng.standard_normal((n, q))
    y = (h @ rng.standard_normal(p)) * (delta @ rng.standard_normal(q)) / np.sqrt(p * q)
    y += NOISE * rng.standard_normal(n)
    if scaling == "unit":
        h, delta = h / np.sqrt(p), delta / np.sqrt(q)
    return StructuredRegression(TangentOperator([LayerFactors(h, delta)]), y, penalty, ALPHA, ADAPTIVITY)


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


def measure(size, penalty, scaling, method, tol, limit, repeats):
    """Seconds, gap and iterations of one solver; it is stopped after `limit` seconds."""
    problem = make_problem(*size, penalty, scaling)

    def run():
        max_iter = 10**7 if method == "proximal" else None
        return solve(problem, method, tol, max_iter=max_iter, callback=lambda row: row.time > limit)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds, solution = timed(run, repeats)
    return {
        "factors": scaling,
        "penalty": penalty,
        "n": size[0],
        "p": size[1],
        "q": size[2],
        "method": method,
        "seconds": seconds,
        "dual_gap": solution.dual_gap,
        "iterations": solution.n_iter,
        "objective": solution.objective,
    }


def compare(size, rival, penalty, scaling, options):
    """Newton, a rival and one ridge NTK fit on one problem: rows for the CSV, and a line of the table."""
    newton = measure(size, penalty, scaling, "newton", options.tol, options.limit, options.repeats)
    other = measure(size, penalty, scaling, rival, options.tol, options.limit, 1)
    problem = make_problem(*size, penalty, scaling)
    ridge, _ = timed(lambda: ridge_ntk(problem), 4 * options.repeats)
    more = "> " if other["seconds"] >= options.limit else ""
    cells = [
        str(size),
        f"{newton['seconds']:.4f}",
        f"{newton['dual_gap']:.0e}",
        str(newton["iterations"]),
        rival,
        f"{more}{other['seconds']:.2f}",
        f"{other['dual_gap']:.0e}",
        f"{more}{other['seconds'] / newton['seconds']:.0f}",
        f"{ridge:.4f}",
        f"{newton['seconds'] / ridge:.1f}",
    ]
    return [newton, other, {**newton, "method": "ridge NTK", "seconds": ridge}], cells


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
            measure((20, 4, 5), penalty, "unit", method, options.tol, 60.0, 1)  # compile
    sizes = [(size, "cvxpy") for size in SMALL] + [(size, "proximal") for size in LARGE if not options.quick]
    header = [
        "(n, p, q)",
        "newton s",
        "gap",
        "steps",
        "rival",
        "rival s",
        "gap",
        "ratio",
        "ridge NTK s",
        "newton/ridge",
    ]
    rows = []
    for scaling in ("raw", "unit"):
        for penalty in ("power", "kl"):
            print(f"\n{scaling} factors, {penalty} penalty\n\n| {' | '.join(header)} |\n|{'---|' * len(header)}")
            for size, rival in sizes:
                measured, cells = compare(size, rival, penalty, scaling, options)
                rows += measured
                print(f"| {' | '.join(cells)} |", flush=True)
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
