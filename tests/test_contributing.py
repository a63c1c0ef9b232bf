"""What CONTRIBUTING says about the code, and its sections that show code, followed literally."""

import ast
import re

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.preprocessing import KernelCenterer

from conftest import ROOT

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PACKAGE = ROOT / "lowrank_tangent"


def imported_by(path):
    """Files and folders of the package, itself without suffix, that this file of it imports from another one."""
    level = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == level:
            yield from [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]


def test_the_table_of_files_has_all_of_them_in_the_order_of_their_imports():
    table = re.search(r"\| file \|.*?(?=\n\n)", CONTRIBUTING.read_text(encoding="utf-8"), re.DOTALL).group()
    listed = [name for row in table.splitlines()[2:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    files = {path.name for path in PACKAGE.glob("*.py")} - {"__init__.py", "_version.py"}
    assert sorted(listed) == sorted(files | {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")})
    rank = {re.sub(r"\.py$|/$", "", name): place for place, name in enumerate(listed)}
    for name in listed:
        paths = (PACKAGE / name).glob("*.py") if name.endswith("/") else [PACKAGE / name]
        below = {other for path in paths for other in imported_by(path) if rank.get(other, -1) >= listed.index(name)}
        assert not below, f"{name} imports from {below}, which the table has below it"


@pytest.fixture(scope="module")
def names():
    """What the code blocks of "Add a penalty" define, run from top to bottom."""
    text = CONTRIBUTING.read_text(encoding="utf-8")
    section = re.search(r"## Add a penalty\n(.*?)\n## ", text, re.DOTALL).group(1)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    return names


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
