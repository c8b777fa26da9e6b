"""A Gated Recurrent Unit in NumPy: forward pass, back-propagation through time, Adam, three demos.

    python gru_from_scratch.py                  predict the next value of a noisy sine wave
    python gru_from_scratch.py --task adding    memory: add up two marked numbers out of 50
    python gru_from_scratch.py --task reset     both gates in one unit: the sum since the last flag

A GRU reads a sequence x_1, ..., x_T and keeps a state h_t, of which h_0 is given or 0:

    (1)  z_t       = sigma(W_z @ x_t + U_z @ h_{t-1} + b_z)           update gate
    (2)  r_t       = sigma(W_r @ x_t + U_r @ h_{t-1} + b_r)           reset gate
    (3)  h_tilde_t = tanh(W_h @ x_t + U_h @ (r_t * h_{t-1}) + b_h)    candidate for the new state
    (4)  h_t       = (1 - z_t) * h_{t-1} + z_t * h_tilde_t            new state
    (5)  y         = W_y @ h_T + b_y                                  prediction after the last step
    (6)  L         = mean((y - target)^2)                             loss, over all numbers of y
    (7)  dL/dy     = 2 * (y - target) / (how many numbers y has)

sigma(a) is 1 / (1 + exp(-a)), `@` the matrix and `*` the element-wise product; (8) to (13),
clipping and Adam, stand where they are computed. A plain recurrent network writes a whole new state
at every step, and on the way back its gradient is multiplied by a matrix each time: 50 steps leave
next to nothing of it. The GRU blends old and new by two gates, numbers between 0 and 1 for each
unit: z_t says how far the unit moves from its old state to the candidate (0 keeps, 1 replaces), r_t
how much of the old state the candidate gets to see. Where z_t is near 0, the state is copied on,
and the gradient back: so a GRU remembers.

Shapes: T steps, B sequences side by side (one column each), F = input_size, H = hidden_size,
O = output_size. x_t is (F, B); z_t, r_t, h_tilde_t and h_t are (H, B); y is (O, B);
W_z, W_r, W_h are (H, F); U_z, U_r, U_h (H, H); b_z, b_r, b_h (H, 1); W_y (O, H); b_y (O, 1).
"""

import argparse
import copy
import functools
import math
import signal
import tempfile
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib import colormaps, style
from matplotlib.figure import Figure

# --- The cell -----------------------------------------------------------------------------------

Arrays = dict[str, np.ndarray]  # weights, or their gradients, by name
Step = namedtuple("Step", "x h_prev z r rh h_tilde")  # what backward needs of step t


@np.errstate(over="ignore")  # exp may overflow to inf: then sigma is 0, which is right
def sigmoid(a: np.ndarray) -> np.ndarray:
    """sigma(a) = 1 / (1 + exp(-a)), between 0 and 1."""
    return 1 / (1 + np.exp(-a))


class GRU:
    """A GRU with an affine head on its last state: many-to-one regression.

    The cell of Chung et al. 2014 (arXiv 1412.3555). torch.nn.GRU is another: its z is our 1 - z and
    its r acts after the product with U_h (README.md). In the code x is x_t, h_prev is h_{t-1}.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int, seed=0, dtype=float):
        """Draw every weight from U(-1/sqrt(H), 1/sqrt(H)), as 32- or 64-bit numbers."""
        F, H, O = input_size, hidden_size, output_size
        if min(F, H, O) < 1:
            raise ValueError(f"sizes: expected at least 1, got {F}, {H}, {O}")
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype: expected float32 or float64, got {np.dtype(dtype)}")
        self.dtype = np.dtype(dtype)
        self.shapes = {
            "W_z": (H, F), "U_z": (H, H), "b_z": (H, 1),
            "W_r": (H, F), "U_r": (H, H), "b_r": (H, 1),
            "W_h": (H, F), "U_h": (H, H), "b_h": (H, 1),
            "W_y": (O, H), "b_y": (O, 1),
        }  # fmt: skip
        rng, limit = np.random.default_rng(seed), 1 / math.sqrt(H)
        self.parameters = {}
        for name, shape in self.shapes.items():
            self.parameters[name] = rng.uniform(-limit, limit, shape).astype(dtype)

    def forward(self, inputs, h0: np.ndarray | None = None) -> tuple[np.ndarray, tuple]:
        """Run T steps, (T, F, B) or a list of T arrays (F, B), from the state h0 (H, B) or zero.
        Returns y (O, B), and for backward the steps and h_T.
        """
        inputs, h = checked(self, inputs, h0)  # (below) T times (F, B), and (H, B)
        p, steps = self.parameters, []
        for x in inputs:
            h_prev = h
            z = sigmoid(p["W_z"] @ x + p["U_z"] @ h_prev + p["b_z"])  # (1)
            r = sigmoid(p["W_r"] @ x + p["U_r"] @ h_prev + p["b_r"])  # (2)
            rh = r * h_prev
            h_tilde = np.tanh(p["W_h"] @ x + p["U_h"] @ rh + p["b_h"])  # (3)
            h = (1 - z) * h_prev + z * h_tilde  # (4)
            steps.append(Step(x, h_prev, z, r, rh, h_tilde))
        y = p["W_y"] @ h + p["b_y"]  # (5)
        return y, (steps, h)

    def backward(self, dy: np.ndarray, cache: tuple) -> tuple[Arrays, np.ndarray, np.ndarray]:
        """Back-propagate dy = dL/dy (O, B) through the head and all T steps (Werbos 1990).

        dq stands for dL/dq and has the shape of q. What (4) passes back is (4a), (4b), ..., and so
        on for (3), (2) and (1). a_z, a_r and a_h are what sigma and tanh act on. The rules:

            a = W @ q + b    dq = W.T @ da,  dW = da @ q.T,  db = da, summed over the columns
            s = u * v        du = ds * v,  dv = ds * u
            s = sigma(a)     da = ds * s * (1 - s)
            s = tanh(a)      da = ds * (1 - s^2)
            q used several times: dq is the sum of what each use gives. So h_prev, used four
            times in (1) to (4), gets four terms, and a weight gets one term from every step.

        Returns the gradients by the names of the weights; dL/dx_t as item t - 1 of (T, F, B); and
        dL/dh_t as item t of (T + 1, H, B). Call it before the weights change, as it uses them.
        """
        p, (steps, h_T) = self.parameters, cache
        dy = as_array("dy", dy, (len(p["b_y"]), h_T.shape[1]), self.dtype)
        d = {name: np.zeros_like(weight) for name, weight in p.items()}
        # (5)  y = W_y @ h_T + b_y
        d["W_y"] = dy @ h_T.T  # (5a)
        d["b_y"] = dy.sum(axis=1, keepdims=True)  # (5a)
        dh = p["W_y"].T @ dy  # (5b)
        dx_of_steps, dh_of_steps = [], [dh]
        for x, h_prev, z, r, rh, h_tilde in reversed(steps):  # here dh is dL/dh_t
            # (4)  h = (1 - z) * h_prev + z * h_tilde
            dz = dh * (h_tilde - h_prev)  # (4a)
            dh_tilde = dh * z  # (4b)
            dh_prev = dh * (1 - z)  # (4c) first of four terms: what is kept

            # (3)  h_tilde = tanh(a_h),  a_h = W_h @ x + U_h @ rh + b_h,  rh = r * h_prev
            da_h = dh_tilde * (1 - h_tilde**2)  # (3a)
            drh = p["U_h"].T @ da_h  # (3b)
            dr = drh * h_prev  # (3c)
            dh_prev += drh * r  # (3d) second term: through the candidate
            d["W_h"] += da_h @ x.T  # (3e)
            d["U_h"] += da_h @ rh.T  # (3e)
            d["b_h"] += da_h.sum(axis=1, keepdims=True)  # (3e)
            dx = p["W_h"].T @ da_h  # (3f) first of three terms

            # (2)  r = sigma(a_r),  a_r = W_r @ x + U_r @ h_prev + b_r
            da_r = dr * r * (1 - r)  # (2a)
            dh_prev += p["U_r"].T @ da_r  # (2b) third term: through the reset gate
            d["W_r"] += da_r @ x.T  # (2c)
            d["U_r"] += da_r @ h_prev.T  # (2c)
            d["b_r"] += da_r.sum(axis=1, keepdims=True)  # (2c)
            dx += p["W_r"].T @ da_r  # (2d)

            # (1)  z = sigma(a_z),  a_z = W_z @ x + U_z @ h_prev + b_z
            da_z = dz * z * (1 - z)  # (1a)
            dh_prev += p["U_z"].T @ da_z  # (1b) fourth term: through the update gate
            d["W_z"] += da_z @ x.T  # (1c)
            d["U_z"] += da_z @ h_prev.T  # (1c)
            d["b_z"] += da_z.sum(axis=1, keepdims=True)  # (1c)
            dx += p["W_z"].T @ da_z  # (1d)

            dx_of_steps.append(dx)
            dh_of_steps.append(dh_prev)
            dh = dh_prev
        return d, np.array(dx_of_steps[::-1]), np.array(dh_of_steps[::-1])


def clip_by_norm(gradients: Arrays, max_norm: float) -> Arrays:
    """The gradients, scaled down together if their norm (in 64 bits) exceeds max_norm, as a single
    huge one would throw the weights far away (Pascanu et al. 2013).
    """
    norm = math.sqrt(sum(np.sum(G.astype(np.float64) ** 2) for G in gradients.values()))
    if norm <= max_norm:
        return gradients
    return {name: G * (max_norm / norm) for name, G in gradients.items()}  # (8)


@dataclass
class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) keeps moving means of each gradient, m, and of its
    square, v. As m / sqrt(v) is seldom above 1, a weight seldom moves by more than learning_rate.
    Both means start at 0, which (11) corrects.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    k: int = 0  # updates so far
    m: Arrays = field(default_factory=dict)
    v: Arrays = field(default_factory=dict)

    def step(self, parameters: Arrays, gradients: Arrays) -> None:
        """One update of the parameters, in place."""
        self.k += 1
        for name, G in gradients.items():
            self.m[name] = self.beta1 * self.m.get(name, 0) + (1 - self.beta1) * G  # (9)
            self.v[name] = self.beta2 * self.v.get(name, 0) + (1 - self.beta2) * G**2  # (10)
            m_hat = self.m[name] / (1 - self.beta1**self.k)  # (11)
            v_hat = self.v[name] / (1 - self.beta2**self.k)  # (11)
            parameters[name] -= self.learning_rate * m_hat / (np.sqrt(v_hat) + self.epsilon)  # (12)


def train_step(model: GRU, adam: Adam, inputs, target: np.ndarray, max_norm: float) -> float:
    """One update towards target (O, B). Returns the mean squared error before it."""
    y, cache = model.forward(inputs)
    error = y - as_array("target", target, y.shape, y.dtype)
    loss = np.mean(error**2)  # (6)
    dy = 2 * error / error.size  # (7)
    gradients, _, _ = model.backward(dy, cache)
    adam.step(model.parameters, clip_by_norm(gradients, max_norm))
    return float(loss)


def as_array(name: str, value, shape: tuple, dtype: np.dtype) -> np.ndarray:
    """value as an array of this dtype, not copied if it is one; ValueError for another shape."""
    array = np.asarray(value, dtype)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def checked(model: GRU, inputs, h0: np.ndarray | None) -> tuple[list[np.ndarray], np.ndarray]:
    """The steps of inputs, and the state before them. ValueError if a shape is wrong."""
    for name, shape in model.shapes.items():  # a caller may have replaced one, by a list even
        model.parameters[name] = as_array(name, model.parameters[name], shape, model.dtype)
    H, F = model.shapes["W_z"]
    if len(inputs) == 0 or np.ndim(inputs[0]) != 2 or np.size(inputs[0]) == 0:
        raise ValueError(f"inputs: expected shape (T, {F}, B), got {np.shape(inputs)}")
    B = np.shape(inputs[0])[1]
    h = as_array("h0", np.zeros((H, B)) if h0 is None else h0, (H, B), model.dtype)
    return [as_array(f"step {t}", x, (F, B), model.dtype) for t, x in enumerate(inputs, 1)], h


# --- Data and training --------------------------------------------------------------------------

PERIOD = 30  # steps in one period of every sine wave
REPORTS = {0, 25, 50, *(125 * 2**n for n in range(20))}  # after so many updates
BLUE, RED, GREEN, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#777777"
STYLE = {"figure.dpi": 140, "figure.constrained_layout.use": True, "legend.frameon": False}
Batch = tuple[np.ndarray, np.ndarray]  # inputs (T, F, B), and answers, of which the last is asked


def sine_waves(rng: np.random.Generator, count: int, length: int, noise: float) -> Batch:
    """Waves sin(2 pi t / PERIOD + phase) + noise * N(0, 1), and the value that comes next."""
    phase = rng.uniform(0, 2 * np.pi, count)
    angle = 2 * np.pi * np.arange(length + 1)[:, None, None] / PERIOD + phase
    waves = np.sin(angle) + noise * rng.standard_normal(angle.shape)
    return waves[:-1], waves[-1]


def adding_problem(rng: np.random.Generator, count: int, length: int) -> Batch:
    """A step holds a number from U(0, 1) and a mark, 1 at one step of either half and 0 elsewhere;
    the answer is the sum of the marked numbers (Hochreiter & Schmidhuber 1997).
    """
    numbers, marks = rng.uniform(0, 1, (length, count)), np.zeros((length, count))
    marks[rng.integers(0, length // 2, count), np.arange(count)] = 1
    marks[rng.integers(length // 2, length, count), np.arange(count)] = 1
    return np.stack([numbers, marks], axis=1), (numbers * marks).sum(axis=0, keepdims=True)


def sums_since_flag(rng: np.random.Generator, count: int, length: int) -> Batch:
    """A step holds a number from U(0, 0.3) and a flag, 1 at the first step and at 15 % of the rest.
    The answers (length, count) are the sums of the numbers from the last flag on, inclusive.
    """
    numbers, flags = rng.uniform(0, 0.3, (length, count)), rng.random((length, count)) < 0.15
    flags[0], sums = True, numbers.copy()
    for t in range(1, length):
        sums[t] += np.where(flags[t], 0, sums[t - 1])
    return np.stack([numbers, flags], axis=1), sums


def held_out(draw: Callable, seed: int) -> list[Batch]:
    """Ten batches of 200 sequences, of other random numbers than those of training."""
    return [draw(rng, 200) for rng in np.random.default_rng([seed, 1]).spawn(10)]


@dataclass
class History:
    """By update: the mean of the last 10 losses, the held-out MSE, and a copy of the weights."""

    training_mse: dict[int, float]
    held_out_mse: dict[int, float]
    weights: dict[int, Arrays]


def train(model: GRU, draw: Callable, options, curve=None) -> History:
    """Train on 32 new sequences at every update; Adam's rate falls to zero as a cosine. Reports as
    it goes, and draws the curve, if that is given: its file, a level to compare with, and its name.
    """
    adam, losses, history, K = Adam(), [], History({}, {}, {}), options.updates
    rng = np.random.default_rng([options.seed, 0])
    print(f"{'update':>8}{'training MSE':>15}{'held-out MSE':>15}", flush=True)
    try:
        for k in range(K + 1):
            if k > 0:
                cosine = (1 + math.cos(math.pi * (k - 1) / K)) / 2
                adam.learning_rate = options.learning_rate * cosine  # (13)
                x, answers = draw(rng, 32)
                losses.append(train_step(model, adam, x, answers[-1:], options.clip))
                history.training_mse[k] = np.mean(losses[-10:])
            if k in REPORTS or k == K:
                errors = [model.forward(x)[0] - y[-1] for x, y in held_out(draw, options.seed)]
                history.held_out_mse[k] = np.mean(np.square(errors))
                history.weights[k] = copy.deepcopy(model.parameters)
                recent = f"{history.training_mse[k]:.4g}" if k > 0 else "-"
                print(f"{k:8d}{recent:>15}{history.held_out_mse[k]:15.4g}", flush=True)
    finally:
        if curve:  # also of a run that is broken off
            name, level, label = curve
            axes = Figure((7.0, 4.0)).subplots()
            axes.plot(*zip(*history.training_mse.items()), label="training, mean of 10 updates")
            axes.plot(*zip(*history.held_out_mse.items()), "o", label="held-out")
            axes.axhline(level, color="black", ls="--", lw=1, label=label)
            axes.set(xlabel="update", ylabel="mean squared error", yscale="log")
            axes.legend(loc="upper right")
            axes.figure.savefig(options.plots_dir / name)
    print()
    return history


# --- The demos ----------------------------------------------------------------------------------


def print_row(label: str, value: float) -> None:
    """One result, to four significant digits."""
    print(f"{label:26}{value:.4g}")


def sine_demo(options: argparse.Namespace) -> None:
    """Predict the next value of a noisy sine wave."""
    T, noise, seed = options.seq_len, options.noise, options.seed
    draw = functools.partial(sine_waves, length=T, noise=noise)
    model = GRU(1, options.hidden_size, 1, seed)
    curve = "gru_numpy_training_curve.png", noise**2, "noise variance"
    mse = train(model, draw, options, curve).held_out_mse[options.updates]
    print_row("held-out MSE", mse)
    if T % PERIOD == 0 and 0 < noise < 1:
        best = noise**2 * (1 + 1 / T)  # T noisy values tell the phase only so far: README.md
        print_row("best possible", best)
        print_row("held-out / best possible", mse / best)
    print_row("noise variance", noise**2)
    print_row("persistence", np.mean([(x[-1] - y) ** 2 for x, y in held_out(draw, seed)]))

    wave, _ = sine_waves(np.random.default_rng([seed, 2]), 1, T + 60, noise)
    free = list(wave[:T])  # free-running: then it sees its own predictions
    for _ in range(60):
        free.append(model.forward(free[-T:])[0])
    ahead = [model.forward(wave[t - T : t])[0] for t in range(T, T + 60)]
    axes = Figure((7.0, 4.0)).subplots()
    axes.plot(wave.ravel(), ".-", color=GREY, ms=4, lw=0.5, label="noisy wave")
    axes.plot(range(T, T + 60), np.ravel(ahead), color=BLUE, label="one step ahead")
    axes.plot(range(T, T + 60), np.ravel(free[T:]), color=RED, ls="--", label="free-running")
    axes.set(title="Free-running, it sees its own predictions in place of the wave")
    axes.set(xlabel="step", ylabel="value", ylim=(-1.5, 1.7))
    axes.legend(ncols=3, loc="upper right")
    axes.figure.savefig(options.plots_dir / "gru_numpy_forecast.png")


def adding_demo(options: argparse.Namespace) -> None:
    """Memory: add up two marked numbers out of many."""
    draw = functools.partial(adding_problem, length=options.seq_len)
    model = GRU(2, options.hidden_size, 1, options.seed)
    curve = "gru_numpy_adding_curve.png", 1 / 6, "always answering 1"
    history = train(model, draw, options, curve)
    x, _ = held_out(draw, options.seed)[0]
    plot_memory(model, x[:, :, [5]], options.plots_dir)

    print(f"updates   held-out MSE   share of the gradient at h_{len(x)} that reaches h_0")
    axes = Figure((7.0, 4.0)).subplots()
    axes.set_prop_cycle(color=colormaps["viridis"](np.linspace(0.85, 0, 5)))
    for k in sorted({0, 25, 50, 125, options.updates} & history.weights.keys()):
        model.parameters, mse = history.weights[k], history.held_out_mse[k]
        y, cache = model.forward(x)
        _, _, dh = model.backward(np.ones_like(y), cache)  # any dL/dy gives the same shares
        norms = np.linalg.norm(dh, axis=1)  # (T + 1, B)
        share = np.median(norms / norms[-1], axis=1)
        print(f"{k:7d}{mse:15.4g}   {share[0]:.1e}")
        axes.plot(share[::-1], label=f"after {k} updates: MSE {mse:.2g}")
    axes.set(title="How much of the gradient at $h_T$ reaches $h_t$", yscale="log")
    axes.set(xlabel="distance to the end, $T - t$ (steps)", ylabel="$|dL/dh_t|$ / $|dL/dh_T|$")
    axes.legend(loc="lower left")
    axes.figure.savefig(options.plots_dir / "gru_numpy_learning.png")


def plot_memory(model: GRU, x: np.ndarray, folder: Path) -> None:
    """Of one sequence x (T, 2, 1): the answer after each step, and z of every unit."""
    t, numbers, marked = np.arange(1, len(x) + 1), x[:, 0, 0], x[:, 1, 0] == 1
    _, (steps, h_T) = model.forward(x)
    z = np.hstack([step.z for step in steps])  # (H, T)
    h = np.hstack([*(step.h_prev for step in steps[1:]), h_T])
    answers = (model.parameters["W_y"] @ h + model.parameters["b_y"])[0]  # (5), after each step
    top, below = Figure((7.0, 6.0)).subplots(2, sharex=True)
    top.plot(t, numbers, ".", color=GREY, label="numbers")
    top.plot(t[marked], numbers[marked], "o", color=ORANGE, label="marked")
    top.axhline(numbers[marked].sum(), color="black", ls=":", label="sum of the marked")
    top.step(t, answers, where="mid", color=BLUE, label="answer after each step")
    top.set(title="The answer jumps at the marks", ylabel="value", ylim=(-0.1, 2.6))
    top.legend(ncols=2, loc="upper left")
    order = np.argsort(z[:, marked].mean(axis=1) - z[:, ~marked].mean(axis=1))  # open at marks: top
    image = below.pcolormesh(t, np.arange(1, len(z) + 1), z[order], vmin=0, vmax=1)
    below.set(title="Update gate $z_t$: 0 keeps, 1 replaces", xlabel="step $t$", ylabel="unit")
    below.figure.colorbar(image, ax=below, label="$z_t$")
    below.figure.savefig(folder / "gru_numpy_memory.png")


def reset_demo(options: argparse.Namespace) -> None:
    """Both gates in one unit: the sum of the numbers since the last flag."""
    T, seed = options.seq_len, options.seed
    draw = functools.partial(sums_since_flag, length=T)
    variance = np.var([sums[-1] for _, sums in held_out(draw, seed)])
    curve = "gru_numpy_reset_curve.png", variance, "variance of the target"
    model, r_held = GRU(2, 1, 1, seed), GRU(2, 1, 1, seed)
    mse = train(model, draw, options, curve).held_out_mse[options.updates]
    print("Again, with r held at 1:")
    r_held.parameters["b_r"][:] = 1000  # sigma is exactly 1, and its slope 0, so that r stays 1
    mse_r_held = train(r_held, draw, options).held_out_mse[options.updates]
    print_row("held-out MSE", mse)
    print_row("with r held at 1", mse_r_held)
    print_row("variance of the target", variance)
    x, _ = held_out(draw, seed)[0]
    flagged, (_, (steps, _)) = x[:, [1]] == 1, model.forward(x)
    for name in ("z", "r"):
        gate = np.array([getattr(step, name) for step in steps])  # (T, 1, B)
        print_row(f"mean {name}, flagged steps", gate[flagged].mean())
        print_row(f"mean {name}, other steps", gate[~flagged].mean())
    print("\nThe 14 weights (of W_z, W_r, W_h: for the number, for the flag)")
    for name, weight in model.parameters.items():
        print(name, *(f"{value:8.3f}" for value in weight.ravel()))
    # A sequence longer by half than those of training, the first with a flag that ends a long sum.
    x, sums = sums_since_flag(np.random.default_rng([seed, 2]), 1000, 3 * T // 2)
    b = np.argmax(np.any(sums[:-1] * x[1:, 1] > 0.15 * T, axis=0))
    show_one_unit(model, x[:, :, [b]], sums[:, b], options.plots_dir)


def show_one_unit(model: GRU, x: np.ndarray, sums: np.ndarray, folder: Path) -> None:
    """Of x (T, 2, 1) print a flagged step by hand, also with one gate as before it; draw all."""
    p, t, flags = model.parameters, np.arange(1, len(x) + 1), x[:, 1, 0]
    _, (steps, h_T) = model.forward(x)
    z, r, h_prev = (np.ravel(q) for q in zip(*((s.z, s.r, s.h_prev) for s in steps)))
    answers = (p["W_y"] * np.append(h_prev[1:], h_T) + p["b_y"])[0]  # (5), after each step
    i = 1 + np.argmax(sums[:-1] * flags[1:])  # the flag with the most to forget
    print(f"\nStep {t[i]}: a flag and the number {sums[i]:.2f}, when the sum was {sums[i - 1]:.2f}")
    print(f"{'z':>24}{'r':>8}{'h_prev':>8}{'h_tilde':>8}{'h':>8}{'answer':>8}")
    names = "as it is", f"r as at step {i}", f"z as at step {i}"
    for name, z_i, r_i in zip(names, z[[i, i, i - 1]], r[[i, i - 1, i]]):
        h_tilde = np.tanh(p["W_h"] @ x[i] + p["U_h"] * r_i * h_prev[i] + p["b_h"]).item()  # (3)
        h_i = (1 - z_i) * h_prev[i] + z_i * h_tilde  # (4)
        y = (p["W_y"] * h_i + p["b_y"]).item()  # (5)
        print(f"{name:16}{z_i:8.3f}{r_i:8.3f}{h_prev[i]:8.3f}{h_tilde:8.3f}{h_i:8.3f}{y:8.3f}")

    panels = Figure((7.0, 7.0)).subplots(3, sharex=True)
    panels[0].plot(t, x[:, 0, 0], "o", color=GREY, label="number; at the orange steps also a flag")
    panels[0].set(title="Input", ylabel="number")
    panels[1].step(t, sums, where="mid", color=GREY, label="sum from the last flag, inclusive")
    panels[1].plot(t, answers, "o", color="black", ms=4, label="answer")
    panels[1].set(title="A one-unit GRU's answer after each step", ylabel="sum")
    panels[2].step(t, z, where="mid", color=BLUE, label="update z: 0 keeps, 1 replaces")
    name = "reset r: 0 = candidate ignores the old state"
    panels[2].step(t, r, where="mid", color=GREEN, ls="--", label=name)
    panels[2].set(title="Its two gates", xlabel="step $t$", ylabel="gate", xticks=t[4::5])
    for axes, top in zip(panels, (0.4, 1.3 * sums.max(), 1.3)):
        axes.bar(t, top * flags, width=1, color=ORANGE, alpha=0.3, zorder=0)
        axes.set_ylim(0, top)
        axes.legend(ncols=2, loc="upper left", fontsize="small")
    state = panels[1].twinx()  # the answer is W_y h + b_y
    state.set(ylabel="state $h_t$", ylim=(panels[1].get_ylim() - p["b_y"][0]) / p["W_y"][0])
    state.figure.savefig(folder / "gru_numpy_reset.png")


# --- The command line ---------------------------------------------------------------------------

RANGES = {  # of the options: least, most, meaning
    "--updates": (1, 1e7, "updates, each on new data"),
    "--hidden-size": (1, 1e3, "hidden units"),
    "--seq-len": (3, 1e3, "steps in a sequence"),
    "--learning-rate": (1e-9, 100, "Adam's first rate, which falls to zero"),
    "--noise": (0, 100, "standard deviation of the sine waves' noise"),
    "--clip": (1e-9, math.inf, "largest norm of the gradient; inf: any"),
    "--seed": (0, 1e9, "seed of weights and data"),
}
COMMON = {"--learning-rate": 0.03, "--clip": 1.0, "--seed": 0}  # defaults of every task
TASKS = {  # what to run, and the defaults of its own
    "sine": (sine_demo, {"--updates": 400, "--hidden-size": 32, "--seq-len": 30, "--noise": 0.05}),
    "adding": (adding_demo, {"--updates": 600, "--hidden-size": 16, "--seq-len": 50}),
    "reset": (reset_demo, {"--updates": 1000, "--seq-len": 20, "--learning-rate": 0.05}),
}


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """Read the options; a wrong one ends the program with status 2 before any work."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.description = __doc__.splitlines()[0]
    parser.add_argument("--task", choices=TASKS, default="sine", help="for its options, add --help")
    plots = Path(__file__).resolve().parent / "plots"
    parser.add_argument("--plots-dir", type=Path, default=plots, help="folder for the figures")
    _, defaults = TASKS[parser.parse_known_args(argv)[0].task]
    for flag, default in (COMMON | defaults).items():
        text = RANGES[flag][2]
        parser.add_argument(flag, type=type(default), default=default, help=text)
    parser.add_argument("-h", "--help", action="help", help="show this")
    options = parser.parse_args(argv)
    for flag, (least, most, _) in RANGES.items():
        value = getattr(options, flag[2:].replace("-", "_"), least)
        if not least <= value <= most:
            parser.error(f"argument {flag}: expected {least:g} to {most:g}, got {value}")
    try:
        options.plots_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.plots_dir).close()
        for figure in options.plots_dir.glob("gru_numpy_*.png"):
            figure.open("ab").close()
    except OSError as error:
        parser.error(f"argument --plots-dir: expected a folder for figures, got {error}")
    return options


def main(argv: list[str] | None = None) -> None:
    """Run the command line. Status 2: a wrong option; 130: Ctrl-C."""
    options = parse_options(argv)
    demo, _ = TASKS[options.task]
    try:
        with style.context(["default", STYLE]):  # whatever the user's own matplotlibrc says
            demo(options)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # so that | head ends quietly
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
