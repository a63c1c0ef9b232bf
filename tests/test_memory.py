"""What a process may have of the machine's memory, and what is refused before it is taken."""

import math
import re
import time

import numpy as np
import pytest

from conftest import random_operator
from lowrank_tangent import (
    AdaptiveTangentRegressorCV,
    StructuredRegression,
    TangentFeatures,
    TangentRidge,
    TangentRidgeClassifier,
    solve,
)
from lowrank_tangent.linalg import memory
from lowrank_tangent.networks import InfiniteMLP

GIB = 2**30


def control_groups(root, membership, limits):
    """Fake files of control groups: the lines of membership, and limits by file."""
    (root / "cgroup").write_text(membership)
    for name, limit in limits.items():
        path = root / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n")
    return memory.cgroup_limit(root / "cgroup", root / "groups")


@pytest.mark.parametrize(
    ("membership", "limits", "expected"),
    [
        ("0::/job/step\n", {"job/step/memory.max": 3 * GIB, "job/memory.max": "max"}, 3 * GIB),
        ("0::/job/step\n", {"job/step/memory.max": "max", "job/memory.max": 2 * GIB}, 2 * GIB),
        ("0::/job/step\n", {"job/step/memory.max": 8 * GIB, "job/memory.max": 2 * GIB}, 2 * GIB),
        ("0::/\n", {"memory.max": GIB}, GIB),  # a container that sees its own group as the root
        ("0::/../outside\n", {"memory.max": "max"}, math.inf),
        ("0::/\n", {"unified/memory.max": GIB}, GIB),
        ("5:cpu:/a\n4:memory:/a/b\n0::/\n", {"memory/a/b/memory.limit_in_bytes": GIB}, GIB),
        ("4:cpu,memory:/not/there\n", {"memory/memory.limit_in_bytes": 5 * GIB}, 5 * GIB),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": 9223372036854771712}, 9223372036854771712),
        ("4:memory:/\n0::/u\n", {"memory/memory.limit_in_bytes": 5 * GIB, "unified/u/memory.max": GIB}, GIB),
        ("4:cpu:/\n", {}, math.inf),
        ("0::/\n", {"memory.max": "unreadable"}, math.inf),
    ],
)
def test_limits_of_control_groups_are_the_least_of_all_above(tmp_path, membership, limits, expected):
    assert control_groups(tmp_path, membership, limits) == expected


def test_without_control_groups_there_is_no_limit(tmp_path):
    assert memory.cgroup_limit(tmp_path / "missing", tmp_path) == math.inf


def test_the_address_space_has_a_limit_where_one_is_set():
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = 64 * GIB if hard == resource.RLIM_INFINITY else min(64 * GIB, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        assert memory.address_space_limit() == limit
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("least", ["physical_memory", "cgroup_limit", "address_space_limit"])
def test_the_least_limit_counts(monkeypatch, least):
    for name in ("physical_memory", "cgroup_limit", "address_space_limit"):
        monkeypatch.setattr(memory, name, lambda name=name: 1000.0 if name == least else 2000.0)
    assert memory.available_memory() == 1000.0
    memory.check_fits_in_memory((5, 25), "an array")
    with pytest.raises(MemoryError, match=r"an array of shape \(5, 26\) needs .* this process. Sell some"):
        memory.check_fits_in_memory((5, 26), "an array", remedy="Sell some.")


@pytest.mark.parametrize(
    "fit",
    [
        lambda X, y: TangentRidge((np.inf,)).fit(X, y),
        lambda X, y: TangentRidge((np.inf,), dtype=np.float32, alpha="loo").fit(X, y),
        lambda X, y: TangentRidgeClassifier((np.inf, np.inf), "erf").fit(X, y > 0.0),
        lambda X, y: AdaptiveTangentRegressorCV(max_rounds=0).fit(X, y),
        lambda X, y: TangentFeatures(InfiniteMLP(3)).fit(X),
        lambda X, y: InfiniteMLP().kernel(X),
        lambda X, y: InfiniteMLP().tangent(X),
        lambda X, y: InfiniteMLP().layer_products(X),
        lambda X, y: InfiniteMLP().layer_slopes(X),
    ],
)
def test_too_many_samples_at_infinite_width_are_refused_at_once(rng, monkeypatch, fit):
    monkeypatch.setattr(memory, "available_memory", lambda: 24.0 * GIB)
    X = rng.standard_normal((60_000, 2))
    start = time.process_time()
    with pytest.raises(MemoryError, match=r"60000 samples|48000 samples|40000 samples") as error:
        fit(X, X[:, 0])
    assert "of finite width" in str(error.value)
    assert time.process_time() - start < 20.0


def test_what_takes_more_than_a_minute_is_said_beforehand(rng, caplog, monkeypatch):
    X = rng.standard_normal((40, 2))
    with caplog.at_level("WARNING", logger="lowrank_tangent"):
        TangentRidge((np.inf,)).fit(X, X[:, 0])
        assert not caplog.records
        monkeypatch.setattr("lowrank_tangent.networks.anchors._SECONDS_PER_CUBE", 120.0 / (2 * 40**3))
        TangentRidge((np.inf,)).fit(X, X[:, 0])
    assert "features of 40 samples at infinite width: this takes about 2 minutes" in caplog.text


@pytest.mark.parametrize(
    ("settings", "memory_of_this_process", "method", "reason"),
    [
        (
            {"adaptivity": 0.0},
            1e9,
            "ridge",
            r"the closed form needs a kernel of 0\.0 MiB, and 95\.4 MiB are a 10% share",
        ),
        ({"adaptivity": 0.0}, 1e4, "newton", r"the closed form needs a kernel of 0\.0 MiB, and 0\.0 MiB are"),
        ({}, 1e9, "newton", "the penalty is convex, and no closed form applies"),
        ({"penalty": "nuclear"}, 1e9, "proximal", "the penalty does more than stretch"),
        ({"penalty": "joint"}, 1e9, "reweighted", "the penalty is not convex"),
        (
            {"penalty": "nuclear", "loss": "interpolation"},
            1e9,
            "bilinear",
            "method='proximal' does not solve this loss",
        ),
    ],
)
def test_the_choice_of_a_solver_is_logged(rng, caplog, monkeypatch, settings, memory_of_this_process, method, reason):
    monkeypatch.setattr("lowrank_tangent.solvers.registry.available_memory", lambda: memory_of_this_process)
    operator = random_operator(rng, 12, [(4, 5)], "network", 1)
    problem = StructuredRegression(operator, rng.standard_normal(12), alpha=0.5, **settings)
    with caplog.at_level("INFO", logger="lowrank_tangent"):
        assert solve(problem, max_iter=2).method == method
    assert f"method='auto' takes '{method}'" in caplog.text
    assert re.search(reason, caplog.text)
