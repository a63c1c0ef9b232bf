"""The README's examples, as a newcomer would run them."""

import re
import sys
import types
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def test_examples_of_the_readme_run_and_print_what_it_says(capsys, monkeypatch):
    text = README.read_text(encoding="utf-8")
    module = types.ModuleType("readme")  # classes that are defined in a module can be pickled
    monkeypatch.setitem(sys.modules, "readme", module)
    names = vars(module)
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    printed = capsys.readouterr().out
    fixed, adaptive = map(float, re.search(r"R2 ([\d.]+) -> ([\d.]+)", printed).groups())
    claimed_fixed, claimed_adaptive = map(float, re.search(r"prints `R2 ([\d.]+) -> ([\d.]+)", text).groups())
    # Two digits are shown; a BLAS of another build may round the last one differently.
    assert (fixed, adaptive) == pytest.approx((claimed_fixed, claimed_adaptive), abs=0.011)
    shown = [
        list(map(float, re.search(r"ridge NTK ([\d.]+), chosen ([\d.]+)", source).groups()))
        for source in (printed, text)
    ]
    assert shown[0] == pytest.approx(shown[1], abs=0.03)
    assert names["model"].dual_gap_ <= 1e-6
    assert names["solution"].dual_gap <= 1e-10
    assert names["large"].dual_gap_ <= 1e-3


@pytest.mark.parametrize("marker", ["run", "test"])
def test_commands_of_the_readme_are_single_lines_after_their_marker(marker):
    block = re.search(rf"<!-- {marker} -->\n```bash\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (command,) = block.group(1).splitlines()
    assert command.startswith("python -m pip install ")
