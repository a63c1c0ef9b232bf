"""What a new process pays: import and first fit, with a cold and with a warm cache of compiled kernels.

    python benchmarks/startup.py

Every figure is the median over several fresh processes. The import time is what the package adds to NumPy and
scikit-learn; the first fit has 200 samples and the default network.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

SCRIPT = """
import time
import numpy as np
import sklearn.base, sklearn.preprocessing, sklearn.utils.validation
start = time.perf_counter()
from lowrank_tangent import AdaptiveTangentRegressor
imported = time.perf_counter()
X = np.random.default_rng(0).standard_normal((200, 10))
begin = time.perf_counter()
AdaptiveTangentRegressor(random_state=0).fit(X, X[:, 0] * X[:, 1])
print(imported - start, time.perf_counter() - begin)
"""


def fresh_process(cache):
    """Seconds of import and first fit with that cache folder."""
    environment = dict(os.environ, NUMBA_CACHE_DIR=cache)
    command = [sys.executable, "-c", SCRIPT]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return [float(value) for value in output.split()]


def main():
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    cold, warm = [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(fresh_process(cache))
            warm.append(fresh_process(cache))
    print("| cache | import beyond NumPy and scikit-learn, s | first fit, s |")
    print("|---|---|---|")
    for name, rows in (("cold", cold), ("warm", warm)):
        imports, fits = zip(*rows, strict=True)
        print(f"| {name} | {statistics.median(imports):.2f} | {statistics.median(fits):.2f} |")


if __name__ == "__main__":
    main()
