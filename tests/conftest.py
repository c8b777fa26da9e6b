"""One thread each for PyTorch and NumPy's matrix library, and the default runs of the demos."""

import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from io import StringIO

import pytest

# The matrices of these tests are small, and threads that wait for each other take longer than the
# arithmetic. NumPy and PyTorch read this when they are imported; what is set already stays.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")


def table(out):
    """The rows that a demo of gru_from_scratch.py ends with, by their labels."""
    rows = re.findall(r"^(\S+(?: \S+)*)  +(\d\S*)", out, re.MULTILINE)
    return {label: float(value) for label, value in rows}


def no_figures(patch):
    """Let gru_from_scratch.py draw nothing: a figure takes as long as 200 updates."""
    import gru_from_scratch

    for name in ("plot_losses", "plot_forecast", "plot_gates", "plot_gradient_flow"):
        patch.setattr(gru_from_scratch, name, lambda *_: None)


def default_run(task, seed):
    """The rows that a demo prints after its default run, of the sine demo without the comparison of
    learning rates that follows them. It belongs into a process of its own."""
    import gru_from_scratch
    from gru_from_scratch import main, train

    trained = []

    def train_once(*arguments):
        if trained:
            raise KeyboardInterrupt
        trained.append(True)
        train(*arguments)

    argv = ["--task", task, "--seed", str(seed), "--plots-dir", os.curdir]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        patch.setattr(gru_from_scratch, "train", train_once)
        no_figures(patch)
        try:
            main(argv)
        except SystemExit as end:
            assert end.code == 130
    return table(out.getvalue())


def default_run_in_torch():
    """The rows that gru_pytorch.py prints after its default run."""
    import gru_pytorch

    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out:
        for name in ("plot_training_curve", "plot_forecasts"):
            patch.setattr(gru_pytorch, name, lambda *_: None)
        gru_pytorch.main(["--device", "cpu", "--plots-dir", os.curdir])
    return table(out.getvalue())


@pytest.fixture(scope="session", autouse=True)
def default_runs(request):
    """What the default runs of the NumPy demos print for the seeds 0 .. 4, and that of the PyTorch
    script. Two processes work it out while the other tests run; so this is autouse, but begins
    nothing if no test asks for it."""
    if not any("default_run" in test.name for test in request.session.items):
        yield
        return
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = {("sine", 0): pool.submit(default_run, "sine", 0)}
        runs["torch"] = pool.submit(default_run_in_torch)
        runs |= {
            (task, seed): pool.submit(default_run, task, seed)
            for seed in range(5)
            for task in ("adding", "sine")
            if (task, seed) not in runs
        }
        yield runs
        pool.shutdown(cancel_futures=True)


def pytest_collection_modifyitems(items):
    """The tests of the default runs come last, when these are done."""
    items.sort(key=lambda item: "default_run" in item.name)
