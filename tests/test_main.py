import ast
import configparser
import re
import subprocess
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from lowrank_tangent.__main__ import main

ROOT = Path(__file__).parents[1]


def table_of(printed):
    rows = [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()]
    return {row[0]: row[1:] for row in rows if len(row) in (3, 4)}


def test_main_job_prints_a_table_and_draws_a_picture(tmp_path, capsys):
    picture = tmp_path / "kernels.png"
    arguments = ["--n-train", "100", "--width", "32", "--alpha", "0.01", "--adaptivity", "1", "--plot", str(picture)]
    main(arguments)
    printed, on_the_way = capsys.readouterr()
    stages = ("ridge NTK", "the adaptive model", "the re-linearised model")
    assert on_the_way.splitlines() == [f"choosing {name} …" for name in stages]
    assert "digits: 100 training and 1,697 test samples, 64 features, 10 classes" in printed
    rows = table_of(printed)
    assert rows["hidden units"][:2] == ["32", "32"]
    assert set(rows["hidden units"][2]) <= set("∞, ")
    assert rows["alpha"][:2] == ["0.01", "0.01"]
    assert rows["adaptivity"][:2] == ["0", "1"]
    assert rows["rounds"][:2] == ["0", "0"]
    assert rows["seconds to choose"][:2] == ["0.00", "0.00"]
    assert float(rows["seconds to choose"][2]) > 0
    assert all(0 < float(error) < 0.4 for error in rows["test error (share of samples)"])
    assert all(float(gap) <= 1e-6 for gap in rows["relative duality gap"])
    assert rows["label alignment, initial kernel"][0] == rows["label alignment, adapted kernel"][0]
    assert {"iterations", "seconds to fit", "effective rank, layer 1", "effective rank, layer 2"} <= set(rows)
    assert picture.stat().st_size > 10_000


def test_main_job_chooses_on_the_training_part(capsys):
    main(["--data", "synthetic", "--n-train", "60", "--width", "16", "--outputs", "network", "--adaptivity", "1"])
    printed = capsys.readouterr().out
    rows = table_of(printed)
    assert len(rows["test error (MSE / variance)"]) == 3
    assert "left out" not in printed
    assert all(float(alpha) > 0 for alpha in rows["alpha"])


def test_main_job_leaves_out_a_choice_that_takes_minutes(monkeypatch, capsys):
    monkeypatch.setattr("lowrank_tangent.__main__._MAX_RELINEARISED", 59)
    main(["--data", "synthetic", "--n-train", "60", "--width", "16", "--alpha", "1", "--adaptivity", "1"])
    printed = capsys.readouterr().out
    assert "the re-linearised model is left out: its choice takes minutes beyond 59 samples" in printed
    assert len(table_of(printed)["alpha"]) == 2


def test_main_job_as_a_command():
    command = [sys.executable, "-m", "lowrank_tangent"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    options = "--data --n-train --width --alpha --adaptivity --outputs --random-state --plot"
    assert all(option in shown for option in options.split())
    refused = subprocess.run([*command, "--data", "letters"], capture_output=True, text=True, check=False)
    assert {"LOWRANK_TANGENT_DATA", "OpenML"} <= set(re.findall(r"\w+", shown))
    assert refused.returncode == 2
    assert "invalid choice: 'letters'" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--n-train -5", "argument --n-train: digits takes 50 to 1,787; got -5"),
        ("--n-train 49", "argument --n-train: digits takes 50 to 1,787; got 49"),
        ("--n-train 1788", "argument --n-train: digits takes 50 to 1,787; got 1788"),
        ("--data mnist --n-train 59", "argument --n-train: mnist takes 60 to 60,000; got 59"),
        ("--data mnist --n-train 60001", "argument --n-train: mnist takes 60 to 60,000; got 60001"),
        ("--data synthetic --n-train 4", "argument --n-train: synthetic takes at least 5; got 4"),
        ("--width 0", "argument --width: must be an integer > 0; got '0'"),
        ("--alpha -1", "argument --alpha: must be a finite number > 0; got '-1'"),
        ("--alpha nan", "argument --alpha: must be a finite number > 0; got 'nan'"),
        ("--adaptivity -1", "argument --adaptivity: must be a finite number >= 0; got '-1'"),
        ("--tol 0", "argument --tol: must be a finite number > 0; got '0'"),
        ("--random-state -1", "argument --random-state: must be an integer from 0 to 4294967295; got '-1'"),
        ("--plot /nonexistent/x.png", "argument --plot: the folder of '/nonexistent/x.png' has to exist"),
        ("--plot x.foo", "argument --plot: must end in one of ."),
    ],
)
def test_main_job_refuses_before_data_are_loaded(arguments, message, monkeypatch, capsys):
    monkeypatch.setattr("lowrank_tangent.datasets.load", None)
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    with pytest.raises(SystemExit) as refused:
        main(arguments.split())
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_main_job_misses_matplotlib_before_data_are_loaded(monkeypatch, capsys):
    monkeypatch.setattr("lowrank_tangent.datasets.load", None)
    for name in ("matplotlib", "matplotlib.backend_bases"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit):
        main(["--plot", "x.png"])
    assert "argument --plot: pictures need matplotlib: pip install matplotlib" in capsys.readouterr().err


@pytest.mark.parametrize(("data", "n_train"), [("digits", 50), ("digits", 1787), ("synthetic", 5)])
def test_main_job_takes_the_sizes_that_it_names(data, n_train, capsys):
    main(["--data", data, "--n-train", str(n_train), "--width", "4", "--alpha", "1", "--adaptivity", "1"])
    assert f"{data}: {n_train:,} training" in capsys.readouterr().out


def test_main_job_says_how_to_do_without_the_network(monkeypatch, capsys):
    def fetch(*arguments, **options):
        raise urllib.error.URLError("no route to host")

    monkeypatch.delenv("LOWRANK_TANGENT_DATA", raising=False)
    monkeypatch.setattr("lowrank_tangent.datasets.fetch_openml", fetch)
    with pytest.raises(SystemExit):
        main(["--data", "mnist"])
    printed = capsys.readouterr().err
    assert "MNIST could not be fetched from OpenML (<urlopen error no route to host>)" in printed
    assert "set LOWRANK_TANGENT_DATA to the folder that has mnist/train-images-idx3-ubyte.gz" in printed


def test_main_job_names_the_file_that_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("LOWRANK_TANGENT_DATA", str(tmp_path))
    with pytest.raises(SystemExit):
        main(["--data", "mnist"])
    assert "train-images-idx3-ubyte.gz does not exist; LOWRANK_TANGENT_DATA must name" in capsys.readouterr().err


def test_importing_does_not_load_what_few_calls_need():
    code = (
        "import sys, lowrank_tangent, lowrank_tangent.displays;"
        "print([name for name in ('cvxpy', 'matplotlib', 'tqdm') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_the_plain_install_brings_all_that_is_imported_but_matplotlib():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    required = {re.split("[>=]", line)[0] for line in config["options"]["install_requires"].split()}
    imported = set()
    for path in (ROOT / "lowrank_tangent").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        blocks = [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ]
        for_types_alone = {id(node) for block in blocks for node in ast.walk(block)}
        for node in ast.walk(tree):
            if id(node) in for_types_alone:
                continue
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.split(".")[0])
    imported = {"scikit-learn" if name == "sklearn" else name for name in imported - sys.stdlib_module_names}
    assert imported - required == {"matplotlib"}


def test_kernels_run_without_numba_compilation():
    code = (
        "import numpy as np; from lowrank_tangent.penalties import KLPenalty, PowerPenalty;"
        "v = np.array([0.0, 1e-300, 1e-3, 1.0, 1e150]);"
        "print([float(x) for P in (KLPenalty, PowerPenalty) for x in (*P().effective(v), *P().prox(v, 0.5))])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**__import__("os").environ, "NUMBA_DISABLE_JIT": disabled},
        ).stdout
        for disabled in ("0", "1")
    ]
    compiled, interpreted = (np.array(eval(run)) for run in runs)
    np.testing.assert_allclose(compiled, interpreted, rtol=1e-14)
