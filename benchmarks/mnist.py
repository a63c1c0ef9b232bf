"""MNIST with ten classes, shared outputs and one hidden layer: the table of the main job, and its peak memory.

    LOWRANK_TANGENT_DATA=folder python benchmarks/mnist.py --n-train 1000 5000

Every size runs in a process of its own, so that its peak memory is its own; it is printed beside the size of the
Jacobian of the network's one output (n × number of weights, in float64), which is never formed.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

GIB = 2.0**30
N_FEATURES = 784


def main():
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-train", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("others", nargs="*", help="further arguments of python -m lowrank_tangent, after --")
    options = parser.parse_args()
    for n in options.n_train:
        command = [sys.executable, __file__, "--child", "--data", "mnist", "--n-train", str(n)]
        subprocess.run([*command, "--width", str(options.width), *options.others], check=True)
        n_weights = (N_FEATURES + 1) * options.width + options.width + 1
        print(f"Jacobian that is not formed         {n} x {n_weights:,} floats, {8 * n * n_weights / GIB:.1f} GiB\n")


def child(arguments):
    """One size: the main job, then the memory it took."""
    from lowrank_tangent.__main__ import main as job

    job(arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"peak memory of the process          {peak / GIB:.1f} GiB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
