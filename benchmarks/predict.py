"""Models of infinite width when they are used: bytes of a pickle, and time to predict beside that of the kernel.

    python benchmarks/predict.py
    python benchmarks/predict.py --samples 2000 --classes 2 --depth 1

Random samples and labels: neither size nor time depends on what they are. Times are the least of several runs. The
kernel is that of the new samples and the training points, which any kernel machine has to compute.
"""

from __future__ import annotations

import argparse
import pickle
import time

import numpy as np

from lowrank_tangent import TangentRidgeClassifier
from lowrank_tangent.networks import InfiniteMLP


def least_time(function, repeats):
    """Seconds of the fastest of several runs, after one that compiles."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main():
    """Print size and times."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=800)
    parser.add_argument("--features", type=int, default=7)
    parser.add_argument("--classes", type=int, default=9)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--new", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    X, X_new = (rng.standard_normal((n, options.features)) for n in (options.samples, options.new))
    labels = np.arange(options.samples) % options.classes
    pickled = pickle.dumps(TangentRidgeClassifier((np.inf,) * options.depth).fit(X, labels))
    model, network = pickle.loads(pickled), InfiniteMLP(options.depth)
    kernel = least_time(lambda: network.kernel(X_new, X), options.repeats)
    prediction = least_time(lambda: model.predict(X_new), options.repeats)
    print("| pickle, MB | kernel, s | predict, s | ratio |")
    print("|---|---|---|---|")
    print(f"| {len(pickled) / 1e6:.2f} | {kernel:.3f} | {prediction:.3f} | {prediction / kernel:.2f} |")


if __name__ == "__main__":
    main()
