"""What CONTRIBUTING says about the code, and its sections that show code, followed literally."""

import ast
import re
import sys
from types import ModuleType

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import KernelCenterer

from conftest import ROOT

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PACKAGE = ROOT / "lowrank_tangent"
FILES = sorted(path for path in PACKAGE.rglob("*.py"))

#: Lines that the example of a section may have, and those of a file.
LONGEST_EXAMPLE, LONGEST_FILE = 25, 400
SECTIONS = ["a network", "an operator", "a penalty", "a loss", "a solver", "a metric", "a candidate"]


def imports(path):
    """Relative imports of a file that are made when it runs: pairs of the folder they start from and a statement."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types_alone = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level and id(node) not in for_types_alone:
            yield path.parents[node.level - 1], node


def imported_by(path):
    """Files of the package that this file of it imports from."""
    for folder, node in imports(path):
        base = folder.joinpath(*node.module.split(".")) if node.module else folder
        for alias in node.names:
            for candidate in (base / alias.name, base):
                found = [candidate.with_suffix(".py"), candidate / "__init__.py"]
                existing = [one for one in found if one.exists()]
                if existing:
                    yield existing[0]
                    break


def room(path):
    """The first folder of a file of the package, or the file itself."""
    parts = path.relative_to(PACKAGE).parts
    return f"{parts[0]}/" if len(parts) > 1 else parts[0]


def test_the_table_of_files_has_all_of_them_in_the_order_of_their_imports():
    table = re.search(r"\| file \|.*?(?=\n\n)", CONTRIBUTING.read_text(encoding="utf-8"), re.DOTALL).group()
    listed = [name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    assert sorted(listed) == sorted({room(path) for path in FILES} - {"__init__.py", "_version.py"})
    for path in FILES:
        if room(path) not in listed:
            continue
        others = {room(other) for other in imported_by(path)} - {room(path), "__init__.py", "_version.py"}
        below = {other for other in others if listed.index(other) >= listed.index(room(path))}
        assert not below, f"{path.relative_to(PACKAGE)} imports from {below}, which the table has below it"


def test_no_file_is_imported_by_what_it_imports():
    graph = {path: set(imported_by(path)) - {path} for path in FILES}
    done = set()

    def visit(path, way):
        assert path not in way, " → ".join(str(one.relative_to(PACKAGE)) for one in [*way[way.index(path) :], path])
        if path not in done:
            for other in sorted(graph[path]):
                visit(other, [*way, path])
            done.add(path)

    for path in FILES:
        visit(path, [])


def test_the_guard_sees_all_kinds_of_imports():
    seen = {path.relative_to(PACKAGE).as_posix(): {room(other) for other in imported_by(path)} for path in FILES}
    assert {"linalg/", "operators/"} <= seen["features.py"] | seen["networks/base.py"]
    assert "linalg/" in set().union(*(rooms for path, rooms in seen.items() if path.startswith("solvers/newton/")))
    assert PACKAGE / "penalties/_scalar.py" in set(imported_by(PACKAGE / "penalties/schatten.py"))
    assert PACKAGE / "networks/infinite.py" not in set(imported_by(PACKAGE / "networks/base.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_long_file_is_two_ideas(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


def blocks(section):
    """Code blocks of a section of CONTRIBUTING."""
    text = CONTRIBUTING.read_text(encoding="utf-8")
    body = re.search(rf"## Add {section}\n(.*?)\n## ", text, re.DOTALL).group(1)
    return re.findall(r"```python\n(.*?)```", body, re.DOTALL)


def run(blocks, name, monkeypatch):
    """What the blocks define, run from top to bottom in a module that pickles find."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    for block in blocks:
        exec(block, vars(module))
    return vars(module)


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_has_an_example_that_runs_and_is_checked(section, monkeypatch):
    kind = section.split()[1]
    complete = [block for block in blocks(section) if re.match(rf"check_{kind}\(", block.rstrip().splitlines()[-1])]
    assert complete, f"no example of {section} ends with check_{kind}"
    assert len(complete[0].splitlines()) <= LONGEST_EXAMPLE
    run(complete[:1], "example", monkeypatch)
    assert f"import check_{kind}" in complete[0]


@pytest.fixture(scope="module")
def names():
    """What the code blocks of "Add a penalty" define, run from top to bottom."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield run(blocks("a penalty"), "penalties_of_contributing", monkeypatch)


def test_the_new_penalty_is_what_its_price_says(names):
    z = 1.0 + np.concatenate([[0.0], np.logspace(-9, 3, 400_001)])
    price = z**2 * np.log(z**2) - z**2 + 1.0
    for penalty in (names["trial"], names["EntropyPenalty"](), names["FastEntropyPenalty"]()):
        for v in (0.0, 0.2, 1.0, 5.0, 80.0):
            assert penalty.effective(v) == pytest.approx(np.min(price + v**2 / z**2), rel=1e-8, abs=1e-15)
        for u in (0.3, 1.0, 2.5):
            assert penalty.conjugate(u) == pytest.approx(np.expm1(u**2 / 4), rel=1e-8)
        assert penalty.is_convex


def test_an_estimator_fits_with_it(names):
    model, X, y = names["model"], names["X"], names["y"]
    assert model.dual_gap_ <= model.tol
    assert model.solution_.method == "newton"
    # Kernel ridge with the adapted kernel makes the same predictions.
    kernel = KernelCenterer().fit_transform(model.kernel(X))
    ridge = KernelRidge(alpha=model.alpha, kernel="precomputed").fit(kernel, y - y.mean())
    np.testing.assert_allclose(ridge.predict(kernel) + y.mean(), model.predict(X), atol=2e-3 * y.std())
