# /// script
# requires-python = ">=3.10"
# dependencies = [
#   "numpy==2.2.6; python_version < '3.11'",
#   "numpy==2.4.6; python_version >= '3.11'",
#   "matplotlib==3.10.9",
#   "torch==2.13.0",
# ]
# ///
"""nn.GRU with a linear head on noisy sine waves, and GRU against LSTM, measured.

    python gru_pytorch.py                             train, print a table, save figures
    python gru_pytorch.py --compare                   GRU against LSTM on the sine waves
    python gru_pytorch.py --compare --task adding     the same on the adding problem
    python gru_pytorch.py --data FILE --column NAME   your own series, also with --compare
    python gru_pytorch.py --help                      all options

Shapes, with batch_first=True: B sequences of T steps of F features are (B, T, F). The recurrent
layer gives (B, T, H), one hidden state a step, and the head (B, T, O): a prediction of the next
step at every step. h_0 and h_n stay (layers, B, H) whatever batch_first says.

nn.GRU is not the cell of gru_from_scratch.py: its z weighs the old state, and its reset gate acts
after the matrix product (README.md, "The same name, different cells").
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import math
import os
import re
import statistics
import sys
import tempfile
import time
import warnings
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

# --- Data ---------------------------------------------------------------------------------------

PERIOD = 30  # steps in one period of every sine wave


class NextStep(Dataset):
    """Sequences (N, T + 1, F) as pairs: the first T steps, and the same steps one later."""

    def __init__(self, sequences: torch.Tensor) -> None:
        self.sequences = sequences

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.sequences[i, :-1], self.sequences[i, 1:]


@dataclass
class Task:
    """What to learn: pairs for training and, from other draws, for validation.

    The networks see (value - mean) / scale; errors are reported in the data's own units.
    """

    name: str  # in file names
    title: str  # in figures
    features: int
    train: Dataset
    validation: Dataset
    threshold: float  # a validation MSE that counts as learned
    references: dict[str, float]  # what to compare an MSE with
    mean: float = 0.0
    scale: float = 1.0


def sine_waves(
    generator: torch.Generator, count: int, length: int, noise: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Waves sin(2 pi t / PERIOD + phase) with and without noise * N(0, 1): (count, length, 1)."""
    phase = 2 * math.pi * torch.rand(count, 1, generator=generator)
    clean = torch.sin(2 * math.pi * torch.arange(length) / PERIOD + phase)
    noisy = clean + noise * torch.randn(count, length, generator=generator)
    return noisy[:, :, None], clean[:, :, None]


def best_possible_mse(waves: torch.Tensor, noise: float) -> float:
    """MSE over all one-step predictions of an observer who knows everything but the phases.

    At each step it weighs every phase of a grid by its likelihood given the steps before (Bayes'
    rule, uniform prior) and predicts the weighted mean. NaN for a noise below 0.01, where the grid
    is too coarse.
    """
    if noise < 0.01:
        return math.nan
    x = waves[:, :, 0].double()  # (N, T + 1)
    phase = torch.arange(3600, dtype=torch.float64) * 2 * math.pi / 3600
    steps = torch.arange(x.shape[1], dtype=torch.float64)[:, None]
    candidates = torch.sin(2 * math.pi * steps / PERIOD + phase)  # (T + 1, 3600)
    log_likelihood = torch.zeros(len(x), len(phase), dtype=torch.float64)
    squared = 0.0
    for t in range(1, x.shape[1]):
        log_likelihood -= (x[:, t - 1, None] - candidates[t - 1]) ** 2 / (2 * noise**2)
        prediction = torch.softmax(log_likelihood, dim=1) @ candidates[t]
        squared += torch.sum((x[:, t] - prediction) ** 2).item()
    return squared / (len(x) * (x.shape[1] - 1))


def sine_task(options: argparse.Namespace, seed: int) -> Task:
    """Next-step prediction on noisy sine waves; learned: within 1.5 times the best possible MSE."""
    generator = torch.Generator().manual_seed(seed)
    count, length, noise = options.sequences, options.seq_len + 1, options.noise
    train, _ = sine_waves(generator, count, length, noise)
    validation, _ = sine_waves(generator, count, length, noise)
    best = best_possible_mse(validation, noise)
    references = {
        "best possible": best,
        "noise floor": noise**2,
        "persistence": torch.mean((validation[:, 1:] - validation[:, :-1]) ** 2).item(),
    }
    threshold = 0.01 if math.isnan(best) else 1.5 * best
    pairs = NextStep(train), NextStep(validation)
    return Task("sine", "noisy sine waves", 1, *pairs, threshold, references)


def adding_task(options: argparse.Namespace, seed: int) -> Task:
    """The adding problem (Hochreiter & Schmidhuber 1997): the sum of two marked numbers.

    Each step holds a number from U(0, 1) and a marker, 1 at one step of either half and 0
    elsewhere. The target is the sum of the two marked numbers, after the last step. Always to
    answer 1 has the MSE 1/6, the variance of that sum; learned: an MSE below 0.01.
    """
    generator = torch.Generator().manual_seed(seed)
    T = options.seq_len

    def draw(count: int) -> TensorDataset:
        numbers = torch.rand(count, T, generator=generator)
        first = torch.randint(0, T // 2, (count, 1), generator=generator)
        second = torch.randint(T // 2, T, (count, 1), generator=generator)
        markers = torch.zeros(count, T).scatter_(1, torch.cat([first, second], dim=1), 1.0)
        sums = (numbers * markers).sum(dim=1)
        return TensorDataset(torch.stack([numbers, markers], dim=2), sums[:, None, None])

    pairs, references = (draw(options.sequences), draw(1000)), {"always answering 1": 1 / 6}
    return Task("adding", f"the adding problem, {T} steps", 2, *pairs, 0.01, references)


def read_series(path: Path, column: str | None) -> torch.Tensor:
    """The numbers of a text file, one a line, or of a column of a CSV file with a header.

    Raises ValueError, with the line number where a line is at fault.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])] if column is not None else []
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"expected a readable text file, got {error}") from None
    if column is not None and column not in header:
        names = " ".join(", ".join(header).split())  # one line, whatever the header holds
        raise ValueError(f"expected one of the columns {names:.200}, got {column!r}")
    while rows and not any(rows[-1][1]):
        rows.pop()  # empty lines at the end
    index = 0 if column is None else header.index(column)
    values = []
    for line, row in rows:
        text = ",".join(row) if column is None else (row + [""] * len(header))[index]
        try:
            values.append(float(text))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            hint = "" if column is not None else "; for a CSV file with a header, give --column"
            raise ValueError(f"line {line}: expected a finite number, got {text!r:.60}{hint}")
    return torch.tensor(values, dtype=torch.float64)


class Split(NamedTuple):
    """A series cut in two by time, both parts standardised with the first one's statistics."""

    train: torch.Tensor  # (length, 1)
    validation: torch.Tensor  # (length, 1)
    mean: float
    deviation: float


def split_series(series: torch.Tensor, seq_len: int) -> Split:
    """Keep the last fifth of a series for validation.

    Raises ValueError if the series is too short for its windows or does not vary.
    """
    cut = len(series) * 4 // 5
    if len(series) - cut < seq_len + 1:
        raise ValueError(
            f"expected at least {5 * seq_len + 1} numbers for --seq-len {seq_len}, so that the "
            f"last fifth holds a window and the step after it, got {len(series)}"
        )
    mean, deviation = series[:cut].mean().item(), series[:cut].std(correction=0).item()
    if not 1e-12 * abs(mean) < deviation < math.inf:
        raise ValueError(f"expected numbers that vary, got {mean:g} throughout the first 80 %")
    standard = ((series - mean) / deviation).float()[:, None]
    return Split(standard[:cut], standard[cut:], mean, deviation)


def series_task(options: argparse.Namespace) -> Task:
    """Next-step prediction on one's own series; learned: better than persistence.

    No window crosses the split. A long series gives about options.sequences windows, evenly
    spaced.
    """
    train, validation, mean, deviation = options.split

    def windows(part: torch.Tensor) -> torch.Tensor:  # (N, seq_len + 1, 1)
        step = max(1, (len(part) - options.seq_len) // options.sequences)
        return part.unfold(0, options.seq_len + 1, step).transpose(1, 2)

    held_out = windows(validation)
    persistence = deviation**2 * torch.mean((held_out[:, 1:] - held_out[:, :-1]) ** 2).item()
    pairs, references = (NextStep(windows(train)), NextStep(held_out)), {"persistence": persistence}
    return Task("data", options.data.name, 1, *pairs, persistence, references, mean, deviation)


# --- Model --------------------------------------------------------------------------------------


class SequenceModel(nn.Module):
    """nn.GRU or nn.LSTM, then a linear head on the hidden state of every step."""

    def __init__(
        self, cell: str, input_size: int, hidden_size: int, output_size: int = 1, layers: int = 1
    ) -> None:
        super().__init__()
        recurrent = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.recurrent = recurrent(input_size, hidden_size, layers, batch_first=True)
        self.head = nn.Linear(hidden_size, output_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> (B, T, O), from a zero initial state."""
        h, _ = self.recurrent(x)  # (B, T, H)
        return self.head(h)


def build(
    cell: str, hidden_size: int, task: Task, options: argparse.Namespace, seed: int
) -> SequenceModel:
    """A network for the task on the chosen device; the seed fixes its first weights."""
    torch.manual_seed(seed)
    model = SequenceModel(cell, task.features, hidden_size, layers=options.layers)
    return model.to(options.device)


def parameter_count(model: nn.Module) -> int:
    """The number of weights."""
    return sum(parameter.numel() for parameter in model.parameters())


def lstm_size_like_gru(features: int, hidden_size: int, layers: int) -> int:
    """The hidden size whose LSTM comes closest to the parameters of a GRU of hidden_size."""

    def count(cell: str, size: int) -> int:
        with torch.device("meta"):  # shapes without memory
            return parameter_count(SequenceModel(cell, features, size, layers=layers))

    wanted = count("gru", hidden_size)
    above = bisect_left(range(hidden_size), wanted, lo=1, key=lambda size: count("lstm", size))
    return min((max(1, above - 1), above), key=lambda size: abs(count("lstm", size) - wanted))


# --- Training -----------------------------------------------------------------------------------


class Record(NamedTuple):
    """Where training stands; both errors are in the squared units of the data."""

    update: int
    train_mse: float  # over the batches since the record before
    validation_mse: float
    seconds: float


def mse(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the last steps of x, as many as y has targets for."""
    return nn.functional.mse_loss(model(x)[:, -y.shape[1] :], y)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: torch.Tensor,
    y: torch.Tensor,
    clip: float,
) -> float:
    """One update. Returns the MSE before it; one that is not finite makes no update."""
    optimizer.zero_grad()
    loss = mse(model, x, y)
    if math.isfinite(loss.item()):
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)  # after backward, before step
        optimizer.step()
    return loss.item()


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader, device: torch.device) -> float:
    """MSE over a data set: the mean of the batches, each weighted by its size."""
    model.eval()
    total = sum(mse(model, x.to(device), y.to(device)).item() * len(x) for x, y in loader)
    model.train()
    return total / len(loader.dataset)


def fit(
    model: nn.Module,
    task: Task,
    options: argparse.Namespace,
    learning_rate: float,
    seed: int,
    record_every: int,
) -> Iterator[Record]:
    """Train with Adam, its rate falling to zero as a cosine; yield a Record now and then.

    The seed fixes the order of the batches, whatever the model. Raises FloatingPointError when
    the loss is no longer finite.
    """
    device = next(model.parameters()).device
    order = torch.Generator().manual_seed(seed)
    batches = DataLoader(task.train, options.batch_size, shuffle=True, generator=order)
    validation = DataLoader(task.validation, batch_size=256)
    updates = options.epochs * len(batches)
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    start, update, total, seen = time.perf_counter(), 0, 0.0, 0
    for _ in range(options.epochs):
        for x, y in batches:
            loss = train_step(model, optimizer, x.to(device), y.to(device), options.clip)
            update += 1
            raise_unless_finite(loss, update, learning_rate)
            schedule.step()
            total, seen = total + loss * len(x), seen + len(x)  # batches differ in size
            if update % record_every == 0 or update == updates:
                errors = total / seen, evaluate(model, validation, device)
                raise_unless_finite(errors[1], update, learning_rate)
                seconds = time.perf_counter() - start
                yield Record(update, *(task.scale**2 * error for error in errors), seconds)
                total, seen = 0.0, 0


def raise_unless_finite(mse: float, update: int, learning_rate: float) -> None:
    """Raise FloatingPointError, with what to try, if an error is infinite or NaN."""
    if not math.isfinite(mse):
        raise FloatingPointError(
            f"the loss is {mse} at update {update}: try a --learning-rate below {learning_rate:g}"
        )


# --- Forecasts ----------------------------------------------------------------------------------


@torch.no_grad()
def one_step(model: nn.Module, series: torch.Tensor, window: int) -> torch.Tensor:
    """Predict each step of series (length, 1) from the window of true values before it."""
    device = next(model.parameters()).device
    windows = series[:-1].unfold(0, window, 1).transpose(1, 2)  # (length - window, window, 1)
    return torch.cat([model(part.to(device))[:, -1, 0].cpu() for part in windows.split(1024)])


@torch.no_grad()
def free_running(model: nn.Module, start: torch.Tensor, steps: int) -> torch.Tensor:
    """Continue start (window, 1): predict a step, append it to the window, drop the oldest."""
    device = next(model.parameters()).device
    series = start.to(device)
    for _ in range(steps):
        prediction = model(series[None, -len(start) :])[0, -1:]  # (1, 1)
        series = torch.cat([series, prediction])
    return series[len(start) :, 0].cpu()


# --- Comparison ---------------------------------------------------------------------------------

SEEDS = 3  # runs of each network at each learning rate
RATES = (1 / 3, 1, 3)  # times the task's learning rate


@dataclass
class Network:
    """One side of the comparison, with the records of its runs."""

    cell: str
    hidden_size: int
    parameters: int
    runs: dict[float, list[list[Record]]]  # learning rate -> the records of each seed
    milliseconds: dict[str, float] = field(default_factory=dict)  # setting -> time of an update

    @property
    def name(self) -> str:
        return f"{self.cell.upper()} {self.hidden_size}"

    def best_rate(self) -> float:
        """The learning rate with the smallest final validation MSE, in the median of the seeds."""
        complete = {rate: runs for rate, runs in self.runs.items() if runs}
        return min(complete, key=lambda rate: statistics.median(final_mses(complete[rate])))


def networks(options: argparse.Namespace, features: int) -> list[Network]:
    """GRU, LSTM of the same hidden size, and LSTM with about as many parameters as the GRU."""
    H = options.hidden_size
    smaller = lstm_size_like_gru(features, H, options.layers)
    sides = []
    for cell, size in (("gru", H), ("lstm", H), ("lstm", smaller)):
        parameters = parameter_count(SequenceModel(cell, features, size, layers=options.layers))
        runs = {factor * options.learning_rate: [] for factor in RATES}
        sides.append(Network(cell, size, parameters, runs))
    return sides


def final_mses(runs: list[list[Record]]) -> list[float]:
    """The last validation MSE of each run."""
    return [records[-1].validation_mse for records in runs]


def first_below(records: Sequence[Record], threshold: float) -> float:
    """The first recorded update with a validation MSE below threshold, or infinity."""
    return next((r.update for r in records if r.validation_mse < threshold), math.inf)


def time_updates(sides: list[Network], task: Task, options: argparse.Namespace) -> None:
    """Fill in the milliseconds of one update: medians, networks and settings taking turns.

    On a CPU also without the fused oneDNN kernels, which PyTorch has for LSTM and not for GRU, and
    with a thread for every core.
    """
    settings = {"ms": (True, 1)}
    if options.device.type == "cpu":
        cores = os.cpu_count() or 1
        settings |= {"no oneDNN": (False, 1), f"{cores} threads": (True, cores)}
    x, y = next(iter(DataLoader(task.train, options.batch_size)))
    x, y = x.to(options.device), y.to(options.device)
    models = [build(side.cell, side.hidden_size, task, options, seed=0) for side in sides]
    optimizers = [torch.optim.Adam(model.parameters()) for model in models]
    times = {(setting, i): [] for setting in settings for i in range(len(sides))}
    for _ in range(3 if options.quick else 20):
        for (setting, i), measured in times.items():
            fused, threads = settings[setting]
            torch.set_num_threads(threads)
            with onednn(fused):
                start = time.perf_counter()
                for _ in range(5):
                    train_step(models[i], optimizers[i], x, y, options.clip)
                measured.append((time.perf_counter() - start) / 5)
    torch.set_num_threads(1)
    for (setting, i), measured in times.items():
        sides[i].milliseconds[setting] = 1e3 * statistics.median(measured)


@contextlib.contextmanager
def onednn(enabled: bool) -> Iterator[None]:
    """Run with PyTorch's oneDNN kernels or without them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the switch itself warns of kernels for other devices
        with torch.backends.mkldnn.flags(enabled=enabled):
            yield


def compare(options: argparse.Namespace) -> None:
    """Run every network at every learning rate with every seed; print a table, draw a figure."""
    tasks = [make_task(options, options.seed + s) for s in range(SEEDS)]
    task = tasks[0]
    sides = networks(options, task.features)
    time_updates(sides, task, options)
    updates = options.epochs * math.ceil(len(task.train) / options.batch_size)
    every = max(1, updates // 100)
    plan = [(s, rate, side) for s in range(SEEDS) for rate in sides[0].runs for side in sides]
    print(f"{len(plan)} runs on {task.title}, {updates} updates of {options.batch_size} sequences")
    start = time.perf_counter()
    try:
        for done, (s, rate, side) in enumerate(plan, start=1):
            seed = options.seed + s
            model = build(side.cell, side.hidden_size, task, options, seed)
            side.runs[rate].append(list(fit(model, tasks[s], options, rate, seed, every)))
            seconds = time.perf_counter() - start
            left = seconds / done * (len(plan) - done)
            error = f"{side.runs[rate][-1][-1].validation_mse:.3g}"
            print(
                f"run {done:2d} of {len(plan)}: {side.name:9}rate {rate:<9.3g}seed {seed}  "
                f"validation MSE {error:9}  {seconds:4.0f} s, about {left:.0f} s left",
                flush=True,
            )
    finally:  # a comparison that is broken off still shows what is complete
        sides = [side for side in sides if any(side.runs.values())]
        if sides:
            print_comparison(sides, task)
            path = options.plots_dir / f"gru_vs_lstm_{task.name}.png"
            plot_comparison(sides, task, path)
            print(f"figure: {shown(path)}")


def print_comparison(sides: list[Network], task: Task) -> None:
    """One row for each network and learning rate: median (smallest - largest) over the seeds."""
    settings = list(sides[0].milliseconds)
    print("\nmedian (range) of the seeds; * the rate with the smallest final MSE")
    print(f"the last columns: ms for one update ({', '.join(settings)})")
    below = f"updates to MSE < {task.threshold:.2g}"
    print(
        f"{'network':8}{'weights':>8}  {'rate':8}{below:>25}{'final MSE':>34}"
        + "".join(f"{setting:>11}" for setting in settings)
    )
    for side in sides:
        for rate, runs in side.runs.items():
            if not runs:
                continue
            updates = spread([first_below(records, task.threshold) for records in runs], ".0f")
            final = spread(final_mses(runs), ".3g")
            marked = f"{rate:.3g}{'*' if rate == side.best_rate() else ''}"
            print(
                f"{side.name:8}{side.parameters:8d}  {marked:8}{updates:>25}{final:>34}"
                + "".join(f"{side.milliseconds[setting]:11.2f}" for setting in settings)
            )
    for name, value in task.references.items():
        print(f"{name}: MSE {value:.5f}")


def spread(values: Sequence[float], form: str) -> str:
    """Median (smallest - largest), with `never` for infinity."""
    shown = [
        "never" if math.isinf(value) else format(value, form)
        for value in (statistics.median(values), min(values), max(values))
    ]
    return f"{shown[0]} ({shown[1]} - {shown[2]})"


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


def plot_training_curve(records: Sequence[Record], name: str, task: Task, path: Path) -> None:
    """Training and validation MSE by epoch."""
    with rc_context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        epochs = range(1, len(records) + 1)
        axes.plot(epochs, [r.train_mse for r in records], "o-", color=BLUE, ms=3, label="training")
        validation = [r.validation_mse for r in records]
        axes.plot(epochs, validation, "o-", color=RED, ms=3, label="validation")
        draw_references(axes, task)
        axes.set(xlabel="epoch", ylabel="mean squared error")
        axes.set_title(f"nn.{name} on {task.title}")
        axes.legend(ncols=2)
        save(figure, path)


def draw_references(axes: Axes, task: Task) -> None:
    """A log axis, with a horizontal line for each MSE that the task compares with."""
    for (name, value), style in zip(task.references.items(), ("-.", "--", ":")):
        if value > 0:  # neither NaN nor zero, which a log axis can't show
            axes.axhline(value, color="black", ls=style, lw=1, label=name)
    axes.set_yscale("log")
    # Label 2, 3, 6 of a decade too if the axis spans fewer than three.
    axes.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(3, 0.4)))


def plot_forecast(
    model: nn.Module,
    series: torch.Tensor,
    clean: torch.Tensor | None,
    window: int,
    task: Task,
    path: Path,
) -> None:
    """One-step predictions above; below, apart from them, a free-running forecast.

    series and clean (length, 1) are as the network sees them; the figure is in the data's units.
    """
    steps = min(len(series) - window, 2 * PERIOD)  # of the free-running forecast
    ahead, free = one_step(model, series, window), free_running(model, series[:window], steps)
    titles = (
        "One step ahead: the network sees the data up to the step before",
        "Free-running: after the first window it sees only its own predictions",
    )

    def units(values: torch.Tensor) -> np.ndarray:
        return task.mean + task.scale * values.numpy()

    with rc_context(STYLE):
        figure = Figure(figsize=(7.0, 5.2))
        both = figure.subplots(2, sharey=True)
        for axes, title, prediction in zip(both, titles, (ahead, free)):
            end = window + len(prediction)
            if clean is not None:
                axes.plot(units(clean[:end, 0]), color=GREY, lw=1, label="without noise")
            axes.plot(units(series[:end, 0]), ".", color=GREY, ms=4, label="data")
            axes.plot(range(window, end), units(prediction), color=RED, label="prediction")
            axes.axvline(window - 0.5, color="black", lw=0.8, ls=":")
            axes.set(title=title, ylabel="value")
            axes.margins(y=0.25)
        both[0].legend(ncols=3, loc="upper right")
        both[1].set_xlabel("step")
        save(figure, path)


def plot_comparison(sides: list[Network], task: Task, path: Path) -> None:
    """Validation MSE by update: the median of the seeds and their range, each at its best rate."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7.0, 4.8))
        axes = figure.subplots()
        for side, color in zip(sides, (BLUE, RED, GREEN)):
            runs = side.runs[side.best_rate()]
            updates = [record.update for record in runs[0]]
            errors = np.array([[record.validation_mse for record in records] for records in runs])
            label = f"{side.name}, {side.parameters} parameters, rate {side.best_rate():.2g}"
            axes.fill_between(updates, errors.min(0), errors.max(0), color=color, alpha=0.2, lw=0)
            axes.plot(updates, np.median(errors, axis=0), color=color, label=label)
        draw_references(axes, task)
        axes.axhline(task.threshold, color=GREY, lw=0.8, label=f"learned: {task.threshold:.2g}")
        axes.set(xlabel="update", ylabel="validation MSE")
        axes.set_title(f"GRU and LSTM on {task.title}: median and range of {SEEDS} seeds")
        figure.legend(loc="outside lower center", ncols=2, fontsize="small")
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


def pick_device(name: str) -> torch.device:
    """An argparse type: the device of that name; auto is CUDA, then MPS, then the CPU."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(device for device in there if there[device]))
    if not there.get(name, False):
        found = ", ".join(device for device in there if there[device])
        raise argparse.ArgumentTypeError(
            f"expected auto or one of those here ({found}), got {name!r}"
        )
    return torch.device(name)


# What the options default to on sine waves (and one's own series), and on the adding problem.
DEFAULTS = {
    "sine": dict(epochs=30, batch_size=32, hidden_size=32, seq_len=30, learning_rate=0.03),
    "adding": dict(epochs=1, batch_size=64, hidden_size=64, seq_len=50, learning_rate=0.01),
}
SEQUENCES = {"sine": 1000, "adding": 64 * 1200}  # for training


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the options; a wrong one, or data that won't do, exits with status 2 and one line."""
    parser = OneLineParser(
        description="Train nn.GRU (or nn.LSTM) to predict the next step, or compare the two.",
        allow_abbrev=False,
    )

    def add(name: str, text: str, **settings) -> None:
        key = name[2:].replace("-", "_")
        default = settings.get("default")
        if key in DEFAULTS["sine"]:
            default = "{}, adding: {}".format(*(DEFAULTS[task][key] for task in DEFAULTS))
        shown = "" if default is None else f" (default: {default})"
        parser.add_argument(name, help=text + shown, **settings)

    add("--cell", "the network to train", choices=("gru", "lstm"), default="gru")
    add("--compare", "train GRU and LSTM with three seeds and three rates", action="store_true")
    add("--task", "what to compare on", choices=("sine", "adding"), default="sine")
    add("--data", "your own series: a file with one number a line, or CSV", type=Path)
    add("--column", "the column of a CSV file with a header")
    add("--epochs", "passes over the training data", type=whole(1, 10**6))
    add("--batch-size", "sequences in an update", type=whole(1, 10**6))
    add("--hidden-size", "hidden units", type=whole(1, 10**5))
    add("--layers", "recurrent layers", type=whole(1, 100), default=1)
    add("--seq-len", "steps in a sequence", type=whole(2, 10**6))
    add("--noise", "standard deviation of the sine waves' noise", type=noise_level, default=0.05)
    add("--learning-rate", "Adam's first rate", type=positive)
    add("--clip", "largest gradient norm", type=positive, default=1.0)
    add("--seed", "seed of weights, data and order", type=whole(0, 10**9), default=0)
    add("--device", "auto, cuda, mps or cpu", type=pick_device, default="auto")
    plots = Path(__file__).resolve().parent / "plots"
    parser.add_argument("--plots-dir", type=Path, default=plots, help="folder for the figures")
    add("--quick", "a smoke run: two epochs of a few sequences", action="store_true")
    options = parser.parse_args(argv)

    if options.task == "adding" and not options.compare:
        parser.error("--task adding: expected --compare beside it")
    if options.task == "adding" and options.data is not None:
        parser.error("--task adding: expected no --data beside it")
    if options.column is not None and options.data is None:
        parser.error("--column: expected --data beside it")
    for name, value in DEFAULTS[options.task].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    options.sequences = SEQUENCES[options.task]
    if options.quick:
        options.epochs, options.sequences = min(options.epochs, 2), 128
    if options.data is not None:
        try:
            options.split = split_series(read_series(options.data, options.column), options.seq_len)
        except ValueError as error:
            parser.error(f"--data {options.data}: {error}")
    try:
        options.plots_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.plots_dir).close()
    except OSError as error:
        parser.error(f"--plots-dir: expected a folder that can be written to, got {error}")
    return options


def make_task(options: argparse.Namespace, seed: int) -> Task:
    """The data that the options ask for."""
    if options.data is not None:
        return series_task(options)
    return adding_task(options, seed) if options.task == "adding" else sine_task(options, seed)


def shown(path: Path) -> Path:
    """The path from the current folder, where it lies below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def demo(options: argparse.Namespace) -> None:
    """Train one network, print what it reached and draw its figures."""
    start = time.perf_counter()
    task = make_task(options, options.seed)
    model = build(options.cell, options.hidden_size, task, options, options.seed)
    plots = options.plots_dir / f"{options.cell}_pytorch{'_data' if options.data else ''}"
    print(
        f"nn.{options.cell.upper()} on {task.title}: {options.hidden_size} hidden units, "
        f"{len(task.train)} training and {len(task.validation)} validation sequences\n"
    )
    print(f"{'epoch':>12}{'training MSE':>16}{'validation MSE':>17}{'seconds':>10}")
    batches, records = math.ceil(len(task.train) / options.batch_size), []
    try:
        for record in fit(model, task, options, options.learning_rate, options.seed, batches):
            records.append(record)
            _, train_mse, validation_mse, seconds = record
            epoch = f"{len(records)} of {options.epochs}"
            print(f"{epoch:>12}{train_mse:16.5g}{validation_mse:17.5g}{seconds:10.1f}", flush=True)
    finally:  # a run that is broken off keeps its curve
        if records:
            plot_training_curve(
                records, options.cell.upper(), task, Path(f"{plots}_training_curve.png")
            )

    series, clean = forecast_series(options)
    plot_forecast(model, series, clean, options.seq_len, task, Path(f"{plots}_forecast.png"))
    print(f"\n{'validation MSE':17}{records[-1].validation_mse:<12.5g}", end="")
    best = task.references.get("best possible", math.nan)
    print(
        ""
        if math.isnan(best)
        else f"{records[-1].validation_mse / best:.2f} times the best possible"
    )
    for name, value in task.references.items():
        print(f"{name:17}{value:.5g}")
    if options.data is not None:
        print_own_units(model, series, options.seq_len, task)
    print(f"{'parameters':17}{parameter_count(model)}")
    print(f"{'seconds':17}{time.perf_counter() - start:.1f}   on {options.device}, one thread")
    print(f"{'figures':17}{shown(Path(f'{plots}_*.png'))}")


def forecast_series(options: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What to forecast, as the network sees it, and the same without noise if that is known.

    The validation part of one's own series, or a new wave: a window and two periods.
    """
    if options.data is not None:
        return options.split.validation, None
    generator = torch.Generator().manual_seed(options.seed + 10**9 + 1)
    noisy, clean = sine_waves(generator, 1, options.seq_len + 2 * PERIOD, options.noise)
    return noisy[0], clean[0]


def print_own_units(model: nn.Module, series: torch.Tensor, window: int, task: Task) -> None:
    """The error of one-step forecasts over the validation part, in the series' own units."""
    target = series[window:, 0]
    errors = {
        "RMSE": one_step(model, series, window) - target,
        "persistence RMSE": series[window - 1 : -1, 0] - target,
    }
    for name, error in errors.items():
        rmse = task.scale * error.square().mean().sqrt().item()
        print(f"{name:17}{rmse:<12.5g}in the series' own units")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line. Returns 0; 2: a wrong option; 1: a failed run; 130: Ctrl-C."""
    torch.set_num_threads(1)  # so small a network gains nothing from a second (--compare shows it)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the same numbers again on CUDA
    try:
        options = parse_options(argv)
    except SystemExit as stop:  # after --help, or an error of one line
        return stop.code
    try:
        (compare if options.compare else demo)(options)
    except KeyboardInterrupt:
        status, message = 130, f"interrupted; what was drawn so far is in {options.plots_dir}"
    except FloatingPointError as error:
        status, message = 1, f"{error}; what was drawn so far is in {options.plots_dir}"
    except (MemoryError, RuntimeError) as error:
        if "memory" not in str(error).lower():  # torch reports a lack of it as a RuntimeError
            raise
        status, message = 1, "not enough memory: try a smaller --hidden-size or --batch-size"
    except OSError as error:
        status, message = 1, f"could not write: {error}"
    else:
        return 0
    print(f"gru_pytorch.py: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
