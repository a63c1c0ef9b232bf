"""Every benchmark answers --help, and those that others compare themselves by run from end to end at tiny sizes."""

import csv
import importlib
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import LabelBinarizer, MinMaxScaler

from conftest import BENCHMARKS, ROOT, tables_in
from lowrank_tangent import AdaptiveTangentClassifier, AdaptiveTangentRegressorCV, TangentRidgeClassifier
from lowrank_tangent.networks import MLP

NAMES = sorted(path.stem for path in BENCHMARKS.glob("[a-z]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_does(load, name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as leaving:
        load(name).main()
    printed = capsys.readouterr().out
    assert leaving.value.code == 0
    assert f"usage: {name}.py" in printed
    assert len(printed.splitlines()) > 5


def test_every_benchmark_has_its_section():
    text = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"benchmarks/{name}.py" not in text] == []


def test_ridge_ntk_is_kernel_ridge(load):
    problem = load("growth").make_problem(load("growth").Point(40, 3, 8, 2))
    kernel = problem.operator.mean_gram()
    expected = KernelRidge(alpha=problem.alpha, kernel="precomputed").fit(kernel, problem.y).predict(kernel)
    np.testing.assert_allclose(load("_common").ridge_ntk(problem), expected, atol=1e-10)


@pytest.mark.parametrize("solver", ["proximal", "pyproximal", "copt", "clarabel", "scs"])
def test_solvers_agree_within_their_gaps(run, solver, capsys):
    if solver != "proximal":
        pytest.importorskip(solver)
    # First-order methods take thousands of steps to the gap at which the others are compared.
    tol = 1e-6 if solver in ("clarabel", "scs") else 1e-4
    arguments = ["--sizes", "24,5,6", "30,6,4", "--factors", "unit", "--repeats", 1, "--tol", tol]
    rows, picture = run("solvers", *arguments, "--solvers", "newton", solver)
    assert len(rows) == 2 * 2 * 3
    for penalty, n in (("power", "24"), ("power", "30"), ("kl", "24"), ("kl", "30")):
        here = {row["solver"]: row for row in rows if (row["penalty"], row["n"]) == (penalty, n)}
        assert list(here) == ["ridge NTK", "newton", solver]
        assert all(float(row["dual_gap"]) <= tol for row in here.values())
        objectives = [float(here[name]["objective"]) for name in ("newton", solver)]
        assert objectives[1] == pytest.approx(objectives[0], rel=tol)
    assert re.search(r"\| \(24, 5, 6\) \| .*×\) \|", capsys.readouterr().out)
    assert picture.stat().st_size > 10_000


def test_solvers_that_are_too_slow_are_left_out_at_larger_sizes(run, capsys):
    arguments = ["--sizes", "24,5,6", "30,6,4", "--factors", "unit", "--penalties", "kl", "--repeats", 1]
    rows, _ = run("solvers", *arguments, "--limit", 1e-9, "--solvers", "newton", "proximal")
    assert [(row["n"], row["solver"]) for row in rows] == [
        ("24", "ridge NTK"),
        ("24", "newton"),
        ("24", "proximal"),
        ("30", "ridge NTK"),
    ]
    printed = tables_in(capsys.readouterr().out)
    assert "> 0, gap" in printed["(24, 5, 6)"][-1]
    assert printed["(30, 6, 4)"][-1] == "-"


def test_solvers_that_are_not_installed_are_named(load, monkeypatch, capsys):
    parse_arguments = load("solvers").parse_arguments
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("copt", "matplotlib") else True)
    for arguments, message in (
        (["--solvers", "newton", "copt"], "not installed: copt; pip install copt"),
        (["--plot", "solvers.png"], "pictures need matplotlib"),
    ):
        monkeypatch.setattr(sys, "argv", ["solvers.py", *arguments])
        with pytest.raises(SystemExit):
            parse_arguments()
        assert message in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["solvers.py"])
    assert "copt" not in parse_arguments().solvers
    assert "left out, as not installed: copt" in capsys.readouterr().out


def test_growth_measures_every_point_once(run, load, capsys):
    rows, picture = run("growth", "--shrink", 50, "--repeats", 1)
    strengths = load("growth").STRENGTHS
    points = {(row["n"], row["d"], row["width"], row["C"]) for row in rows}
    assert len(rows) == len(points) * (1 + len(strengths))
    assert ("200", "2", "10", "1") in points
    assert all(float(row["dual_gap"]) <= 1e-6 for row in rows)
    printed = tables_in(capsys.readouterr().out)
    assert len(printed["n"]) == 1 + len(strengths)
    assert "×)" in printed["(40, 2, 10, 10)"][-1]
    assert picture.stat().st_size > 10_000


def test_exponents_are_those_of_the_larger_half(load):
    sizes = [10, 20, 40, 80, 160]
    seconds = [7.0, 7.0, *(1e-3 * size**1.7 for size in sizes[2:])]
    assert load("growth").exponent(sizes, seconds) == pytest.approx(1.7)
    assert np.isnan(load("growth").exponent([10], [1.0]))


@pytest.mark.skipif("LOWRANK_TANGENT_DATA" not in os.environ, reason="needs MNIST under LOWRANK_TANGENT_DATA")
def test_large_problems_take_the_same_fits_in_batches(run, capfd):
    arguments = ["large", "--n-train", 150, "--width", 6, "--depth", 2, "--tol", 1e-6]
    kept, picture = run(*arguments)
    batches, _ = run(*arguments, "--batch-size", 64, "--dtype", "float64")
    for one, other in zip(kept, batches, strict=True):
        assert float(one["dual_gap"]) <= 1e-6 >= float(other["dual_gap"])
        assert float(one["error"]) == pytest.approx(float(other["error"]), abs=2e-3)
        assert float(other["factors_gib"]) == pytest.approx(2 * float(one["factors_gib"]))
    assert [(row["alpha"], row["adaptivity"]) for row in kept] == [("0.1", "0.0"), ("1.0", "0.1")]
    printed = tables_in(capfd.readouterr().out)
    assert printed["ridge NTK, alpha=0.1"][0] == f"{float(batches[0]['error']):.4f}"
    assert picture.stat().st_size > 5_000


@pytest.fixture
def small_grids(load, monkeypatch):
    """The error curves with few hyper-parameters to choose from."""
    module = load("error_curves")
    monkeypatch.setattr(module, "ALPHAS", np.array([1.0, 1e-2]))
    monkeypatch.setattr(module, "GRIDS", {"ridge NTK": (0.0,), "adaptive": (0.1, 10.0)})
    return module


def test_error_curves_go_on_where_they_ended(small_grids, run, tmp_path, capsys):
    arguments = ["error_curves", "--data", "digits", "--sizes", 80, "--width", 8]
    first, _ = run(*arguments, "--seeds", 1)
    assert [(row["n"], row["model"]) for row in first] == [("80", "ridge NTK"), ("80", "adaptive")]
    assert all(0.05 < float(row["error"]) < 0.9 and float(row["dual_gap"]) <= 1e-6 for row in first)
    assert {row["n_test"] for row in first} == {"597"}
    file = tmp_path / "error_curves.csv"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:-1]), encoding="utf-8")
    capsys.readouterr()
    rows, picture = run(*arguments, "--seeds", 2)
    # The row that was lost is measured again, to the same error; the other stays as it was.
    assert rows[0] == first[0]
    assert {**rows[1], "seconds": ""} == {**first[1], "seconds": ""}
    assert len(rows) == 4
    printed = tables_in(capsys.readouterr().out)
    errors = [float(row["error"]) for row in rows if row["model"] == "adaptive"]
    assert printed["80"][1].startswith(f"{np.mean(errors):.4f} ±")
    assert picture.stat().st_size > 10_000


def test_error_curves_refuse_a_file_of_another_kind(small_grids, run, tmp_path):
    file = tmp_path / "error_curves.csv"
    file.write_text("data,n,seed,model,width,alpha,adaptivity\ndigits,60,0,ridge NTK,9,1,0\n", encoding="utf-8")
    with pytest.raises(ValueError, match="comes from another version of this benchmark"):
        run("error_curves", "--data", "digits", "--sizes", 60, "--seeds", 1, "--width", 8)


@pytest.mark.parametrize("model", ["ridge NTK", "adaptive"])
def test_hyper_parameters_are_those_of_a_grid_search(small_grids, model):
    X, y = load_digits(return_X_y=True)
    X, y = X[:80] / 16.0, y[:80]

    def score(estimator, X, y):
        targets = LabelBinarizer(neg_label=-1).fit(np.arange(10)).transform(y)
        return -np.sum((estimator.decision_function(X) - targets) ** 2)

    folds = StratifiedKFold(3, shuffle=True, random_state=5)
    grid = {"alpha": small_grids.ALPHAS}
    if model == "ridge NTK":
        estimator = TangentRidgeClassifier((8,), random_state=5)
    else:
        estimator, grid["adaptivity"] = AdaptiveTangentClassifier((8,), random_state=5), small_grids.GRIDS[model]
    best = GridSearchCV(estimator, grid, scoring=score, cv=folds, refit=False).fit(X, y).best_params_
    alpha, adaptivity = small_grids.cross_validate(X, y, small_grids.GRIDS[model], 8, 5)
    assert (alpha, adaptivity) == (best["alpha"], best.get("adaptivity", 0.0))


def test_paths_are_as_good_as_fits_from_scratch(load, monkeypatch, tmp_path, capsys):
    table = tmp_path / "path.csv"
    arguments = ["path.py", "--n", "40", "--features", "3", "--width", "6", "--csv", str(table)]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(load("path"), "ALPHAS", np.logspace(0, -2, 5))
    load("path").main()
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["adaptivity"]) for row in rows] == [0.0, 0.1, 1.0, 10.0, 100.0, 1000.0]
    assert float(rows[0]["path_iterations"]) == 1.0
    gap = re.search(r"25 solutions in .* s, worst gap (\S+): as much as", capsys.readouterr().out).group(1)
    assert float(gap) <= 1e-6


def test_deep_networks_layer_by_layer(run, load, monkeypatch, capsys):
    module = load("deep")
    monkeypatch.setattr(module, "ALPHAS", np.array([0.1, 1.0]))
    monkeypatch.setattr(module, "HARD", [(1e-4, 1e3)])
    arguments = ["--data", "digits", "--sizes", 60, "--network-size", 30, "--depth", 2, "--width", 8, "--seeds", 1]
    rows, picture = run("deep", *arguments)
    ridge = [row for row in rows if row["model"] == "ridge NTK"]
    assert [(row["part"], row["layers"], row["outputs"]) for row in ridge] == [
        ("fits", "all", "shared"),
        ("fits", "all", "network"),
        *(("layers", layers, "shared") for layers in ("all", "0", "1", "2")),
    ]
    assert {row["activation"] for row in rows if row["part"] == "hard"} == {"relu", "tanh", "gelu", "erf"}
    assert all(float(row["dual_gap"]) <= 1e-6 for row in rows)
    assert [len(row["ranks"].split()) for row in rows[:4]] == [3, 3, 3, 3]
    assert capsys.readouterr().out.count("| digits |") == 2 + 4 + 4
    assert picture.stat().st_size > 10_000

    # The first layer alone, by ridge regression on its Jacobian.
    data, network = module.Data("digits", 60, 0), MLP((8, 8))
    weights = network.initialise(64, 1, random_state=0)
    jacobians = []
    for X in (data.X, data.X_test):
        h, delta = network.factors(weights, X)[0]
        jacobians.append(np.einsum("np,nq->npq", h, delta[:, 0]).reshape(len(X), -1))
    scale = 1.0 / np.sqrt(np.mean(np.sum(jacobians[0] ** 2, axis=1)))
    alone = Ridge(alpha=float(ridge[3]["alpha"])).fit(scale * jacobians[0], data.targets)
    errors = alone.predict(scale * jacobians[1]).argmax(axis=1) != data.y_test
    assert float(ridge[3]["error"]) == pytest.approx(errors.mean())


def git(folder, *arguments):
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_slower_version_is_found(run, load, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "repository"
    shutil.copytree(ROOT / "lowrank_tangent", folder / "lowrank_tangent", ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "as it is")
    # As slow in comparison on a machine that is slow itself.
    slower = """
import time
fast = solve
def solve(*args):
    start = time.perf_counter()
    solution = fast(*args)
    time.sleep(0.5 + 5.0 * (time.perf_counter() - start))
    return solution
"""
    with (folder / "lowrank_tangent" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write(slower)
    monkeypatch.chdir(folder)
    arguments = ["--pairs", 1, "--repeats", 1, "--cases", "ridge"]
    with pytest.raises(SystemExit, match=r"slower by more than 1\.5: ridge"):
        run("compare", "HEAD", folder, *arguments, "--fail-above", 1.5)
    printed = tables_in(capsys.readouterr().out)["ridge"]
    assert float(printed[2]) > 1.5
    assert printed[-1] == "+0e+00"
    with (tmp_path / "compare.csv").open(newline="", encoding="utf-8") as file:
        assert [(row["version"], row["converged"]) for row in csv.DictReader(file)] == [("A", "True"), ("B", "True")]
    assert (tmp_path / "compare.png").stat().st_size > 5_000
    trees = subprocess.run(["git", "worktree", "list"], cwd=folder, capture_output=True, text=True, check=True).stdout
    assert len(trees.splitlines()) == 1
    with pytest.raises(SystemExit, match="neither a folder with lowrank_tangent/ in it nor a revision"):
        run("compare", "HEAD", "no-such-revision", *arguments)


def test_intervals_of_ratios(load):
    def run_of(ratios):
        return {"A": [{"seconds": 2.0}] * len(ratios), "B": [{"seconds": 2.0 * ratio} for ratio in ratios]}

    ratios_of = load("compare").ratios_of
    assert ratios_of(run_of([1.0, 3.0])) == (2.0, 1.0, 3.0)
    assert ratios_of(run_of([1.1, 1.2, 0.9, 1.0, 1.3, 1.4])) == pytest.approx((1.15, 0.9, 1.4))
    # Of twenty the sign test leaves out five on either side: P(Binomial(20, 1/2) ≤ 5) = 0.021.
    ratios = np.random.default_rng(0).permutation(np.linspace(1.0, 2.9, 20))
    assert ratios_of(run_of(ratios)) == pytest.approx((1.95, 1.5, 2.4))


def test_screening_is_compared_on_the_same_samples(load, rows_of):
    rows = rows_of("screening", "--data", "gated", "--n", 60, "--samples", 20, "--seeds", 1)
    assert [row["seed"] for row in rows] == ["10"]
    for row in rows:
        task, (X_test, y_test) = load("small_data").samples("gated", 60, int(row["seed"]))
        for label, few in (("all", None), ("few", 20)):
            model = AdaptiveTangentRegressorCV(cv=task.folds, screening_samples=few).fit(task.X, task.y)
            assert float(row[f"fold_error_{label}"]) == pytest.approx(-model.best_score_, rel=1e-6)
            assert float(row[f"test_error_{label}"]) == pytest.approx(1.0 - model.score(X_test, y_test), rel=1e-5)
            assert float(row[f"seconds_{label}"]) > 0.0


def test_wider_grids_offer_what_they_say(load, monkeypatch):
    module, small = load("wider"), load("small_data")
    task, test = small.samples("product", 60, 0)
    monkeypatch.setattr(load("_rivals_small"), "RFM_ROUNDS", 2)
    expected = small.measure({"data": "product", "n": 60, "seed": 0, "model": "rfm"}, task, test)["error"]
    monkeypatch.setattr(module, "RFM_ROUNDS", 2)
    assert module.measure("product", 60, 0, 3)["rfm"] == pytest.approx(expected, rel=1e-6)
    row = module.measure("product", 60, 0, 0)
    # Without rounds it is ridge regression with the kernel exp(−‖x − x'‖ / L).
    distances = euclidean_distances(task.X)
    for label, alphas in (("rounds", [1e-4, 1e-2, 0.1, 1.0]), ("both", [1e-8, 1e-6, 1e-4, 1e-2, 0.1, 1.0])):
        found = []
        for length, alpha in itertools.product(np.sqrt(30) * np.array([0.5, 2.0, 8.0, 32.0]), alphas):
            kernel = np.exp(-distances / length)
            ridge = KernelRidge(alpha=alpha, kernel="precomputed")
            errors = [
                np.sum((ridge.fit(kernel[np.ix_(a, a)], task.y[a]).predict(kernel[np.ix_(b, a)]) - task.y[b]) ** 2)
                for a, b in task.folds
            ]
            new = np.exp(-euclidean_distances(test[0], task.X) / length)
            found.append((sum(errors), np.mean((ridge.fit(kernel, task.y).predict(new) - test[1]) ** 2)))
        assert row[label] == pytest.approx(min(found)[1] / np.var(test[1]), rel=1e-5)


def test_outliers_are_clipped_to_the_range_of_the_training_samples(load, rows_of, capsys):
    rows = rows_of("outliers", "--data", "gated", "--n", 40, "--seeds", 2, "--models", "ridge-ntk")
    assert [row["seed"] for row in rows] == ["0", "1"]
    for row in rows:
        task, (X_test, y_test) = load("small_data").samples("gated", 40, int(row["seed"]))
        clip = MinMaxScaler(clip=True).fit(task.X)
        inside = clip.inverse_transform(clip.transform(X_test))
        assert np.abs(inside - X_test).max() > 0.1
        model = AdaptiveTangentRegressorCV(cv=task.folds, max_rounds=0, random_state=int(row["seed"]))
        model.fit(task.X, task.y)
        for X, column in ((X_test, "error"), (inside, "clipped_error")):
            assert float(row[column]) == pytest.approx(1.0 - model.score(X, y_test), rel=1e-5)
        misses = (model.predict(X_test) - y_test) ** 2
        assert float(row["one_sample"]) == pytest.approx(misses.max() / misses.sum(), rel=1e-5)
        assert float(row["its_largest_input"]) == pytest.approx(np.linalg.norm(X_test[misses.argmax()], np.inf))
    printed = tables_in(capsys.readouterr().out)
    for name in ("error", "clipped_error"):
        values = [float(row[name]) for row in rows]
        assert f"{np.mean(values):.3g} ± {np.std(values, ddof=1):.2g}" in printed["gated"]
    worst = max(rows, key=lambda row: float(row["one_sample"]))
    assert f"{float(worst['one_sample']):.0%}, at {float(worst['its_largest_input']):.3g}" in printed["gated"]


def test_the_cost_model_is_measured_and_put_back(load, rows_of, capsys):
    costs = load("cost_model").costs
    before = {name: value for name, value in vars(costs).items() if name.isupper()}
    rows = rows_of("cost_model", "--quick", "--n", 100, "--repeats", 1, "--pairs", 1, "--problems", 1)
    assert {name: value for name, value in vars(costs).items() if name.isupper()} == before
    measured = {row["name"]: row["measured"] for row in rows if row["what"] == "constant"}
    assert measured.keys() < before.keys()
    assert {"WAIT", "COLUMN", "ENTRY", "CHOLESKY_ENTRY", "SMALL", "CALL_OVERHEAD", "PAIR_ENTRY"} < measured.keys()
    assert float(measured["CALL_OVERHEAD"]) > 0.0
    assert len(measured["EXACT_PRODUCTS"].split(" / ")) == 3
    printed = tables_in(capsys.readouterr().out)
    assert printed["KERNEL_SAMPLES"] == ["1.2e+04", "kept"]
    assert sum(row["what"] == "seconds" for row in rows) == len(load("growth").STRENGTHS)
