"""How long one training step takes: gru_from_scratch.py beside nn.GRU, and nn.GRU beside nn.LSTM.

    python tests/benchmark.py         a minute

A training step is the forward pass, back-propagation through time, clipping and Adam, on one
thread. Times depend on the machine, so this prints them and asserts nothing.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # read when NumPy and PyTorch are imported

import platform  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gru_from_scratch import GRU, Adam, sine_waves, train_step  # noqa: E402

MAX_NORM, LEARNING_RATE = 1.0, 1e-3
ROWS = [(32, 1, "float64"), (32, 64, "float32"), (64, 64, "float32"), (128, 64, "float32")]


def waves(T, B, dtype):
    """B waves of T steps, (T, 1, B), and the step after them, (1, B)."""
    x, target = sine_waves(np.random.default_rng(0), B, T, 0.05)
    return x.astype(dtype), target.astype(dtype)


def numpy_step(H, B, dtype, T=30):
    """A function that does one training step of gru_from_scratch.py."""
    x, target = waves(T, B, dtype)
    model = GRU(1, H, 1, dtype=dtype)
    adam = Adam(model.parameters, LEARNING_RATE)
    # As in training, which evaluates on 200 held-out sequences at a time. The C library decides
    # from the largest block that was ever freed whether it hands memory back to the system. Without
    # an evaluation it may do so after every step, and the next one pays for page faults.
    model.forward(waves(T, 200, dtype)[0])
    return lambda: train_step(model, adam, x, target, MAX_NORM)


def torch_step(H, B, dtype, T=30, cell=torch.nn.GRU):
    """A function that does one training step of nn.GRU and nn.Linear, on the same waves."""
    x, target = waves(T, B, dtype)
    x = torch.tensor(x).transpose(1, 2).contiguous()  # (T, B, 1)
    target = torch.tensor(target).T.contiguous()  # (B, 1)
    recurrent = cell(1, H, dtype=x.dtype)
    head = torch.nn.Linear(H, 1, dtype=x.dtype)
    weights = [*recurrent.parameters(), *head.parameters()]
    adam = torch.optim.Adam(weights, LEARNING_RATE)

    def step():
        adam.zero_grad()
        h, _ = recurrent(x)
        loss = torch.nn.functional.mse_loss(head(h[-1]), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, MAX_NORM)
        adam.step()
        return loss.item()

    return step


def median_times(steps, seconds, block=10):
    """Milliseconds per step of each function: the median over blocks of steps in a row, as in
    training. The functions take turns, so that a machine that slows down does so for all of them.
    """
    times = [[] for _ in steps]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 6:
        for step, blocks in zip(steps, times):
            start = time.perf_counter()
            for _ in range(block):
                step()
            blocks.append((time.perf_counter() - start) / block * 1000)
    return [statistics.median(blocks[1:]) for blocks in times]  # the first block is to warm up


def main():
    python, system = platform.python_version(), platform.platform(terse=True)
    print(f"NumPy {np.__version__}, PyTorch {torch.__version__}, Python {python}, {system}")
    print("\nOne training step, T = 30, input and output size 1, one thread (ms, medians)")
    print("hidden  batch  dtype     NumPy   PyTorch  PyTorch/NumPy")
    for H, B, dtype in ROWS:
        ours, theirs = median_times([numpy_step(H, B, dtype), torch_step(H, B, dtype)], seconds=7)
        print(f"{H:6}{B:7}  {dtype}{ours:8.2f}{theirs:10.2f}{theirs / ours:15.2f}", flush=True)

    print("\nPyTorch, float32: GRU and LSTM")
    print("hidden  batch    T       GRU      LSTM       GRU/LSTM")
    for H, B, T in ((32, 32, 30), (64, 64, 50)):  # as in gru_pytorch.py --compare
        cells = torch.nn.GRU, torch.nn.LSTM
        gru, lstm = median_times(
            [torch_step(H, B, "float32", T, cell) for cell in cells], seconds=7
        )
        print(f"{H:6}{B:7}{T:5}{gru:10.2f}{lstm:10.2f}{gru / lstm:15.2f}", flush=True)


if __name__ == "__main__":
    main()
