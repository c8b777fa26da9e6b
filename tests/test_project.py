"""The frame of the project: what stands at the top, and which versions the scripts ask for."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def requirements():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def inline_metadata(script):
    """The dependencies in a script's PEP 723 header."""
    text = (ROOT / script).read_text(encoding="utf-8")
    header = re.match(r"# /// script\n((?:#.*\n)*?)# ///\n", text).group(1)
    assert '# requires-python = ">=3.10"' in header
    return re.findall(r'^#   "(.*)",$', header, re.MULTILINE)


def test_the_pytorch_script_asks_for_what_requirements_txt_names():
    assert inline_metadata("gru_pytorch.py") == requirements()


def test_the_numpy_script_asks_for_the_same_without_torch():
    without_torch = [line for line in requirements() if not line.startswith("torch")]
    assert inline_metadata("gru_from_scratch.py") == without_torch


def test_every_requirement_is_pinned():
    tests = (ROOT / "tests" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    for line in [*requirements(), *tests]:
        assert "==" in line or line == "-r ../requirements.txt", line


def test_nothing_else_stands_at_the_top():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    if not listed:
        pytest.skip("not a git checkout")
    top = {path.split("/")[0] for path in listed.splitlines() if not path.startswith(".")}
    assert top == {
        *("gru_from_scratch.py", "gru_pytorch.py", "README.md", "requirements.txt"),
        *("plots", "tests"),
    }


@pytest.mark.parametrize("script", ["gru_from_scratch.py", "gru_pytorch.py"])
def test_the_scripts_stand_alone(script):
    """Neither imports the other, and each runs from a folder that holds nothing else."""
    source = (ROOT / script).read_text(encoding="utf-8")
    assert not re.search(r"^\s*(?:import|from) gru_", source, re.MULTILINE)
