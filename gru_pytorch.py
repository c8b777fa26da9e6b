"""nn.GRU with a linear head: on noisy sine waves, on your own series, and compared with LSTM.

    python gru_pytorch.py                             train on sine waves, save figures
    python gru_pytorch.py --data FILE --column NAME   forecast your own series
    python gru_pytorch.py --compare                   GRU against LSTM on the sine waves
    python gru_pytorch.py --compare adding            the same on the adding problem

Shapes, with batch_first=True: B sequences of T steps of F features are (B, T, F). The recurrent
layer gives (B, T, H), one hidden state a step, and the head (B, T, 1): a prediction of the next
step at every step. h_0 and h_n stay (layers, B, H) whatever batch_first says.

nn.GRU is not the cell of gru_from_scratch.py: its z weighs the old state, and its reset gate acts
after the matrix product (README.md, "The same name, different cells").
"""

import argparse
import copy
import csv
import io
import math
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import style
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

# --- Model, data, training: what you would lift out ---------------------------------------------


class SequenceModel(nn.Module):
    """nn.GRU or nn.LSTM, then a linear head on the hidden state of every step."""

    def __init__(self, cell: str, input_size: int, hidden_size: int, layers: int = 1) -> None:
        super().__init__()
        recurrent = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.recurrent = recurrent(input_size, hidden_size, layers, batch_first=True)
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, x: torch.Tensor, state=None) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B, T, F), from a state or from zero: predictions (B, T, 1) and the state after them,
        which is h_n (layers, B, H), and with LSTM the pair (h_n, c_n).
        """
        h, state = self.recurrent(x, state)  # (B, T, H)
        return self.head(h), state


class NextStep(Dataset):
    """Sequences (N, T + 1, F) as pairs: the first T steps, and the same steps one later."""

    def __init__(self, sequences: torch.Tensor) -> None:
        self.sequences = sequences

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.sequences[i, :-1], self.sequences[i, 1:]


def squared_errors(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(prediction - y)^2, where y (B, S, 1) holds the targets of the last S steps of x, all
    on sine waves, one in the adding problem.
    """
    prediction, _ = model(x)
    prediction = prediction[:, -y.shape[1] :]
    if prediction.shape != y.shape:  # they would broadcast
        raise ValueError(f"y: expected shape {tuple(prediction.shape)}, got {tuple(y.shape)}")
    return (prediction - y) ** 2


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor,
               y: torch.Tensor, max_norm: float) -> float:  # fmt: skip
    """One update, by the mean squared error of all steps. Returns that of the last step alone,
    before the update, which is what evaluate measures.
    """
    model.train()
    optimizer.zero_grad()
    errors = squared_errors(model, x, y)
    errors.mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)  # after backward, before step
    optimizer.step()
    return errors[:, -1].mean().item()


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader) -> float:
    """Mean squared error of the last step. Batches count by their size, as the last is smaller."""
    model.eval()
    device, total, count = next(model.parameters()).device, 0.0, 0
    for x, y in loader:
        total += squared_errors(model, x.to(device), y.to(device))[:, -1].sum().item()
        count += len(x)
    return total / count


@dataclass
class Measurement:
    """Mean squared errors of the last step after so many updates. That of training is the mean
    since the measurement before, at 0 updates that of the untrained network.
    """

    updates: int
    train_mse: float
    validation_mse: float


def fit(model: nn.Module, train_loader: DataLoader, validation_loader: DataLoader, epochs: int,
        every: int, learning_rate: float, max_norm: float, verbose: bool = False,
        ) -> tuple[list[Measurement], Measurement]:  # fmt: skip
    """Train with Adam for so many passes over the loader, while the learning rate falls to zero as
    a cosine. Measure before the first update and after every so many of them, and keep the weights
    with the smallest validation error. Returns all measurements, and the one of these weights.
    Raises FloatingPointError if an error is not finite.
    """
    device, K = next(model.parameters()).device, epochs * len(train_loader)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, K)

    def measure(k: int, train_mse: float) -> Measurement:
        row = Measurement(k, train_mse, evaluate(model, validation_loader))
        if not math.isfinite(row.train_mse + row.validation_mse):
            raise FloatingPointError(f"{k} updates: error not finite; lower the learning rate")
        if verbose:
            print(f"{k:8d}{train_mse:15.4g}{row.validation_mse:17.4g}", flush=True)
        return row

    if verbose:
        print(f"{'update':>8}{'training MSE':>15}{'validation MSE':>17}", flush=True)
    history, k, total, count = [measure(0, evaluate(model, train_loader))], 0, 0.0, 0
    best, best_state = history[0], copy.deepcopy(model.state_dict())
    for _ in range(epochs):
        for x, y in train_loader:
            total += len(x) * train_step(model, optimizer, x.to(device), y.to(device), max_norm)
            count += len(x)
            k += 1
            schedule.step()
            if k % every == 0 or k == K:
                history.append(measure(k, total / count))
                total, count = 0.0, 0
                if history[-1].validation_mse < best.validation_mse:
                    best, best_state = history[-1], copy.deepcopy(model.state_dict())
    model.load_state_dict(best_state)
    if verbose:
        print(f"The weights after {best.updates} updates are kept.\n")
    return history, best


@torch.no_grad()
def free_running(model: nn.Module, series: torch.Tensor, steps: int) -> torch.Tensor:
    """Continue series (B, T, 1): predict a step, append it, drop the oldest. Returns (B, steps)."""
    model.eval()
    T = series.shape[1]
    for _ in range(steps):
        prediction, _ = model(series[:, -T:])
        series = torch.cat([series, prediction[:, -1:]], dim=1)
    return series[:, T:, 0]


# --- The sine waves -----------------------------------------------------------------------------

PERIOD = 30  # steps in one period of every sine wave
BLUE, RED, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"
STYLE = {"figure.dpi": 140, "figure.constrained_layout.use": True, "legend.frameon": False}
Options = argparse.Namespace


@dataclass
class Task:
    """Sets that share no target; errors on the test set to compare with, by name; and the
    validation error below which a network has learned.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    levels: dict[str, float]
    learned: float


def sine_waves(generator: torch.Generator, count: int, length: int, noise: float) -> torch.Tensor:
    """Waves sin(2 pi t / PERIOD + phase) + noise * N(0, 1): (count, length, 1)."""
    phase = 2 * math.pi * torch.rand(count, 1, generator=generator)
    clean = torch.sin(2 * math.pi * torch.arange(length) / PERIOD + phase)
    return (clean + noise * torch.randn(count, length, generator=generator))[:, :, None]


def sine_task(options: Options) -> Task:
    """Next-step prediction on sine waves; learned means 1.5 times the best possible error."""
    generator, T = torch.Generator().manual_seed(options.seed), options.seq_len
    waves = [sine_waves(generator, n, T + 1, options.noise) for n in (1000, 1000, 4000)]
    levels = {"persistence": (waves[2][:, -1] - waves[2][:, -2]).square().mean().item()}
    # T values with small noise tell the phase to a variance of 2 noise^2 / T, which moves the next
    # value by the square of its slope, 1/2 on average.
    best_possible = options.noise**2 * (1 + 1 / T)
    if T % PERIOD == 0 and 0 < options.noise < 1:
        levels["best possible"] = best_possible
    learned = 1.5 * best_possible if 0 < options.noise < 1 else 0.001
    return Task(*map(NextStep, waves), levels, learned)


def new_network(options: Options, features: int = 1) -> SequenceModel:
    """With the first weights of this seed."""
    torch.manual_seed(options.seed)
    model = SequenceModel(options.cell, features, options.hidden_size, options.layers)
    return model.to(options.device)


def shuffled(pairs: Dataset, options: Options) -> DataLoader:
    """In another random order at each pass, an epoch: all pairs, or 1000 of them."""
    order = torch.Generator().manual_seed(options.seed)
    sampler = RandomSampler(pairs, num_samples=min(len(pairs), 1000), generator=order)
    return DataLoader(pairs, options.batch_size, sampler=sampler)


def plot_curve(history: list[Measurement], best: Measurement, levels: dict[str, float],
               path: Path) -> None:  # fmt: skip
    """Training and validation error by update, the best measurement, and levels to compare with."""
    updates, axes = [row.updates for row in history], Figure((7.0, 4.0)).subplots()
    axes.plot(updates, [row.train_mse for row in history], color=BLUE, label="training")
    axes.plot(updates, [row.validation_mse for row in history], color=RED, label="validation")
    axes.plot(best.updates, best.validation_mse, "o", color=RED, label="best: its weights are kept")
    for (name, level), dashes in zip(levels.items(), (":", "--")):
        axes.axhline(level, color="black", ls=dashes, lw=1, label=name)
    axes.set(xlabel="update", ylabel="mean squared error of the last step", yscale="log")
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize="small")
    axes.figure.savefig(path)


def sine_demo(options: Options) -> None:
    """Train one network on the sine waves, print what it reached and draw its forecasts."""
    task, T = sine_task(options), options.seq_len
    model, loader = new_network(options), shuffled(task.train, options)
    history, best = fit(model, loader, DataLoader(task.validation, 256), options.epochs,
                        len(loader), options.learning_rate, options.clip, verbose=True)  # fmt: skip
    mse = evaluate(model, DataLoader(task.test, 256))
    print(f"test MSE        {mse:.4g}")
    for name, level in task.levels.items():
        print(f"{name:16}{level:.4g}   test is {mse / level:.2f} times that")
    files = options.plots_dir / f"{options.cell}_pytorch"
    plot_curve(history, best, task.levels, Path(f"{files}_training_curve.png"))

    generator = torch.Generator().manual_seed(options.seed + 10**9)  # for a wave that is in no set
    wave = sine_waves(generator, 1, T + 2 * PERIOD, options.noise).to(options.device)
    windows = wave[0, :-1].unfold(0, T, 1).transpose(1, 2)  # (2 * PERIOD, T, 1)
    ahead, free = free_running(model, windows, 1), free_running(model, wave[:, :T], 2 * PERIOD)
    axes, steps = Figure((7.0, 4.0)).subplots(), range(T, T + 2 * PERIOD)
    axes.plot(wave[0, :, 0].cpu(), ".-", color=GREY, ms=4, lw=0.5, label="noisy wave")
    axes.plot(steps, ahead.flatten().cpu(), color=BLUE, label="one step ahead")
    axes.plot(steps, free.flatten().cpu(), color=RED, ls="--", label="free-running")
    axes.set(title="Free-running, it sees its own predictions in place of the wave")
    axes.set(xlabel="step", ylabel="value", ylim=(-1.5, 1.7))
    axes.legend(ncols=3, loc="upper right")
    axes.figure.savefig(f"{files}_forecast.png")


# --- Your own series ----------------------------------------------------------------------------

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)


class DataError(Exception):
    """A series that cannot be used; the message says what would do."""


def read_series(path: Path, column: str | None) -> torch.Tensor:
    """The numbers of a text file, one per line, or of a column of a table: by its name in the first
    line, or by its number, from 1, where that line holds numbers. Raises DataError.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        header = text.split("\n")[:1]
        sep = max(",;\t", key=lambda sep: len(next(csv.reader(header, delimiter=sep), [])))
        table = csv.reader(io.StringIO(text, newline=""), delimiter=sep, strict=True)
        rows = [(table.line_num, [cell.strip() for cell in row] or [""]) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"expected lines of text in UTF-8, got {error}") from None
    while rows and not any(rows[-1][1]):  # blank lines at the end
        rows.pop()
    names, index = [""], 0
    if column is not None and rows:
        names = rows[0][1]
        numbers = [name for name in names if NUMBER.fullmatch(name)]
        if numbers == names:  # no header
            names = [str(i) for i in range(1, len(names) + 1)]
        elif numbers:
            raise DataError(f"line 1: expected names, or numbers alone, got {', '.join(names):.80}")
        else:
            rows = rows[1:]
        if names.count(column) != 1:
            like = [name for name in names if name.lower() == column.lower()] or names
            raise DataError(f"expected one of the columns {', '.join(like):.300}, got {column!r}")
        index = names.index(column)
    hint = "gaps have to be filled or cut first, decimal commas to be points"
    hint += "" if column else ", a table needs --column NAME"
    for line, cells in rows:
        if (got := len(cells)) != len(names):
            raise DataError(f"line {line}: expected {len(names)} cell(s), got {got} ({hint})")
        if not NUMBER.fullmatch(cells[index]) or math.isinf(float(cells[index])):
            got = f"{cells[index]!r:.40}"
            raise DataError(f"line {line}: expected a number like 1.5, got {got} ({hint})")
    return torch.tensor([float(cells[index]) for _, cells in rows], dtype=torch.float64)


def split_series(values: torch.Tensor, W: int) -> list[torch.Tensor]:
    """Windows (n, W + 2, 1): W changes, and the one to predict. Their last values are the training,
    the validation and the test part, 70, 15 and 15 % of all. DataError if nothing can be learned.
    """
    N, needed = len(values), math.ceil(10 * (W + 4) / 7)
    if needed > N:
        raise DataError(f"expected at least {needed} values for --seq-len {W}, got {N}")
    changes, first, second = values.diff().abs(), N * 70 // 100, N * 85 // 100
    if not 1e-150 < changes[W : first - 1].max() < 1e150:
        raise DataError("expected numbers that vary, by 1e-150 to 1e150, in the first 70 %")
    if changes.max() > 1e9 * np.quantile(changes[changes > 0], 0.9):
        i = (values - values.median()).abs().argmax()
        raise DataError(f"value {i + 1}: expected the size of the others, got {values[i]:g}")
    parts = values[:first], values[first - W - 1 : second], values[second - W - 1 :]
    return [part.unfold(0, W + 2, 1)[:, :, None] for part in parts]


class Forecaster(nn.Module):
    """The next value of a window is its last one, plus the change that least squares and that a
    network expect, each times its share. The rest is the share of persistence, which expects none.
    """

    def __init__(self, network: nn.Module, window: int) -> None:
        super().__init__()
        self.network = network  # both see the changes in the window, in this unit
        self.linear = nn.Linear(window, 1, dtype=torch.float64)
        self.register_buffer("unit", torch.ones((), dtype=torch.float64))
        self.register_buffer("shares", torch.zeros(2, dtype=torch.float64))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Windows (N, W + 1, 1) of values in 64 bits: the values that follow, (N, 1, 1)."""
        changes = x.diff(dim=1) / self.unit  # (N, W, 1)
        by_linear, (by_network, _) = self.linear(changes[:, :, 0]), self.network(changes.float())
        change = self.shares[0] * by_linear + self.shares[1] * by_network[:, -1]
        return (x[:, -1] + self.unit * change)[:, None], None


def fit_forecaster(train: torch.Tensor, validation: torch.Tensor, options: Options) -> tuple:
    """Fit least squares and a network to windows (n, W + 2, 1), to predict each change from those
    before it. Returns the Forecaster and what fit returns.
    """
    model = Forecaster(new_network(options), options.seq_len)
    nn.init.zeros_(model.network.head.weight)  # untrained, it expects no change
    nn.init.zeros_(model.network.head.bias)
    model.unit = train.diff(dim=1)[:, -1].square().mean().sqrt()
    changes, validation_changes = (part.diff(dim=1) / model.unit for part in (train, validation))
    order = torch.randperm(len(changes), generator=torch.Generator().manual_seed(options.seed))
    some = changes[order[: 10**6], :, 0]  # more would need more memory
    inputs = torch.cat([some[:, :-1], torch.ones(len(some), 1)], dim=1)
    solution = torch.linalg.lstsq(inputs, some[:, -1:], driver="gelsd").solution
    model.linear.weight.data, model.linear.bias.data = solution[:-1].T, solution[-1]
    loader = shuffled(NextStep(changes.float()), options)
    every = math.ceil(options.epochs / 30) * len(loader)  # some 30 measurements
    history, best = fit(model.network, loader,
                        DataLoader(NextStep(validation_changes.float()), 256), options.epochs,
                        every, options.learning_rate, options.clip, verbose=True)  # fmt: skip
    model.network.cpu()
    return model, history, best


def errors_by_distance(model: Forecaster, values: torch.Tensor) -> np.ndarray:
    """RMSE 1, 2, ... steps ahead, free-running from each window of W + 1 values with enough to come
    (from the last 1000 of them): W steps, or half of the values after the first window.
    """
    W = model.linear.in_features
    steps = min(W, (len(values) - W) // 2)
    windows = values.unfold(0, W + 1 + steps, 1)[-1000:, :, None]
    errors = free_running(model, windows[:, : W + 1], steps) - windows[:, W + 1 :, 0]
    return errors.square().mean(dim=0).sqrt().numpy()


def series_demo(values: torch.Tensor, options: Options) -> None:
    """Forecast one's own series, and say what that is worth and how far ahead."""
    W, N, files = options.seq_len, len(values), options.plots_dir / options.data.stem
    train, validation, test = split_series(values, W)
    validation = validation[-2000:]  # enough to choose by
    tested = values[-(W + 1 + len(test)) :]  # the test part, and what its first forecast sees
    model, history, best = fit_forecaster(train, validation, options)
    loader = DataLoader(TensorDataset(validation[:, :-1], validation[:, -1:]), 256)
    names, mse, rmse = ("persistence", "linear", options.cell.upper()), [], {}
    for name, shares in zip(names, ([0, 0], [1, 0], [0, 1])):  # each alone: of linear, of network
        model.shares[:] = torch.tensor(shares)
        mse.append(evaluate(model, loader) / model.unit.item() ** 2)
        rmse[name] = errors_by_distance(model, tested)
    # On public series 1 / MSE^2 did better than 1 / MSE, and than the best of the three alone.
    inverse = 1 / torch.tensor(mse, dtype=torch.float64).clamp(min=1e-30).square()
    share = inverse / inverse.sum()
    model.shares[:] = share[1:]
    rmse["blend"] = errors_by_distance(model, tested)
    print("blend = " + " + ".join(f"{part:.2f} {name}" for part, name in zip(share, names)))
    print_errors(rmse, options.seed)

    # To fit it once more, to the whole series, was better on 9 of 21 public series and worse on 6.
    future = free_running(model, values[None, -W - 1 :, None], W)[0].numpy()
    table = np.column_stack([np.arange(N + 1, N + W + 1), future])
    np.savetxt(f"{files}_forecast.csv", table, "%.17g", ",", header="step,forecast", comments="")
    if options.save is not None:
        kept = {name: vars(options)[name] for name in ("cell", "hidden_size", "layers", "seq_len")}
        with options.save.open("wb") as file:
            torch.save(kept | {"forecaster": model.state_dict()}, file)
    plot_curve(history, best, {"persistence": mse[0]}, Path(f"{files}_training_curve.png"))
    ahead = free_running(model, test[-10 * W :, :-1], 1)[:, 0]
    plot_series(values, ahead, future, rmse, Path(f"{files}_forecast.png"))


def print_errors(rmse: dict[str, np.ndarray], seed: int) -> None:
    """A table of the errors 1, 2, 4, ... steps ahead, and in words what it says of the blend."""
    last = len(rmse["blend"])
    print("\nsteps ahead" + "".join(f"{name:>14}" for name in rmse) + "   (RMSE)")
    for h in sorted({2**n for n in range(10) if 2**n < last} | {last}):
        print(f"{h:11d}" + "".join(f"{errors[h - 1]:14.5g}" for errors in rmse.values()))
    for h in sorted({1, last}):
        if rmse["persistence"][h - 1] == 0:
            print(f"{h} ahead, the test part stands still: it tells nothing.")
        else:
            ratio = rmse["blend"][h - 1] / rmse["persistence"][h - 1]
            print(f"{h} ahead, the blend's error is {ratio:.2f} times persistence (seed {seed}).")


def plot_series(values: torch.Tensor, ahead: torch.Tensor, future: np.ndarray,
                rmse: dict[str, np.ndarray], path: Path) -> None:  # fmt: skip
    """The end of the series, forecast one step ahead; what comes next; the errors by distance."""
    top, below = Figure((7.0, 6.0)).subplots(2)
    N, n, W, last = len(values), len(ahead), len(future), len(rmse["blend"])
    top.plot(range(N - n + 1, N + 1), values[-n:], ".-", color=GREY, ms=4, lw=0.5, label="data")
    top.plot(range(N - n + 1, N + 1), ahead, color=BLUE, lw=1, label="test part, one step ahead")
    steps, known, band = range(N + 1, N + W + 1), future[:last], rmse["blend"]
    top.plot(steps, future, color=RED, label="what comes next; band: RMSE of this distance")
    top.fill_between(steps[:last], known - band, known + band, color=RED, alpha=0.2, lw=0)
    top.set(xlabel="step", ylabel="value")
    forms = ("s--", GREY), ("^:", BLUE), ("x:", PURPLE), ("o-", RED)
    for (name, errors), (form, color) in zip(rmse.items(), forms):
        below.plot(range(1, last + 1), errors, form, color=color, ms=4, label=name)
    below.set(title="How far ahead a forecast is worth anything: the test part", ylim=0)
    below.set(xlabel="steps ahead", ylabel="RMSE, in the unit of the series")
    top.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize="small")
    below.legend(ncols=2)
    top.figure.savefig(path)


# --- GRU against LSTM ---------------------------------------------------------------------------


def adding_task(options: Options) -> Task:
    """The adding problem (Hochreiter & Schmidhuber 1997): a step holds a number from U(0, 1) and a
    mark, 1 at one step of either half and 0 elsewhere; the target is the sum of the marked numbers.
    """
    generator, T, sets = torch.Generator().manual_seed(options.seed), options.seq_len, []
    for count in (64 * 1200, 1000, 1000):
        numbers = torch.rand(count, T, generator=generator)
        first = torch.randint(0, T // 2, (count, 1), generator=generator)
        second = torch.randint(T // 2, T, (count, 1), generator=generator)
        marks = torch.zeros(count, T).scatter_(1, torch.cat([first, second], dim=1), 1.0)
        sums = (numbers * marks).sum(dim=1)[:, None, None]
        sets.append(TensorDataset(torch.stack([numbers, marks], dim=2), sums))
    return Task(*sets, {"always answering 1": 1 / 6}, 0.01)  # the variance of such a sum


def set_forget_bias(model: SequenceModel) -> None:
    """So that an LSTM begins by keeping (Jozefowicz et al. 2015): to 1, as 0.5 in each of the two
    biases, which add up. Of the four gates in a bias, the forget gate is the second.
    """
    for name, parameter in model.recurrent.named_parameters():
        if name.startswith("bias"):
            nn.init.constant_(parameter.chunk(4)[1], 0.5)


@dataclass
class Runs:
    """One network, trained with three seeds: how many weights it has, when it was measured, and for
    each seed the validation errors then and the error of the best weights on the test set.
    """

    weights: int
    updates: np.ndarray
    validation_mse: np.ndarray  # (seeds, measurements)
    test_mse: np.ndarray


def run_seeds(make_task: Callable[[Options], Task], options: Options, forget_bias: bool) -> Runs:
    """Train one network with three seeds; --seed 1 has none of those of --seed 0."""
    histories, test_mse = [], []
    for seed in range(3 * options.seed, 3 * options.seed + 3):
        own = Options(**vars(options) | {"seed": seed})
        task = make_task(own)
        model = new_network(own, features=task.train[0][0].shape[1])
        if forget_bias:
            set_forget_bias(model)
        history, _ = fit(model, shuffled(task.train, own), DataLoader(task.validation, 256),
                         own.epochs, 10, own.learning_rate, own.clip)  # fmt: skip
        histories.append([row.validation_mse for row in history])
        test_mse.append(evaluate(model, DataLoader(task.test, 256)))
        network = f"{own.cell} {own.hidden_size}, rate {own.learning_rate:.2g}"
        print(f"seed {seed}, {network}: test MSE {test_mse[-1]:.3g}", flush=True)
    weights = sum(parameter.numel() for parameter in model.parameters())
    updates = np.array([row.updates for row in history])
    return Runs(weights, updates, np.array(histories), np.array(test_mse))


def compare(make_task: Callable[[Options], Task], options: Options) -> None:
    """Print and draw a GRU and three LSTMs, each at the one of three learning rates with which the
    median of the best validation errors is smallest.
    """
    H, task, axes = options.hidden_size, make_task(options), Figure((7.0, 4.8)).subplots()
    fewer = max(1, round(H * math.sqrt(3 / 4)))  # an LSTM has 4 blocks of weights, a GRU 3
    networks = (
        (f"GRU {H}", "gru", H, False, BLUE),
        (f"LSTM {H}", "lstm", H, False, RED),
        (f"LSTM {fewer}, as many weights", "lstm", fewer, False, PURPLE),
        (f"LSTM {H}, forget bias 1", "lstm", H, True, GREEN),
    )
    rows = [f"{'network':40}{'weights':>8}{'learned after':>20}{'test MSE':>32}"]
    for name, cell, size, forget_bias, color in networks:
        runs = {}
        for rate in [factor * options.learning_rate for factor in (1 / 3, 1, 3)]:
            own = vars(options) | {"cell": cell, "hidden_size": size, "learning_rate": rate}
            runs[rate] = run_seeds(make_task, Options(**own), forget_bias)
        rate = min(runs, key=lambda rate: np.median(runs[rate].validation_mse.min(axis=1)))
        name, chosen, mse = f"{name}, rate {rate:.2g}", runs[rate], runs[rate].validation_mse
        below = mse < task.learned  # (seeds, measurements)
        after = np.where(below.any(axis=1), chosen.updates[below.argmax(axis=1)], math.inf)
        learned, test_mse = spread(after, ".0f"), spread(chosen.test_mse, ".3g")
        rows.append(f"{name:40}{chosen.weights:8d}{learned:>20}{test_mse:>32}")
        axes.plot(chosen.updates, np.median(mse, axis=0), color=color, label=name)
        least, most = mse.min(axis=0), mse.max(axis=0)
        axes.fill_between(chosen.updates, least, most, color=color, alpha=0.2, lw=0)
    print("\nMedian (smallest - largest) of three seeds, at the rate chosen on validation")
    print(*rows, sep="\n")
    levels = task.levels | {"learned": task.learned}
    for (name, level), dashes in zip(levels.items(), (":", "--", "-.")):
        print(f"{name}: MSE {level:.4g}")
        axes.axhline(level, color="black", ls=dashes, lw=1, label=name)
    axes.set(title="Median of three seeds, and their range", yscale="log")
    axes.set(xlabel="update", ylabel="validation MSE of the last step")
    axes.legend(fontsize="small", ncols=2, loc="upper right")
    axes.figure.savefig(options.plots_dir / f"gru_vs_lstm_{options.compare}.png")


def spread(values: np.ndarray, form: str) -> str:
    """Median (smallest - largest)."""
    return f"{np.median(values):{form}} ({min(values):{form}} - {max(values):{form}})"


# --- The command line ---------------------------------------------------------------------------

OPTIONS = {  # defaults on sine waves, on the adding problem, on one's own series; least, most
    "--epochs": (30, 75, 100, 1, 1e6, "passes over the data, or over 1000 of it at random"),
    "--batch-size": (32, 64, 32, 1, 1e5, "sequences in an update"),
    "--hidden-size": (32, 64, 32, 1, 4096, "hidden units"),
    "--layers": (1, 1, 1, 1, 100, "recurrent layers"),
    "--seq-len": (30, 50, 12, 2, 1000, "steps in a sequence"),
    "--learning-rate": (0.03, 0.01, 0.005, 1e-9, 100, "Adam's first rate, which falls to zero"),
    "--clip": (1.0, 1.0, 1.0, 1e-9, math.inf, "largest norm of the gradient; inf: any"),
    "--noise": (0.05, None, None, 0, 100, "standard deviation of the sine waves' noise"),
    "--seed": (0, 0, 0, 0, 1e9, "seed of weights, data and order"),
}


def parse_options(argv: list[str] | None) -> Options:
    """Read the options; a wrong one ends the program with status 2 before any work."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.description = __doc__.splitlines()[0]
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--data", type=Path, help="your own series: lines of numbers, or a table")
    tasks, text = ("sine", "adding"), "GRU against LSTM, 3 seeds, 3 rates (default: on sine waves)"
    either.add_argument("--compare", nargs="?", choices=tasks, const="sine", help=text)
    parser.set_defaults(cell="gru", column=None, save=None)
    options, _ = parser.parse_known_args(argv)
    if options.compare is None:
        parser.add_argument("--cell", choices=("gru", "lstm"), help="(default: gru)")
    if options.data is not None:
        parser.add_argument("--column", help="of a table: its name, or its number if it has none")
        parser.add_argument("--save", type=Path, help="file for what forecasts your series")
    mode = 2 if options.data else 1 if options.compare == "adding" else 0
    for flag, (*defaults, _, _, text) in OPTIONS.items():
        if (default := defaults[mode]) is not None:
            text = f"{text} (default: {default})"
            parser.add_argument(flag, type=type(default), default=default, help=text)
    here = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=here, help=f"cpu, cuda:0 or the like (default: {here})")
    plots = Path(__file__).resolve().parent / "plots"
    parser.add_argument("--plots-dir", type=Path, default=plots, help="folder for the figures")
    parser.add_argument("-h", "--help", action="help", help="show this, with the mode's defaults")
    options = parser.parse_args(argv)
    for flag, (*_, least, most, _) in OPTIONS.items():
        value = getattr(options, flag[2:].replace("-", "_"), least)
        if not least <= value <= most:
            parser.error(f"argument {flag}: expected {least:g} to {most:g}, got {value}")
    save = options.save
    if save is not None and (save.is_dir() or not save.absolute().parent.is_dir()):
        parser.error(f"argument --save: expected a file in a folder that exists, got {save}")
    if save is not None and save.resolve() == options.data.resolve():
        parser.error(f"argument --save: expected another file than --data, got {save}")
    try:
        torch.zeros(1, device=options.device).item()
        options.plots_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.plots_dir).close()
    except OSError as error:
        parser.error(f"argument --plots-dir: expected a folder for figures, got {error}")
    except (RuntimeError, AssertionError, NotImplementedError):
        parser.error(f"argument --device: expected cpu, cuda:0 or the like, got {options.device}")
    return options


def main(argv: list[str] | None = None) -> None:
    """Run the command line. Status 2: wrong options or data; 1: it diverged, or a file could not be
    written; 130: Ctrl-C.
    """
    options = parse_options(argv)
    torch.set_num_threads(1)  # so small a network gains nothing from a second
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the same numbers again on CUDA
    try:
        with style.context(["default", STYLE]):  # whatever the user's own matplotlibrc says
            if options.compare is not None:
                compare({"sine": sine_task, "adding": adding_task}[options.compare], options)
            elif options.data is not None:
                series_demo(read_series(options.data, options.column), options)
            else:
                sine_demo(options)
    except DataError as error:
        print(f"gru_pytorch.py: error: --data {options.data}: {error}", file=sys.stderr)
        sys.exit(2)
    except (FloatingPointError, OSError) as error:
        sys.exit(f"gru_pytorch.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # so that | head ends quietly
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
