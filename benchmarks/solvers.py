"""Time to a certified solution: Newton beside the solvers of the field, on the same problems.

    python benchmarks/solvers.py --limit 60                 # everything
    python benchmarks/solvers.py --quick                    # small sizes only
    python benchmarks/solvers.py --csv solvers.csv --plot solvers.png

The target is a product of two linear forms (of unit variance) plus noise, alpha = 0.01 and adaptivity = 100. The
factors are Gaussian, either as drawn ("raw": the kernel's mean diagonal is p·q and the solution little adapted) or
scaled to a mean diagonal of 1 ("unit", as estimators scale them: the penalty is close to the nuclear norm).

- newton, proximal: the package's Newton's method and its restarted accelerated proximal gradient.
- pyproximal, copt: FISTA of these packages, given the package's operator and proximal map.
- clarabel, scs: the semidefinite program through cvxpy, at the loosest of their own tolerances that will do.
- ridge NTK: kernel, Cholesky factor and prediction on the same features, as a unit.

All run in this process, compiled before the clock starts, until the relative duality gap is below --tol; it is
always the package's certificate that decides. First-order methods compute it after every tenth step, on their clock.
Times are medians of several runs where a run is short. A solver that is not there after --limit seconds is left out at
larger sizes.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import itertools
import warnings

import numpy as np

import _rivals
from _common import Log, add_outputs, machine, median_seconds, new_figure, print_header, print_row, ridge_ntk
from lowrank_tangent import StructuredRegression, solve
from lowrank_tangent.operators import LayerFactors, TangentOperator

ALPHA, ADAPTIVITY, NOISE = 0.01, 100.0, 0.1
SMALL = [(40, 10, 20), (60, 20, 30), (100, 30, 60)]
LARGE = [(170, 30, 110), (300, 30, 200), (1000, 50, 400), (2000, 60, 800), (4000, 80, 1600)]
FACTORS, PENALTIES = ("raw", "unit"), ("power", "kl")
RIDGE = "ridge NTK"


def own(method):
    """One of the package's solvers, with the interface of the rivals."""

    def run(problem, tol, limit):
        max_iter = 10**7 if method == "proximal" else None
        solution = solve(problem, method, tol, max_iter=max_iter, callback=lambda row: row.time > limit)
        return solution.coefs, solution.dual, solution.n_iter

    return run


SOLVERS = {
    "newton": own("newton"),
    "proximal": own("proximal"),
    "pyproximal": _rivals.by_pyproximal,
    "copt": _rivals.by_copt,
    "clarabel": _rivals.by_clarabel,
    "scs": _rivals.by_scs,
}


def make_problem(n, p, q, penalty, factors):
    """One layer of Gaussian factors; y is a product of two linear forms of unit variance plus noise."""
    rng = np.random.default_rng(0)
    h, delta = rng.standard_normal((n, p)), rng.standard_normal((n, q))
    y = (h @ rng.standard_normal(p)) * (delta @ rng.standard_normal(q)) / np.sqrt(p * q)
    y += NOISE * rng.standard_normal(n)
    if factors == "unit":
        h, delta = h / np.sqrt(p), delta / np.sqrt(q)
    return StructuredRegression(TangentOperator([LayerFactors(h, delta)]), y, penalty, ALPHA, ADAPTIVITY)


def measure(problem, solver, tol, limit, repeats):
    """Seconds, gap, iterations and objective of a solver, at the loosest tolerance of its own that reaches the gap."""
    run = SOLVERS[solver]
    for own_tol in _rivals.CONE_TOLERANCES.get(solver, (tol,)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seconds, (coefs, dual, iterations) = median_seconds(
                functools.partial(run, problem, own_tol, limit), repeats
            )
        certificate = problem.certificate(coefs, dual)
        if certificate.dual_gap <= tol or seconds > limit:
            break
    return {
        "seconds": seconds,
        "dual_gap": certificate.dual_gap,
        "iterations": iterations,
        "objective": certificate.objective,
    }


def compare(factors, penalty, options, log):
    """The table of one kind of problem: a line a size, logged row by row."""
    rivals = [solver for solver in options.solvers if solver != "newton"]
    print(f"\n### {factors} factors, {penalty} penalty\n")
    first = ["(n, p, q)", "newton s", "gap", "steps", "ridge NTK s", "newton/ridge"]
    print_header(first + [f"{rival} s" for rival in rivals])
    running = list(options.solvers)
    for size in options.sizes:
        problem = make_problem(*size, penalty, factors)
        where = {"factors": factors, "penalty": penalty, **dict(zip("npq", size, strict=True))}
        ridge, _ = median_seconds(functools.partial(ridge_ntk, problem), 4 * options.repeats)
        log.append({**where, "solver": RIDGE, "seconds": ridge, "dual_gap": 0.0, "iterations": 1, "objective": np.nan})
        found = {}
        for solver in list(running):
            found[solver] = measure(problem, solver, options.tol, options.limit, options.repeats)
            log.append({**where, "solver": solver, **found[solver]})
            if not reached(found[solver], options):
                running.remove(solver)
        newton, own_cells, ratio = found.get("newton"), ["-", "-", "-"], "-"
        if newton:
            own_cells = [seconds_cell(newton, options, 4), f"{newton['dual_gap']:.0e}", newton["iterations"]]
            ratio = f"{newton['seconds'] / ridge:.1f}"
        others = [rival_cell(found.get(rival), newton, options) for rival in rivals]
        print_row([size, *own_cells, f"{ridge:.2g}", ratio, *others])


def reached(row, options):
    """Whether a solver was there in time."""
    return row["dual_gap"] <= options.tol and row["seconds"] <= options.limit


def seconds_cell(row, options, digits):
    """Seconds, or that they were not enough and how far they led."""
    if reached(row, options):
        return f"{row['seconds']:.{digits}f}"
    return f"> {row['seconds']:.0f}, gap {row['dual_gap']:.0e}"


def rival_cell(row, newton, options):
    """Seconds of a rival, and how often Newton's fit into them."""
    if row is None:
        return "-"
    cell = seconds_cell(row, options, 2)
    if newton is None or not reached(newton, options):
        return cell
    more = "" if reached(row, options) else "> "
    return f"{cell} ({more}{row['seconds'] / newton['seconds']:.0f}×)"


def draw(rows, options):
    """Seconds against the size of the problem, one line a solver; runs that were stopped are left out."""
    figure, axes = new_figure(len(options.factors), len(options.penalties))
    kinds = itertools.product(options.factors, options.penalties)
    for ax, (factors, penalty) in zip(axes.flat, kinds, strict=True):
        here = [row for row in rows if (row["factors"], row["penalty"]) == (factors, penalty)]
        for number, solver in enumerate([*options.solvers, RIDGE]):
            mine = [row for row in here if row["solver"] == solver and (solver == RIDGE or reached(row, options))]
            products = [row["n"] * row["p"] * row["q"] for row in mine]
            style = "k--" if solver == RIDGE else f"C{number}o-"
            ax.loglog(products, [row["seconds"] for row in mine], style, label=solver, markersize=4)
        ax.set(title=f"{factors} factors, {penalty} penalty", xlabel="n·p·q", ylabel=f"seconds to gap {options.tol:g}")
        ax.grid(alpha=0.3)
    axes.flat[0].legend()
    figure.savefig(options.plot, dpi=130)


def available(solver):
    """Whether the package that a solver comes from is installed."""
    return solver in ("newton", "proximal") or importlib.util.find_spec(solver) is not None


def triple(text):
    """A size n,p,q."""
    size = tuple(int(part) for part in text.split(","))
    if len(size) != 3 or min(size) < 2:
        raise argparse.ArgumentTypeError(f"a size is n,p,q with integers from 2; got {text!r}")
    return size


def parse_arguments():
    """Options, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tol", type=float, default=1e-6, help="relative duality gap at which to stop")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which a run is stopped (default 60)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median counts (default 5)")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--sizes", type=triple, nargs="+", metavar="N,P,Q", help="other sizes")
    parser.add_argument("--solvers", nargs="+", choices=SOLVERS, help="by default all that are installed")
    parser.add_argument("--factors", nargs="+", choices=FACTORS, default=FACTORS)
    parser.add_argument("--penalties", nargs="+", choices=PENALTIES, default=PENALTIES)
    add_outputs(parser)
    options = parser.parse_args()
    missing = [solver for solver in options.solvers or SOLVERS if not available(solver)]
    if missing and options.solvers:
        parser.error(f"not installed: {', '.join(missing)}; pip install {' '.join(missing)}")
    if missing:
        print(f"left out, as not installed: {', '.join(missing)}")
    options.solvers = options.solvers or [solver for solver in SOLVERS if solver not in missing]
    options.sizes = options.sizes or (SMALL if options.quick else SMALL + LARGE)
    return options


def main():
    """Run the benchmark."""
    options = parse_arguments()
    print(machine())
    log = Log(options.csv)
    for penalty, solver in itertools.product(options.penalties, options.solvers):  # compiled before the clock starts
        measure(make_problem(20, 4, 5, penalty, "unit"), solver, 1e-3, 60.0, 1)
    for factors, penalty in itertools.product(options.factors, options.penalties):
        compare(factors, penalty, options, log)
    if options.plot:
        draw(log.rows, options)


if __name__ == "__main__":
    main()
