"""Constraints for pip: the least version that setup.cfg declares of everything that it requires."""

import configparser
import re
from pathlib import Path

settings = configparser.ConfigParser()
settings.read(Path(__file__).parents[1] / "setup.cfg", encoding="utf-8")
declared = settings["options"]["install_requires"] + settings["options.extras_require"]["test"]
print("\n".join(re.sub(">=", "==", line) for line in declared.split("\n") if line))
