"""A Gated Recurrent Unit in NumPy: forward pass, back-propagation through time, Adam, two demos.

    python gru_from_scratch.py                  predict the next value of a noisy sine wave
    python gru_from_scratch.py --task adding    remember two marked numbers out of 50

The cell, with sigma(a) = 1 / (1 + exp(-a)), `@` the matrix and `*` the element-wise product:

    (1)  z_t       = sigma(W_z @ x_t + U_z @ h_{t-1} + b_z)           update gate
    (2)  r_t       = sigma(W_r @ x_t + U_r @ h_{t-1} + b_r)           reset gate
    (3)  h_tilde_t = tanh(W_h @ x_t + U_h @ (r_t * h_{t-1}) + b_h)    candidate state
    (4)  h_t       = (1 - z_t) * h_{t-1} + z_t * h_tilde_t            new state
    (5)  y         = W_y @ h_T + b_y                                  prediction after the last step

Shapes: T steps, B sequences side by side (one column each), F = input_size, H = hidden_size,
O = output_size. x_t is (F, B); z_t, r_t, h_tilde_t and h_t are (H, B); y is (O, B);
W_z, W_r, W_h are (H, F); U_z, U_r, U_h (H, H); b_z, b_r, b_h (H, 1); W_y (O, H); b_y (O, 1).
"""

import argparse
import contextlib
import copy
import math
import os
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# Matrices this small gain nothing from a second thread, and on a busy machine threads wait for
# each other. NumPy's matrix library reads this when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

# --- The cell -----------------------------------------------------------------------------------


def sigmoid(a: np.ndarray) -> np.ndarray:
    """s = 1 / (1 + exp(-a)), the gates' function, between 0 and 1. Its slope is s * (1 - s)."""
    return 1 / (1 + np.exp(-a))


# What forward keeps for backward. Row t belongs to step t, so that h[t] is h_t and z[t] is z_t;
# h[0] is h_0, and row 0 of the others is padding.
Cache = namedtuple("Cache", "x z r h_tilde h")


class GRU:
    """A GRU with an affine head on its last state: many-to-one regression.

    The cell of Chung et al. 2014 (arXiv 1412.3555). torch.nn.GRU is another: its r acts after the
    product with U_h, and its z is our 1 - z.
    """

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, seed: int = 0, dtype=np.float64
    ) -> None:
        """Draw every weight from U(-1/sqrt(H), 1/sqrt(H))."""
        F, H, O = input_size, hidden_size, output_size
        if min(F, H, O) < 1:
            raise ValueError(f"sizes: expected at least 1, got {F}, {H}, {O}")
        self.shapes = {
            "W_z": (H, F), "W_r": (H, F), "W_h": (H, F),
            "U_z": (H, H), "U_r": (H, H), "U_h": (H, H),
            "b_z": (H, 1), "b_r": (H, 1), "b_h": (H, 1),
            "W_y": (O, H), "b_y": (O, 1),
        }  # fmt: skip
        # All P weights are stored in one vector, so that clipping and Adam act on one array.
        P = sum(rows * columns for rows, columns in self.shapes.values())
        rng, limit = np.random.default_rng(seed), 1 / math.sqrt(H)
        self.theta = rng.uniform(-limit, limit, P).astype(dtype)

    @np.errstate(over="ignore")  # exp may overflow to inf: then sigmoid is 0, which is right
    def forward(self, inputs, h0: np.ndarray | None = None) -> tuple[np.ndarray, Cache]:
        """Run inputs, T steps of (F, B), from the state h0 (H, B) or from zero; return y (O, B) and
        what backward needs. Raises ValueError for a wrong shape.
        """
        p, dtype = self.parameters, self.theta.dtype
        H, F = p["W_z"].shape
        inputs = checked("inputs", inputs, ("T", F, "B"), dtype)
        T, _, B = inputs.shape
        x = np.concatenate([np.zeros((1, F, B), dtype), inputs])  # padded: x[t] is x_t

        # The part of (1) to (3) that does not depend on h_{t-1}, for all steps at once.
        Wx_plus_b_z = p["W_z"] @ x + p["b_z"]
        Wx_plus_b_r = p["W_r"] @ x + p["b_r"]
        Wx_plus_b_h = p["W_h"] @ x + p["b_h"]

        z, r, h_tilde, h = np.zeros((4, T + 1, H, B), dtype)  # of each, row t is step t
        if h0 is not None:
            h[0] = checked("h0", h0, (H, B), dtype)
        U_z, U_r, U_h = p["U_z"], p["U_r"], p["U_h"]
        for t in range(1, T + 1):
            z[t] = sigmoid(Wx_plus_b_z[t] + U_z @ h[t - 1])  # (1)
            r[t] = sigmoid(Wx_plus_b_r[t] + U_r @ h[t - 1])  # (2)
            h_tilde[t] = np.tanh(Wx_plus_b_h[t] + U_h @ (r[t] * h[t - 1]))  # (3)
            h[t] = (1 - z[t]) * h[t - 1] + z[t] * h_tilde[t]  # (4)
        y = p["W_y"] @ h[T] + p["b_y"]  # (5)
        return y, Cache(x, z, r, h_tilde, h)

    def backward(self, dy: np.ndarray, cache: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Back-propagate dy = dL/dy (O, B) through the head and all T steps (Werbos 1990).

        dq stands for dL/dq; a_z, a_r, a_h are the arguments of sigma and tanh in (1) to (3), and rh
        is r_t * h_{t-1}. First the head, then the steps t = T, ..., 1. (14) has four terms, since a
        step uses h_{t-1} in four places. In a batch, weights and biases collect from all sequences.

            (8)   dW_y = dy @ h_T^T,  db_y = dy
            (9)   dh_T = W_y^T @ dy
            (10)  da_z = dh_t * (h_tilde_t - h_{t-1}) * slope_z,  slope_z = z_t * (1 - z_t)
            (11)  da_h = dh_t * z_t * slope_h,                    slope_h = 1 - h_tilde_t^2
            (12)  drh  = U_h^T @ da_h
            (13)  da_r = drh * h_{t-1} * slope_r,                 slope_r = r_t * (1 - r_t)
            (14)  dh_{t-1} = dh_t * (1 - z_t) + drh * r_t + U_z^T @ da_z + U_r^T @ da_r

        The inputs, and the weights of each gate g = z, r, h, which collect from all steps:

            (15)  dx_t = W_z^T @ da_z + W_r^T @ da_r + W_h^T @ da_h
            (16)  dW_g = sum_t da_g @ x_t^T,  db_g = sum_t da_g
            (17)  dU_z = sum_t da_z @ h_{t-1}^T,  dU_r = sum_t da_r @ h_{t-1}^T
            (18)  dU_h = sum_t da_h @ rh^T

        Returns dL/dtheta (P,), dx (T, F, B) like inputs, and dh (T + 1, H, B), whose row t is
        dL/dh_t. Call it before the weights change.
        """
        x, z, r, h_tilde, h = cache
        T, p = len(x) - 1, self.parameters
        dy = checked("dy", dy, (len(p["W_y"]), x.shape[2]), self.theta.dtype)

        dh, da_z, da_r, da_h = np.zeros((4, *z.shape), dy.dtype)  # of each, row t is step t
        dh[T] = p["W_y"].T @ dy  # (9)
        h_prev = np.concatenate([h[:1], h[:-1]])  # row t is h_{t-1}
        slope_z, slope_r, slope_h = z * (1 - z), r * (1 - r), 1 - h_tilde**2
        U_z, U_r, U_h = p["U_z"], p["U_r"], p["U_h"]
        for t in range(T, 0, -1):
            da_z[t] = dh[t] * (h_tilde[t] - h_prev[t]) * slope_z[t]  # (10)
            da_h[t] = dh[t] * z[t] * slope_h[t]  # (11)
            drh = U_h.T @ da_h[t]  # (12)
            da_r[t] = drh * h_prev[t] * slope_r[t]  # (13)
            dh[t - 1] = dh[t] * (1 - z[t]) + drh * r[t] + U_z.T @ da_z[t] + U_r.T @ da_r[t]  # (14)

        dx = p["W_z"].T @ da_z + p["W_r"].T @ da_r + p["W_h"].T @ da_h  # (15)
        gradients = {
            "W_z": sum_over_steps(da_z, x),  # (16)
            "W_r": sum_over_steps(da_r, x),  # (16)
            "W_h": sum_over_steps(da_h, x),  # (16)
            "U_z": sum_over_steps(da_z, h_prev),  # (17)
            "U_r": sum_over_steps(da_r, h_prev),  # (17)
            "U_h": sum_over_steps(da_h, r * h_prev),  # (18)
            "b_z": da_z.sum(axis=(0, 2))[:, None],  # (16)
            "b_r": da_r.sum(axis=(0, 2))[:, None],  # (16)
            "b_h": da_h.sum(axis=(0, 2))[:, None],  # (16)
            "W_y": dy @ h[T].T,  # (8)
            "b_y": dy.sum(axis=1)[:, None],  # (8)
        }
        gradient = np.concatenate([gradients[name].ravel() for name in self.shapes])
        return gradient, dx[1:], dh

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The weights by name, as views into theta: writing to one writes to the other."""
        return self.named(self.theta)

    def named(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Cut a vector like theta (its gradient, say) into views with the names of the weights."""
        views, start = {}, 0
        for name, (rows, columns) in self.shapes.items():
            views[name] = vector[start : start + rows * columns].reshape(rows, columns)
            start += rows * columns
        return views


def sum_over_steps(da: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Sum of da_t @ q_t^T over t = 1 .. T, as one product with all steps and sequences in a row."""
    left = da[1:].transpose(1, 0, 2).reshape(da.shape[1], -1)  # (H, T * B)
    right = q[1:].transpose(0, 2, 1).reshape(-1, q.shape[1])  # (T * B, K)
    return left @ right


# --- Learning -----------------------------------------------------------------------------------


def clip_by_norm(gradient: np.ndarray, max_norm: float) -> np.ndarray:
    """The gradient, scaled to max_norm if its norm is larger (Pascanu et al. 2013, algorithm 1)."""
    norm = np.linalg.norm(gradient)
    return gradient * (max_norm / norm) if norm > max_norm else gradient  # (19)


@dataclass
class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) on one vector, theta, which it updates in place."""

    theta: np.ndarray
    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        self.m = np.zeros_like(self.theta)  # moving mean of the gradient
        self.v = np.zeros_like(self.theta)  # moving mean of its square
        self.k = 0  # updates so far

    def step(self, gradient: np.ndarray) -> None:
        self.k += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * gradient  # (20)
        self.v = self.beta2 * self.v + (1 - self.beta2) * gradient**2  # (21)
        m_hat = self.m / (1 - self.beta1**self.k)  # (22)
        v_hat = self.v / (1 - self.beta2**self.k)  # (22)
        self.theta -= self.learning_rate * m_hat / (np.sqrt(v_hat) + self.epsilon)  # (23)


def train_step(model: GRU, optimizer: Adam, inputs, target: np.ndarray, max_norm: float) -> float:
    """One update towards target (O, B). Returns the mean squared error before it."""
    y, cache = model.forward(inputs)
    error = y - checked("target", target, y.shape, y.dtype)
    loss = np.mean(error**2)  # (6)
    dy = 2 * error / error.size  # (7)
    gradient, _, _ = model.backward(dy, cache)
    optimizer.step(clip_by_norm(gradient, max_norm))
    return float(loss)


def checked(name: str, value, shape: tuple, dtype: np.dtype) -> np.ndarray:
    """A copy of value as an array of this shape, where a letter fits any size but 0."""
    array = np.array(value, dtype)
    fits = [have == want or (isinstance(want, str) and have > 0)
            for have, want in zip(array.shape, shape)]  # fmt: skip
    if array.ndim != len(shape) or not all(fits):
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}".replace("'", ""))
    return array


# --- Data ---------------------------------------------------------------------------------------

PERIOD = 30  # steps in one period of every sine wave
Batch = tuple[np.ndarray, np.ndarray]  # x (T, F, B) and the target (O, B)


def sine_waves(rng: np.random.Generator, count: int, length: int, noise: float) -> np.ndarray:
    """Waves sin(2 pi t / PERIOD + phase) + noise * N(0, 1), as (length, 1, count)."""
    phase = rng.uniform(0, 2 * np.pi, count)
    angle = 2 * np.pi * np.arange(length)[:, None] / PERIOD + phase
    return (np.sin(angle) + noise * rng.standard_normal((length, count)))[:, None, :]


def adding_problem(rng: np.random.Generator, count: int, length: int) -> Batch:
    """The adding problem (Hochreiter & Schmidhuber 1997): the target (1, count) is the sum of two
    numbers of x (length, 2, count). A step holds a number from U(0, 1) and a mark, 1 at one step of
    either half and else 0.
    """
    numbers, marks = rng.uniform(0, 1, (length, count)), np.zeros((length, count))
    marks[rng.integers(0, length // 2, count), np.arange(count)] = 1
    marks[rng.integers(length // 2, length, count), np.arange(count)] = 1
    return np.stack([numbers, marks], axis=1), (numbers * marks).sum(axis=0, keepdims=True)


# --- Training -----------------------------------------------------------------------------------

History = namedtuple("History", "losses held_out")  # one loss an update; pairs (update, MSE)
MEAN_OF = 50  # training losses are shown as the mean of so many


@np.errstate(all="ignore")  # it looks at every error itself
def train(model: GRU, draw: Callable[[], Batch], held_out: list[Batch], updates: int,
          learning_rate: float, max_norm: float, history: History) -> None:  # fmt: skip
    """Train on a new batch from draw at every update; Adam's rate falls to zero as a cosine.

    Fills history as it goes. Raises FloatingPointError when an error is no longer finite.
    """
    adam, start = Adam(model.theta), time.perf_counter()
    print(f"{'update':>8}{'training MSE':>15}{'held-out MSE':>15}{'seconds':>10}", flush=True)
    for k in range(1, updates + 1):
        adam.learning_rate = learning_rate * (1 + math.cos(math.pi * (k - 1) / updates)) / 2  # (24)
        mse = loss = train_step(model, adam, *draw(), max_norm)
        reported = k == updates or k % math.ceil(updates / 5) == 0
        if reported:
            mse = np.mean([(model.forward(x)[0] - target) ** 2 for x, target in held_out])
        if not (math.isfinite(loss) and math.isfinite(mse)):
            raise FloatingPointError(f"update {k}: error not finite; try a lower --learning-rate")
        history.losses.append(loss)
        if reported:
            history.held_out.append((k, mse))
            recent, seconds = np.mean(history.losses[-MEAN_OF:]), time.perf_counter() - start
            print(f"{k:8d}{recent:15.5f}{mse:15.5f}{seconds:10.1f}", flush=True)


def forecast(model: GRU, wave: np.ndarray, window: int, free_running: bool) -> list[float]:
    """Predict each step of wave (length, 1, 1) from the window before it, true or as predicted."""
    seen, predictions = list(wave[:window]), []
    for value in wave[window:]:
        y, _ = model.forward(seen[-window:])
        seen.append(y if free_running else value)
        predictions.append(y.item())
    return predictions


def gradient_norms(model: GRU, x: np.ndarray) -> np.ndarray:
    """The norm of dL/dh_t over that of dL/dh_T, for t = 0 .. T and each sequence: (T + 1, B)."""
    y, cache = model.forward(x)
    _, _, dh = model.backward(np.ones_like(y), cache)  # any dL/dy gives the same ratios
    norms = np.linalg.norm(dh, axis=1)
    return norms / norms[-1]


# --- Figures ------------------------------------------------------------------------------------

BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"  # safe for colour-blind eyes
STYLE = {"figure.dpi": 140, "figure.constrained_layout.use": True, "axes.titlesize": "medium",
         "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}  # fmt: skip


@contextlib.contextmanager
def drawing(path: Path, rows: int = 1, height: float = 4.0, **layout) -> Iterator:
    """The axes of a new figure, which is saved to path when the with block ends."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7.0, height))
        yield figure.subplots(rows, **layout)
        figure.savefig(path)


def plot_losses(runs: dict[str, History], level: float, name: str, path: Path) -> None:
    """The training loss of each run (a moving mean), its held-out MSE, and a level to compare."""
    with drawing(path) as axes:
        for (run, (losses, held_out)), color in zip(runs.items(), (BLUE, GREEN, RED)):
            width = min(MEAN_OF, len(losses))
            mean = np.convolve(losses, np.full(width, 1 / width), "valid")
            axes.plot(np.arange(width, len(losses) + 1), mean, color=color)
            axes.plot([k for k, _ in held_out], [mse for _, mse in held_out], "o", color=color)
            axes.text(1.02 * len(losses), mean[-1], run, color=color, va="center")
        if level > 0:  # a log axis has no zero
            axes.axhline(level, color="black", ls="--", lw=1)
            axes.text(1.02 * len(losses), level, name, va="top")
        axes.set(title=f"Lines: training loss, mean of {MEAN_OF} updates; dots: held-out MSE")
        axes.set(xlabel="update", ylabel="mean squared error", yscale="log")


def plot_forecast(model: GRU, wave: np.ndarray, truth: np.ndarray, window: int, path: Path) -> None:
    """One-step predictions above; below, apart from them, a free-running forecast."""
    titles = ("One step ahead: each prediction sees the noisy values before it",
              "Free-running: after the first window it sees only its own predictions")  # fmt: skip
    with drawing(path, rows=2, height=5.2, sharex=True, sharey=True) as both:
        for axes, title, free_running in zip(both, titles, (False, True)):
            predictions = forecast(model, wave, window, free_running)
            axes.plot(truth[:, 0, 0], color=GREY, lw=1, label="wave without noise")
            axes.plot(wave[:, 0, 0], ".", color=GREY, ms=4, label="noisy wave")
            axes.plot(range(window, len(wave)), predictions, color=RED, label="prediction")
            axes.axvline(window - 0.5, color="black", lw=0.8, ls=":")
            axes.set(title=title, ylabel="value", ylim=(-1.5, 1.6))
        both[0].legend(ncols=3, loc="upper right")
        both[1].set_xlabel("step")


def plot_gates(x: np.ndarray, z: np.ndarray, path: Path) -> None:
    """One sequence x (T, 2) of numbers with two of them marked, and z (T, H) of every unit."""
    numbers, marked, steps = x[:, 0], x[:, 1] == 1, np.arange(1, len(x) + 1)
    order = np.argsort(z[marked].mean(axis=0) - z[~marked].mean(axis=0))
    with drawing(path, rows=2, height=5.2, sharex=True, height_ratios=[1, 2]) as (top, below):
        top.plot(steps, numbers, "o", color=GREY, ms=4)
        top.plot(steps[marked], numbers[marked], "o", color=RED, ms=9)
        top.set(title="Input: the two marked numbers are to be summed", ylabel="number")
        image = below.imshow(z.T[order], aspect="auto", vmin=0, vmax=1, origin="lower",
                             extent=(0.5, len(x) + 0.5, 0.5, len(order) + 0.5))  # fmt: skip
        below.vlines(steps[marked], 0.5, len(order) + 0.5, RED, ":")
        below.set(title="Update gate $z_t$: 0 keeps, 1 replaces", xlabel="step $t$", ylabel="unit")
        below.figure.colorbar(image, ax=below, label="$z_t$")


def plot_gradient_flow(flows: dict[str, np.ndarray], path: Path) -> None:
    """What is left of the gradient by distance to the end: median and 10-90 % of the sequences."""
    with drawing(path) as axes:
        for (name, norms), color in zip(flows.items(), (GREY, BLUE, RED)):
            low, median, high = np.percentile(norms[::-1], [10, 50, 90], axis=1)  # h_T .. h_0
            axes.fill_between(range(len(norms)), low, high, color=color, alpha=0.2, lw=0)
            axes.plot(median, color=color)
            axes.text(len(norms), median[-1], name, color=color, va="center")
        axes.set(title="How much of the gradient at $h_T$ reaches $h_t$", yscale="log")
        axes.set(xlabel="distance to the end, $T - t$ (steps)", ylabel="$|dL/dh_t|$ / $|dL/dh_T|$")


# --- The two demos ------------------------------------------------------------------------------


def sine_demo(plots_dir: Path, seed: int, updates: int, hidden_size: int, seq_len: int,
              learning_rate: float, clip: float, noise: float) -> None:  # fmt: skip
    """Predict the step after seq_len noisy values; then compare three learning rates."""
    train_seed, held_out_seed, wave_seed = np.random.SeedSequence(seed).spawn(3)

    def draw(rng: np.random.Generator, count: int) -> Batch:
        waves = sine_waves(rng, count, seq_len + 1, noise)
        return waves[:-1], waves[-1]

    held_out = [draw(rng, 500) for rng in np.random.default_rng(held_out_seed).spawn(4)]

    def run(updates: int, rate: float, runs: dict, figure: str) -> tuple[GRU, float]:
        print(f"\nlearning rate {rate:g}")
        model, rng = GRU(1, hidden_size, 1, seed), np.random.default_rng(train_seed)
        runs[f"rate {rate:g}"] = history = History([], [])
        try:
            train(model, lambda: draw(rng, 1), held_out, updates, rate, clip, history)
        finally:
            if history.losses:  # a run that is broken off keeps its curve
                plot_losses(runs, noise**2, "noise variance", plots_dir / figure)
        return model, history.held_out[-1][1]

    model, mse = run(updates, learning_rate, {}, "gru_numpy_training_curve.png")
    length = seq_len + 2 * PERIOD  # the same seed draws the same phase, so truth has no noise
    wave, truth = (sine_waves(np.random.default_rng(wave_seed), 1, length, n) for n in (noise, 0.0))
    plot_forecast(model, wave, truth, seq_len, plots_dir / "gru_numpy_forecast.png")

    print(f"\nheld-out MSE           {mse:.5f}")
    if seq_len % PERIOD == 0 and noise > 0:
        # T noisy values tell the phase to a variance of 2 noise^2 / T; times cos^2, 1/2 on average.
        best = noise**2 * (1 + 1 / seq_len)
        print(f"best possible          {best:.5f}   held-out is {mse / best:.2f} times that")
    print(f"noise variance         {noise**2:.5f}")
    persistence = np.mean([(x[-1] - target) ** 2 for x, target in held_out])
    print(f"persistence            {persistence:.5f}")
    print(f"parameters             {model.theta.size}")
    runs = {}
    for factor in (0.01, 1, 100):
        run(math.ceil(updates / 3), factor * learning_rate, runs, "gru_numpy_learning_rates.png")


def adding_demo(plots_dir: Path, seed: int, updates: int, hidden_size: int, seq_len: int,
                learning_rate: float, clip: float) -> None:  # fmt: skip
    """Remember two marked numbers, and see how: by the update gate and the gradient's way back."""
    train_seed, held_out_seed = np.random.SeedSequence(seed).spawn(2)
    rngs = np.random.default_rng(held_out_seed).spawn(4)
    held_out = [adding_problem(rng, 500, seq_len) for rng in rngs]
    always_1 = np.mean([(1 - target) ** 2 for _, target in held_out])
    rng, history = np.random.default_rng(train_seed), History([], [])
    model, untrained = GRU(2, hidden_size, 1, seed), GRU(2, hidden_size, 1, seed)
    try:
        train(model, lambda: adding_problem(rng, 32, seq_len), held_out, updates,
              learning_rate, clip, history)  # fmt: skip
    finally:
        if history.losses:  # a run that is broken off keeps its curve
            figure = plots_dir / "gru_numpy_adding_curve.png"
            plot_losses({"training": history}, always_1, "always answering 1", figure)

    held = copy.deepcopy(model)  # with z = 1 always: a plain recurrent network with a reset gate
    p = held.parameters
    p["W_z"][:], p["U_z"][:], p["b_z"][:] = 0, 0, 1000  # sigmoid(1000) is exactly 1
    x, _ = held_out[0]
    networks = {"untrained": untrained, "trained": model, "z held at 1": held}
    flows = {name: gradient_norms(network, x) for name, network in networks.items()}
    plot_gradient_flow(flows, plots_dir / "gru_numpy_gradient_flow.png")
    _, cache = model.forward(x)
    plot_gates(x[:, :, 0], cache.z[1:, :, 0], plots_dir / "gru_numpy_gates.png")

    marked, z = x[:, 1] == 1, cache.z[1:].mean(axis=1)  # (T, B)
    print(f"\nheld-out MSE           {history.held_out[-1][1]:.5f}")
    print(f"always answering 1     {always_1:.5f}")
    print(f"mean z, marked steps   {z[marked].mean():.2f}")
    print(f"mean z, other steps    {z[~marked].mean():.2f}")
    print(f"\nGradient at h_0 over that at h_{seq_len}, median of {x.shape[2]} sequences")
    for name, norms in flows.items():
        print(f"{name:23}{np.median(norms[0]):.1e}")


# --- The command line ---------------------------------------------------------------------------

OPTIONS = {  # name: (type, least value, default of the sine and of the adding demo, meaning)
    "updates": (int, 1, 3000, 1000, "updates, each on new data"),
    "hidden_size": (int, 1, 32, 16, "hidden units"),
    "seq_len": (int, 3, 30, 50, "steps in a sequence"),
    "learning_rate": (float, 1e-9, 1e-3, 0.03, "Adam's first rate, which falls to zero"),
    "clip": (float, 1e-9, 1.0, 1.0, "largest norm of the gradient"),
    "noise": (float, 0, 0.05, None, "standard deviation of the sine waves' noise"),
    "seed": (int, 0, 0, 0, "seed of weights and data"),
}


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """Read the options; a wrong one ends the program with status 2 before any work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--task", choices=("sine", "adding"), default="sine", help="what to learn")
    for name, (kind, _, sine, adding, text) in OPTIONS.items():
        text = f"{text} (default: {sine}; adding: {adding})"
        parser.add_argument("--" + name.replace("_", "-"), type=kind, help=text)
    plots = Path(__file__).resolve().parent / "plots"
    parser.add_argument("--plots-dir", type=Path, default=plots, help="folder for the figures")
    parser.add_argument("--quick", action="store_true", help="a smoke run, drawn in plots/quick")
    options = parser.parse_args(argv)
    for name, (_, least, sine, adding, _) in OPTIONS.items():
        value, default = getattr(options, name), sine if options.task == "sine" else adding
        if value is None:
            setattr(options, name, default)
        elif default is None:
            parser.error(f"--{name} has no effect on --task {options.task}")
        elif not least <= value < math.inf:
            parser.error(f"--{name.replace('_', '-')}: expected at least {least:g}, got {value:g}")
    if options.quick:
        options.updates, options.plots_dir = min(300, options.updates), options.plots_dir / "quick"
    try:
        options.plots_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--plots-dir: expected a folder, got {error}")
    return options


def main(argv: list[str] | None = None) -> None:
    """Run the command line. Status 2: a wrong option; 1: an error not finite; 130: Ctrl-C."""
    o = parse_options(argv)
    common = (o.plots_dir, o.seed, o.updates, o.hidden_size, o.seq_len, o.learning_rate, o.clip)
    try:
        sine_demo(*common, o.noise) if o.task == "sine" else adding_demo(*common)
    except FloatingPointError as error:
        sys.exit(f"gru_from_scratch.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
