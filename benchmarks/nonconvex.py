"""Penalties that are not convex: objective reached and seconds of five schemes, ten random problems each.

    python benchmarks/nonconvex.py            # about ten minutes
    python benchmarks/nonconvex.py --quick    # two problems a penalty

- reweighted: the package's own, Newton steps preconditioned with reweighted least squares; also with ten starts.
- irls: plain iteratively reweighted least squares, ridge regression on the features as adapted so far.
- majorise: a convex problem that touches from above, solved by the package's Newton method, again and again. For a
  two-sided price one side is fixed and the other solved for. A one-sided price (z − 1)^p is the joint price of N equal
  factors z = z1 … zN of price (z^N − 1)^p / N, which is convex in the needed sense; N − 1 of them are fixed.
- proximal: accelerated proximal gradient with a safeguard for monotonicity.
- bilinear: L-BFGS on parameters and transforms.

Every scheme starts at ridge regression (bilinear: at the identity) and stops at a relative stationarity of 1e-6 or
after --limit seconds. Problems: one hidden layer of ReLU units, y a product of two linear forms plus noise.
"""

from __future__ import annotations

import argparse
import time
import warnings
from types import SimpleNamespace

import numpy as np

from _common import Log
from lowrank_tangent import StructuredRegression, TangentFeatures, adapt, solve
from lowrank_tangent.datasets import make_product
from lowrank_tangent.linalg.transforms import LowRankTransform
from lowrank_tangent.networks import MLP
from lowrank_tangent.penalties import CustomPenalty, JointPenalty, PowerPenalty, RidgePenalty

N_SAMPLES, N_FEATURES, WIDTH, NOISE = 150, 10, 40, 0.1
ALPHA, ADAPTIVITY, TOL, STARTS = 0.02, 20.0, 1e-6, 10
#: Objectives this close (relatively) are the same.
SAME = 1e-5
PENALTIES = {
    "p = 1": PowerPenalty(1),
    "p = 1.5": PowerPenalty(1.5),
    "two-sided p = 2": JointPenalty(PowerPenalty(2), PowerPenalty(2)),
}
#: Number of equal factors of a one-sided price: the least for which one of them is smooth enough for Newton's method.
FACTORS = {1: 3, 1.5: 2}


def make_problem(penalty, seed):
    """One random problem."""
    X, y = make_product(N_SAMPLES, N_FEATURES, noise=NOISE, random_state=seed)
    features = TangentFeatures(MLP((WIDTH,)), random_state=seed).fit(X)
    return StructuredRegression(features.operator(X), y, penalty, ALPHA, ADAPTIVITY)


def at(coefs):
    """What `adapt` needs of a solution."""
    return SimpleNamespace(coefs=coefs)


def transformed_problem(problem, left, right, penalty, adaptivity):
    """The regression on fixed transforms of the features, and the map of its coefficients to those of the problem."""
    operator = problem.operator.transformed(left, right)

    def back(coefs):
        return [m2.apply(m1.apply(coef.T).T) for coef, m1, m2 in zip(coefs, left, right, strict=True)]

    return StructuredRegression(operator, problem.y, penalty, problem.alpha, adaptivity), back


def irls_step(problem, coefs):
    """Ridge regression on the features as these coefficients adapt them."""
    adaptation = adapt(problem, at(coefs))
    ridge, back = transformed_problem(problem, adaptation.left, adaptation.right, "ridge", 0.0)
    return back(solve(ridge).coefs)


def majorise_two_sided(problem, coefs):
    """Fix the right transforms and solve for the left ones, then the other way round."""
    for side in (0, 1):
        adaptation = adapt(problem, at(coefs))
        identities = [LowRankTransform.identity(m.shape[0]) for m in (adaptation.left, adaptation.right)[side]]
        free = problem.spectral[0].penalty.sides[side]
        if side == 0:
            left, right, penalty = identities, adaptation.right, JointPenalty(free, RidgePenalty())
        else:
            left, right, penalty = adaptation.left, identities, JointPenalty(RidgePenalty(), free)
        convex, back = transformed_problem(problem, left, right, penalty, problem.spectral[0].adaptivity)
        coefs = back(solve(convex, "newton", tol=1e-9).coefs)
    return coefs


def majorise_power(problem, coefs):
    """Fix all but one of N equal factors of the left transform and solve for that one."""
    n_factors, p = FACTORS[problem.spectral[0].penalty.p], problem.spectral[0].penalty.p
    adaptation = adapt(problem, at(coefs))
    fixed = [LowRankTransform(m.basis, m.stretch ** (1.0 - 1.0 / n_factors)) for m in adaptation.left]
    identities = [LowRankTransform.identity(m.shape[0]) for m in adaptation.right]
    factor = CustomPenalty(
        lambda z: np.abs(z**n_factors - 1.0) ** p / n_factors,
        lambda z: np.where(z < 1.0, -p, p) * np.abs(z**n_factors - 1.0) ** (p - 1.0) * z ** (n_factors - 1.0),
        name=f"factor {n_factors}",
    )
    convex, back = transformed_problem(problem, fixed, identities, factor, problem.spectral[0].adaptivity)
    return back(solve(convex, "newton", tol=1e-9).coefs)


def iterate(problem, step, limit):
    """Repeat a step from ridge regression until the point is stationary or time is up."""
    start = time.perf_counter()
    coefs = solve(StructuredRegression(problem.operator, problem.y, "ridge", problem.alpha, 0.0)).coefs
    iterations = 0
    while problem.optimality_residual(coefs) > TOL and time.perf_counter() - start < limit:
        coefs = step(problem, coefs)
        iterations += 1
    return coefs, iterations


def run(name, problem, limit):
    """Coefficients and iterations of one scheme."""
    if name == "irls":
        return iterate(problem, irls_step, limit)
    if name == "majorise":
        two_sided = isinstance(problem.spectral[0].penalty, JointPenalty)
        return iterate(problem, majorise_two_sided if two_sided else majorise_power, limit)
    n_init = STARTS if name == "reweighted, ten starts" else 1
    method = name.split(",")[0]
    max_iter = 10**7 if method == "proximal" else None

    def late(row):
        return row.time > limit

    solution = solve(problem, method, TOL, max_iter=max_iter, n_init=n_init, random_state=0, callback=late)
    return solution.coefs, solution.n_iter


SCHEMES = ["reweighted", "irls", "majorise", "proximal", "bilinear", "reweighted, ten starts"]


def main():
    """Run the comparison, write a CSV and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two problems a penalty")
    parser.add_argument("--limit", type=float, default=20.0, help="seconds a run (default 20)")
    parser.add_argument("--csv", default="nonconvex.csv", help="file for the figures")
    options = parser.parse_args()
    log = Log(options.csv)
    for label, penalty in PENALTIES.items():
        for name in SCHEMES:  # compiled before the clock starts
            run(name, make_problem(penalty, 99), 0.5)
        for seed in range(2 if options.quick else 10):
            problem = make_problem(penalty, seed)
            for name in SCHEMES:
                start = time.perf_counter()
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    coefs, iterations = run(name, problem, options.limit)
                seconds = time.perf_counter() - start
                log.append(
                    {
                        "penalty": label,
                        "seed": seed,
                        "scheme": name,
                        "objective": problem.objective(coefs),
                        "seconds": seconds,
                        "iterations": iterations,
                        "stationarity": problem.optimality_residual(coefs),
                    }
                )
    print_table(log.rows)


def print_table(rows):
    """Medians, and how often a scheme has the lowest objective among those with one start."""
    print("| penalty | scheme | median s | iterations | stationary to 1e-6 | lowest | above the best, mean | worst |")
    print("|---|---|---|---|---|---|---|---|")
    for label in PENALTIES:
        here = [row for row in rows if row["penalty"] == label]
        seeds = sorted({row["seed"] for row in here})
        best = {seed: min(row["objective"] for row in here if row["seed"] == seed) for seed in seeds}
        for name in SCHEMES:
            mine = [row for row in here if row["scheme"] == name]
            above = np.array([row["objective"] / best[row["seed"]] - 1.0 for row in mine])
            seconds = np.median([row["seconds"] for row in mine])
            iterations = np.median([row["iterations"] for row in mine])
            stationary = sum(row["stationarity"] <= 1.01 * TOL for row in mine)
            print(
                f"| {label} | {name} | {seconds:.2f} | {iterations:.0f} | {stationary} of {len(mine)} | "
                f"{np.sum(above <= SAME)} of {len(mine)} | {above.mean():.1e} | {above.max():.1e} |"
            )


if __name__ == "__main__":
    main()
