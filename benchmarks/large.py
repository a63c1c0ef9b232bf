"""All of MNIST: ridge NTK and the adaptive model on n training digits, certified, without an n × n kernel.

    LOWRANK_TANGENT_DATA=folder python benchmarks/large.py --batch-size 2000 --memory-limit 8

Ten classes, factors in single precision (--dtype float64 for double). Every model is fitted in a process of its own, so
that its peak memory is its own; --memory-limit lets the system refuse it more. Without --batch-size the factors of all
digits are kept; with it they are computed anew for every product. Fewer digits than 60,000 are drawn at random,
stratified.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from _common import Log, add_outputs, machine, new_figure, print_header, print_row, strength_pair

GIB = 2.0**30
#: (alpha, adaptivity); adaptivity 0 is ridge NTK.
STRENGTHS = [(0.1, 0.0), (1.0, 0.1)]
HEADER = ["model", "test error", "gap", "iterations", "seconds", "peak memory, GiB", "factors of all digits, GiB"]


def parse_arguments():
    """Options, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-train", type=int, default=60_000, metavar="N", help="training digits (default 60,000)")
    parser.add_argument("--width", type=int, default=512, help="units of every hidden layer (default 512)")
    parser.add_argument("--depth", type=int, default=3, help="hidden layers (default 3)")
    parser.add_argument("--outputs", choices=["shared", "network"], default="shared")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--batch-size", type=int, metavar="ROWS", help="digits whose factors are in memory at a time")
    parser.add_argument("--strengths", type=strength_pair, nargs="+", default=STRENGTHS, metavar="ALPHA,ADAPTIVITY")
    parser.add_argument("--tol", type=float, default=1e-3, help="relative duality gap (default 1e-3)")
    parser.add_argument("--memory-limit", type=float, metavar="GIB", help="address space that a process may have")
    parser.add_argument("--child", type=strength_pair, help=argparse.SUPPRESS)
    add_outputs(parser)
    options = parser.parse_args()
    if options.depth < 1 or options.width < 1 or not 10 < options.n_train <= 60_000:
        parser.error("depth and width must be at least 1, and the number of digits between 11 and 60,000")
    return options


def fit(options):
    """Figures of one fit."""
    if options.memory_limit:
        limit = int(options.memory_limit * GIB)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    from lowrank_tangent import AdaptiveTangentClassifier, datasets

    dtype = np.dtype(options.dtype)
    data = datasets.load("mnist", options.n_train)
    X, X_test = data.pop("X_train").astype(dtype), data.pop("X_test").astype(dtype)
    alpha, adaptivity = options.child
    model = AdaptiveTangentClassifier(
        (options.width,) * options.depth,
        alpha=alpha,
        adaptivity=adaptivity,
        outputs=options.outputs,
        solver="newton",
        tol=options.tol,
        dtype=dtype,
        batch_size=options.batch_size,
        verbose=1,
        random_state=0,
    )
    start = time.perf_counter()
    model.fit(X, data.y_train)
    seconds = time.perf_counter() - start
    factors = model.features_.operator(X[:1]).layers
    return {
        "error": float(np.mean(model.predict(X_test) != data.y_test)),
        "dual_gap": model.dual_gap_,
        "iterations": model.n_iter_,
        "seconds": seconds,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
        "factors_gib": len(X) * dtype.itemsize * sum(layer.h.size + layer.delta.size for layer in factors) / GIB,
        "coefficients": sum(coef.size for coef in model.coefs_),
    }


def in_a_process(strength):
    """`fit` in a process of its own, whose progress bar goes through."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", "{:g},{:g}".format(*strength)]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(printed.splitlines()[-1])


def main():
    """Fit every model, and print the table."""
    options = parse_arguments()
    if options.child is not None:
        print(json.dumps(fit(options)))
        return
    print(machine())
    features = f"batches of {options.batch_size:,}" if options.batch_size else "factors kept"
    network = f"{options.depth} × {options.width} units, outputs={options.outputs!r}"
    print(f"\n### {options.n_train:,} digits, {network}, {options.dtype}, {features}\n")
    print_header(HEADER)
    log, rows = Log(options.csv), []
    for alpha, adaptivity in options.strengths:
        figures = in_a_process((alpha, adaptivity))
        settings = {
            name: getattr(options, name) for name in ("n_train", "width", "depth", "outputs", "dtype", "batch_size")
        }
        log.append({**settings, "alpha": alpha, "adaptivity": adaptivity, **figures})
        rows.append(figures)
        name = f"alpha={alpha:g}, adaptivity={adaptivity:g}" if adaptivity else f"ridge NTK, alpha={alpha:g}"
        print_row(
            [
                name,
                f"{figures['error']:.4f}",
                f"{figures['dual_gap']:.1e}",
                figures["iterations"],
                f"{figures['seconds']:.0f}",
                f"{figures['peak_gib']:.2f}",
                f"{figures['factors_gib']:.2f}",
            ]
        )
    kernel = 4 * options.n_train**2 / GIB
    print(f"\n{rows[-1]['coefficients']:,} coefficients; a kernel in single precision would take {kernel:.1f} GiB")
    if options.plot:
        draw(rows, options)


def draw(rows, options):
    """Seconds and peak memory of the fits."""
    figure, (axes,) = new_figure(1, 2)
    names = ["{:g}, {:g}".format(*strength) for strength in options.strengths]
    for ax, quantity in zip(axes, ("seconds", "peak_gib"), strict=True):
        ax.bar(names, [row[quantity] for row in rows])
        ax.set(xlabel="alpha, adaptivity", ylabel="seconds a fit" if quantity == "seconds" else "peak memory, GiB")
    figure.savefig(options.plot, dpi=130)


if __name__ == "__main__":
    main()
