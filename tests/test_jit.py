"""Compiled loops with a cache, and without a place for one."""

import os
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

PACKAGE = ROOT / "lowrank_tangent"


def printed(code, folder, **environment):
    """What a new process prints that finds packages in this folder first."""
    variables = {**os.environ, "PYTHONPATH": str(folder), **environment}
    done = subprocess.run([sys.executable, "-c", code], env=variables, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A folder for packages that numba can write no cache beside, nor in the user's home: files are in the way.

    Permissions would not hinder an administrator.
    """
    home = tmp_path / "home"
    home.touch()
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    packages = tmp_path / "packages"

    def install(path, name):
        shutil.copytree(path, packages / name, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in (packages / name, *(path for path in (packages / name).iterdir() if path.is_dir())):
            (folder / "__pycache__").touch()
        return packages

    return install


def test_loops_compile_without_a_place_for_a_cache(nowhere, tmp_path):
    for name in ("linalg/jit.py", "networks/moments.py"):
        copied = tmp_path / "alone" / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGE / name, copied)
    folder = nowhere(tmp_path / "alone", "alone")
    code = "from alone.networks.moments import RELU, _root; print(_root(RELU, 9.0), _root.signatures)"
    assert printed(code, folder) == "3.0 [(int64, float64)]"


def test_the_package_works_where_it_cannot_be_written(nowhere):
    folder = nowhere(PACKAGE, "lowrank_tangent")
    code = (
        "import lowrank_tangent; print(lowrank_tangent.__file__);"
        "print(lowrank_tangent.AdaptiveTangentRegressor((8,)).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 1.0]).dual_gap_)"
    )
    path, gap = printed(code, folder).split()
    assert path.startswith(str(folder))
    assert float(gap) <= 1e-6


def test_the_next_process_compiles_nothing(tmp_path):
    code = (
        "from lowrank_tangent.networks.moments import RELU, _root; _root(RELU, 9.0);"
        "print(*(sum(count.values()) for count in (_root.stats.cache_hits, _root.stats.cache_misses)))"
    )
    processes = [printed(code, ROOT, NUMBA_CACHE_DIR=str(tmp_path)) for _ in range(2)]
    assert processes == ["0 1", "1 0"]
