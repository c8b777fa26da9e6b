"""The frame of the project: what stands at the top, versions, and scripts that stand alone."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_every_requirement_is_pinned():
    for name in ("requirements.txt", "tests/requirements.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            assert "==" in line or line.startswith("#") or line == "-r ../requirements.txt", line


def test_nothing_else_stands_at_the_top():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    if not listed:
        pytest.skip("not a git checkout")
    top = {path.split("/")[0] for path in listed.splitlines() if not path.startswith(".")}
    files = {"gru_from_scratch.py", "gru_pytorch.py", "README.md", "requirements.txt"}
    assert top == files | {"plots", "tests"}


@pytest.mark.parametrize("script", ["gru_from_scratch.py", "gru_pytorch.py"])
def test_no_script_imports_the_other(script):
    source = (ROOT / script).read_text(encoding="utf-8")
    assert not re.search(r"^\s*(?:import|from) gru_", source, re.MULTILINE)
