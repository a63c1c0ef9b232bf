"""What the joint problem over parameters and transforms does when its transforms start far from the identity.

    python benchmarks/equivalence.py

For every penalty, ten random problems and five starts ``M = I + N`` each, N Gaussian of the given spectral norm, L-BFGS
minimises the joint problem. The table says how often it ends above the value of the structured problem by more than
1e-4 (relatively), how far on average where it does, and at worst. The structured problem is solved once from ridge
regression; a negative "lowest" would be a joint solution below it.
"""

from __future__ import annotations

import argparse
import itertools

import numpy as np

from lowrank_tangent import StructuredRegression
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.penalties import JointPenalty, KLPenalty, PowerPenalty
from lowrank_tangent.theory import verify_equivalence

SHAPE, NOISE, ALPHA, ADAPTIVITY = (5, 6), 0.5, 0.02, 100.0
#: Fewer samples than coefficients, and as many.
SIZES = (12, 30)
PENALTIES = [PowerPenalty(2), KLPenalty(), PowerPenalty(1.5), JointPenalty(), JointPenalty(KLPenalty(), KLPenalty())]
SCALES = (1.0, 30.0)
ABOVE = 1e-4


def make_problem(penalty, n, seed):
    """Gaussian factors of one layer, coefficients of rank one plus noise."""
    rng = np.random.default_rng(seed)
    p, q = SHAPE
    h, delta = rng.standard_normal((n, p)) / np.sqrt(p), rng.standard_normal((n, q)) / np.sqrt(q)
    y = (h @ rng.standard_normal(p)) * (delta @ rng.standard_normal(q))
    y = y / y.std() + NOISE * rng.standard_normal(n)
    return StructuredRegression(TangentOperator([LayerFactors(h, delta)]), y, penalty, ALPHA, ADAPTIVITY)


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--problems", type=int, default=10)
    parser.add_argument("--starts", type=int, default=5)
    options = parser.parse_args()
    print("| penalty | n | norm of N | from the identity, worst | starts above | mean excess | worst | lowest |")
    print("|---|---|---|---|---|---|---|---|")
    for penalty, n, scale in itertools.product(PENALTIES, SIZES, SCALES):
        identity, excess = [], []
        for seed in range(options.problems):
            problem = make_problem(penalty, n, seed)
            report = verify_equivalence(problem, 1 + options.starts, scale, random_state=seed)
            identity.append(report.excess[0])
            excess.extend(report.excess[1:])
        excess = np.array(excess)
        above = excess[excess > ABOVE]
        mean = f"{above.mean():.1e}" if above.size else "-"
        print(
            f"| {penalty!r} | {n} | {scale:g} | {max(identity):+.0e} | {above.size} of {excess.size} | {mean} | "
            f"{excess.max():+.1e} | {excess.min():+.0e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
