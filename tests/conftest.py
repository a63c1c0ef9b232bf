"""Problems and references that several test files share."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from lowrank_tangent.operators import LayerFactors, TangentOperator

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


def dense_matrix(operator):
    """The n·C × P matrix of an operator by explicit loops over its definition: the reference for all products."""
    n, C = operator.n_samples, operator.n_outputs
    rows = np.zeros((n, C, sum(p * q for p, q in operator.coef_shapes)))
    for i in range(n):
        for c in range(C):
            parts = []
            for layer, (p, width) in zip(operator.layers, operator.coef_shapes, strict=True):
                feature = np.zeros((p, width))
                q = layer.delta.shape[3]
                for t in range(layer.h.shape[1]):
                    if operator.outputs == "shared":
                        feature[:, c * q : (c + 1) * q] += np.outer(layer.h[i, t], layer.delta[i, 0, t])
                    else:
                        feature += np.outer(layer.h[i, t], layer.delta[i, c, t])
                parts.append(feature.ravel())
            rows[i, c] = np.concatenate(parts)
    if operator.row_scale is not None:
        rows *= operator.row_scale[:, None, None]
    if operator.centred:
        unit = np.ones(n) if operator.row_scale is None else operator.row_scale
        unit = unit / np.linalg.norm(unit)
        rows -= np.einsum("i,j,jcp->icp", unit, unit, rows)
    return rows.reshape(n * C, -1)


def flat(coefs):
    """Coefficients of all layers in the order of the columns of `dense_matrix`."""
    return np.concatenate([np.ravel(coef) for coef in coefs])


def random_operator(rng, n, shapes, outputs="network", n_outputs=1, positions=1):
    """Operator with Gaussian factors of unit-variance features; `shapes` lists (p, q) of each layer."""
    network_outputs = n_outputs if outputs == "network" else 1
    layers = [
        LayerFactors(
            rng.standard_normal((n, positions, p)) / np.sqrt(p * positions),
            rng.standard_normal((n, network_outputs, positions, q)) / np.sqrt(q),
        )
        for p, q in shapes
    ]
    return TangentOperator(layers, outputs, n_outputs if outputs == "shared" else None)


def low_rank_target(rng, operator, noise=0.1):
    """Targets from coefficients of rank one in every layer, plus noise."""
    coefs = [np.outer(rng.standard_normal(p), rng.standard_normal(q)) for p, q in operator.coef_shapes]
    signal = operator.matvec(coefs)
    signal /= signal.std()
    return signal + noise * rng.standard_normal(signal.shape)


@pytest.fixture
def rng():
    """Seeded generator."""
    return np.random.default_rng(0)


@pytest.fixture
def load(monkeypatch):
    """A benchmark as a module."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def rows_of(load, monkeypatch, tmp_path):
    """Run a benchmark in this process: the rows of its CSV file."""

    def rows_of(name, *arguments):
        table = tmp_path / f"{name}.csv"
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments), "--csv", str(table)])
        load(name).main()
        with table.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return rows_of


@pytest.fixture
def run(rows_of, tmp_path):
    """Run a benchmark in this process: the rows of its CSV file and the picture it drew."""
    pytest.importorskip("matplotlib")

    def run(name, *arguments):
        picture = tmp_path / f"{name}.png"
        return rows_of(name, *arguments, "--plot", picture), picture

    return run


def tables_in(printed):
    """Cells of the lines of markdown tables, without their rules."""
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    return {line[0]: line[1:] for line in lines}
