"""What test files share: one thread each, tables, figures as data, and runs of whole scripts."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from matplotlib.figure import Figure

# The matrices of these tests are small, and threads that wait for each other take longer than the
# arithmetic. NumPy and PyTorch read this when they are imported; what is set already stays.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

ROOT = Path(__file__).resolve().parent.parent


def table(out):
    """The numbers of each row that a script prints, by the label of the row."""
    rows = re.findall(r"^(\S+(?: \S+)*)((?:  +-?\d\S*)+)$", out, re.MULTILINE)
    return {label: [float(number) for number in numbers.split()] for label, numbers in rows}


def curves(axes):
    """What is named in a plot: lists of x and y, by label."""
    named = zip(*axes.get_legend_handles_labels(), strict=True)
    return {label: (list(line.get_xdata()), list(line.get_ydata())) for line, label in named}


def record_figures(monkeypatch):
    """From now on figures are kept, by the names of their files, which are left empty."""
    figures = {}

    def savefig(figure, path, **_):
        figures[re.sub(r"\.\d+\.part$", "", Path(path).name)] = figure
        Path(path).touch()

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


@pytest.fixture
def drawn(monkeypatch):
    """The figures that a script saves, by the names of their files."""
    return record_figures(monkeypatch)


@pytest.fixture(scope="session", autouse=True)
def runs(request, tmp_path_factory):
    """The commands in the marks "run" of all tests, two at a time while the other tests run."""
    commands = {
        mark.args[0]: None for test in request.session.items for mark in test.iter_markers("run")
    }
    plots = tmp_path_factory.mktemp("plots")
    # A copy, since pytest changes os.environ at every test, and a child that starts in another
    # thread at that moment finds it moved ("Bad address").
    env = os.environ.copy()

    def run(command):
        argv = [sys.executable, *command.split(), "--plots-dir", str(plots)]
        done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        return done.stdout

    with ThreadPoolExecutor(2) as pool:
        yield {command: pool.submit(run, command) for command in commands}
        pool.shutdown(cancel_futures=True)


@pytest.fixture
def output(request, runs):
    """What the command in the mark "run" of this test prints."""
    return runs[request.node.get_closest_marker("run").args[0]].result()


def pytest_collection_modifyitems(items):
    """The tests that wait for a run come last."""
    items.sort(key=lambda test: test.get_closest_marker("run") is not None)
