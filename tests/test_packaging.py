"""What a source distribution and a package index get."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tarfile

import pytest

from conftest import ROOT

SETTINGS = configparser.ConfigParser()
SETTINGS.read(ROOT / "setup.cfg", encoding="utf-8")
#: What the repository holds at its top.
FOLDERS = (".ci", ".github", "benchmarks", "lowrank_tangent", "notebooks", "tests")
FILES = (
    *("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "README.md"),
    *(".gitignore", ".pre-commit-config.yaml", "pyproject.toml", "setup.cfg", "setup.py"),
)


def test_an_sdist_holds_what_its_tests_need(tmp_path):
    pytest.importorskip("setuptools", minversion="61")
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb_checkpoints", ".hypothesis")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, copy / name)
    wanted = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=copy, check=True, capture_output=True)
    (archive,) = tmp_path.glob("lowrank?tangent-*.tar.gz")
    with tarfile.open(archive) as file:
        held = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    assert wanted <= held
    assert {"tests/conftest.py", "lowrank_tangent/py.typed", "benchmarks/README.md"} <= held
    assert not [name for name in held if "__pycache__" in name]


def test_the_readme_has_no_link_that_only_works_in_the_repository():
    targets = re.findall(r"\]\(([^)]*)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [target for target in targets if not target.startswith("https://")] == []


def test_least_versions_are_those_that_are_declared():
    run = subprocess.run([sys.executable, ROOT / ".ci/least_versions.py"], capture_output=True, text=True, check=True)
    least = dict(line.split("==") for line in run.stdout.split())
    declared = SETTINGS["options"]["install_requires"].split()
    assert [f"{name.split('>=')[0]}>={least[name.split('>=')[0]]}" for name in declared] == declared
    assert "pytest" in least


def test_python_versions_agree():
    least = SETTINGS["options"]["python_requires"].removeprefix(">=")
    listed = re.findall(r"Python :: (3\.\d+)", SETTINGS["metadata"]["classifiers"])
    workflow = (ROOT / ".github/workflows/tests.yml").read_text(encoding="utf-8")
    assert listed[0] == least
    assert set(listed) <= set(re.findall(r'"(3\.\d+)"', workflow))
    assert f'python_version = "{least}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_citation_is_of_this_version():
    version = ast.literal_eval((ROOT / "lowrank_tangent/_version.py").read_text(encoding="utf-8").split("=")[1].strip())
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in citation
    assert SETTINGS["metadata"]["author"] in citation
    assert "2308.15478" in citation
