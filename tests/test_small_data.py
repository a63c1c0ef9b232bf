"""The benchmark on small data and its rivals, run from end to end with little to choose from."""

import importlib.util
import itertools
import sys
import warnings
from collections import Counter

import numpy as np
import pytest
from scipy.stats import wilcoxon
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from conftest import tables_in
from lowrank_tangent import AdaptiveTangentRegressor


@pytest.fixture
def small_data(load, monkeypatch):
    """The benchmark on small data with little to choose from."""
    rivals, module = load("_rivals_small"), load("small_data")
    monkeypatch.setattr(rivals, "GAMMAS", np.array([0.1, 1.0, 3.0]))
    monkeypatch.setattr(rivals, "_CANDIDATES", 2)
    monkeypatch.setattr(rivals, "RFM", {"bandwidth": [1.0, 3.0], "alpha": [0.1], "power": [0.5]})
    monkeypatch.setattr(rivals, "RFM_ROUNDS", 2)
    monkeypatch.setattr(rivals, "XRFM", {"bandwidth": [3.0, 10.0], "reg": [0.1], "exponent": [1.0]})
    for name in ("SVM", "KERNEL_RIDGE"):
        grid = {key: list(values)[1:8:3] for key, values in getattr(rivals, name).items()}
        monkeypatch.setattr(rivals, name, grid)
    monkeypatch.setattr(module, "ADAPTIVE", {"alpha": [0.1, 1.0], "adaptivity": [1.0]})
    monkeypatch.setattr(module, "FOLDS", 3)
    return module


def test_many_samples_have_fewer_folds_and_rounds(load, monkeypatch):
    rivals, small_data = load("_rivals_small"), load("small_data")
    monkeypatch.setattr(small_data, "MANY_SAMPLES", 100)
    monkeypatch.setattr(rivals, "MANY_SAMPLES", 100)
    monkeypatch.setattr(rivals, "RFM", {"bandwidth": [1.0], "alpha": [0.1], "power": [0.5]})
    asked = []
    machines = rivals.feature_machines
    monkeypatch.setattr(rivals, "feature_machines", lambda *a: (asked.append(1) or fit for fit in machines(*a)))
    for data, n, n_folds, n_rounds in (("gated", 100, 5, 10), ("gated", 101, 3, 5), ("digits", 120, 3, None)):
        task, _ = small_data.samples(data, n, 0)
        assert len(task.folds) == n_folds
        if n_rounds is not None:
            asked.clear()
            chosen = rivals.recursive_feature_machine(task).chosen["rounds"]
            assert len(asked) == n_folds * (1 + n_rounds) + 1 + chosen


def test_the_papers_model_is_chosen_by_halving_where_there_are_many_samples(load, monkeypatch):
    small_data, fitted = load("small_data"), load("_rivals_small").Fitted
    monkeypatch.setattr(small_data, "MANY_SAMPLES", 100)
    monkeypatch.setattr(small_data, "ridge_ntk", lambda task: fitted(None, {"depth": 1, "bias": 1.0}, []))
    sizes, fit = [], AdaptiveTangentRegressor.fit
    monkeypatch.setattr(
        AdaptiveTangentRegressor, "fit", lambda model, X, y, **more: (sizes.append(len(X)), fit(model, X, y, **more))[1]
    )
    for n, expected in ((99, {66: 54, 99: 1}), (108, {8: 54, 24: 18, 72: 6, 108: 1})):
        sizes.clear()
        task, _ = small_data.samples("gated", n, 0)
        chosen = small_data.adaptive(task).chosen
        assert Counter(sizes) == expected
        assert all(chosen[name] in values for name, values in small_data.ADAPTIVE.items())


def test_small_data_go_on_where_they_ended(small_data, run, monkeypatch, tmp_path, capsys):
    def fails(task):
        raise ArithmeticError("too hard")

    monkeypatch.setitem(small_data.MODELS, "mlp", fails)
    arguments = ["small_data", "--data", "diabetes", "digits", "wine", "--sizes", 60, 140]
    arguments += ["--models", "krr-rbf", "ridge-ntk", "gp-ard", "mlp", "--level", 0.3]
    first, _ = run(*arguments, "--seeds", 1)
    # Of wine's 178 samples 38 are left for the test at the larger size, too few; draws go by size.
    draws = [("diabetes", "60"), ("digits", "60"), ("wine", "60"), ("diabetes", "140"), ("digits", "140")]
    assert [(row["data"], row["n"]) for row in first[::4]] == draws
    assert [row["model"] for row in first[:4]] == ["krr-rbf", "ridge-ntk", "gp-ard", "mlp"]
    assert [row["n_test"] for row in first[::4]] == ["382", "1737", "118", "302", "1657"]
    errors = {row["data"]: float(row["error"]) for row in first[:12] if row["model"] == "ridge-ntk"}
    assert errors["wine"] < 0.1 < errors["digits"] < 0.4 < errors["diabetes"] < 0.8
    file = tmp_path / "small_data.csv"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:1] + lines[2:]), encoding="utf-8")
    capsys.readouterr()
    rows, picture = run(*arguments, "--seeds", 2)
    assert len(rows) == 2 * len(first)
    again = rows[len(first) - 1]
    seconds = {"seconds": "", "predict_seconds": ""}
    assert {**again, **seconds} == {**first[0], **seconds}
    notes = {(row["data"], row["model"]): row["note"] for row in rows}
    assert notes["digits", "gp-ard"] == "skipped: 10 classes are more than 3"
    assert notes["wine", "mlp"] == "failed: ArithmeticError: too hard"
    assert notes["wine", "gp-ard"] == notes["digits", "krr-rbf"] == ""
    printed = capsys.readouterr().out
    assert "Not fitted: 14 of 40 fits." in printed
    assert "- mlp, 10 times, failed: ArithmeticError: too hard" in printed
    mine = [float(row["error"]) for row in rows if (row["data"], row["n"], row["model"]) == ("wine", "60", "krr-rbf")]
    assert f"{np.mean(mine):.3g} ± {np.std(mine, ddof=1):.3g}" in tables_in(printed)["wine"][1]
    assert picture.stat().st_size > 10_000
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[:-1]), encoding="utf-8")
    rows, _ = run(*arguments, "--seeds", 2, "--report")
    assert len(rows) == 2 * len(first) - 1
    assert "Left out of the tables of errors: 1 draws" in capsys.readouterr().out
    monkeypatch.delenv("LOWRANK_TANGENT_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"uci/stock\.csv\.gz is needed: set LOWRANK_TANGENT_DATA"):
        run("small_data", "--data", "square", "stock", "--seeds", 1, "--models", "krr-rbf")


def test_draws_of_small_data(small_data, tmp_path, monkeypatch):
    task, (X_test, y_test) = small_data.samples("diabetes", 100, 3)
    np.testing.assert_allclose([task.X.mean(axis=0), task.X.std(axis=0)], np.repeat([[0.0], [1.0]], 10, 1), atol=1e-12)
    assert task.y.std() == pytest.approx(1.0)
    assert {row.tobytes() for row in task.X}.isdisjoint(row.tobytes() for row in X_test)
    assert len(y_test) == 342
    again, _ = small_data.samples("diabetes", 100, 3)
    np.testing.assert_array_equal(again.X, task.X)
    other, _ = small_data.samples("diabetes", 100, 4)
    assert not np.array_equal(other.y, task.y)
    task, _ = small_data.samples("digits", 100, 0)
    assert np.bincount(task.y).min() >= 9
    assert task.X.std() == pytest.approx(1.0)
    task, (X_test, _) = small_data.samples("square+0.5", 100, 0)
    assert task.X.shape == (100, 50)
    assert X_test.shape == (2000, 50)
    monkeypatch.setenv("LOWRANK_TANGENT_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"wine\.csv\.gz does not exist"):
        small_data.samples("winequality", 100, 0)


@pytest.mark.parametrize("is_classification", [True, False])
def test_models_of_small_data_learn(small_data, load, rng, is_classification):
    X = rng.standard_normal((250, 4))
    y = np.sin(2.0 * X[:, 0]) + X[:, 1]
    if is_classification:
        y = np.digitize(y, [-0.7, 0.7])
    folds = list(StratifiedKFold(3).split(X[:150], y[:150] > 0.5))
    task = load("_rivals_small").Task(X[:150], y[:150], is_classification, folds, 0)
    for name, model in small_data.MODELS.items():
        if name == "xrfm" and importlib.util.find_spec("xrfm") is None:
            continue
        options = {"depths": [1], "max_rounds": 1} if name == "relinearised" else {}
        with warnings.catch_warnings():
            # The benchmark counts them.
            warnings.simplefilter("ignore", ConvergenceWarning)
            prediction = model(task, **options).predict(X[150:])
        # Chance is 0.6 or more of three classes, and 1 for numbers.
        assert small_data.error_of(prediction, y[150:], is_classification) < 0.3, name
    with pytest.raises(ValueError, match="not finite"):
        small_data.error_of(y[150:] * np.nan, y[150:], is_classification)


def test_models_that_would_take_too_long_are_skipped(load):
    rivals = load("_rivals_small")
    for model, shape, n_classes, reason in (
        ("xrfm", (8, 1001), 2, "1001 inputs are more than 1000"),
        ("gp-ard", (8, 65), 2, "65 inputs are more than 64"),
        ("gp-ard", (8, 2), 4, "4 classes are more than 3"),
    ):
        task = rivals.Task(np.zeros(shape), np.arange(shape[0]) % n_classes, True, [], 0)
        with pytest.raises(rivals.Skipped, match=reason):
            rivals.RIVALS[model](task)


def test_gaussian_process_of_small_data_has_the_slopes_of_scikit_learn(load, rng):
    X = rng.standard_normal((60, 3))
    y = np.sin(2.0 * X[:, 0]) + 0.1 * rng.standard_normal(60)
    kernel = ConstantKernel(1.3) * RBF([0.7, 2.0, 5.0]) + WhiteKernel(0.2)
    model, expected = (
        kind(kernel, optimizer=None).fit(X, y) for kind in (load("_rivals_small").ArdProcess, GaussianProcessRegressor)
    )
    for theta in (kernel.theta, kernel.theta + rng.standard_normal(5)):
        value, slopes = model.log_marginal_likelihood(theta, eval_gradient=True)
        expected_value, expected_slopes = expected.log_marginal_likelihood(theta, eval_gradient=True)
        assert value == pytest.approx(expected_value, rel=1e-12)
        np.testing.assert_allclose(slopes, expected_slopes, rtol=1e-9, atol=1e-9)
    # With endless lengths and no noise all samples are the same: the kernel is singular.
    model.alpha = 0.0
    value, slopes = model.log_marginal_likelihood(np.array([0.0, 20.0, 20.0, 20.0, -800.0]), eval_gradient=True)
    assert value == -np.inf
    assert not slopes.any()


def test_kernel_ridge_of_small_data_is_that_of_scikit_learn(small_data, load):
    task, (X_test, _) = small_data.samples("diabetes", 60, 0)
    for metric, kernel, power in (("sqeuclidean", "rbf", 2), ("manhattan", "laplacian", 1)):
        model = load("_rivals_small").kernel_ridge(task, metric)
        distances = np.linalg.norm(task.X[:, None] - task.X[None], ord=power, axis=2) ** power
        unit = np.median(distances[np.triu_indices(60, 1)])
        gammas, alphas = load("_rivals_small").GAMMAS / unit, load("_rivals_small").KERNEL_RIDGE["kernelridge__alpha"]
        grid, scoring = {"gamma": gammas, "alpha": alphas}, "neg_mean_squared_error"
        search = GridSearchCV(KernelRidge(kernel=kernel), grid, scoring=scoring, cv=task.folds).fit(task.X, task.y)
        np.testing.assert_allclose(model.predict(X_test), search.predict(X_test), atol=1e-6)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_feature_machines_have_the_average_outer_product_of_gradients(load, rng, power):
    X, targets = rng.standard_normal((30, 4)), rng.standard_normal((30, 2))
    machines = load("_rivals_small").feature_machines(X, targets, 4, 1.5, 0.1, power)
    # Shorter steps from a sample drown in the rounding of squared distances.
    step = 1e-4
    expected = np.eye(4)
    for predict in itertools.islice(machines, 3):
        # The ridge regression of the kernel of distances ‖(x − x') T‖, T Tᵀ the last outer product.
        root = np.linalg.cholesky(expected)
        kernel = np.exp(-np.linalg.norm((X[:, None] - X[None]) @ root, axis=2) / (1.5 * 2.0))
        ridge = KernelRidge(alpha=0.1, kernel="precomputed").fit(kernel, targets)
        np.testing.assert_allclose(predict(X), ridge.predict(kernel), atol=1e-6)
        slopes = np.array([predict(X + step * axis) - predict(X - step * axis) for axis in np.eye(4)]) / (2 * step)
        values, basis = np.linalg.eigh(np.einsum("inc,jnc->ij", slopes, slopes))
        expected = (basis * values**power) @ basis.T
        expected *= 4.0 / np.trace(expected)


def test_coordinates_in_the_span_of_few_samples(load, rng):
    X, X_new = rng.standard_normal((6, 20)), rng.standard_normal((9, 20))
    coordinates = load("_rivals_small")._coordinates_in_span(X)
    assert coordinates(X_new).shape == (9, 7)
    expected = np.linalg.norm(X_new[:, None] - X[None], axis=2)
    found = np.linalg.norm(coordinates(X_new)[:, None] - coordinates(X)[None], axis=2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_feature_machines_see_no_difference_in_coordinates(load, rng):
    rivals = load("_rivals_small")
    X, X_new, targets = rng.standard_normal((6, 20)), rng.standard_normal((9, 20)), rng.standard_normal((6, 1))
    coordinates = rivals._coordinates_in_span(X)
    full = rivals.feature_machines(X, targets, 20, 1.5, 0.1, 0.5)
    reduced = rivals.feature_machines(coordinates(X), targets, 20, 1.5, 0.1, 0.5)
    for predict, predict_reduced in itertools.islice(zip(full, reduced, strict=True), 3):
        np.testing.assert_allclose(predict_reduced(coordinates(X_new)), predict(X_new), atol=1e-6)


def test_comparisons_of_small_data(load):
    tables = load("_small_tables")
    better, equal = np.array([[0.1, 0.3], [0.2, 0.3], [0.1, 0.2]]), np.array([[0.1, 0.3], [0.4, 0.2], [0.1, 0.1]])
    outcome, draws, sets = tables.versus([better, better, equal, better[:, ::-1]])
    assert outcome == (2, 1, 1)
    # Signed ranks of (a − b)/(a + b): two data sets of −1/2, −1/5, −1/3, their mirror image, and −1/2, 1/3, 0.
    signed = np.array([-0.5, -0.2, -1 / 3, -0.5, -0.2, -1 / 3, 0.5, 0.2, 1 / 3, -0.5, 1 / 3, 0.0])
    assert draws == pytest.approx(wilcoxon(signed).pvalue)
    # Of four means the one that is positive has the smallest rank but one.
    assert sets == pytest.approx(wilcoxon([-1 / 3, -1 / 3, 0.0, 1 / 3]).pvalue)
    assert tables.standing(np.array([[0.2, 0.1]])) == 1
    np.testing.assert_allclose(
        tables.mean_ranks([np.array([[0.1, 0.2, np.nan], [0.1, 0.4, 0.0]]), np.array([[0.3, 0.2, 0.2]])]),
        [2, 1.75, 2.25],
    )


def test_samples_for_equal_errors(load):
    tables = load("_small_tables")
    sizes = [100, 400, 1600]
    needed = {level: tables.samples_for(sizes, [0.8, 0.4, 0.1], level) for level in (0.9, 0.4, 0.8 / 2**0.5, 0.2, 0.05)}
    assert needed[0.9] == ("≤ ", 100)
    assert needed[0.4] == ("", pytest.approx(400))
    assert needed[0.8 / 2**0.5] == ("", pytest.approx(200))
    assert needed[0.2] == ("", pytest.approx(800))
    assert needed[0.05] == ("> ", 1600)
    ratio = tables.ratio
    assert ratio(("", 100), ("", 250)) == "2.5×"
    assert ratio(("≤ ", 100), ("", 250)) == ratio(("", 100), ("> ", 250)) == ratio(("≤ ", 100), ("> ", 250)) == "> 2.5×"
    assert ratio(("> ", 100), ("", 250)) == ratio(("", 100), ("≤ ", 250)) == "< 2.5×"
    assert ratio(("> ", 100), ("> ", 250)) == ratio(("≤ ", 100), ("≤ ", 250)) == "-"


def test_samples_are_not_compared_where_one_stays_worse_than_a_constant(load):
    comparable = load("_small_tables").comparable
    assert comparable([([100, 400], [1.2, 0.9]), ([100, 400], [1.1, 0.95])])
    assert not comparable([([100, 400], [0.7, 0.1]), ([100, 400], [1.02, 1.01])])


@pytest.mark.parametrize("kinds", [("table", "synthetic"), ("synthetic", "synthetic")])
def test_seconds_are_those_of_real_data_where_there_are_any(load, capsys, kinds):
    tables = load("_small_tables")
    rows = [
        {"data": data, "n": "100", "seed": "0", "model": model, "error": "0.5", "seconds": seconds}
        | {"predict_seconds": "0.1", "at_end": "", "not_converged": "0", "note": ""}
        for data, seconds in (("a", "1.5"), ("b", "90"))
        for model in ("x", "y")
    ]
    tables.print_all(tables.Results(rows, ["x", "y"]), dict(zip("ab", kinds, strict=True)), [100], 0.2)
    printed = capsys.readouterr().out
    summary = printed[printed.index("| model | rank, real") :].splitlines()
    header, row = ([cell.strip() for cell in summary[i].split("|")] for i in (0, 2))
    of, expected = (", real", ["1.5", "1.5"]) if "table" in kinds else ("", ["45.8", "90"])
    assert [row[header.index(f"{name} s{of}")] for name in ("median", "worst")] == expected


def test_xrfm_is_left_out_where_it_is_not_installed(load, monkeypatch, capsys):
    parse_arguments = load("small_data").parse_arguments
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "xrfm" else True)
    monkeypatch.setattr(sys, "argv", ["small_data.py"])
    assert parse_arguments().models == [name for name in load("small_data").MODELS if name != "xrfm"]
    assert "left out, as not installed: xrfm" in capsys.readouterr().out
    for arguments, message in (
        (["--models", "rfm", "xrfm"], "not installed: xrfm; pip install xrfm"),
        (["--sizes", "5"], "--sizes must be at least 20"),
        (["--models", "rfm", "--seeds", "0"], "--seeds at least 1"),
    ):
        monkeypatch.setattr(sys, "argv", ["small_data.py", *arguments])
        with pytest.raises(SystemExit):
            parse_arguments()
        assert message in capsys.readouterr().err


def test_draws_that_are_not_finished_wait(load):
    rows = [
        {"data": "a", "n": "100", "seed": seed, "model": model, "error": f"0.{seed}"}
        for seed, model in (("1", "x"), ("1", "y"), ("2", "x"))
    ]
    results = load("_small_tables").Results(rows, ["x", "y"])
    np.testing.assert_array_equal(results.errors(100)["a"], [[0.1, 0.1]])
    assert results.n_incomplete == 1
    assert results.curve("a", "x") == ([100], [pytest.approx(0.15)])
    assert results.curve("a", "y") == ([100], [0.1])
