# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "numpy==2.2.6; python_version < '3.11'",
#   "numpy==2.4.6; python_version >= '3.11'",
#   "matplotlib==3.10.9",
# ]
# ///
"""A Gated Recurrent Unit in NumPy: forward pass, back-propagation through time, Adam, and a demo.

    python gru_from_scratch.py            train on noisy sine waves, print a table, save figures
    python gru_from_scratch.py --help     the options

A number in brackets is that of the equation in README.md, here and at the line that computes it.
`@` (and `.dot`) is the matrix product, `*` the element-wise one, sigma(a) = 1 / (1 + exp(-a)).

    (1)  z_t       = sigma(W_z @ x_t + U_z @ h_{t-1} + b_z)           update gate
    (2)  r_t       = sigma(W_r @ x_t + U_r @ h_{t-1} + b_r)           reset gate
    (3)  h_tilde_t = tanh(W_h @ x_t + U_h @ (r_t * h_{t-1}) + b_h)    candidate state
    (4)  h_t       = (1 - z_t) * h_{t-1} + z_t * h_tilde_t            new state
    (5)  y         = W_y @ h_T + b_y                                  prediction after the last step

Shapes: T steps, B sequences side by side (one column each), F = input_size, H = hidden_size,
O = output_size. x_t is (F, B); z, r, h_tilde and h are (H, B); y is (O, B);
W_z, W_r, W_h are (H, F); U_z, U_r, U_h (H, H); b_z, b_r, b_h (H, 1); W_y (O, H); b_y (O, 1).
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

# NumPy's matrix library reads these when it is imported. Matrices this small gain nothing from a
# second thread, and on a busy machine the threads wait for each other many times longer.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

# --- The cell -----------------------------------------------------------------------------------


class Cache(NamedTuple):
    """What the forward pass keeps for the backward pass. The first axis is the step."""

    x: np.ndarray  # (T, F, B)
    h: np.ndarray  # (T + 1, H, B): h[0] is h0, h[t] the state after t steps
    z: np.ndarray  # (T, H, B)
    r: np.ndarray  # (T, H, B)
    h_tilde: np.ndarray  # (T, H, B)
    delta: np.ndarray  # (T, 3H, B): room that the backward pass fills


class GRU:
    """A GRU with an affine head on its last state: many-to-one regression.

    The cell of Chung et al. 2014 (arXiv 1412.3555): the reset gate acts before the product with
    U_h, and z weighs the candidate. All P weights stand in one vector, theta; the named matrices
    are views into it, so writing to one writes to the other.
    """

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, seed: int = 0, dtype=np.float64
    ) -> None:
        """Draw every weight from U(-1/sqrt(H), 1/sqrt(H)), as torch.nn.GRU does.

        Raises ValueError for a size below 1 or a dtype that is not a float.
        """
        sizes = {"input_size": input_size, "hidden_size": hidden_size, "output_size": output_size}
        for name, size in sizes.items():
            if not isinstance(size, (int, np.integer)) or size < 1:
                raise ValueError(f"{name}: expected a whole number of at least 1, got {size!r}")
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype: expected float32 or float64, got {np.dtype(dtype)}")
        self.input_size, self.hidden_size, self.output_size = F, H, O = tuple(sizes.values())
        self.shapes = (
            {f"W_{gate}": (H, F) for gate in "zrh"}
            | {f"U_{gate}": (H, H) for gate in "zrh"}
            | {f"b_{gate}": (H, 1) for gate in "zrh"}
            | {"W_y": (O, H), "b_y": (O, 1)}
        )
        # The same numbers as fewer, larger matrices: W is W_z over W_r over W_h, U_zr is U_z over
        # U_r. One product then serves several gates, which is where the time goes.
        self.stacked_shapes = {
            "W": (3 * H, F),
            "U_zr": (2 * H, H),
            "U_h": (H, H),
            "b": (3 * H, 1),
            "W_y": (O, H),
            "b_y": (O, 1),
        }
        size = sum(rows * columns for rows, columns in self.shapes.values())
        limit = 1 / math.sqrt(H)
        self.theta = np.random.default_rng(seed).uniform(-limit, limit, size).astype(dtype)

    @property
    def parameters(self) -> dict[str, np.ndarray]:
        """The weights by name, as views into theta."""
        return self.named(self.theta)

    def named(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """The parts of any (P,) vector (weights, gradient) by weight name, as views into it."""
        if np.shape(vector) != self.theta.shape:
            raise ValueError(f"vector: expected shape {self.theta.shape}, got {np.shape(vector)}")
        return views(vector, self.shapes)

    def forward(
        self, inputs: Sequence[np.ndarray], h0: np.ndarray | None = None
    ) -> tuple[np.ndarray, Cache]:
        """Run the T steps of inputs, each (F, B), from h0 (H, B), zero if not given.

        Returns y (O, B) and what backward needs. Raises ValueError for a wrong shape, an empty
        sequence or a value that is not finite.
        """
        dtype, H = self.theta.dtype, self.hidden_size
        x = checked("inputs", inputs, ("T", self.input_size, "B"), dtype)
        T, _, B = x.shape
        weights = views(self.theta, self.stacked_shapes)
        U_zr, U_h = weights["U_zr"], weights["U_h"]

        h = np.zeros((T + 1, H, B), dtype)
        if h0 is not None:
            h[0] = checked("h0", h0, (H, B), dtype)
        # One block for both passes: large arrays that come and go one by one are handed back to the
        # operating system each time, and to fetch them anew costs more than the arithmetic.
        block = np.empty((T, 6 * H, B), dtype)
        steps, delta = block[:, : 3 * H], block[:, 3 * H :]
        z, r, h_tilde = steps[:, :H], steps[:, H : 2 * H], steps[:, 2 * H :]
        zr = steps[:, : 2 * H]

        # First what (1)-(3) do not need h_{t-1} for, at all steps: W @ x_t + b = [W b] @ [x_t; 1].
        # The loop adds the rest and turns these pre-activations into z, r, h_tilde where they are.
        W_b = np.concatenate([weights["W"], weights["b"]], axis=1)
        x_1 = np.concatenate([x, np.ones((T, 1, B), dtype)], axis=1)
        np.matmul(W_b, x_1, out=steps)
        for h_prev, h_t, zr_t, z_t, r_t, h_tilde_t in zip(h[:-1], h[1:], zr, z, r, h_tilde):
            zr_t += U_zr.dot(h_prev)
            sigmoid(zr_t, out=zr_t)  # (1) (2)
            h_tilde_t += U_h.dot(r_t * h_prev)
            np.tanh(h_tilde_t, out=h_tilde_t)  # (3)
            h_t[:] = (1 - z_t) * h_prev + z_t * h_tilde_t  # (4)
        y = weights["W_y"] @ h[T] + weights["b_y"]  # (5)
        return y, Cache(x, h, z, r, h_tilde, delta)

    def backward(self, dy: np.ndarray, cache: Cache) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Back-propagate dy = dL/dy (O, B) through all T steps (Werbos 1990).

        Returns the gradients of the loss L with respect to theta (P,), the inputs (T, F, B) and
        h0 (H, B), for the theta that the forward pass used. d_q stands for dL/dq, and delta for
        the gradient at a pre-activation, the argument of sigma or tanh.
        """
        x, h, z, r, h_tilde, delta = cache
        T, _, B = x.shape
        H = self.hidden_size
        dy = checked("dy", dy, (self.output_size, B), self.theta.dtype)
        weights = views(self.theta, self.stacked_shapes)
        U_zr_T, U_h_T = weights["U_zr"].T, weights["U_h"].T
        gradient = np.empty_like(self.theta)
        d = views(gradient, self.stacked_shapes)

        d["W_y"][:] = dy @ h[T].T  # (8)
        d["b_y"][:] = dy.sum(axis=1, keepdims=True)  # (8)
        dh = weights["W_y"].T @ dy  # (9)

        # Each delta is the gradient that arrives at a gate times the gate's local slope. The slopes
        # need no recurrence, so they come first, at all steps. The loop then brings the gradient.
        h_prev, keep = h[:-1], 1 - z
        delta_z, delta_r, delta_h = delta[:, :H], delta[:, H : 2 * H], delta[:, 2 * H :]
        delta_zr = delta[:, : 2 * H]
        delta_z[:] = (h_tilde - h_prev) * z * (1 - z)
        delta_r[:] = h_prev * r * (1 - r)
        delta_h[:] = z * (1 - h_tilde**2)
        backwards = (a[::-1] for a in (keep, r, delta_z, delta_r, delta_zr, delta_h))
        for keep_t, r_t, delta_z_t, delta_r_t, delta_zr_t, delta_h_t in zip(*backwards):
            delta_z_t *= dh  # (10)
            delta_h_t *= dh  # (11)
            d_rh = U_h_T.dot(delta_h_t)  # (12)
            delta_r_t *= d_rh  # (13)
            dh = keep_t * dh + r_t * d_rh + U_zr_T.dot(delta_zr_t)  # (14)

        d_inputs = weights["W"].T @ delta  # (15)
        delta = side_by_side(delta)
        d["W"][:] = delta @ side_by_side(x).T  # (16)
        d["b"][:] = delta.sum(axis=1, keepdims=True)  # (16)
        d["U_zr"][:] = delta[: 2 * H] @ side_by_side(h_prev).T  # (17)
        d["U_h"][:] = delta[2 * H :] @ side_by_side(r * h_prev).T  # (18)
        return gradient, d_inputs, dh


def sigmoid(a: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """1 / (1 + exp(-a)), as (1 + tanh(a / 2)) / 2: the same function, and it cannot overflow."""
    out = np.tanh(np.multiply(0.5, a, out=out), out=out)
    out += 1
    out *= 0.5
    return out


def views(vector: np.ndarray, shapes: dict[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    """Cut a vector into matrices of these shapes, in this order. They share its memory."""
    named, start = {}, 0
    for name, (rows, columns) in shapes.items():
        named[name] = vector[start : start + rows * columns].reshape(rows, columns)
        start += rows * columns
    return named


def side_by_side(steps: np.ndarray) -> np.ndarray:
    """(T, rows, B) -> (rows, T*B): one product then sums over all steps and all sequences."""
    return steps.transpose(1, 0, 2).reshape(steps.shape[1], -1)


def checked(name: str, value, shape: tuple[int | str, ...], dtype: np.dtype) -> np.ndarray:
    """Value as an array of this shape, where a letter stands for any size of at least 1.

    Raises ValueError, naming what was expected and what came.
    """
    try:
        array = np.array(value)  # a copy: the cache must not change with the input
    except ValueError as error:  # steps that differ in shape
        came = str(error)
    else:
        fits = array.ndim == len(shape) and all(
            have == want or (isinstance(want, str) and have > 0)
            for have, want in zip(array.shape, shape)
        )
        if array.dtype.kind not in "biuf":
            came = f"{type(value).__name__} {value!r:.60}"
        elif not fits:
            came = f"shape {array.shape}"
        elif np.isfinite(array := array.astype(dtype, copy=False)).all():
            return array
        else:
            came = "nan or inf"
    expected = str(shape).replace("'", "")
    raise ValueError(f"{name}: expected finite numbers of shape {expected}, got {came}")


# --- Learning -----------------------------------------------------------------------------------


def clip_by_norm(gradient: np.ndarray, max_norm: float) -> float:
    """Scale the gradient, in place, to a Euclidean norm of at most max_norm.

    Returns the norm before. Source: Pascanu et al. 2013 (arXiv 1211.5063), algorithm 1. Raises
    ValueError for a max_norm that is not above 0.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm: expected a number above 0, got {max_norm}")
    norm = math.sqrt(gradient @ gradient)
    if norm > max_norm:
        gradient *= max_norm / norm  # (19)
    return norm


class Adam:
    """Adam (Kingma & Ba 2015, arXiv 1412.6980, algorithm 1) on one vector, which it updates."""

    def __init__(
        self,
        theta: np.ndarray,
        learning_rate: float = 1e-2,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        self.theta, self.learning_rate = theta, learning_rate
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.m = np.zeros_like(theta)  # moving mean of the gradient
        self.v = np.zeros_like(theta)  # moving mean of its square
        self.t = 0

    def step(self, gradient: np.ndarray) -> None:
        """Update theta in place. Raises ValueError for a wrong shape or a value not finite."""
        gradient = checked("gradient", gradient, self.theta.shape, self.theta.dtype)
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * gradient  # (20)
        self.v = self.beta2 * self.v + (1 - self.beta2) * gradient**2  # (21)
        m_hat = self.m / (1 - self.beta1**self.t)  # (22)
        v_hat = self.v / (1 - self.beta2**self.t)  # (22)
        self.theta -= self.learning_rate * m_hat / (np.sqrt(v_hat) + self.epsilon)  # (23)


def train_step(
    model: GRU,
    optimizer: Adam,
    inputs: Sequence[np.ndarray],
    target: np.ndarray,
    max_norm: float,
) -> float:
    """One update towards target (O, B). Returns the mean squared error before it.

    A loss that is not finite is returned without an update, which would fill theta with NaN.
    """
    y, cache = model.forward(inputs)
    error = y - checked("target", target, y.shape, y.dtype)
    loss = float((error**2).mean())  # (6)
    if math.isfinite(loss):
        dy = 2 * error / error.size  # (7)
        gradient, _, _ = model.backward(dy, cache)
        clip_by_norm(gradient, max_norm)
        optimizer.step(gradient)
    return loss


# --- Data: noisy sine waves ---------------------------------------------------------------------

PERIOD = 30  # steps in one period of every wave


def sine_waves(rng: np.random.Generator, count: int, length: int, noise: float) -> np.ndarray:
    """Waves sin(2 pi t / PERIOD + phase) + noise * N(0, 1), as (length, 1, count).

    The phase is drawn first, so the same seed with noise = 0 gives the same waves without noise.
    """
    phase = rng.uniform(0, 2 * np.pi, count)
    angle = 2 * np.pi * np.arange(length)[:, None] / PERIOD + phase
    return (np.sin(angle) + noise * rng.standard_normal((length, count)))[:, None, :]


def best_possible_mse(waves: np.ndarray, noise: float) -> float:
    """MSE on the last step of an observer who knows how the waves are made, but not their phase.

    It weighs every phase of a grid by its likelihood given the steps before (Bayes' rule, uniform
    prior) and predicts the weighted mean, which no prediction beats on average. NaN for a noise
    below 0.01, where the grid is too coarse.
    """
    if noise < 0.01:
        return math.nan
    x = waves[:, 0, :]  # (T + 1, count)
    phase = np.linspace(0, 2 * np.pi, 3600, endpoint=False)
    candidates = np.sin(2 * np.pi * np.arange(len(x))[:, None] / PERIOD + phase)  # (T + 1, 3600)
    # -sum_t (x_t - candidate_t)^2 / (2 noise^2), less the part that is the same for every phase
    fit = x[:-1].T @ candidates[:-1] - 0.5 * np.sum(candidates[:-1] ** 2, axis=0)
    likelihood = np.exp((fit - fit.max(axis=1, keepdims=True)) / noise**2)  # (count, 3600)
    prediction = likelihood @ candidates[-1] / likelihood.sum(axis=1)
    return float(np.mean((x[-1] - prediction) ** 2))


# --- The demo: training -------------------------------------------------------------------------

HELD_OUT_WAVES = 2000
MEAN_OF = 100  # updates in the moving mean of the training loss


@dataclass
class History:
    """What training recorded: one loss an update, and the held-out MSE now and then."""

    losses: list[float] = field(default_factory=list)
    held_out: list[tuple[int, float]] = field(default_factory=list)  # (updates done, MSE)


def held_out_mse(model: GRU, waves: np.ndarray) -> float:
    """Mean squared error of predicting the last step of each wave from all steps before it."""
    # A few hundred waves at a time: all at once would take gigabytes for long waves.
    parts = np.array_split(waves, math.ceil(waves.shape[2] / 500), axis=2)
    y = [model.forward(part[:-1])[0] for part in parts]
    return float(np.mean((np.concatenate(y, axis=1) - waves[-1]) ** 2))


def train(
    model: GRU,
    options: argparse.Namespace,
    rng: np.random.Generator,
    held_out: np.ndarray,
    history: History,
) -> None:
    """Train online, one new wave an update, with a learning rate that falls to zero as a cosine.

    Fills history as it goes, so that an interrupted run keeps it, and prints twenty lines. Raises
    FloatingPointError when the loss is no longer finite, as nothing useful can come after that.
    """
    optimizer = Adam(model.theta)
    every = math.ceil(options.updates / 20)
    history.held_out.append((0, held_out_mse(model, held_out)))
    print(f"{'update':>8}{'training MSE':>15}{'held-out MSE':>15}{'seconds':>10}", flush=True)
    start = time.perf_counter()
    for update in range(1, options.updates + 1):
        angle = math.pi * (update - 1) / options.updates
        optimizer.learning_rate = options.learning_rate * (1 + math.cos(angle)) / 2  # (24)
        wave = sine_waves(rng, 1, options.seq_len + 1, options.noise)
        loss = train_step(model, optimizer, wave[:-1], wave[-1], options.clip)
        raise_unless_finite(loss, update, options)
        history.losses.append(loss)
        if update % every == 0 or update == options.updates:
            mse = held_out_mse(model, held_out)
            raise_unless_finite(mse, update, options)
            history.held_out.append((update, mse))
            recent = np.mean(history.losses[-MEAN_OF:])
            seconds = time.perf_counter() - start
            print(f"{update:8d}{recent:15.5f}{mse:15.5f}{seconds:10.1f}", flush=True)


def raise_unless_finite(mse: float, update: int, options: argparse.Namespace) -> None:
    """Raise FloatingPointError, with what to try, if an error is infinite or NaN."""
    if not math.isfinite(mse):
        raise FloatingPointError(
            f"the loss is {mse} at update {update}: "
            f"try a --learning-rate below {options.learning_rate:g}"
        )


# --- The demo: what the trained network does ----------------------------------------------------


def one_step(model: GRU, wave: np.ndarray, window: int) -> np.ndarray:
    """Predict each step of wave (length, 1, 1) from the window of true values before it."""
    windows = np.lib.stride_tricks.sliding_window_view(wave[:-1, 0, 0], window)  # (count, window)
    y, _ = model.forward(windows.T[:, None, :])
    return y[0]


def free_running(model: GRU, start: np.ndarray, steps: int) -> np.ndarray:
    """Continue start (window, 1, 1): predict a step, append it to the window, drop the oldest."""
    window, predictions = list(start), []
    for _ in range(steps):
        y, _ = model.forward(window)
        window = [*window[1:], y]
        predictions.append(y.item())
    return np.array(predictions)


def gradient_norms(model: GRU, inputs: np.ndarray) -> np.ndarray:
    """Norm of dL/dh_t for t = 0..T and each sequence, relative to that of dL/dh_T: (T + 1, B).

    dL/dh_t is what backward returns as d_h0 when the forward pass starts at h_t. With one output,
    dL/dy is a number that every norm shares, so any value of it gives the same ratios: here 1.
    """
    _, cache = model.forward(inputs)
    norms = []
    for t in range(len(inputs)):
        y, rest = model.forward(inputs[t:], h0=cache.h[t])
        _, _, dh_t = model.backward(np.ones_like(y), rest)
        norms.append(np.linalg.norm(dh_t, axis=0))
    at_the_end = np.linalg.norm(model.parameters["W_y"])  # dL/dh_T = W_y^T, equation (9)
    return np.array([*norms, np.full_like(norms[0], at_the_end)]) / at_the_end


def gradient_flows(model: GRU, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """gradient_norms of the model, and of the same weights with z held fast near 0 and at 1."""
    closed, opened = math.log(0.05 / 0.95), 1000.0  # sigmoid(1000) is exactly 1
    return {
        "the GRU": gradient_norms(model, inputs),
        "z held at 1": gradient_norms(with_z_held(model, opened), inputs),
        "z held at 0.05": gradient_norms(with_z_held(model, closed), inputs),
    }


def with_z_held(model: GRU, b_z: float) -> GRU:
    """The same weights, but z = sigma(b_z) always; at z = 1 a plain network with a reset gate."""
    held = copy.deepcopy(model)
    held.parameters["W_z"][:] = 0
    held.parameters["U_z"][:] = 0
    held.parameters["b_z"][:] = b_z
    return held


# --- Figures ------------------------------------------------------------------------------------

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
STYLE = {
    "figure.figsize": (7.0, 4.0),
    "figure.dpi": 140,
    "figure.constrained_layout.use": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.titlesize": "medium",
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


def save(figure: Figure, path: Path) -> None:
    """Write the figure whole or not at all: to a file beside it, which then takes its name."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(picture.getvalue())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def plot_training_curve(history: History, noise: float, path: Path) -> None:
    """MSE by update: every loss, their moving mean, the held-out MSE and the noise floor."""
    with rc_context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        updates = np.arange(1, len(history.losses) + 1)
        axes.plot(
            updates, history.losses, color=BLUE, alpha=0.25, lw=0.4, label="training, one wave"
        )
        axes.plot(*moving_mean(history.losses), color=BLUE, label=f"training, mean of {MEAN_OF}")
        axes.plot(*zip(*history.held_out), "o-", color=RED, ms=4, label="held-out waves")
        if noise > 0:
            axes.axhline(noise**2, color="black", ls="--", lw=1, label=r"noise floor $\sigma^2$")
        axes.set(xlabel="update", ylabel="mean squared error", yscale="log")
        axes.set_ylim(bottom=max(noise**2, 1e-6) / 30)
        axes.set_title("The NumPy GRU learns the wave down to its noise")
        for line in axes.legend(ncols=2).get_lines():
            line.set(linewidth=1.5, alpha=1 if line.get_alpha() is None else 0.5)
        save(figure, path)


def moving_mean(values: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Update numbers, and the mean of the MEAN_OF losses up to each (of all if there are fewer)."""
    width = min(MEAN_OF, len(values))
    return np.arange(width, len(values) + 1), np.convolve(values, np.ones(width) / width, "valid")


def plot_forecast(model: GRU, wave: np.ndarray, truth: np.ndarray, window: int, path: Path) -> None:
    """One-step predictions above; below, apart from them, a free-running forecast."""
    steps = np.arange(len(wave))
    panels = {
        "One step ahead: the network sees the noisy wave up to the step before": one_step(
            model, wave, window
        ),
        "Free-running: after the first window it sees only its own predictions": free_running(
            model, wave[:window], len(wave) - window
        ),
    }
    with rc_context(STYLE):
        figure = Figure(figsize=(7.0, 5.2))
        both = figure.subplots(2, sharex=True, sharey=True)
        for axes, (title, prediction) in zip(both, panels.items()):
            axes.plot(steps, truth[:, 0, 0], color=GREY, lw=1, label="wave without noise")
            axes.plot(steps, wave[:, 0, 0], ".", color=GREY, ms=4, label="noisy wave")
            axes.plot(steps[window:], prediction, color=RED, label="prediction")
            axes.axvline(window - 0.5, color="black", lw=0.8, ls=":")
            axes.set(title=title, ylabel="value", ylim=(-1.5, 1.5))
        axes.text(window - 1, 1.3, "first window", ha="right")
        axes.set_xlabel("step")
        both[0].legend(ncols=3, loc="upper right")
        save(figure, path)


def plot_gates(model: GRU, wave: np.ndarray, path: Path) -> None:
    """z and r of every unit over one wave, units ordered by how their z moves with the wave."""
    _, cache = model.forward(wave)
    x, z, r = wave[:, 0, 0], cache.z[:, :, 0].T, cache.r[:, :, 0].T  # (T,), (H, T), (H, T)
    order = np.argsort(z @ (x - x.mean()))
    maps = {
        "update gate $z$: 0 keeps the old state, 1 takes the candidate": z,
        "reset gate $r$: 0 hides the old state from the candidate, 1 shows it": r,
    }
    with rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(7.0, 6.0))
        top, *rest = figure.subplots(3, sharex=True, height_ratios=[1, 2, 2])
        top.plot(np.arange(1, len(x) + 1), x, ".-", color=GREY)
        top.set(title="input $x_t$", ylabel="value")
        for axes, (title, gate) in zip(rest, maps.items()):
            extent = (0.5, len(x) + 0.5, 0.5, len(z) + 0.5)
            image = axes.imshow(
                gate[order], "viridis", aspect="auto", vmin=0, vmax=1, origin="lower", extent=extent
            )
            axes.set(title=title, ylabel="hidden unit")
        figure.colorbar(image, ax=rest, label="gate value")
        axes.set_xlabel("step $t$")
        save(figure, path)


def plot_gradient_flow(flows: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """How much of the gradient is left d steps before the end: median and 10-90 % of the waves."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7.0, 4.2))
        both = figure.subplots(1, 2, sharey=True)
        for axes, (title, flow) in zip(both, flows.items()):
            for (name, norms), color in zip(flow.items(), (BLUE, RED, GREEN)):
                # norms runs from h_0 to h_T, the axis from the end backwards
                low, median, high = np.percentile(norms[::-1], [10, 50, 90], axis=1)
                distance = np.arange(len(norms))
                axes.fill_between(distance, low, high, color=color, alpha=0.2, lw=0)
                axes.plot(distance, median, color=color, label=name)
            axes.set(title=title, xlabel="distance to the end, $T - t$ (steps)", yscale="log")
        figure.suptitle("The smaller the update gate, the further back the gradient reaches")
        both[0].set_ylabel(r"$\|\partial L/\partial h_t\| \;/\; \|\partial L/\partial h_T\|$")
        both[0].legend()
        save(figure, path)


def plot_learning_rates(histories: dict[float, History], noise: float, path: Path) -> None:
    """The training loss at a learning rate that is too low, at a good one and at one too high."""
    with rc_context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        names = ("a hundredth", "the default", "a hundredfold")
        for (rate, history), color, name in zip(histories.items(), (GREEN, BLUE, RED), names):
            label = f"{name}: {rate:g}"
            axes.plot(*moving_mean(history.losses), color=color, label=label)
        if noise > 0:
            axes.axhline(noise**2, color="black", ls="--", lw=1, label=r"noise floor $\sigma^2$")
        axes.set(xlabel="update", ylabel=f"training MSE (mean of {MEAN_OF})", yscale="log")
        axes.set_title("Learning rate: too low crawls, too high thrashes")
        axes.legend(ncols=2)
        save(figure, path)


# --- The command line ---------------------------------------------------------------------------


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, with exit status 2."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: {message}\n")


def whole(low: int, high: int):
    """An argparse type: a whole number from low to high."""

    def parse(text: str) -> int:
        if re.fullmatch(r"\d{1,12}", text) and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(
            f"expected a whole number from {low} to {high}, got {text!r}"
        )

    return parse


def positive(text: str) -> float:
    """An argparse type: a finite number above zero."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a finite number above 0, got {text!r}")


def noise_level(text: str) -> float:
    """An argparse type: a standard deviation from 0 to 1000 (the wave's own amplitude is 1)."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1000:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 1000, got {text!r}")


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; a wrong one, or a folder that can't be written to, exits with status 2."""
    parser = OneLineParser(
        description="Train a GRU written in NumPy on noisy sine waves, and show what it learned.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--updates", type=whole(1, 10**9), default=6000, help="updates, one wave each")
    add("--hidden-size", type=whole(1, 4096), default=32, help="hidden units")
    add("--seq-len", type=whole(1, 1000), default=30, help="steps seen before predicting")
    add("--noise", type=noise_level, default=0.05, help="standard deviation of the noise")
    add("--learning-rate", type=positive, default=1e-3, help="Adam's first rate")
    add("--clip", type=positive, default=1.0, help="largest gradient norm")
    add("--seed", type=whole(0, 10**9), default=0, help="seed of weights and data")
    add("--plots-dir", type=Path, default=Path(__file__).resolve().parent / "plots", help="figures")
    add("--quick", action="store_true", help="a smoke run: at most 300 updates")
    add("--rates", action="store_true", help="only compare three learning rates, 1/100, 1, 100")
    options = parser.parse_args(argv)
    if options.quick:
        options.updates = min(options.updates, 300)
    try:
        options.plots_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.plots_dir).close()
    except OSError as error:
        parser.error(f"--plots-dir: expected a folder that can be written to, got {error}")
    return options


def shown(path: Path) -> Path:
    """The path from the current folder, where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def demo(options: argparse.Namespace) -> None:
    """Train one network, print what it reached and draw the four figures."""
    train_seed, held_out_seed, wave_seed = np.random.SeedSequence(options.seed).spawn(3)
    T, noise, plots = options.seq_len, options.noise, options.plots_dir
    held_out = sine_waves(np.random.default_rng(held_out_seed), HELD_OUT_WAVES, T + 1, noise)
    model, history = GRU(1, options.hidden_size, 1, options.seed), History()
    untrained = copy.deepcopy(model)
    start = time.perf_counter()
    print(f"A GRU in NumPy: {options.hidden_size} hidden units, {model.theta.size} parameters\n")
    try:
        train(model, options, np.random.default_rng(train_seed), held_out, history)
    finally:  # a run that is broken off keeps its curve
        if history.losses:
            plot_training_curve(history, noise, plots / "gru_numpy_training_curve.png")

    # The same seed draws the same phase, so truth is the wave without its noise.
    wave, truth = (
        sine_waves(np.random.default_rng(wave_seed), 1, T + 2 * PERIOD, n) for n in (noise, 0.0)
    )
    flows = {
        "untrained": gradient_flows(untrained, held_out[:-1, :, :200]),
        "trained": gradient_flows(model, held_out[:-1, :, :200]),
    }
    plot_forecast(model, wave, truth, T, plots / "gru_numpy_forecast.png")
    plot_gates(model, wave[:T], plots / "gru_numpy_gates.png")
    plot_gradient_flow(flows, plots / "gru_numpy_gradient_flow.png")

    mse, best = history.held_out[-1][1], best_possible_mse(held_out, noise)
    persistence = np.mean((held_out[-1] - held_out[-2]) ** 2)
    print(f"\nheld-out MSE   {mse:.5f}   {mse / best:.2f} times the best possible")
    print(f"best possible  {best:.5f}   knowing all but the phase")
    print(f"noise floor    {noise**2:.5f}   sigma^2")
    print(f"persistence    {persistence:.5f}   the last value, repeated")
    print(f"parameters     {model.theta.size}")
    print(f"seconds        {time.perf_counter() - start:.1f}")
    print(f"figures        {shown(plots / 'gru_numpy_*.png')}")
    print(f"\ngradient norm at h_0 over that at h_{T}, median of 200 waves")
    print(f"{'':12}" + "".join(f"{name:>16}" for name in flows["trained"]))
    for state, flow in flows.items():
        print(f"{state:12}" + "".join(f"{np.median(norms[0]):16.1e}" for norms in flow.values()))


def compare_rates(options: argparse.Namespace) -> None:
    """Train the same network on the same waves at three learning rates, and draw the losses."""
    train_seed, held_out_seed, _ = np.random.SeedSequence(options.seed).spawn(3)
    held_out = sine_waves(
        np.random.default_rng(held_out_seed), HELD_OUT_WAVES, options.seq_len + 1, options.noise
    )
    histories, path = {}, options.plots_dir / "gru_numpy_learning_rates.png"
    try:
        for factor in (0.01, 1, 100):
            rate = factor * options.learning_rate
            histories[rate] = History()
            print(f"learning rate {rate:g}")
            model = GRU(1, options.hidden_size, 1, options.seed)
            one = argparse.Namespace(**{**vars(options), "learning_rate": rate})
            train(model, one, np.random.default_rng(train_seed), held_out, histories[rate])
    finally:  # a run that is broken off keeps its curves
        histories = {rate: history for rate, history in histories.items() if history.losses}
        if histories:
            plot_learning_rates(histories, options.noise, path)
    print(f"figure: {shown(path)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0; 2: a wrong option; 1: a failed run; 130: Ctrl-C."""
    try:
        options = parse_options(argv)
    except SystemExit as stop:  # after --help, or an error of one line
        return stop.code
    try:
        with np.errstate(all="ignore"):  # train looks at every loss itself
            (compare_rates if options.rates else demo)(options)
    except KeyboardInterrupt:
        status, message = 130, f"interrupted; what was drawn so far is in {options.plots_dir}"
    except (FloatingPointError, ValueError) as error:  # ValueError: a gradient that overflows
        status, message = 1, f"{error}; what was drawn so far is in {options.plots_dir}"
    except MemoryError:
        status, message = 1, "not enough memory: try a smaller --hidden-size or --seq-len"
    except OSError as error:
        status, message = 1, f"could not write: {error}"
    else:
        return 0
    print(f"gru_from_scratch.py: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
