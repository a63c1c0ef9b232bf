"""How the cost of a certified fit grows with samples, inputs, units and outputs, beside one ridge NTK fit.

    python benchmarks/growth.py --csv growth.csv --plot growth.png
    python benchmarks/growth.py --shrink 10                          # samples, inputs and units divided by ten

One hidden layer of ReLU units, outputs='shared', each target a product of two linear forms plus noise. From a base
point n, d, width and C grow one at a time. Newton's method stops at a relative duality gap of 1e-6. Ridge NTK has the
same features and alpha: kernel, Cholesky factor and predictions, in plain NumPy and SciPy. The passes of the network
that make the features are on neither clock. Exponents: least squares on logarithms over the larger half of the sizes.
"""

from __future__ import annotations

import argparse
import functools
from typing import NamedTuple

import numpy as np

from _common import (
    Log,
    add_outputs,
    label_sizes,
    machine,
    median_seconds,
    new_figure,
    print_header,
    print_row,
    ridge_ntk,
    strength_pair,
)
from lowrank_tangent import StructuredRegression, TangentFeatures, solve
from lowrank_tangent.networks import MLP

NOISE, TOL = 0.1, 1e-6


class Point(NamedTuple):
    """Samples, inputs, units and outputs of a problem."""

    n: int
    d: int
    width: int
    C: int


BASE = Point(1000, 50, 256, 1)
AXES = {
    "n": (250, 500, 1000, 2000, 4000, 8000),
    "d": (25, 50, 100, 200, 400, 800),
    "width": (64, 128, 256, 512, 1024, 2048),
    "C": (1, 2, 4, 8, 16),
}
NAMED = [Point(2000, 50, 512, 1), Point(2000, 50, 512, 10), Point(10_000, 50, 512, 1)]
#: Pairs of alpha and adaptivity, from a solution that hardly adapts to one that adapts a lot.
STRENGTHS = [(0.01, 1.0), (0.1, 10.0), (0.1, 1000.0)]
RIDGE = "ridge NTK"


@functools.lru_cache(maxsize=1)
def make_problem(point):
    """The problem of a point, for any alpha and adaptivity."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((point.n, point.d))
    first, second = rng.standard_normal((2, point.d, point.C)) / np.sqrt(point.d)
    Y = (X @ first) * (X @ second) + NOISE * rng.standard_normal((point.n, point.C))
    features = TangentFeatures(MLP((point.width,)), random_state=0).fit(X, point.C)
    return StructuredRegression(features.operator(X), Y, "power")


class Measurements:
    """Figures of points, each measured once and logged."""

    def __init__(self, options):
        self.options = options
        self.log = Log(options.csv)
        self._known = {}

    def ridge(self, point):
        """Row of one ridge NTK fit."""
        if (point, RIDGE) not in self._known:
            problem = make_problem(point).with_strength(self.options.strengths[0][0], 0.0)
            seconds, _ = median_seconds(functools.partial(ridge_ntk, problem), self.options.repeats)
            self._keep(point, RIDGE, {"alpha": problem.alpha, "adaptivity": 0.0}, seconds, 0.0, 1)
        return self._known[point, RIDGE]

    def newton(self, point, strength):
        """Row of one certified fit by Newton's method."""
        if (point, strength) not in self._known:
            problem = make_problem(point).with_strength(*strength)
            seconds, solution = median_seconds(
                lambda: solve(problem, "newton", TOL, callback=lambda row: row.time > self.options.limit),
                self.options.repeats,
            )
            where = dict(zip(("alpha", "adaptivity"), strength, strict=True))
            self._keep(point, strength, where, seconds, solution.dual_gap, solution.n_iter)
        return self._known[point, strength]

    def _keep(self, point, key, strength, seconds, gap, iterations):
        row = {
            **point._asdict(),
            "solver": RIDGE if key == RIDGE else "newton",
            **strength,
            "seconds": seconds,
            "dual_gap": gap,
            "iterations": iterations,
        }
        self.log.append(row)
        self._known[point, key] = row

    def print_line(self, label, point, strengths):
        """Print a line of a table; the strengths among those given for which the gap was reached."""
        ridge = self.ridge(point)["seconds"]
        cells, reached = [label, f"{ridge:.3g}"], []
        for strength in self.options.strengths:
            if strength not in strengths:
                cells.append("-")
                continue
            row = self.newton(point, strength)
            if row["dual_gap"] <= TOL:
                reached.append(strength)
                cells.append(f"{row['seconds']:.3g} ({row['seconds'] / ridge:.1f}×)")
            else:
                cells.append(f"> {row['seconds']:.0f}, gap {row['dual_gap']:.0e}")
        print_row(cells)
        return reached


def name_of(strength):
    """A pair of alpha and adaptivity in words."""
    return f"alpha={strength[0]:g}, adaptivity={strength[1]:g}"


def grow(axis, options, measurements):
    """The table of one axis; the sizes and seconds of every solver, for the exponents and the picture."""
    others = shrunk(BASE, options.shrink)._asdict()
    del others[axis]
    print(f"\n### {axis} grows; {', '.join(f'{name} = {value}' for name, value in others.items())}\n")
    print_header([axis, *columns(options)])
    lines = {RIDGE: ([], []), **{strength: ([], []) for strength in options.strengths}}
    running = options.strengths
    for point in points_along(axis, options.shrink):
        running = measurements.print_line(getattr(point, axis), point, running)
        for key in (RIDGE, *running):
            row = measurements.ridge(point) if key == RIDGE else measurements.newton(point, key)
            for values, value in zip(lines[key], (getattr(point, axis), row["seconds"]), strict=True):
                values.append(value)
    return lines


def columns(options):
    """Names of the columns of seconds."""
    return ["ridge NTK s", *(f"{name_of(strength)}: s (/ ridge)" for strength in options.strengths)]


def points_along(axis, shrink):
    """The points of one axis."""
    return [shrunk(BASE._replace(**{axis: size}), shrink) for size in AXES[axis]]


def shrunk(point, factor):
    """A point with its samples, inputs and units divided by a factor."""
    n, d, width = (max(2, round(size / factor)) for size in point[:3])
    return Point(n, d, width, point.C)


def exponent(sizes, seconds):
    """Slope of log seconds against log size over the larger half of the sizes; NaN where only one is left."""
    half = (len(sizes) + 1) // 2
    sizes, seconds = np.log(sizes[-half:]), np.log(seconds[-half:])
    return np.polyfit(sizes, seconds, 1)[0] if len(np.unique(sizes)) > 1 else np.nan


def draw(lines, path):
    """Seconds against each size, one panel an axis."""
    figure, axes = new_figure(2, 2)
    for ax, (axis, by_solver) in zip(axes.flat, lines.items(), strict=True):
        for key, (sizes, seconds) in by_solver.items():
            label = RIDGE if key == RIDGE else name_of(key)
            ax.loglog(sizes, seconds, "k--" if key == RIDGE else "o-", label=label, markersize=4)
        label_sizes(ax, by_solver[RIDGE][0])
        ax.set(xlabel=axis, ylabel="seconds a fit")
        ax.grid(alpha=0.3)
    axes.flat[0].legend(fontsize="small")
    figure.savefig(path, dpi=130)


def parse_arguments():
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strengths", type=strength_pair, nargs="+", default=STRENGTHS, metavar="ALPHA,ADAPTIVITY")
    parser.add_argument("--repeats", type=int, default=3, help="runs of which the median counts (default 3)")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds after which a fit is stopped (default 300)")
    parser.add_argument("--shrink", type=float, default=1.0, help="divide samples, inputs and units by that")
    add_outputs(parser)
    return parser.parse_args()


def main():
    """Run the benchmark."""
    options = parse_arguments()
    print(machine())
    measurements = Measurements(options)
    for alpha, adaptivity in options.strengths:  # compiled before the clock starts
        solve(make_problem(Point(30, 3, 4, 1)).with_strength(alpha, adaptivity), "newton", TOL)
    lines = {axis: grow(axis, options, measurements) for axis in AXES}
    print("\n### exponents\n")
    print_header(["size", RIDGE, *map(name_of, options.strengths)])
    for axis, by_solver in lines.items():
        print_row([axis, *(f"{exponent(*line):.1f}" for line in by_solver.values())])
    print("\n### named points\n")
    print_header(["(n, d, width, C)", *columns(options)])
    for point in NAMED:
        point = shrunk(point, options.shrink)
        measurements.print_line(tuple(point), point, options.strengths)
    if options.plot:
        draw(lines, options.plot)


if __name__ == "__main__":
    main()
