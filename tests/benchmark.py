"""How fast one training step of gru_from_scratch.py is, beside nn.GRU in PyTorch, on one thread.

    python tests/benchmark.py         about a minute

A training step is the forward pass, back-propagation through time, clipping and Adam. Times depend
on the machine, so this prints them and asserts nothing.
"""

import os

# BLAS reads these when NumPy is imported.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"

import contextlib  # noqa: E402
import math  # noqa: E402
import platform  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import tracemalloc  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gru_from_scratch import GRU, Adam, sine_waves, train_step  # noqa: E402

MAX_NORM, LEARNING_RATE = 1.0, 1e-3
# Steps in a row before the other side has its turn. Nobody changes libraries at every step, so each
# side should find the processor's caches as its own last step left them, as it would in training.
BLOCK = 10
FEWEST_BLOCKS = 7

# (hidden_size, batch, dtype), and the ratio PyTorch time / NumPy time to reach
ROWS = [
    (32, 1, "float64", 6.0),
    (32, 64, "float32", 2.3),
    (64, 64, "float32", 1.5),
    (128, 64, "float32", 1.0),
]

SUBNORMAL = """\
With b_z as drawn, z is about 1/2, and the gradient falls below 1e-38 in some 150 steps. In float32
such (subnormal) numbers take the processor many times longer, in PyTorch too. With b_z = -log T,
z is about 1/T, and the gradient reaches the first step."""


def waves(T, B, dtype):
    """B waves of T steps, (T, 1, B), and the step after them, (1, B)."""
    both = sine_waves(np.random.default_rng(0), B, T + 1, 0.05).astype(dtype)
    return both[:-1], both[-1]


def numpy_step(H, B, dtype, T=30, b_z="drawn"):
    """A function that does one training step of gru_from_scratch.py. b_z: "drawn" or "-log T"."""
    inputs, target = waves(T, B, dtype)
    model = GRU(1, H, 1, dtype=dtype)
    if b_z == "-log T":
        model.parameters["b_z"][:] = -math.log(T)
    optimizer = Adam(model.theta, LEARNING_RATE)
    return lambda: train_step(model, optimizer, inputs, target, MAX_NORM)


def torch_step(H, B, dtype, T=30):
    """A function that does one training step of nn.GRU and nn.Linear, on the same waves."""
    inputs, target = waves(T, B, dtype)
    inputs = torch.tensor(inputs).transpose(1, 2).contiguous()  # (T, B, 1)
    target = torch.tensor(target).T.contiguous()  # (B, 1)
    gru = torch.nn.GRU(1, H, dtype=inputs.dtype)
    head = torch.nn.Linear(H, 1, dtype=inputs.dtype)
    weights = [*gru.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(weights, LEARNING_RATE)

    def step():
        optimizer.zero_grad()
        _, h_T = gru(inputs)
        loss = torch.nn.functional.mse_loss(head(h_T[0]), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, MAX_NORM)
        optimizer.step()
        return loss.item()

    return step


def median_times(steps, seconds, block=BLOCK):
    """Milliseconds per step of each function, the median over blocks. They take turns, so that a
    machine that slows down does so for all of them."""
    times = [[] for _ in steps]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < FEWEST_BLOCKS + 1:
        for step, blocks in zip(steps, times):
            start = time.perf_counter()
            for _ in range(block):
                step()
            blocks.append((time.perf_counter() - start) / block * 1000)
    return [statistics.median(blocks[1:]) for blocks in times]  # the first block is to warm up


def peak_memory(step):
    """The largest memory, in MB, that one step holds beside the weights, Adam's state and data."""
    step()
    tracemalloc.start()
    step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1e6


def processor():
    """The processor's name, where the system tells it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()


def print_ratios():
    print("\nOne training step, T = 30, input and output size 1 (ms, medians)")
    print("hidden  batch  dtype     NumPy   PyTorch  PyTorch/NumPy  to reach")
    for H, B, dtype, to_reach in ROWS:
        ours, theirs = median_times([numpy_step(H, B, dtype), torch_step(H, B, dtype)], seconds=7)
        print(
            f"{H:6}{B:7}  {dtype}{ours:8.2f}{theirs:10.2f}{theirs / ours:15.2f}{to_reach:10.1f}",
            flush=True,
        )


def print_growth_with_T():
    lengths = [30, 60, 120, 240, 480, 960]
    print("\nNumPy, hidden 32: the time grows with T")
    print("batch  dtype    b_z            T   ms a training step    ms / T")
    rows = [(1, "float64", "drawn"), (64, "float32", "drawn"), (64, "float32", "-log T")]
    for B, dtype, b_z in rows:
        steps = [numpy_step(32, B, dtype, T, b_z) for T in lengths]
        for T, ms in zip(lengths, median_times(steps, seconds=6, block=3)):
            print(f"{B:5}  {dtype}  {b_z:6}{T:10}{ms:21.2f}{ms / T:10.4f}", flush=True)
    print(SUBNORMAL)


def print_growth_with_batch():
    batches = [1, 4, 16, 64, 256]
    print("\nNumPy, hidden 32, T = 30, float32: the time grows with the batch")
    print("batch   ms a training step   ms / sequence")
    times = median_times([numpy_step(32, B, "float32") for B in batches], seconds=4)
    for B, ms in zip(batches, times):
        print(f"{B:5}{ms:21.2f}{ms / B:16.4f}", flush=True)


def print_memory():
    print("\nNumPy: the largest memory of one training step, beside weights, Adam's state and data")
    print("hidden  batch  dtype        T       MB")
    shapes = [(H, B, dtype, 30) for H, B, dtype, _ in ROWS]
    for H, B, dtype, T in [*shapes, (32, 1, "float64", 960), (32, 64, "float32", 960)]:
        print(f"{H:6}{B:7}  {dtype}{T:7}{peak_memory(numpy_step(H, B, dtype, T)):9.2f}")


def main():
    torch.set_num_threads(1)
    print(
        f"NumPy {np.__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}, "
        f"one thread of {processor()}"
    )
    print_ratios()
    print_growth_with_T()
    print_growth_with_batch()
    print_memory()


if __name__ == "__main__":
    main()
