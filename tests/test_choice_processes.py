"""Processes of the choice: where they pay, that they find the same, and how they end."""

import logging
import os
import signal
import subprocess
import sys
import time

import joblib
import numpy as np
import pytest

from lowrank_tangent import AdaptiveTangentRegressorCV
from lowrank_tangent.choice import Candidate, Outcome, folds
from lowrank_tangent.choice.folds import Samples, in_folds, n_workers, seconds_of
from lowrank_tangent.datasets import make_square
from lowrank_tangent.networks import InfiniteMLP

SMALL = {"depths": 1, "biases": [1.0, 3.0], "max_rounds": 1, "cv": 3}


class Recorder(Candidate):
    """Leaves the number of its process and of its threads behind."""

    def __init__(self, folder, name, max_rounds=0):
        self.folder, self.name, self.max_rounds = folder, name, max_rounds

    def outcomes(self, fold):
        import threadpoolctl

        np.ones((2, 2)) @ np.ones((2, 2))
        threads = max(pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas")
        with open(os.path.join(self.folder, f"{self.name}.txt"), "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {threads}\n")
        while True:
            yield Outcome(np.zeros((len(fold.X_test), fold.targets.shape[1])))

    def parameters(self, n_rounds):
        return {"name": self.name}

    def estimator(self):
        raise NotImplementedError


@pytest.fixture
def data():
    X, y = make_square(60, 4, random_state=0)
    return X, y


@pytest.fixture
def at_any_price(monkeypatch):
    monkeypatch.setattr(folds, "_SECONDS_TO_START", 0.0)


def seen(folder):
    return [line.split() for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_every_backend_finds_the_same(data, backend, at_any_price):
    one = AdaptiveTangentRegressorCV(**SMALL).fit(*data)
    with joblib.parallel_config(backend):
        several = AdaptiveTangentRegressorCV(**SMALL, n_jobs=2).fit(*data)
        alone = AdaptiveTangentRegressorCV(**SMALL, n_jobs=1).fit(*data)
    for other in (several, alone):
        np.testing.assert_allclose(other.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"], rtol=1e-9)


def test_processes_share_the_cores(data, tmp_path):
    X, y = data
    splits = [(np.arange(30), np.arange(30, 60))]
    candidates = [Recorder(tmp_path, name) for name in "ab"]
    list(in_folds(candidates, splits, Samples(X, y[:, None]), "", n_jobs=2))  # nobody knows how long they take
    numbers = seen(tmp_path)
    assert str(os.getpid()) not in [process for process, _ in numbers]
    assert all(int(threads) <= max(1, joblib.cpu_count() // 2) for _, threads in numbers)


def test_no_processes_where_they_would_take_longer(data):
    from lowrank_tangent.choice.chains import Chain

    chains = [Chain(InfiniteMLP(), (metric, None), 24) for metric in ("evidence", "relevance")]

    def seconds(n):
        return seconds_of(chains, [(np.arange(n), np.arange(9))] * 5, 10)

    # Two chains of 25 ridge regressions in five folds.
    assert n_workers(chains, 2, seconds(208)) == 1
    assert n_workers(chains, 2, seconds(2000)) == n_workers(chains, 8, seconds(2000)) == 2
    assert n_workers(chains, None, seconds(2000)) == 1
    assert n_workers(chains, 2, None) == 2
    assert seconds(2000) == pytest.approx(8 * seconds(1000))


def test_long_choices_are_warned_of(caplog, monkeypatch, data):
    announce = AdaptiveTangentRegressorCV(**SMALL)._announce
    from lowrank_tangent.choice.chains import Chain

    chains = [Chain(InfiniteMLP(), ("evidence", None), 24)]
    splits = [(np.arange(4000), np.arange(9))] * 5
    with caplog.at_level(logging.WARNING, logger="lowrank_tangent"):
        announce("choosing among", chains, [(np.arange(200), np.arange(9))] * 5, 3)
        assert caplog.text == ""
        announce("choosing among", chains, splits, 3)
    assert "up to 125 ridge regressions in 5 folds, of up to 4000 samples each. That may take" in caplog.text


def test_what_is_finished_is_not_done_again(data, tmp_path):
    X, y = data
    samples, splits = Samples(X, y[:, None]), [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]
    memory, folder = joblib.Memory(tmp_path / "memory", verbose=0), tmp_path / "seen"
    folder.mkdir()
    first, second = Recorder(folder, "a", 2), Recorder(folder, "b")
    # Cut off after the first candidate.
    found = next(in_folds([first, second], splits, samples, "", memory=memory))
    assert len(seen(folder)) == 2
    again = list(in_folds([first, second], splits, samples, "", memory=memory))
    assert len(seen(folder)) == 4
    np.testing.assert_array_equal(again[0].errors, found.errors)
    # Other data, other errors.
    list(in_folds([first], splits, Samples(X, 2.0 * y[:, None]), "", memory=memory))
    assert len(seen(folder)) == 6


def test_memory_of_an_estimator(data, tmp_path, monkeypatch):
    one = AdaptiveTangentRegressorCV(**SMALL, memory=str(tmp_path)).fit(*data)
    monkeypatch.setattr("lowrank_tangent.choice.chains.outcomes_of_rounds", None)  # not to be called again
    two = AdaptiveTangentRegressorCV(**SMALL, memory=str(tmp_path)).fit(*data)
    np.testing.assert_array_equal(two.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"])
    with pytest.raises(TypeError):
        AdaptiveTangentRegressorCV(**SMALL).fit(*data)


SCRIPT = """
import os, sys, time
import numpy as np
from lowrank_tangent.choice import Candidate, Outcome
from lowrank_tangent.choice.folds import Samples, in_folds

class Slow(Candidate):
    max_rounds = 4
    def outcomes(self, fold):
        open(os.path.join(sys.argv[1], str(os.getpid())), "w").close()
        for k in range(1000):
            time.sleep(0.3)
            yield Outcome(np.full((len(fold.X_test), 1), 0.9 ** k))  # better every time
    def parameters(self, n_rounds):
        return {}
    def estimator(self):
        return None

slow = [Slow(), Slow()]
for one in slow:
    one.max_rounds = 1000
X = np.zeros((4, 1))
list(in_folds(slow, [(np.arange(2), np.arange(2, 4))], Samples(X, X), "", n_jobs=2))
"""


def alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat", encoding="utf-8") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="looks for processes in /proc")
def test_processes_end_with_their_parent(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)])
    end = time.monotonic() + 60.0
    while len(os.listdir(tmp_path)) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    children = [int(name) for name in os.listdir(tmp_path)]
    assert len(children) == 2
    assert all(map(alive, children))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    end = time.monotonic() + 20.0
    while any(map(alive, children)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(alive, children))
