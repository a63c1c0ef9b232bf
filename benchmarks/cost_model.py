"""The constants of the solver's cost model, measured on this machine, and what choosing by them would gain.

    python benchmarks/cost_model.py --csv cost_model.csv      # five minutes
    python benchmarks/cost_model.py --quick                   # smaller problems, a minute or less

Newton's method chooses between ways of doing the same by a model of what they cost: lowrank_tangent/solvers/newton/
costs.py. The first table has its constants beside those of this machine. Speeds are the best of several runs, in units
of one operation of a large matrix product in single precision, in which most of the work is done. Numbers of products
that one way saves are counted on one problem each. What is a bound and no speed (sizes, shares, landmarks) is kept.

The second table solves problems of growth.py by the built-in constants and by those measured here, in alternation.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time

import numpy as np
from growth import BASE, NAMED, STRENGTHS, TOL, Point, make_problem, shrunk
from scipy.optimize import nnls

from _common import Log, add_outputs, machine, median_seconds, print_header, print_row, progress
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.linalg.cholesky import CholeskyFactor
from lowrank_tangent.operators import LayerFactors, TangentOperator
from lowrank_tangent.solvers.newton import costs
from lowrank_tangent.solvers.newton.descent import descend
from lowrank_tangent.solvers.newton.kernels import StretchedKernels
from lowrank_tangent.solvers.newton.pairs import MOST_DIRECTIONS, pair_kernels
from lowrank_tangent.solvers.newton.preconditioner import Preconditioner
from lowrank_tangent.solvers.spectral_point import PrimalPoint

#: Columns of skinny products, and directions on the smaller side of a layer, at which speeds are measured.
COLUMNS, SIDES = (1, 2, 4, 8, 16), (8, 24, 64, 128)
WIDE = 256
#: Rows of the square matrix whose product is the unit.
_LARGE = 1000
NO_EXACT = {"EXACT_PRODUCTS": (0, 0, 0)}


@contextlib.contextmanager
def using(**constants):
    """The cost model with other constants."""
    built_in = {name: getattr(costs, name) for name in constants}
    try:
        for name, value in constants.items():
            setattr(costs, name, value)
        yield
    finally:
        for name, value in built_in.items():
            setattr(costs, name, value)


def gaussian_problem(n, shapes, outputs="shared", C=1, loss="squared", alpha=0.1):
    """Gaussian factors, and targets of coefficients of rank one plus noise; of several classes the largest."""
    rng = np.random.default_rng(0)
    blocks = C if outputs == "network" else 1
    layers = [
        LayerFactors(rng.standard_normal((n, p)) / np.sqrt(p), rng.standard_normal((n, blocks, q)) / np.sqrt(q))
        for p, q in shapes
    ]
    operator = TangentOperator(layers, outputs, C if outputs == "shared" else None)
    signal = operator.matvec(
        [np.outer(rng.standard_normal(p), rng.standard_normal(q)) for p, q in operator.coef_shapes]
    )
    y = signal / signal.std() + 0.1 * rng.standard_normal(signal.shape)
    if loss == "multinomial":
        y = np.eye(C)[np.argmax(y, axis=1)]
    return StructuredRegression(operator, y, "power", alpha, 10.0, loss)


def random_point(problem, seed):
    """Some point of a problem."""
    rng = np.random.default_rng(seed)
    return PrimalPoint(
        problem, [rng.standard_normal(shape) / np.sqrt(max(shape)) for shape in problem.design.coef_shapes]
    )


class Speeds:
    """Speeds of this machine, for kernels of n samples.

    Parameters
    ----------
    n, repeats : int
    """

    def __init__(self, n, repeats):
        self.n, self.repeats = n, repeats
        rng = np.random.default_rng(0)
        self.kernel = rng.standard_normal((n, n)).astype(np.float32)
        #: A matrix whose square takes the time of so many operations.
        self._square = np.ascontiguousarray(self.kernel[:_LARGE, :_LARGE])
        self.gigaflops = 1e-9 * 2.0 * len(self._square) ** 3 / min(self._seconds(lambda: self._square @ self._square))

    def operations(self, function):
        """What a call takes in operations of a large product, which is timed in turns with it; the best of each."""
        function()
        pairs = [
            (median_seconds(function, 1)[0], median_seconds(lambda: self._square @ self._square, 1)[0])
            for _ in range(self.repeats)
        ]
        own, square = (min(seconds) for seconds in zip(*pairs, strict=True))
        return own / square * 2.0 * len(self._square) ** 3

    def _seconds(self, function):
        return [median_seconds(function, 1)[0] for _ in range(self.repeats)]

    def entries(self, function):
        """Operations that a call takes for every entry of the kernel."""
        return self.operations(function) / self.n**2

    def skinny(self):
        """WAIT and COLUMN: the kernel times a few columns."""
        columns = [np.ones((self.n, k), dtype=np.float32) for k in COLUMNS]
        slope, constant = np.polyfit(COLUMNS, [self.entries(lambda x=x: self.kernel @ x) for x in columns], 1)
        return {"WAIT": constant, "COLUMN": slope}

    def cholesky(self):
        """CHOLESKY_ENTRY: a factor of the kernel."""
        matrix = self.kernel @ self.kernel.T
        matrix.flat[:: self.n + 1] += self.n
        return {"CHOLESKY_ENTRY": self.entries(lambda: CholeskyFactor(matrix.copy())) - self.n / 3}

    def stretched(self):
        """ENTRY, and those of Γ terms: kernels of layers that are stretched anew."""
        rests, rows, extras = [], [], []
        for side in SIDES:
            problem = gaussian_problem(self.n, [(side, WIDE)])
            design, points = problem.design.with_precision(np.float32), [random_point(problem, seed) for seed in (0, 1)]
            kernels, turn = StretchedKernels(design), iter(range(10**9))

            def stretch(with_pairs, kernels=kernels, design=design, points=points, turn=turn):
                point = points[next(turn) % 2]  # another one than the last, whose kernel is known
                return kernels.mean(point, pair_kernels(design, point) if with_pairs else ())

            plain = self.entries(lambda stretch=stretch: stretch(False))
            rests.append(plain - 2 * side)
            rows.append([side, min(side, MOST_DIRECTIONS), 1.0])
            extras.append(max(self.entries(lambda stretch=stretch: stretch(True)) - plain, 0.0))
        direction, strong, entry = nnls(np.array(rows), np.array(extras))[0]
        pairs = {"PAIR_DIRECTION": direction, "PAIR_STRONG": strong, "PAIR_ENTRY": entry}
        return {"ENTRY": statistics.median(rests), **pairs}

    def factors(self):
        """SMALL: products with the factors of a layer."""
        problem = gaussian_problem(self.n, [(64, WIDE)])
        design = problem.design.with_precision(np.float32)
        coefs, dual = [np.ones((64, WIDE))], np.ones((self.n, 1))
        spent = self.operations(lambda: (design.matvec(coefs), design.rmatvec(dual)))
        return {"SMALL": spent / (4.0 * self.n * 64 * WIDE)}

    def calls(self):
        """CALL_OVERHEAD and DESCENT_CALLS: steps so small that they are nothing but calls."""
        shapes, n = [(3, 4), (4, 3), (3, 2)], 200
        problem = gaussian_problem(n, shapes)
        with using(**NO_EXACT):
            preconditioner = Preconditioner(problem)
        zero = PrimalPoint(problem, problem.design.zeros())
        preconditioner.update(zero)
        product, dual = preconditioner.products.at(zero), np.ones((n, 1), dtype=np.float32)
        step = self.operations(lambda: preconditioner.apply(product(dual)))

        def whole():
            preconditioner.expire()
            descend(zero, problem.design.rmatvec(zero.residual), preconditioner, TOL)

        return {"CALL_OVERHEAD": step, "DESCENT_CALLS": self.operations(whole) / len(shapes)}


def steps_of(problem, **constants):
    """Steps of conjugate gradients and renewals of the preconditioner that a solution takes with some constants."""
    counts = {"spend_product": 0, "renew": 0}
    whole = {name: getattr(Preconditioner, name) for name in counts}

    def counted(name):
        def method(*arguments, **settings):
            counts[name] += 1
            return whole[name](*arguments, **settings)

        return method

    try:
        for name in counts:
            setattr(Preconditioner, name, counted(name))
        with using(**constants):
            solve(problem, "newton", TOL)
    finally:
        for name, method in whole.items():
            setattr(Preconditioner, name, method)
    return counts["spend_product"], max(counts["renew"], 1)


def saved(problem, way, other):
    """Steps that one way saves for each of its renewals, beside another way."""
    (steps, renewals), (others, _) = steps_of(problem, **way), steps_of(problem, **other)
    return max(others - steps, 0) / renewals


def counts(n):
    """Numbers of products that one way saves, of problems of n samples."""
    always = {"EXACT_PRODUCTS": (np.inf,) * 3, "EXACT_UNKNOWNS": np.inf, "EXACT_OPERATIONS": np.inf}
    problems = [
        gaussian_problem(n, [(9, 16), (17, 1)]),
        gaussian_problem(n, [(9, 16), (17, 1)], C=3),
        gaussian_problem(n, [(9, 16), (17, 3)], "network", 3),
    ]
    classes = gaussian_problem(2 * n, [(9, 16), (17, 1)], C=3, loss="multinomial", alpha=1e-3)
    steps, renewals = steps_of(gaussian_problem(4 * n, [(20, WIDE)]), **NO_EXACT)
    return {
        "EXACT_PRODUCTS": tuple(saved(problem, always, NO_EXACT) for problem in problems),
        "CLASSWISE_PRODUCTS": saved(
            classes, {**NO_EXACT, "CLASSWISE_PRODUCTS": np.inf}, {**NO_EXACT, "CLASSWISE_PRODUCTS": 0}
        ),
        "KERNEL_PRODUCTS": steps / renewals,
    }


def measure(options):
    """Every constant that can be measured, by its name in costs.py."""
    speeds = Speeds(options.n, options.repeats)
    measured = {}
    for part in progress((speeds.skinny, speeds.cholesky, speeds.stretched, speeds.factors, speeds.calls), "speeds"):
        measured.update(part())
    return speeds.gigaflops, {**measured, **counts(max(options.n // 25, 20))}


def shown(value):
    """A constant, or several, as text."""
    return " / ".join(f"{part:.3g}" for part in value) if isinstance(value, tuple) else f"{value:.3g}"


def kept():
    """Names of the constants that are not measured: bounds, shares and sizes."""
    return [name for name, value in vars(costs).items() if name.isupper() and isinstance(value, (int, float))]


def compare(measured, options, log):
    """Solve problems by the built-in constants and by the measured ones; the ratios of their seconds."""
    print("\n### problems of growth.py\n")
    print_header(["(n, d, width, C)", "alpha, adaptivity", "built-in s", "measured s", "measured / built-in"])
    ratios = []
    for point in options.points:
        for strength in STRENGTHS:
            problem, seconds = make_problem(point).with_strength(*strength), ([], [])
            for turn in range(2 * options.pairs + 2):
                own = turn % 4 in (1, 2)  # built-in, own, own, built-in
                with using(**measured) if own else contextlib.nullcontext():
                    start = time.perf_counter()
                    solve(problem, "newton", TOL)
                if turn > 1:  # the first of each warms up
                    seconds[own].append(time.perf_counter() - start)
            built_in, own = (statistics.median(values) for values in seconds)
            ratios.append(own / built_in)
            cells = tuple(point), f"{strength[0]:g}, {strength[1]:g}", f"{built_in:.3g}", f"{own:.3g}"
            print_row([*cells, f"{ratios[-1]:.2f}"])
            where = f"{tuple(point)}; {strength[0]:g}, {strength[1]:g}"
            log.append({"what": "seconds", "name": where, "built_in": built_in, "measured": own})
    return ratios


def parse_arguments():
    """Options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, help="samples of the kernels that speeds are measured on (default 2000)")
    parser.add_argument("--repeats", type=int, default=7, help="runs of which the best counts (default 7)")
    parser.add_argument("--problems", type=int, default=5, help="problems that are solved, each thrice (default 5)")
    parser.add_argument("--pairs", type=int, default=3, help="solutions by either set of constants (default 3)")
    parser.add_argument(
        "--quick", action="store_true", help="kernels of 600 samples, and problems of a tenth of the size"
    )
    add_outputs(parser)
    options = parser.parse_args()
    options.n = options.n or (600 if options.quick else 2000)
    points = [BASE, BASE._replace(C=8), BASE._replace(width=1024), *NAMED[:2]]
    options.points = [shrunk(point, 10 if options.quick else 1) for point in points[: options.problems]]
    return options


def main():
    """Run the benchmark."""
    options = parse_arguments()
    log = Log(options.csv)
    solve(make_problem(Point(30, 3, 4, 1)), "newton", TOL)  # compiled before the clock starts
    gigaflops, measured = measure(options)
    print(f"{machine()}\nlarge products: {gigaflops:.1f} Gflop/s\n")
    print_header(["constant", "built-in", "measured"])
    for name, value in measured.items():
        built_in = getattr(costs, name)
        print_row([name, shown(built_in), shown(value)])
        log.append({"what": "constant", "name": name, "built_in": shown(built_in), "measured": shown(value)})
    for name in kept():
        if name not in measured:
            print_row([name, shown(getattr(costs, name)), "kept"])
    ratios = compare(measured, options, log)
    gain = 1.0 - float(np.exp(np.mean(np.log(ratios))))
    verdict = f"{100 * abs(gain):.0f} % {'less' if gain > 0 else 'more'}"
    print(f"\nBy the measured constants solutions take {verdict} time (geometric mean over the problems).")


if __name__ == "__main__":
    main()
