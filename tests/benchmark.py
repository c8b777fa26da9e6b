"""How long one training step takes: gru_from_scratch.py beside nn.GRU, and nn.GRU beside nn.LSTM.

    python tests/benchmark.py         a minute

A training step is the forward pass, back-propagation through time, clipping and Adam, on one
thread. Times depend on the machine, so this prints them and asserts nothing.
"""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # read when NumPy and PyTorch are imported

import platform  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from timeit import timeit  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gru_from_scratch import GRU, Adam, sine_waves, train_step  # noqa: E402

MAX_NORM = 1.0


def waves(T, B, dtype):
    """B waves of T steps, (T, 1, B), and the step after them, (1, B)."""
    x, target = sine_waves(np.random.default_rng(0), B, T, 0.05)
    return x.astype(dtype), target.astype(dtype)


def numpy_step(H, B, dtype, T=30):
    """A function that does one training step of gru_from_scratch.py."""
    (x, target), model, adam = waves(T, B, dtype), GRU(1, H, 1), Adam()
    for name, weight in model.parameters.items():
        model.parameters[name] = weight.astype(dtype)
    # As in training, which evaluates on 200 held-out sequences at a time. The C library decides
    # from the largest block that was ever freed whether it hands memory back to the system. Without
    # an evaluation it may do so after every step, and the next one pays for page faults.
    model.forward(waves(T, 200, dtype)[0])
    return lambda: train_step(model, adam, x, target, MAX_NORM)


def torch_step(H, B, dtype, T=30, cell=torch.nn.GRU):
    """A function that does one training step of nn.GRU and nn.Linear, on the same waves."""
    x, target = map(torch.tensor, waves(T, B, dtype))
    x, target = x.transpose(1, 2).contiguous(), target.T.contiguous()  # (T, B, 1), (B, 1)
    recurrent, head = cell(1, H, dtype=x.dtype), torch.nn.Linear(H, 1, dtype=x.dtype)
    weights = [*recurrent.parameters(), *head.parameters()]
    adam = torch.optim.Adam(weights)

    def step():
        adam.zero_grad()
        h, _ = recurrent(x)
        torch.nn.functional.mse_loss(head(h[-1]), target).backward()
        torch.nn.utils.clip_grad_norm_(weights, MAX_NORM)
        adam.step()

    return step


def median_times(*steps, rounds=50):
    """Milliseconds of each function: the median over rounds in which they take turns, so that a
    machine that slows down does so for all of them; 10 in a row, as in training.
    """
    times = [[100 * timeit(step, number=10) for step in steps] for _ in range(rounds)]
    return np.median(times[1:], axis=0)  # the first round is to warm up


def main():
    print(
        f"NumPy {np.__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}"
    )
    print("\nOne training step, T = 30, input and output size 1, one thread (ms, medians)")
    print("hidden  batch  dtype     NumPy   PyTorch  PyTorch/NumPy")
    for H, B, dtype in ((32, 1, "float64"), *((H, 64, "float32") for H in (32, 64, 128))):
        ours, theirs = median_times(numpy_step(H, B, dtype), torch_step(H, B, dtype))
        print(f"{H:6}{B:7}  {dtype}{ours:8.2f}{theirs:10.2f}{theirs / ours:15.2f}", flush=True)

    print("\nPyTorch, float32: GRU and LSTM")
    print("hidden  batch    T       GRU      LSTM       GRU/LSTM")
    for H, B, T in ((32, 64, 30), (64, 64, 50)):  # as in gru_pytorch.py --compare
        cells = torch.nn.GRU, torch.nn.LSTM
        gru, lstm = median_times(*(torch_step(H, B, "float32", T, cell) for cell in cells))
        print(f"{H:6}{B:7}{T:5}{gru:10.2f}{lstm:10.2f}{gru / lstm:15.2f}", flush=True)


if __name__ == "__main__":
    main()
