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

sigma(a) is 1 / (1 + exp(-a)), `@` the matrix and `*` the element-wise product; clipping and Adam,
(8) to (13), stand at their lines below. A plain recurrent network writes a whole new state at every
step, and on the way back its gradient is multiplied by the same matrix each time, and by a slope of
at most 1: over 50 steps it usually shrinks to nothing, or explodes. A GRU blends old and new
instead. Unit by unit, z_t near 0 keeps the old state, z_t near 1 overwrites it with the candidate;
r_t near 0 keeps the old state out of the candidate, r_t near 1 lets it in. Where z_t stays near 0,
the state is handed on almost as it is. The gradient goes back the same way, by the first of four
terms, (4c); the others come from units that are being overwritten, with a factor z_t. That is how a
GRU remembers.

Shapes: T steps, B sequences side by side (a batch, one column each), F = input_size,
H = hidden_size, O = output_size. x_t is (F, B); z_t, r_t, h_tilde_t and h_t are (H, B); y and its
target are (O, B); W_z, W_r, W_h are (H, F); U_z, U_r, U_h (H, H); b_z, b_r, b_h (H, 1); W_y (O, H);
b_y (O, 1).
"""

import argparse
import contextlib
import functools
import math
import os
import signal
import sys
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
# All of step t: x is x_t, h_prev is h_{t-1}, h is h_t, rh is r_t * h_{t-1}.
Step = namedtuple("Step", "x h_prev z r rh h_tilde h")


def sigmoid(a: np.ndarray) -> np.ndarray:
    """sigma(a) = 1 / (1 + exp(-a)), between 0 and 1. If exp overflows, it warns; 0 is right."""
    return 1 / (1 + np.exp(-a))


def check_shape(name: str, array: np.ndarray, shape: tuple) -> None:
    """ValueError for another shape, where NumPy would broadcast and go on."""
    if np.shape(array) != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {np.shape(array)}")


def check_weights(weights: Arrays, shapes: dict[str, tuple]) -> None:
    """ValueError if somebody has put in a weight of another shape, or misspelt its name."""
    if weights.keys() != shapes.keys():
        raise ValueError(f"weights: expected {', '.join(shapes)}; got {', '.join(weights)}")
    for name, weight in weights.items():
        check_shape(name, weight, shapes[name])


class GRU:
    """A GRU with an affine head on its last state: a sequence in, one prediction out.

    The cell of Chung et al. 2014 (arXiv 1412.3555). torch.nn.GRU is another: its z is our 1 - z,
    and where (3) has U_h @ (r * h_{t-1}) it has r * (U_h @ h_{t-1} + b), with b a second bias.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int, seed: int = 0) -> None:
        """Draw every weight from U(-1/sqrt(H), 1/sqrt(H))."""
        F, H, O = input_size, hidden_size, output_size
        self.shapes = {
            "W_z": (H, F), "U_z": (H, H), "b_z": (H, 1),
            "W_r": (H, F), "U_r": (H, H), "b_r": (H, 1),
            "W_h": (H, F), "U_h": (H, H), "b_h": (H, 1),
            "W_y": (O, H), "b_y": (O, 1),
        }  # fmt: skip
        rng = np.random.default_rng(seed)
        limit = 1 / math.sqrt(H)
        self.parameters = {}
        for name, shape in self.shapes.items():
            self.parameters[name] = rng.uniform(-limit, limit, shape)

    def forward(
        self, inputs: np.ndarray, h0: np.ndarray | None = None
    ) -> tuple[np.ndarray, list[Step]]:
        """Run the T steps of inputs (T, F, B) from the state h0 (H, B), or from zero.
        Returns y (O, B), and the steps, which backward needs.
        """
        p = self.parameters
        check_weights(p, self.shapes)
        H, F = self.shapes["W_z"]
        if np.ndim(inputs) != 3 or np.shape(inputs)[1] != F or np.size(inputs) == 0:
            raise ValueError(f"inputs: expected shape (T, {F}, B), got {np.shape(inputs)}")
        B = np.shape(inputs)[2]
        h = np.zeros((H, B), p["b_z"].dtype) if h0 is None else h0  # as precise as the weights
        check_shape("h0", h, (H, B))
        steps = []
        for x in inputs:
            h_prev = h
            z = sigmoid(p["W_z"] @ x + p["U_z"] @ h_prev + p["b_z"])  # (1)
            r = sigmoid(p["W_r"] @ x + p["U_r"] @ h_prev + p["b_r"])  # (2)
            rh = r * h_prev
            h_tilde = np.tanh(p["W_h"] @ x + p["U_h"] @ rh + p["b_h"])  # (3)
            h = (1 - z) * h_prev + z * h_tilde  # (4)
            steps.append(Step(x, h_prev, z, r, rh, h_tilde, h))
        y = p["W_y"] @ h + p["b_y"]  # (5)
        return y, steps

    def backward(self, dy: np.ndarray, steps: list[Step]) -> tuple[Arrays, np.ndarray, np.ndarray]:
        """Back-propagate dy = dL/dy (O, B) through the head and all T steps (Werbos 1990).

        dq stands for dL/dq and has the shape of q. The lines (5a), (5b), ... undo (5), then (4a),
        (4b), ... undo (4), and so on down to (1). a_z, a_r and a_h are the arguments of sigma and
        tanh in (1) to (3). The rules:

            a = W @ q + b    dq = W.T @ da     as dq_j = sum_i da_i W_ij
                             dW = da @ q.T     as dW_ij = da_i q_j; the product sums over the batch
                             db = da           summed over the batch, as b serves all of it
            s = u + v        du = ds,  dv = ds
            s = u * v        du = ds * v,  dv = ds * u
            s = sigma(a)     da = ds * s * (1 - s)
            s = tanh(a)      da = ds * (1 - s^2)

        What is used several times gets the sum of what each use gives. h_prev is used four times,
        so that it gets four terms: what (4) keeps of it, what goes into the candidate (3), and one
        through each gate, (2) and (1). x is used three times, and the weights at every step.

        Returns the gradients by the names of the weights; dL/dx_t as item t - 1 of (T, F, B), for a
        layer below; and dL/dh_t as item t of (T + 1, H, B). Call it before the weights change, as
        it uses them.
        """
        p = self.parameters
        d = {name: np.zeros_like(weight) for name, weight in p.items()}
        # (5)  y = W_y @ h_T + b_y
        d["W_y"] += dy @ steps[-1].h.T  # (5a)
        d["b_y"] += dy.sum(axis=1, keepdims=True)  # (5b)
        dh = p["W_y"].T @ dy  # (5c)
        dx_of_steps = []
        dh_of_steps = [dh]
        for x, h_prev, z, r, rh, h_tilde, _h in reversed(steps):
            # Here dh is dL/dh_t, and dh_prev becomes dL/dh_{t-1}. (Only h_T has a loss of its own.
            # If every step had, each dh would get a term like (5c) here, and W_y and b_y theirs.)
            # (4)  h = (1 - z) * h_prev + z * h_tilde
            dz = dh * (h_tilde - h_prev)  # (4a) as h = h_prev + z * (h_tilde - h_prev)
            dh_tilde = dh * z  # (4b)
            dh_prev = dh * (1 - z)  # (4c) first of four terms: what is kept

            # (3)  h_tilde = tanh(a_h),  a_h = W_h @ x + U_h @ rh + b_h,  rh = r * h_prev
            da_h = dh_tilde * (1 - h_tilde**2)  # (3a)
            drh = p["U_h"].T @ da_h  # (3b)
            dr = drh * h_prev  # (3c)
            dh_prev += drh * r  # (3d) second term: through the candidate
            dx = p["W_h"].T @ da_h  # (3e) first of three terms
            d["W_h"] += da_h @ x.T  # (3f)
            d["U_h"] += da_h @ rh.T  # (3g)
            d["b_h"] += da_h.sum(axis=1, keepdims=True)  # (3h)

            # (2)  r = sigma(a_r),  a_r = W_r @ x + U_r @ h_prev + b_r
            da_r = dr * r * (1 - r)  # (2a)
            dh_prev += p["U_r"].T @ da_r  # (2b) third term: through the reset gate
            dx += p["W_r"].T @ da_r  # (2c) second term
            d["W_r"] += da_r @ x.T  # (2d)
            d["U_r"] += da_r @ h_prev.T  # (2e)
            d["b_r"] += da_r.sum(axis=1, keepdims=True)  # (2f)

            # (1)  z = sigma(a_z),  a_z = W_z @ x + U_z @ h_prev + b_z
            da_z = dz * z * (1 - z)  # (1a)
            dh_prev += p["U_z"].T @ da_z  # (1b) fourth term: through the update gate
            dx += p["W_z"].T @ da_z  # (1c) third term
            d["W_z"] += da_z @ x.T  # (1d)
            d["U_z"] += da_z @ h_prev.T  # (1e)
            d["b_z"] += da_z.sum(axis=1, keepdims=True)  # (1f)

            dx_of_steps.append(dx)
            dh_of_steps.append(dh_prev)
            dh = dh_prev
        return d, np.array(dx_of_steps[::-1]), np.array(dh_of_steps[::-1])


def clip_by_norm(gradients: Arrays, max_norm: float) -> Arrays:
    """The gradients, scaled down together if their norm exceeds max_norm (Pascanu et al. 2013).

    Adam bounds each step anyway, but its means would carry a single huge gradient along: for many
    updates m would go on in its direction, and v make the steps small.
    """
    if not max_norm > 0:  # nan too
        raise ValueError(f"max_norm: expected more than 0, got {max_norm}")
    squares = [np.sum(G.astype(float) ** 2) for G in gradients.values()]  # in 64 bits
    norm = math.sqrt(sum(squares))
    if not math.isfinite(norm):
        raise FloatingPointError(f"gradient: expected a finite norm, got {norm}")
    if norm <= max_norm:
        return gradients
    return {name: G * (max_norm / norm) for name, G in gradients.items()}  # (8)


class Adam:
    """Adam (Kingma & Ba 2015, algorithm 1) keeps moving means of each gradient, m, and of its
    square, v. m_hat / sqrt(v_hat) is seldom above 1 in size, so that a weight seldom moves by more
    than learning_rate. Each model needs an Adam of its own.
    """

    def __init__(
        self,
        learning_rate: float = 1e-3,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> None:
        self.learning_rate = learning_rate
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.k = 0  # updates so far
        self.m = self.v = None

    def step(self, parameters: Arrays, gradients: Arrays) -> None:
        """One update of the parameters; their old arrays stay as they were."""
        if self.k == 0:
            self.m = {name: np.zeros_like(G) for name, G in gradients.items()}
            self.v = {name: np.zeros_like(G) for name, G in gradients.items()}
        self.k += 1
        for name, G in gradients.items():
            self.m[name] = self.beta1 * self.m[name] + (1 - self.beta1) * G  # (9)
            self.v[name] = self.beta2 * self.v[name] + (1 - self.beta2) * G**2  # (10)
            m_hat = self.m[name] / (1 - self.beta1**self.k)  # (11) as m starts at 0
            v_hat = self.v[name] / (1 - self.beta2**self.k)  # (12) as v does too
            change = self.learning_rate * m_hat / (np.sqrt(v_hat) + self.epsilon)  # (13)
            parameters[name] = parameters[name] - change


def train_step(
    model: GRU, adam: Adam, inputs: np.ndarray, target: np.ndarray, max_norm: float
) -> float:
    """One update towards target (O, B). Returns the mean squared error before it."""
    y, steps = model.forward(inputs)
    check_shape("target", target, y.shape)
    error = y - target
    loss = np.mean(error**2)  # (6)
    dy = 2 * error / error.size  # (7)
    gradients, _, _ = model.backward(dy, steps)
    adam.step(model.parameters, clip_by_norm(gradients, max_norm))
    return float(loss)


# --- Data ---------------------------------------------------------------------------------------

Batch = tuple[np.ndarray, np.ndarray]  # inputs (T, F, B), and their targets (1, B)
Draw = Callable[[np.random.Generator, int], Batch]  # a task: it makes so many new sequences
# Streams of random numbers are seeded with [seed, 1] and so on; the weights have [seed, 0].
TRAINING, HELD_OUT, PICTURE = 1, 2, 3
SHORTEST, LONGEST = 20, 40  # steps in the period of a wave


def sine_waves(rng: np.random.Generator, count: int, length: int, noise: float) -> Batch:
    """Waves sin(2 pi t / period + phase) + noise * N(0, 1), each of its own period and phase. The
    target is the value that comes next.
    """
    period = rng.uniform(SHORTEST, LONGEST, count)
    phase = rng.uniform(0, 2 * np.pi, count)
    clean = np.sin(2 * np.pi * np.arange(length + 1)[:, None, None] / period + phase)
    waves = clean + noise * rng.standard_normal(clean.shape)
    return waves[:-1], waves[-1]


def adding_problem(rng: np.random.Generator, count: int, length: int) -> Batch:
    """A step holds a number from U(0, 1) and a mark, 1 at one step of either half and 0 elsewhere.
    The target is the sum of the marked numbers (Hochreiter & Schmidhuber 1997).
    """
    numbers = rng.uniform(0, 1, (length, count))
    marks = np.zeros((length, count))
    first, second = rng.integers(0, length // 2, count), rng.integers(length // 2, length, count)
    marks[first, np.arange(count)] = 1
    marks[second, np.arange(count)] = 1
    return np.stack([numbers, marks], axis=1), (numbers * marks).sum(axis=0, keepdims=True)


def sums_since_flag(rng: np.random.Generator, count: int, length: int) -> Batch:
    """A step holds a number from U(0, 0.3) and a flag, 1 at the first step and at 15 % of the rest.
    The target is the sum of the numbers from the last flag on, inclusive.
    """
    numbers = rng.uniform(0, 0.3, (length, count))
    flags = (rng.random((length, count)) < 0.15).astype(float)
    flags[0] = 1
    x = np.stack([numbers, flags], axis=1)
    return x, running_sums(x)[-1:]


def running_sums(x: np.ndarray) -> np.ndarray:
    """Of x (T, 2, B), numbers and flags: the sum from the last flag on, after each step (T, B)."""
    sums = []
    total = 0
    for numbers, flags in x:
        total = numbers + (1 - flags) * total
        sums.append(total)
    return np.array(sums)


def held_out(draw: Draw, seed: int) -> list[Batch]:
    """Ten batches of 100 sequences that are never trained on."""
    rng = np.random.default_rng([seed, HELD_OUT])
    return [draw(rng, 100) for _ in range(10)]


# --- What can be reached without a network ------------------------------------------------------


def mean_squared_error(predict: Callable[[np.ndarray], np.ndarray], batches: list[Batch]) -> float:
    """Of what is predicted for the inputs of the batches, each (T, F, B): (1, B), or one number."""
    return float(np.mean([np.mean((predict(x) - target) ** 2) for x, target in batches]))


def least_squares(draw: Draw, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """The linear map of all numbers of x, and a constant, that fits 10,000 sequences best."""

    def rows(x: np.ndarray) -> np.ndarray:  # one for each sequence
        numbers = x.reshape(-1, x.shape[2]).T
        return np.column_stack([numbers, np.ones(len(numbers))])

    x, target = draw(np.random.default_rng([seed, TRAINING]), 10_000)
    weights = np.linalg.lstsq(rows(x), target.T, rcond=None)[0]
    return lambda x: (rows(x) @ weights).T


def best_prediction(x: np.ndarray, noise: float) -> np.ndarray:
    """The next values of noisy waves x (T, 1, B): (1, B). It is the best that anybody can predict,
    on average, who knows how the waves are drawn and how large the noise is, but not the period and
    the phase of a wave. (With a noise below T / 800 the waves that are tried lie too far apart, and
    it is 1 % off and more.)

    Try 100 periods with 120 phases each. Weigh each of these 12,000 waves by how well it fits the
    steps seen (Bayes' rule), and take the mean of their next values.
    """
    T = len(x)
    period = np.linspace(SHORTEST, LONGEST, 100)[:, None]
    phase = 2 * np.pi * np.arange(120) / 120
    steps = np.arange(T + 1)[:, None, None]
    tried = np.sin(2 * np.pi * steps / period + phase)  # (T + 1, 100, 120)
    tried = tried.reshape(T + 1, -1, 1)  # (T + 1, 12000, 1)
    squares = sum((x[t] - tried[t]) ** 2 for t in range(T))  # (12000, B)
    log_likelihood = -squares / (2 * noise**2)  # of Gaussian noise
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=0))
    weights = likelihood / likelihood.sum(axis=0)
    return (weights * tried[T]).sum(axis=0, keepdims=True)


# --- Training -----------------------------------------------------------------------------------

# After so many updates, and at the end: 0, 25, 50, 125, 250, 500, 1000, ...
REPORTED = {0, 25, 50, *(125 * 2**n for n in range(20))}
BLUE, RED, GREEN, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#777777"
STYLE = {"figure.dpi": 140, "figure.constrained_layout.use": True, "legend.frameon": False}
Options = argparse.Namespace


@dataclass
class History:
    """By update: the mean of the last 10 losses, the held-out error, and the weights."""

    training_mse: dict[int, float] = field(default_factory=dict)
    held_out_mse: dict[int, float] = field(default_factory=dict)
    weights: dict[int, Arrays] = field(default_factory=dict)


def train(
    model: GRU,
    draw: Draw,
    test: list[Batch],
    options: Options,
    history: History,
    quiet: bool = False,
) -> None:
    """Train on 32 new sequences at every update, while Adam's rate falls to zero as a cosine, and
    fill the history. Weights that --freeze names stay as they are (but count in clipping).
    """
    adam, K = Adam(), options.updates
    rng = np.random.default_rng([options.seed, TRAINING])
    frozen = {name: model.parameters[name] for name in options.freeze}
    losses = []
    if not quiet:
        print(f"{'update':>8}{'training MSE':>15}{'held-out MSE':>15}", flush=True)
    for k in range(K + 1):
        if k > 0:
            cosine = (1 + math.cos(math.pi * (k - 1) / K)) / 2
            adam.learning_rate = options.learning_rate * cosine  # (14)
            x, target = draw(rng, 32)
            losses.append(train_step(model, adam, x, target, options.clip))
            model.parameters.update(frozen)
            history.training_mse[k] = float(np.mean(losses[-10:]))
        if k in REPORTED or k == K:
            mse = mean_squared_error(lambda x: model.forward(x)[0], test)
            history.held_out_mse[k] = mse
            history.weights[k] = dict(model.parameters)  # updates make new arrays
            if not quiet:
                recent = f"{history.training_mse[k]:.4g}" if k > 0 else "-"
                print(f"{k:8d}{recent:>15}{mse:15.4g}", flush=True)


def train_with_curve(
    model: GRU,
    draw: Draw,
    test: list[Batch],
    options: Options,
    levels: dict[str, float],
    file: str,
) -> History:
    """Train, and return the history. If Ctrl-C breaks it off, draw the curve so far."""
    history = History()
    try:
        train(model, draw, test, options, history)
        print()
    except KeyboardInterrupt:
        write_files({file: plot_curve(history, levels)}, options.plots_dir)
        raise
    return history


def plot_curve(history: History, levels: dict[str, float]) -> Figure:
    """Training and held-out error by update, and levels to compare with."""
    axes = Figure((7.0, 4.0)).subplots()
    training, held_out_mse = history.training_mse, history.held_out_mse
    axes.plot(training.keys(), training.values(), color=BLUE, label="training, mean of 10 updates")
    axes.plot(held_out_mse.keys(), held_out_mse.values(), "o", color=RED, label="held-out")
    for (name, level), dashes in zip(levels.items(), (":", "--", "-.")):
        axes.axhline(level, color="black", ls=dashes, lw=1, label=name)
    axes.set(xlabel="update", ylabel="mean squared error", yscale="log")
    axes.legend(ncols=2, loc="upper right")
    return axes.figure


def write_files(figures: dict[str, Figure], folder: Path) -> None:
    """Write figures by the names of their files, each whole or not at all, and say where. One that
    fails stops no other, but ends the program with status 1.
    """
    failed = False
    for name, figure in figures.items():
        path, part = folder / name, folder / f"{name}.{os.getpid()}.part"
        try:
            figure.savefig(part, format="png")
            os.replace(part, path)
            print(path)
        except OSError as error:
            print(f"gru_from_scratch.py: {error}", file=sys.stderr)
            failed = True
            with contextlib.suppress(OSError):
                part.unlink()
    if failed:
        sys.exit(1)


def print_rows(results: dict[str, float]) -> None:
    """To four significant digits."""
    for name, value in results.items():
        print(f"{name:28}{value:.4g}")


# --- Predict the next value of a noisy sine wave ------------------------------------------------


def sine_demo(options: Options) -> None:
    """Train on the waves, print and draw what can be reached, and let the network run free."""
    T, noise, seed = options.seq_len, options.noise, options.seed
    draw = functools.partial(sine_waves, length=T, noise=noise)
    test = held_out(draw, seed)
    levels = {
        "persistence": mean_squared_error(lambda x: x[-1], test),  # the last value again
        "least squares": mean_squared_error(least_squares(draw, seed), test),
    }
    if noise >= T / 800:
        best = functools.partial(best_prediction, noise=noise)
        levels["best possible"] = mean_squared_error(best, test)

    model = GRU(1, options.hidden_size, 1, seed)
    file = "gru_numpy_training_curve.png"
    history = train_with_curve(model, draw, test, options, levels, file)
    mse = history.held_out_mse[options.updates]
    results = {"held-out MSE": mse, **levels}
    if "best possible" in levels:
        results["held-out / best possible"] = mse / levels["best possible"]
    print_rows(results | {"noise variance": noise**2})

    ahead = 2 * LONGEST
    wave, _ = sine_waves(np.random.default_rng([seed, PICTURE]), 1, T + ahead, noise)
    one_step = [model.forward(wave[t - T : t])[0] for t in range(T, T + ahead)]
    values = list(wave[:T])
    for _ in range(ahead):  # free-running: its own predictions take the place of the wave
        values.append(model.forward(np.array(values[-T:]))[0])
    figures = {
        file: plot_curve(history, levels),
        "gru_numpy_forecast.png": plot_forecast(wave, np.array(one_step), np.array(values[T:])),
    }
    write_files(figures, options.plots_dir)


def plot_forecast(wave: np.ndarray, one_step: np.ndarray, free: np.ndarray) -> Figure:
    """A wave, the forecasts of each next value, and those from its own forecasts (free-running)."""
    axes = Figure((7.0, 4.0)).subplots()
    steps = range(len(wave) - len(free), len(wave))
    axes.plot(wave.ravel(), ".-", color=GREY, ms=4, lw=0.5, label="noisy wave")
    axes.plot(steps, one_step.ravel(), color=BLUE, label="one step ahead")
    axes.plot(steps, free.ravel(), color=RED, ls="--", label="free-running")
    axes.set(title="Free-running, it sees its own predictions in place of the wave")
    axes.set(xlabel="step", ylabel="value")
    axes.set_ylim(top=1.4 * axes.get_ylim()[1])  # room for the legend
    axes.legend(ncols=3, loc="upper right")
    return axes.figure


# --- Memory: add up two marked numbers out of many ----------------------------------------------


def adding_demo(options: Options) -> None:
    """Train, and watch how the gradient finds its way back to the first steps."""
    seed = options.seed
    draw = functools.partial(adding_problem, length=options.seq_len)
    test = held_out(draw, seed)
    levels = {
        "always answering 1": mean_squared_error(lambda _: 1, test),
        "least squares": mean_squared_error(least_squares(draw, seed), test),
    }
    model = GRU(2, options.hidden_size, 1, seed)
    file = "gru_numpy_adding_curve.png"
    history = train_with_curve(model, draw, test, options, levels, file)
    print_rows({"held-out MSE": history.held_out_mse[options.updates], **levels})

    x, _ = test[0]
    print(
        f"\nupdates   held-out MSE   mean z   share of the gradient at h_{len(x)} that reaches h_0"
    )
    shares = {}
    for k, weights in history.weights.items():
        z, shares[k] = look_back(weights, x)
        mse = history.held_out_mse[k]
        print(f"{k:7d}{mse:15.4g}{z.mean():9.3f}   {shares[k][0]:.1e}")
    late = x[len(x) // 2 :]
    second_marked = (late[:, 0] * late[:, 1]).sum(axis=0)  # of each sequence
    b = np.argmax(second_marked)  # one whose second mark cannot be missed
    figures = {
        file: plot_curve(history, levels),
        "gru_numpy_learning.png": plot_shares(shares, history.held_out_mse),
        "gru_numpy_memory.png": plot_memory(model, x[:, :, [b]]),
    }
    write_files(figures, options.plots_dir)


def look_back(weights: Arrays, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With these weights, on x (T, F, B): z at each step (T, H, B), and the share of the gradient
    at h_T that reaches h_t as item t of (T + 1,), in the median over the sequences.
    """
    H, F = weights["W_z"].shape
    model = GRU(F, H, 1)
    model.parameters = weights
    y, steps = model.forward(x)
    _, _, dh = model.backward(np.ones_like(y), steps)  # any dL/dy gives the same shares
    norms = np.linalg.norm(dh, axis=1)  # (T + 1, B)
    return gate_at_each_step("z", steps), np.median(norms / norms[-1], axis=1)


def gate_at_each_step(name: str, steps: list[Step]) -> np.ndarray:
    """z or r: (T, H, B)."""
    return np.array([getattr(step, name) for step in steps])


def answer_after_each_step(model: GRU, steps: list[Step]) -> np.ndarray:
    """(5) at every step, though only the last answer is trained: (T, B)."""
    p = model.parameters
    return np.array([(p["W_y"] @ step.h + p["b_y"])[0] for step in steps])


def plot_shares(shares: dict[int, np.ndarray], held_out_mse: dict[int, float]) -> Figure:
    """How much of the gradient is left, by the distance to the end, after some updates."""
    axes = Figure((7.0, 4.0)).subplots()
    colors = colormaps["viridis"](np.linspace(0.9, 0, len(shares)))
    for (k, share), color in zip(shares.items(), colors):
        label = f"after {k} updates: MSE {held_out_mse[k]:.2g}"
        axes.plot(share[::-1], color=color, label=label)
    axes.set(title="How much of the gradient at $h_T$ reaches $h_t$", yscale="log")
    axes.set(xlabel="distance to the end, $T - t$ (steps)", ylabel="$|dL/dh_t|$ / $|dL/dh_T|$")
    axes.legend(loc="lower left")
    return axes.figure


def plot_memory(model: GRU, x: np.ndarray) -> Figure:
    """Of one sequence x (T, 2, 1): the answer after each step, and z of every unit."""
    _, steps = model.forward(x)
    t, numbers, marked = np.arange(1, len(x) + 1), x[:, 0, 0], x[:, 1, 0] == 1
    z = gate_at_each_step("z", steps)[:, :, 0].T  # (H, T)
    top, below = Figure((7.0, 6.0)).subplots(2, sharex=True)
    top.plot(t, numbers, ".", color=GREY, label="numbers")
    top.plot(t[marked], numbers[marked], "o", color=ORANGE, label="marked")
    top.axhline(numbers[marked].sum(), color="black", ls=":", label="sum of the marked")
    answers = answer_after_each_step(model, steps)[:, 0]
    top.step(t, answers, where="mid", color=BLUE, label="answer after each step")
    top.set(title="One sequence, and what the network would answer", ylabel="value")
    top.set_ylim(top=1.6 * top.get_ylim()[1])  # room for the legend
    top.legend(ncols=2, loc="upper left")
    more_at_marks = z[:, marked].mean(axis=1) - z[:, ~marked].mean(axis=1)
    order = np.argsort(more_at_marks)  # units that overwrite at marks: on top
    image = below.pcolormesh(t, np.arange(1, len(z) + 1), z[order], vmin=0, vmax=1)
    below.set(title="Update gate $z_t$: 0 keeps, 1 overwrites", xlabel="step $t$", ylabel="unit")
    below.figure.colorbar(image, ax=below, label="$z_t$")
    return below.figure


# --- Both gates in one unit: the sum since the last flag ----------------------------------------


def one_unit(seed: int) -> GRU:
    """A GRU of one unit with small first weights. Drawn from U(-1, 1), as its size has it, they
    would decide which solution is found; from near 0 the data decide.
    """
    model = GRU(2, 1, 1, seed)
    model.parameters = {name: 0.1 * weight for name, weight in model.parameters.items()}
    return model


def reset_demo(options: Options) -> None:
    """Train one unit, and others with a gate held at 1; print and draw what the gates do."""
    T, seed = options.seq_len, options.seed
    draw = functools.partial(sums_since_flag, length=T)
    test = held_out(draw, seed)
    targets = np.concatenate([target for _, target in test], axis=1)
    levels = {
        "variance of the target": float(np.var(targets)),
        "least squares": mean_squared_error(least_squares(draw, seed), test),
    }
    model = one_unit(seed)
    file = "gru_numpy_reset_curve.png"
    history = train_with_curve(model, draw, test, options, levels, file)
    results = {"held-out MSE": history.held_out_mse[options.updates]}
    for name, unit in units_with_a_gate_held(seed).items():
        its_history = History()
        train(unit, draw, test, options, its_history, quiet=True)
        results[name] = its_history.held_out_mse[options.updates]
    results |= levels
    x, _ = test[0]
    _, steps = model.forward(x)
    flagged = x[:, [1]] == 1  # (T, 1, B)
    for name in ("z", "r"):
        gate = gate_at_each_step(name, steps)  # (T, 1, B)
        results[f"mean {name}, flagged steps"] = gate[flagged].mean()
        results[f"mean {name}, other steps"] = gate[~flagged].mean()
    print_rows(results)
    print("\nThe 14 weights (of W_z, W_r, W_h: for the number, for the flag)")
    for name, weight in model.parameters.items():
        print(name, *(f"{value:8.3f}" for value in weight.ravel()))

    sequence = sequence_with_restarts(seed, 3 * T // 2)
    print_restart(model, sequence)
    figures = {
        file: plot_curve(history, levels),
        "gru_numpy_reset.png": plot_unit(model, sequence),
    }
    write_files(figures, options.plots_dir)


def units_with_a_gate_held(seed: int) -> dict[str, GRU]:
    """One unit each. Where its argument is near 1000, sigma is 1 exactly and its slope 0, so that
    no update moves the gate.
    """
    units = {}
    units["r held at 1"] = unit = one_unit(seed)
    unit.parameters["b_r"][:] = 1000
    units["r held at 1 at flags"] = unit = one_unit(seed)
    unit.parameters["W_r"][0, 1] = 1000  # the weight for the flag
    units["r held at 1 elsewhere"] = unit = one_unit(seed)
    unit.parameters["b_r"][:] = 1000
    unit.parameters["W_r"][0, 1] = -1000
    units["z held at 1"] = unit = one_unit(seed)
    unit.parameters["b_z"][:] = 1000
    return units


def sequence_with_restarts(seed: int, length: int) -> np.ndarray:
    """x (length, 2, 1), which of 1000 sequences drops the largest sum at a flag: if possible of
    those where two flags or more drop sums of 1 to 3, which are common in training.
    """
    x, _ = sums_since_flag(np.random.default_rng([seed, PICTURE]), 1000, length)
    flags = x[1:, 1] == 1  # all but the first, before which there is nothing
    sums_before = running_sums(x)[:-1]
    smallest = np.where(flags, sums_before, np.inf).min(axis=0)
    largest = np.where(flags, sums_before, 0).max(axis=0)
    wanted = (flags.sum(axis=0) >= 2) & (smallest >= 1) & (largest <= 3)
    if wanted.any():
        largest[~wanted] = 0
    return x[:, :, [np.argmax(largest)]]


def print_restart(model: GRU, x: np.ndarray) -> None:
    """Of x (T, 2, 1), the flag that drops the largest sum, by hand: the answer as it is, and had
    either gate stayed as one step before.
    """
    p, sums = model.parameters, running_sums(x)[:, 0]
    flags = x[1:, 1, 0]
    i = 1 + np.argmax(sums[:-1] * flags)
    _, steps = model.forward(x)
    before, flagged = steps[i - 1], steps[i]
    number = x[i, 0, 0]
    print(f"\nStep {i + 1}: a flag and the number {number:.2f}, when the sum was {sums[i - 1]:.2f}")
    print(f"{'z':>24}{'r':>8}{'h_prev':>8}{'h_tilde':>8}{'h':>8}{'answer':>8}")
    h_prev = flagged.h_prev
    for name, z, r in (
        ("as it is", flagged.z, flagged.r),
        (f"r as at step {i}", flagged.z, before.r),
        (f"z as at step {i}", before.z, flagged.r),
    ):
        h_tilde = np.tanh(p["W_h"] @ flagged.x + p["U_h"] @ (r * h_prev) + p["b_h"])  # (3)
        h = (1 - z) * h_prev + z * h_tilde  # (4)
        y = p["W_y"] @ h + p["b_y"]  # (5)
        row = (quantity.item() for quantity in (z, r, h_prev, h_tilde, h, y))
        print(f"{name:16}" + "".join(f"{value:8.3f}" for value in row))


def plot_unit(model: GRU, x: np.ndarray) -> Figure:
    """Of x (T, 2, 1): the numbers and flags, the sum and the answer after each step, the gates."""
    _, steps = model.forward(x)
    t, flags = np.arange(1, len(x) + 1), x[:, 1, 0]
    sums = running_sums(x)[:, 0]
    answers = answer_after_each_step(model, steps)[:, 0]
    z, r = gate_at_each_step("z", steps).ravel(), gate_at_each_step("r", steps).ravel()
    panels = Figure((7.0, 7.0)).subplots(3, sharex=True)
    panels[0].plot(t, x[:, 0, 0], "o", color=GREY, label="number; at the orange steps also a flag")
    panels[0].set(title="Input", ylabel="number")
    panels[1].step(t, sums, where="mid", color=GREY, label="sum from the last flag, inclusive")
    panels[1].plot(t, answers, "o", color="black", ms=4, label="answer")
    panels[1].set(title="A one-unit GRU's answer after each step", ylabel="sum")
    panels[2].step(t, z, where="mid", color=BLUE, label="update z: 0 keeps, 1 overwrites")
    name = "reset r: 0 = candidate ignores the old state"
    panels[2].step(t, r, where="mid", color=GREEN, ls="--", label=name)
    panels[2].set(title="Its two gates", xlabel="step $t$", ylabel="gate", xticks=t[4::5])
    for axes, top in zip(panels, (0.4, 1.3 * max(sums), 1.3)):
        axes.bar(t, top * flags, width=1, color=ORANGE, alpha=0.3, zorder=0)
        axes.set_ylim(min(0, *axes.get_lines()[-1].get_ydata()), top)
        axes.legend(ncols=2, loc="upper left", fontsize="small")
    return panels[0].figure


# --- The command line ---------------------------------------------------------------------------

TASKS = {  # what each task runs, and the defaults of the options that it has
    "sine": (
        sine_demo,
        {"hidden_size": 32, "seq_len": 30, "noise": 0.05, "updates": 1600, "learning_rate": 0.03},
    ),
    "adding": (
        adding_demo,
        {"hidden_size": 16, "seq_len": 50, "updates": 600, "learning_rate": 0.03},
    ),
    "reset": (reset_demo, {"seq_len": 20, "updates": 1000, "learning_rate": 0.05}),
}


def number(kind: type, least: float, most: float) -> Callable[[str], float]:
    """What reads the text of an option as a number of this kind, int or float, in this range."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            a_number = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"expected {a_number} from {least} to {most}, got {text}"
            )
        return value

    return read


def flag(name: str) -> str:
    """How the option of this name is written on the command line."""
    return f"--{name.replace('_', '-')}"


def parse_options(argv: list[str] | None) -> Options:
    """Read the options and fill in the task's defaults; a wrong one ends the program with status 2
    before any work.
    """
    usage = __doc__.split("\n\n")[1]
    epilog = "defaults:"
    for task, (_, defaults) in TASKS.items():
        flags = " ".join(f"{flag(name)} {value}" for name, value in defaults.items())
        epilog += f"\n  --task {task}: {flags}"
    parser = argparse.ArgumentParser(
        description=usage,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a later option may begin with the same letters
    )
    whole = functools.partial(number, int)
    real = functools.partial(number, float)
    weights = list(GRU(1, 1, 1).shapes)
    plots = Path(__file__).resolve().parent / "plots"
    add = parser.add_argument
    add("--task", choices=TASKS, default="sine", help="what to learn (default: sine)")
    add("--hidden-size", type=whole(1, 1000), help="hidden units")
    add("--seq-len", type=whole(3, 1000), help="steps in a sequence")
    add("--noise", type=real(0, 100), help="standard deviation of the waves' noise")
    add("--updates", type=whole(1, 10**7), help="updates, each on 32 new sequences")
    add("--learning-rate", type=real(1e-9, 100), help="Adam's first rate, which falls to zero")
    add("--clip", type=real(1e-9, math.inf), default=1.0, help="largest norm of a gradient (1.0)")
    add("--seed", type=whole(0, 10**9), default=0, help="seed of weights and data (0)")
    add("--freeze", nargs="+", choices=weights, default=[], help="weights to leave as they are")
    add("--plots-dir", type=Path, default=plots, help="folder for the figures (default: plots)")
    options = parser.parse_args(argv)
    _, defaults = TASKS[options.task]
    for name, value in vars(options).items():
        tasks = [task for task in TASKS if name in TASKS[task][1]]
        if value is None and name in defaults:
            setattr(options, name, defaults[name])
        elif value is not None and tasks and options.task not in tasks:
            fitting = ", ".join(f"--task {task}" for task in tasks)
            not_with = f"not with --task {options.task}"
            parser.error(f"argument {flag(name)}: goes with {fitting}; {not_with}")
    try:
        options.plots_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.plots_dir).close()
    except OSError as error:
        parser.error(f"argument --plots-dir: expected a folder for figures, got {error}")
    return options


def main(argv: list[str] | None = None) -> None:
    """Run the command line. Status 2: a wrong option; 1: it diverged, or a file could not be
    written.
    """
    options = parse_options(argv)
    demo, _ = TASKS[options.task]
    try:
        with style.context(["default", STYLE]):  # whatever the user's own matplotlibrc says
            demo(options)
    except FloatingPointError as error:
        sys.exit(f"gru_from_scratch.py: {error}; a smaller rate may help")


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # | head ends it quietly
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        main()
    except KeyboardInterrupt:  # end as it would have, so that a shell's loop around it ends too
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
