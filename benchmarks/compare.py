"""Two versions of the package, timed in alternation on the same problems.

    python benchmarks/compare.py ../other-checkout .           # two checkouts
    python benchmarks/compare.py main HEAD --fail-above 1.1    # two revisions of the repository that one is in

Every case is solved in fresh processes that import the package from A or from B, in the order A B B A A B B A …, so
that a machine that gets slower or faster does so for both. A process warms every case up and takes the median of
several runs. The table shows seconds (medians over processes), and the ratio B / A: its median over the pairs of
neighbouring processes, and the interval in which that median lies with 95 % confidence (sign test; of fewer than six
pairs, the least and the largest ratio). With --fail-above R the command fails if a whole interval is above R.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import quantile_test

from _common import Log, add_outputs, machine, median_seconds, new_figure, print_header, print_row, progress

CONFIDENCE = 0.95


def factors_problem(n, p, q, penalty, alpha, adaptivity, scale=1.0):
    """One layer of Gaussian factors, y a product of two linear forms plus noise."""
    from lowrank_tangent import StructuredRegression
    from lowrank_tangent.operators import LayerFactors, TangentOperator

    rng = np.random.default_rng(0)
    h, delta = scale * rng.standard_normal((n, p)), scale * rng.standard_normal((n, q))
    y = (h @ rng.standard_normal(p)) * (delta @ rng.standard_normal(q))
    y = y / y.std() + 0.1 * rng.standard_normal(n)
    return StructuredRegression(TangentOperator([LayerFactors(h, delta)]), y, penalty, alpha, adaptivity)


def network_problem(n, d, hidden, penalty, alpha, adaptivity, outputs="shared", n_outputs=1, n_unused=0):
    """Tangent features of a network, targets products of two linear forms plus noise; some inputs are always 0."""
    from lowrank_tangent import StructuredRegression, TangentFeatures
    from lowrank_tangent.networks import network_of

    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    X[:, d - n_unused :] = 0.0
    first, second = rng.standard_normal((2, d, n_outputs)) / np.sqrt(d)
    Y = (X @ first) * (X @ second) + 0.1 * rng.standard_normal((n, n_outputs))
    network = network_of(hidden, "relu", "ntk", bias=True)
    features = TangentFeatures(network, outputs, random_state=0).fit(X, n_outputs)
    return StructuredRegression(features.operator(X), Y, penalty, alpha, adaptivity, fit_intercept=True)


def classes_problem(n, d, hidden, n_classes, alpha, adaptivity):
    """Tangent features of a network, classes by the largest of as many products of two linear forms."""
    from lowrank_tangent import StructuredRegression, TangentFeatures
    from lowrank_tangent.networks import network_of

    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d))
    first, second = rng.standard_normal((2, d, n_classes)) / np.sqrt(d)
    labels = np.eye(n_classes)[np.argmax((X @ first) * (X @ second), axis=1)]
    labels = labels[:, 1:] if n_classes == 2 else labels
    features = TangentFeatures(network_of(hidden, "relu", "ntk", bias=True), random_state=0).fit(X, labels.shape[1])
    settings = {"loss": "multinomial", "fit_intercept": True}
    return StructuredRegression(features.operator(X), labels, "power", alpha, adaptivity, **settings)


def solving(problem, method="newton", tol=1e-6):
    """A function that solves the problem."""
    from lowrank_tangent import solve

    return lambda: solve(problem, method, tol)


def following(problem, n_alphas, adaptivities):
    """A function that solves a path; returns the last solution."""
    from lowrank_tangent.model_selection import tangent_path

    alphas = np.logspace(1, -3, n_alphas)
    return lambda: tangent_path(problem, alphas, adaptivities).results[-1][-1]


def refitting(n, d, n_rounds, depth):
    """A function that fits a network of infinite width with rounds; returns the last solution."""
    from lowrank_tangent import AdaptiveTangentRegressor
    from lowrank_tangent.datasets import make_product

    X, y = make_product(n, d, noise=0.1, random_state=0)
    model = AdaptiveTangentRegressor(
        (np.inf,) * depth, alpha="loo", adaptivity=0.0, metric="evidence", n_rounds=n_rounds
    )
    return lambda: model.fit(X, y).solution_


#: Name to what makes the problem and returns the function that is timed.
CASES = {
    "small": lambda: solving(factors_problem(60, 20, 30, "power", 0.01, 100.0)),
    "little adapted": lambda: solving(factors_problem(1000, 50, 400, "power", 0.01, 100.0)),
    "nearly nuclear": lambda: solving(factors_problem(500, 40, 200, "power", 0.01, 100.0, 0.1)),
    "kl, tight": lambda: solving(factors_problem(300, 30, 200, "kl", 0.01, 100.0, 0.2), tol=1e-10),
    "network": lambda: solving(network_problem(800, 30, (256,), "power", 0.1, 10.0)),
    "much adapted": lambda: solving(network_problem(2000, 50, (512,), "power", 0.1, 1000.0)),
    "nuclear norm to six digits": lambda: solving(network_problem(300, 30, (128,), "power", 1e4, 1e9)),
    "deep network": lambda: solving(network_problem(400, 20, (64, 64), "kl", 0.1, 100.0)),
    "five outputs, shared": lambda: solving(network_problem(500, 20, (128,), "power", 0.1, 10.0, n_outputs=5)),
    "ten outputs, shared": lambda: solving(network_problem(2000, 50, (512,), "power", 0.1, 10.0, n_outputs=10)),
    "many inputs": lambda: solving(network_problem(1000, 600, (512,), "power", 0.1, 10.0)),
    "many inputs, ten outputs": lambda: solving(network_problem(1000, 200, (256,), "power", 0.1, 10.0, n_outputs=10)),
    "unused inputs, ten outputs": lambda: solving(
        network_problem(1000, 400, (256,), "power", 0.1, 10.0, n_outputs=10, n_unused=100)
    ),
    "three outputs, network": lambda: solving(network_problem(300, 20, (64,), "power", 0.1, 10.0, "network", 3)),
    "five outputs, infinite width": lambda: solving(
        network_problem(200, 20, (np.inf, np.inf), "power", 0.1, 100.0, n_outputs=5)
    ),
    "ten outputs, infinite width": lambda: solving(
        network_problem(500, 20, (np.inf, np.inf), "power", 0.1, 100.0, n_outputs=10)
    ),
    "two classes, cross-entropy": lambda: solving(classes_problem(500, 20, (128,), 2, 0.1, 10.0)),
    "ten classes, cross-entropy": lambda: solving(classes_problem(500, 20, (128,), 10, 0.1, 10.0)),
    "two classes, nuclear norm": lambda: solving(classes_problem(300, 20, (128,), 2, 1e3, 1e8)),
    "path": lambda: following(network_problem(1000, 50, (256,), "power", 1.0, 0.0), 20, [0.1, 10.0, 1000.0]),
    "not convex": lambda: solving(network_problem(200, 10, (40,), "joint", 0.02, 20.0), "reweighted"),
    "proximal": lambda: solving(factors_problem(100, 15, 30, "power", 0.01, 100.0, 0.2), "proximal", 1e-4),
    "ridge": lambda: solving(network_problem(800, 30, (256,), "power", 0.1, 0.0), "ridge"),
    "rounds, infinite width": lambda: refitting(600, 20, 3, depth=2),
    "rounds, many features": lambda: refitting(60, 2000, 3, depth=1),
}


def child(names, repeats):
    """Solve the cases with the package on the path; one JSON object to standard output."""
    import lowrank_tangent

    found = {}
    for name in names:
        run = CASES[name]()
        run()  # compiled before the clock starts
        seconds, solution = median_seconds(run, repeats)
        found[name] = {"seconds": seconds, "objective": solution.objective, "converged": bool(solution.converged)}
    json.dump({"package": lowrank_tangent.__file__, "cases": found}, sys.stdout)


def run_child(checkout, options):
    """Figures of every case by the package of a checkout, from a fresh process."""
    path = os.pathsep.join(part for part in (str(checkout), os.environ.get("PYTHONPATH")) if part)
    command = [sys.executable, __file__, "--child", json.dumps([options.cases, options.repeats])]
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"the cases failed with the package of {checkout}:\n{result.stderr}")
    report = json.loads(result.stdout)
    if not Path(report["package"]).resolve().is_relative_to(checkout):
        sys.exit(f"{report['package']} was imported in place of the package of {checkout}; uninstall it first")
    return report["cases"]


@contextlib.contextmanager
def checkout_of(version):
    """The folder of a version: itself, or a temporary worktree of a git revision."""
    if (Path(version) / "lowrank_tangent").is_dir():
        yield Path(version).resolve()
        return
    found = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{version}^{{commit}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        sys.exit(f"{version!r} is neither a folder with lowrank_tangent/ in it nor a revision of this git repository")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve() / "checkout"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, found.stdout.strip()], check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], check=True)


def alternate(checkouts, options, log):
    """Seconds and objectives of both versions: case to {"A": [...], "B": [...]}."""
    runs = {case: {"A": [], "B": []} for case in options.cases}
    order = [(pair, name) for pair in range(options.pairs) for name in ("AB", "BA")[pair % 2]]
    for pair, name in progress(order, "processes"):
        for case, found in run_child(checkouts[name], options).items():
            log.append({"case": case, "version": name, "pair": pair, **found})
            runs[case][name].append(found)
    return runs


def ratios_of(run):
    """Median ratio B / A, and the ends of its interval."""
    ratios = [b["seconds"] / a["seconds"] for a, b in zip(run["A"], run["B"], strict=True)]
    low, high = quantile_test(ratios, p=0.5).confidence_interval(CONFIDENCE)
    if not np.isfinite([low, high]).all():
        low, high = min(ratios), max(ratios)
    return statistics.median(ratios), low, high


def report(runs):
    """Print the table; ratio and interval of every case."""
    print_header(["case", "A s", "B s", "B / A", "interval", "objective B / A − 1"])
    ratios = {}
    for case, run in runs.items():
        ratio, low, high = ratios[case] = ratios_of(run)
        seconds = [f"{statistics.median(found['seconds'] for found in run[name]):.4f}" for name in "AB"]
        change = run["B"][0]["objective"] / run["A"][0]["objective"] - 1.0
        failed = [name for name in "AB" if not all(found["converged"] for found in run[name])]
        note = f", not converged: {' and '.join(failed)}" if failed else ""
        print_row([case, *seconds, f"{ratio:.2f}", f"{low:.2f} … {high:.2f}", f"{change:+.0e}{note}"])
    return ratios


def draw(ratios, path):
    """Ratios with their intervals, one line a case."""
    figure, axes = new_figure(1, 1)
    ax = axes[0, 0]
    for height, (ratio, low, high) in enumerate(reversed(ratios.values())):
        ax.plot([low, high], [height, height], "C0-")
        ax.plot(ratio, height, "C0o")
    ax.axvline(1.0, color="k", linestyle=":")
    ax.set(yticks=range(len(ratios)), yticklabels=reversed(ratios), xlabel="seconds of B / seconds of A")
    figure.savefig(path, dpi=130)


def parse_arguments():
    """Options, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", metavar="A", help="folder of a checkout, or a revision of the current git repository")
    parser.add_argument("b", metavar="B", help="the same, to be compared with A")
    parser.add_argument("--pairs", type=int, default=6, help="processes of each version (default 6)")
    parser.add_argument("--repeats", type=int, default=3, help="runs a process, of which the median counts (default 3)")
    parser.add_argument(
        "--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help="some cases only"
    )
    parser.add_argument("--fail-above", type=float, metavar="R", help="fail if the interval of a case is above R")
    add_outputs(parser)
    options = parser.parse_args()
    if min(options.pairs, options.repeats) < 1:
        parser.error("--pairs and --repeats must be at least 1")
    return options


def main():
    """Compare two versions."""
    options = parse_arguments()
    with contextlib.ExitStack() as stack:
        checkouts = {
            name: stack.enter_context(checkout_of(version)) for name, version in (("A", options.a), ("B", options.b))
        }
        print(f"{machine()}\nA: {options.a}\nB: {options.b}\n")
        runs = alternate(checkouts, options, Log(options.csv))
    ratios = report(runs)
    if options.plot:
        draw(ratios, options.plot)
    slower = [
        case for case, (_, low, _) in ratios.items() if options.fail_above is not None and low > options.fail_above
    ]
    if slower:
        sys.exit(f"slower by more than {options.fail_above:g}: {', '.join(slower)}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*json.loads(sys.argv[2]))
    else:
        main()
