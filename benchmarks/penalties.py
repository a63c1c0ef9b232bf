"""Proximal maps: nanoseconds a singular value, beside numpy.sqrt and scipy.optimize.minimize_scalar.

    python benchmarks/penalties.py

Singular values are drawn log-uniformly from 1e-3 to 1e3, the step τ is 0.1 or 10. `minimize_scalar` minimises the
definition ½(v − s)² + τ ω̃(v) on [0, s] with the package's own ω̃, one value after the other; it finds one local
minimum, and the last column says for how many values it is worse than the map by more than 1e-6.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.optimize import minimize_scalar

from _common import median_seconds
from lowrank_tangent.penalties import (
    CustomPenalty,
    JointPenalty,
    KLPenalty,
    NuclearPenalty,
    PowerPenalty,
    RidgePenalty,
    SchattenPenalty,
)

PENALTIES = [
    RidgePenalty(),
    PowerPenalty(2),
    KLPenalty(),
    PowerPenalty(3),
    PowerPenalty(1.5),
    PowerPenalty(1),
    JointPenalty(PowerPenalty(2), PowerPenalty(2)),
    JointPenalty(KLPenalty(), KLPenalty()),
    JointPenalty(PowerPenalty(1), PowerPenalty(2)),
    NuclearPenalty(),
    SchattenPenalty(0.5),
    CustomPenalty(lambda z: np.abs(z - 1.0) ** 1.5, name="custom (z − 1)^1.5"),
]
#: Values that go through the slow reference, and differences of the objective that count.
FEW, WORSE = 200, 1e-6


def nanoseconds(function, size, repeats):
    """Median nanoseconds a value."""
    function()
    return median_seconds(function, repeats)[0] / size * 1e9


def reference(penalty, s, tau):
    """The map by minimize_scalar."""
    return np.array(
        [
            minimize_scalar(
                lambda v, x=x: 0.5 * (v - x) ** 2 + tau * float(penalty.effective(v)),
                bounds=(0.0, x),
                method="bounded",
                options={"xatol": 1e-10},
            ).x
            for x in s
        ]
    )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=20_000, help="singular values a call (default 20000)")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    s = 10.0 ** np.random.default_rng(0).uniform(-3, 3, options.size)
    root = nanoseconds(lambda: np.sqrt(s), options.size, options.repeats)
    print(f"numpy.sqrt: {root:.1f} ns a value\n")
    print("| penalty | prox τ=0.1, ns | prox τ=10, ns | / sqrt | stretch, ns | minimize_scalar, ns | ratio | worse |")
    print("|---|---|---|---|---|---|---|---|")
    for penalty in PENALTIES:
        small = nanoseconds(lambda p=penalty: p.prox(s, 0.1), options.size, options.repeats)
        large = nanoseconds(lambda p=penalty: p.prox(s, 10.0), options.size, options.repeats)
        stretch = nanoseconds(lambda p=penalty: p.stretch(s), options.size, options.repeats)
        few = s[:FEW]
        start = time.perf_counter()
        slow = reference(penalty, few, 10.0)
        each = (time.perf_counter() - start) / FEW * 1e9
        objectives = [0.5 * (v - few) ** 2 + 10.0 * penalty.effective(v) for v in (slow, penalty.prox(few, 10.0))]
        worse = np.mean(objectives[0] > objectives[1] * (1.0 + WORSE))
        print(
            f"| {penalty!r} | {small:.0f} | {large:.0f} | {max(small, large) / root:.0f} | {stretch:.0f} | "
            f"{each:.0f} | {each / large:.0f} | {worse:.0%} |"
        )


if __name__ == "__main__":
    main()
