"""nn.GRU with a linear head: on noisy sine waves, compared with LSTM, and on your own series.

    python gru_pytorch.py                             train on sine waves, save figures
    python gru_pytorch.py --compare                   GRU against LSTM on the sine waves
    python gru_pytorch.py --compare --task adding     the same on the adding problem
    python gru_pytorch.py --data FILE --column NAME   forecast your own series

Shapes, with batch_first=True: B sequences of T steps of F features are (B, T, F). The recurrent
layer gives (B, T, H), one hidden state a step, and the head (B, T, O): a prediction of the next
step at every step. h_0 and h_n stay (layers, B, H) whatever batch_first says.

nn.GRU is not the cell of gru_from_scratch.py: its z weighs the old state, and its reset gate acts
after the matrix product (README.md, "The same name, different cells").
"""

import argparse
import contextlib
import copy
import csv
import math
import os
import statistics
import sys
import time
import warnings
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

# --- Data ---------------------------------------------------------------------------------------

PERIOD = 30  # steps in one period of every sine wave


class NextStep(Dataset):
    """Sequences (N, T + 1, F) as pairs: the first T steps, and the same steps one later (or with
    only_last just the last of these, which is predicted from all others).
    """

    def __init__(self, sequences: torch.Tensor, only_last: bool = False) -> None:
        self.sequences, self.target_start = sequences, -1 if only_last else 1

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.sequences[i, :-1], self.sequences[i, self.target_start :]


def sine_waves(generator: torch.Generator, count: int, length: int, noise: float) -> torch.Tensor:
    """Waves sin(2 pi t / PERIOD + phase) + noise * N(0, 1): (count, length, 1)."""
    phase = 2 * math.pi * torch.rand(count, 1, generator=generator)
    clean = torch.sin(2 * math.pi * torch.arange(length) / PERIOD + phase)
    return (clean + noise * torch.randn(count, length, generator=generator))[:, :, None]


# --- Model --------------------------------------------------------------------------------------


class SequenceModel(nn.Module):
    """nn.GRU or nn.LSTM, then a linear head on the hidden state of every step."""

    def __init__(self, cell: str, input_size: int, hidden_size: int, layers: int = 1) -> None:
        super().__init__()
        recurrent = {"gru": nn.GRU, "lstm": nn.LSTM}[cell]
        self.recurrent = recurrent(input_size, hidden_size, layers, batch_first=True)
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, T, F) -> (B, T, 1), from a zero initial state."""
        h, _ = self.recurrent(x)  # (B, T, H)
        return self.head(h)


# --- Training and evaluation --------------------------------------------------------------------


Epoch = namedtuple("Epoch", "number train_mse validation_mse")  # mean over it; at its end


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor,
               y: torch.Tensor, max_norm: float) -> float:  # fmt: skip
    """One update. Returns the mean squared error before it, over the last steps that y has."""
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x)[:, -y.shape[1] :], y)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)  # after backward, before step
    optimizer.step()
    return loss.item()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[torch.device]:
    """Evaluation mode without gradients; afterwards the model is in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield next(model.parameters()).device
    finally:
        model.train(training)


def evaluate(model: nn.Module, loader: DataLoader) -> float:
    """Mean squared error over a data set: each batch counts by its size, as the last is smaller."""
    total = 0.0
    with evaluating(model) as device:
        for x, y in loader:
            prediction = model(x.to(device))[:, -y.shape[1] :]
            total += nn.functional.mse_loss(prediction, y.to(device)).item() * len(x)
    return total / len(loader.dataset)


def fit(model: nn.Module, train_loader: DataLoader, validation_loader: DataLoader, epochs: int,
        learning_rate: float, max_norm: float, record: Callable[[Epoch], None]):  # fmt: skip
    """Train with Adam, whose rate falls to zero as a cosine, calling record after every epoch; keep
    the weights of the smallest validation error. FloatingPointError if an error is not finite.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(train_loader))
    smallest, best_weights = evaluate(model, validation_loader), copy.deepcopy(model.state_dict())
    model.train()
    for number in range(1, epochs + 1):
        total = 0.0
        for x, y in train_loader:
            total += train_step(model, optimizer, x.to(device), y.to(device), max_norm) * len(x)
            schedule.step()
        train_mse = total / len(train_loader.sampler)
        validation_mse = evaluate(model, validation_loader)
        if not math.isfinite(train_mse + validation_mse):
            raise FloatingPointError(f"epoch {number}: error not finite; lower --learning-rate")
        record(Epoch(number, train_mse, validation_mse))
        if validation_mse < smallest:
            smallest, best_weights = validation_mse, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)


# --- Figures ------------------------------------------------------------------------------------

BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"  # safe for colour-blind eyes
STYLE = {"figure.dpi": 140, "figure.constrained_layout.use": True, "axes.ymargin": 0.1,
         "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}  # fmt: skip


@contextlib.contextmanager
def drawing(path: Path, rows: int = 1, height: float = 4.0, **layout) -> Iterator:
    """The axes of a new figure, which is saved to path when the with block ends."""
    with rc_context(STYLE):
        figure = Figure(figsize=(7.0, height))
        yield figure.subplots(rows, **layout)
        figure.savefig(path)


def plot_training_curve(history: list[Epoch], levels: dict[str, float], path: Path) -> None:
    """Training and validation MSE by epoch, the best epoch, and levels to compare with."""
    numbers, train_mses, validation_mses = zip(*history)
    best = min(history, key=lambda epoch: epoch.validation_mse)
    with drawing(path) as axes:
        axes.plot(numbers, train_mses, color=BLUE, label="training, mean of all steps")
        axes.plot(numbers, validation_mses, color=RED, label="validation, last step")
        axes.plot(best.number, best.validation_mse, "o", color=RED, label="best epoch")
        draw_levels(axes, levels)
        axes.set(xlabel="epoch", ylabel="mean squared error")
        axes.legend(ncols=2)


def draw_levels(axes, levels: dict[str, float]) -> None:
    """A log axis, with a named line for each level that it can show."""
    axes.set_yscale("log")
    axes.yaxis.set_minor_formatter(LogFormatterSciNotation(minor_thresholds=(3, 0.4)))
    for (name, level), style in zip(levels.items(), ("--", "-.", ":")):
        if level > 0:
            axes.axhline(level, color="black", ls=style, lw=1, label=name)


def plot_forecasts(panels: dict[str, tuple[np.ndarray, np.ndarray, int]], path: Path) -> None:
    """Title -> data, forecast and the step at which it starts; steps count from 0."""
    with drawing(path, rows=len(panels), height=5.4, sharey=True) as rows:
        for axes, (title, (data, forecast, start)) in zip(rows, panels.items()):
            axes.plot(data, ".-", color=GREY, ms=4, lw=0.5, label="data")
            axes.plot(range(start, start + len(forecast)), forecast, color=RED, label="forecast")
            axes.set(title=title, ylabel="value", xlabel="step")
        rows[0].legend(ncols=2)


# --- The sine waves -----------------------------------------------------------------------------


# What to learn: sets for training, validation and test, which share no target; the
# validation MSE below which it counts as learned; MSEs to compare with; and whether the head begins
# with zeros, so that the untrained network predicts 0.
Task = namedtuple("Task", "train validation test learned levels zero_head", defaults=[False])
# A network and how to train it. The seed is that of the first weights and of the order.
Setup = namedtuple("Setup", ["cell", "hidden_size", "layers", "epochs", "batch_size",
                             "learning_rate", "clip", "seed", "device"])  # fmt: skip


def build(task: Task, setup: Setup) -> SequenceModel:
    """A new network."""
    torch.manual_seed(setup.seed)
    features = task.train[0][0].shape[-1]
    model = SequenceModel(setup.cell, features, setup.hidden_size, setup.layers)
    if task.zero_head:
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
    return model.to(setup.device)


def sine_task(seed: int, seq_len: int, noise: float, count: int) -> Task:
    """Next-step prediction on noisy sine waves; learned: 1.5 times the best possible MSE."""
    generator = torch.Generator().manual_seed(seed)
    sets = [sine_waves(generator, n, seq_len + 1, noise) for n in (count, count, 4 * count)]
    # T noisy values tell the phase to a variance of 2 noise^2 / T; times cos^2, 1/2 on average.
    best = noise**2 * (1 + 1 / seq_len)
    levels = {"best possible": best} if seq_len % PERIOD == 0 else {}
    levels["persistence"] = (sets[2][:, -1] - sets[2][:, -2]).square().mean().item()
    return Task(*map(NextStep, sets, (False, True, True)), 1.5 * best or 0.001, levels)


def train(task: Task, setup: Setup, record: Callable[[Epoch], None], every: int | None = None):
    """Train a new network; an epoch is a pass over the training set, or `every` updates."""
    epochs, count = setup.epochs, None
    if every is not None:
        epochs = math.ceil(epochs * math.ceil(len(task.train) / setup.batch_size) / every)
        count = every * setup.batch_size
    order = torch.Generator().manual_seed(setup.seed)
    sampler = RandomSampler(task.train, num_samples=count, generator=order)
    loaders = (DataLoader(task.train, setup.batch_size, sampler=sampler),
               DataLoader(task.validation, 256))  # fmt: skip
    model = build(task, setup)
    fit(model, *loaders, epochs, setup.learning_rate, setup.clip, record)
    return model


def show_training(task: Task, setup: Setup, curve: Path) -> SequenceModel:
    """Train, and print and draw how it goes."""
    history, start = [], time.perf_counter()

    def record(epoch: Epoch) -> None:
        history.append(epoch)
        if epoch.number == setup.epochs or epoch.number % math.ceil(setup.epochs / 10) == 0:
            seconds = time.perf_counter() - start
            print(f"{epoch[0]:8d}{epoch[1]:15.5f}{epoch[2]:17.5f}{seconds:10.1f}", flush=True)

    print(f"{'epoch':>8}{'training MSE':>15}{'validation MSE':>17}{'seconds':>10}", flush=True)
    try:
        return train(task, setup, record)
    finally:
        if history:  # a run that is broken off keeps its curve
            plot_training_curve(history, task.levels, curve)


def one_step(model: nn.Module, series: torch.Tensor, window: int) -> torch.Tensor:
    """Predict each step of series (length, 1) from the window of true values before it."""
    windows = series[:-1].unfold(0, window, 1).transpose(1, 2)  # (length - window, window, 1)
    with evaluating(model) as device:
        return torch.cat([model(part.to(device))[:, -1, 0].cpu() for part in windows.split(1024)])


def free_running(model: nn.Module, start: torch.Tensor, steps: int) -> torch.Tensor:
    """Continue start (window, 1): predict a step, append it to the window, drop the oldest."""
    with evaluating(model) as device:
        series = start.to(device)
        for _ in range(steps):
            prediction = model(series[None, -len(start) :])[0, -1:]  # (1, 1)
            series = torch.cat([series, prediction])
    return series[len(start) :, 0].cpu()


def sine_demo(task: Task, setup: Setup, seq_len: int, noise: float, plots: str) -> None:
    """Train one network on the sine waves, print what it reached and draw its figures."""
    model = show_training(task, setup, Path(f"{plots}_training_curve.png"))
    generator = torch.Generator().manual_seed(setup.seed + 10**9)  # for a wave that is in no set
    wave = sine_waves(generator, 1, seq_len + 2 * PERIOD, noise)[0]
    ahead, free = one_step(model, wave, seq_len), free_running(model, wave[:seq_len], 2 * PERIOD)
    panels = {
        "One step ahead: each forecast sees the data before it": (wave, ahead, seq_len),
        "Free-running: the first window, then its own forecasts": (wave, free, seq_len),
    }
    plot_forecasts(panels, Path(f"{plots}_forecast.png"))
    mse, best = evaluate(model, DataLoader(task.test, 256)), task.levels.get("best possible", 0)
    ratio = f"   {mse / best:.2f} times the best possible" if best > 0 else ""
    print(f"\ntest MSE        {mse:.5f}{ratio}")
    for name, level in task.levels.items():
        print(f"{name:16}{level:.5f}")


# --- GRU against LSTM ---------------------------------------------------------------------------

SEEDS = 3  # runs of each network at each learning rate
RATES = (1 / 3, 1, 3)  # times the task's learning rate
EVERY = 10  # updates between two measurements


def adding_task(seed: int, seq_len: int, count: int) -> Task:
    """The adding problem (Hochreiter & Schmidhuber 1997): a step holds a number from U(0, 1) and a
    mark, 1 at one step of either half and else 0; the target is the sum of the two marked numbers.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> TensorDataset:
        numbers = torch.rand(count, seq_len, generator=generator)
        first = torch.randint(0, seq_len // 2, (count, 1), generator=generator)
        second = torch.randint(seq_len // 2, seq_len, (count, 1), generator=generator)
        marks = torch.zeros(count, seq_len).scatter_(1, torch.cat([first, second], dim=1), 1.0)
        x, sums = torch.stack([numbers, marks], dim=2), (numbers * marks).sum(dim=1)
        return TensorDataset(x, sums[:, None, None])

    levels = {"always answering 1": 1 / 6}  # the variance of the sum of two such numbers
    return Task(draw(count), draw(1000), draw(1000), 0.01, levels)


# What one training reached; both errors are infinite if it diverged. An epoch is EVERY updates.
# Below, runs holds a list of them, one for each seed, by network and learning rate.
Run = namedtuple("Run", "history validation_mse test_mse")


def compare(make_task: Callable[[int], Task], setup: Setup, path: Path) -> None:
    """Train GRU, LSTM and an LSTM of about the GRU's parameters, at every learning rate with every
    seed (--seed 1 has none of the seeds of --seed 0); print a table and draw a figure.
    """
    seeds = range(SEEDS * setup.seed, SEEDS * (setup.seed + 1))
    tasks = {seed: make_task(seed) for seed in seeds}
    task, H = tasks[seeds[0]], setup.hidden_size
    smaller = max(1, round(H * math.sqrt(3 / 4)))  # an LSTM has 4 blocks of weights, a GRU 3
    networks = {f"{cell.upper()} {size}": setup._replace(cell=cell, hidden_size=size)
                for cell, size in (("gru", H), ("lstm", H), ("lstm", smaller))}  # fmt: skip
    costs = time_updates(networks, task)
    plan = [(seed, factor * setup.learning_rate, name)
            for seed in seeds for factor in RATES for name in networks]  # fmt: skip
    runs, start = {}, time.perf_counter()
    try:
        for done, (seed, rate, name) in enumerate(plan, start=1):
            history, one = [], networks[name]._replace(learning_rate=rate, seed=seed)
            try:
                model = train(tasks[seed], one, history.append, EVERY)
                sets = tasks[seed].validation, tasks[seed].test
                run = Run(history, *(evaluate(model, DataLoader(part, 256)) for part in sets))
            except FloatingPointError:
                run = Run(history, math.inf, math.inf)
            runs.setdefault((name, rate), []).append(run)
            left = (time.perf_counter() - start) / done * (len(plan) - done)
            what = f"{name}, rate {rate:.3g}, seed {seed}: validation MSE {run.validation_mse:.3g}"
            print(f"{done} of {len(plan)}: {what}, about {left:.0f} s left", flush=True)
    finally:  # a comparison that is broken off still shows what is complete
        if runs:
            print_comparison(runs, costs, task)
            plot_comparison(runs, task, path)


def time_updates(networks: dict[str, Setup], task: Task) -> dict[str, list[float]]:
    """Parameters, and milliseconds of an update (medians, the networks taking turns); on a CPU also
    without oneDNN, in which PyTorch has a fused kernel for LSTM and none for GRU.
    """
    warnings.filterwarnings("ignore", "TF32")  # of other devices, when oneDNN is switched
    models = {name: build(task, setup) for name, setup in networks.items()}
    optimizers = {name: torch.optim.Adam(models[name].parameters()) for name in models}
    setup = next(iter(networks.values()))
    x, y = (part.to(setup.device) for part in next(iter(DataLoader(task.train, setup.batch_size))))
    settings = (True, False) if setup.device == "cpu" else (True,)
    times = {(name, onednn): [] for onednn in settings for name in networks}
    for name, onednn in 20 * list(times):
        with torch.backends.mkldnn.flags(enabled=onednn):
            start = time.perf_counter()
            for _ in range(5):
                train_step(models[name], optimizers[name], x, y, setup.clip)
            times[name, onednn].append(1000 * (time.perf_counter() - start) / 5)
    medians = {key: statistics.median(measured) for key, measured in times.items()}
    count = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    return {name: [count[name], *(medians[name, on] for on in settings)] for name in networks}


def chosen(runs: dict) -> dict:
    """Of each network the runs at the learning rate with the smallest median validation MSE."""
    best = {}
    for (name, rate), of_rate in runs.items():
        median = statistics.median(run.validation_mse for run in of_rate)
        best[name] = min(best.get(name, (math.inf, rate)), (median, rate))
    return {(name, rate): runs[name, rate] for name, (_, rate) in best.items()}


def spread(values: list[float], form: str, infinite: str) -> str:
    """Median (smallest - largest), with a word for infinity."""
    three = statistics.median(values), min(values), max(values)
    texts = [infinite if math.isinf(value) else format(value, form) for value in three]
    return f"{texts[0]} ({texts[1]} - {texts[2]})"


def print_comparison(runs: dict, costs: dict[str, list[float]], task: Task) -> None:
    """A row for each network at its chosen rate, then a row for every network and rate."""
    head = f"{'network':9}{'weights':>8}  {'rate':9}{f'updates to {task.learned:.2g}':>24}"
    head += f"{'test MSE':>32}{'ms':>8}{'s':>8}{'ms*':>8}{'s*':>8}"
    print("\nMedian (range) of the seeds; ms of an update, s until learned, * without oneDNN (CPU)")
    others = {key: runs[key] for key in runs if key not in chosen(runs)}
    for title, shown in (("At the rate chosen on validation", chosen(runs)), ("Others", others)):
        print(f"\n{title}\n{head}")
        for (name, rate), of_rate in shown.items():
            below = ((e.number for e in run.history if e.validation_mse < task.learned)
                     for run in of_rate)  # fmt: skip
            updates = [EVERY * next(numbers, math.inf) for numbers in below]
            weights, *milliseconds = costs[name]
            row = f"{name:9}{weights:8d}  {rate:<9.3g}{spread(updates, '.0f', 'never'):>24}"
            row += f"{spread([run.test_mse for run in of_rate], '.3g', 'diverged'):>32}"
            for ms in milliseconds:
                row += f"{ms:8.2f}{ms / 1000 * statistics.median(updates):8.2f}"
            print(row)
    for name, level in task.levels.items():
        print(f"{name}: MSE {level:.5f}")


def plot_comparison(runs: dict, task: Task, path: Path) -> None:
    """Validation MSE by update, each network at its chosen rate: median and range of the seeds."""
    with drawing(path, height=4.8) as axes:
        for ((name, rate), of_rate), color in zip(chosen(runs).items(), (BLUE, RED, GREEN)):
            histories = [run.history for run in of_rate if run.test_mse < math.inf]
            if histories:
                mses = np.array([[e.validation_mse for e in history] for history in histories])
                updates = EVERY * np.arange(1, mses.shape[1] + 1)
                label = f"{name}, rate {rate:.2g}, median and range of {len(mses)} seeds"
                axes.fill_between(updates, mses.min(0), mses.max(0), color=color, alpha=0.2, lw=0)
                axes.plot(updates, np.median(mses, axis=0), color=color, label=label)
        draw_levels(axes, task.levels | {"learned": task.learned})
        axes.set(xlabel="update", ylabel="validation MSE")
        axes.legend(fontsize="small")


# --- Your own series ----------------------------------------------------------------------------


class DataError(Exception):
    """A series that cannot be used; the message says what would do."""


def read_series(path: Path, column: str | None) -> np.ndarray:
    """The numbers of a text file, one a line, or of a column of a CSV file with a header."""
    try:
        text = path.read_text(encoding="utf-8-sig").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"expected a text file in UTF-8, got {error}") from None
    cells, first_line, hint = text.splitlines(), 1, "; for a table, add --column NAME"
    if column is not None:
        try:
            dialect = csv.Sniffer().sniff(text[:4096], ",;\t")
        except csv.Error:  # nothing separates, as in a table of one column
            dialect = csv.excel
        header, *rows = csv.reader(cells or [""], dialect)
        names = [name.strip() for name in header]
        if column not in names:
            raise DataError(f"expected one of the columns {', '.join(names):.200}, got {column!r}")
        cells = [row[names.index(column)] if len(row) == len(names) else "" for row in rows]
        first_line, hint = 2, ""
    values = []
    for line, cell in enumerate(cells, first_line):
        try:
            values.append(float(cell))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise DataError(f"line {line}: expected a number like 1.5, got {cell!r:.40}{hint}")
    return np.array(values)


def series_task(values: np.ndarray, seq_len: int) -> tuple[Task, torch.Tensor, float]:
    """Next-step prediction of the changes of a series: by time, 70 % of it is to train on, 15 % to
    choose by, 15 % to report on. Returns also the changes (N - 1, 1) in a unit, and that unit.
    """
    count, enough = len(values), math.ceil(10 * (seq_len + 2) / 7)
    if count < enough:
        raise DataError(f"expected at least {enough} values for --seq-len {seq_len}, got {count}")
    train_end, test_start, changes = count * 70 // 100, count * 85 // 100, np.diff(values)
    unit = math.sqrt(np.mean(changes[: train_end - 1] ** 2))  # of the training part alone
    if unit == 0 or not math.isfinite(unit):
        raise DataError("expected numbers that vary in the first 70 % of the series")
    x = torch.tensor(changes / unit, dtype=torch.float32)[:, None]
    windows = x.unfold(0, seq_len + 1, 1).transpose(1, 2)  # the last step of each is a target
    sizes = [train_end - 1 - seq_len, test_start - train_end, count - test_start]
    train, validation, test = windows.split(sizes)
    train = train[:: math.ceil(len(train) / 1000)]  # of a long series, 1000 windows at most
    learned, persistence = (part[:, -1].square().mean().item() for part in (validation, test))
    sets = NextStep(train), NextStep(validation, True), NextStep(test, True)
    return Task(*sets, learned, {"persistence": persistence}, zero_head=True), x, unit


def linear_forecast(values: np.ndarray, window: int, train_end: int) -> np.ndarray:
    """Forecast each value from step window on by least squares on the window before it."""
    windows = np.lib.stride_tricks.sliding_window_view(values - values[0], window + 1)
    x = np.hstack([windows[:, :-1], np.ones((len(windows), 1))])
    fitted = slice(0, train_end - window, math.ceil((train_end - window) / 100_000))
    weights, *_ = np.linalg.lstsq(x[fitted], windows[fitted, -1], rcond=None)
    return x @ weights + values[0]


def series_demo(values: np.ndarray, seq_len: int, setup: Setup, plots: str) -> None:
    """Forecast one's own series: the last value plus the change that the network predicts."""
    task, x, unit = series_task(values, seq_len)
    model = show_training(task, setup, Path(f"{plots}_training_curve.png"))
    start, N = len(values) - len(task.test), len(values)
    truth, before = values[start:], values[start - 1 : -1]
    ahead = before + unit * one_step(model, x[start - 1 - seq_len :], seq_len).numpy()
    future = values[-1] + unit * free_running(model, x[-seq_len:], seq_len).numpy().cumsum()
    recent = values[-3 * seq_len :]
    panels = {
        "The test part, one step ahead": (truth, ahead, 0),
        "What comes next: free-running from the last window": (recent, future, len(recent)),
    }
    plot_forecasts(panels, Path(f"{plots}_forecast.png"))
    with Path(f"{plots}_forecast.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", "value", "forecast"])
        table.writerows(zip(range(start + 1, N + 1), truth, ahead))
        table.writerows((N + i, "", value) for i, value in enumerate(future, start=1))

    linear = linear_forecast(values, seq_len + 1, N * 70 // 100)[-len(truth) :]
    forecasts = {"test RMSE": ahead, "persistence": before, "linear": linear}
    rmse = {name: np.sqrt(np.mean((each - truth) ** 2)) for name, each in forecasts.items()}
    print(*(f"\n{name:16}{value:.5g}" for name, value in rmse.items()), sep="")
    ratios = [(name, rmse["test RMSE"] / rmse[name]) for name in ("persistence", "linear")]
    verdict = [f"{abs(ratio - 1):.0%} {'below' if ratio < 1 else 'above'} {name}" if ratio < 2
               else f"{ratio:.3g} times {name}" for name, ratio in ratios]  # fmt: skip
    print(f"The {setup.cell.upper()}'s error is {' and '.join(verdict)}.")


# --- The command line ---------------------------------------------------------------------------

OPTIONS = {  # name: (type, least value, defaults of the modes sine, adding and data, meaning)
    "epochs": (int, 1, 30, 1, 100, "passes over the training data"),
    "batch_size": (int, 1, 32, 64, 32, "sequences in an update"),
    "hidden_size": (int, 1, 32, 64, 32, "hidden units"),
    "layers": (int, 1, 1, 1, 1, "recurrent layers"),
    "seq_len": (int, 2, 30, 50, 12, "steps in a sequence"),
    "learning_rate": (float, 1e-9, 0.03, 0.01, 0.005, "Adam's first rate, which falls to zero"),
    "clip": (float, 1e-9, 1.0, 1.0, 1.0, "largest norm of the gradient"),
    "noise": (float, 0, 0.05, None, None, "standard deviation of the sine waves' noise"),
    "seed": (int, 0, 0, 0, 0, "seed of weights, data and order"),
}


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """Read the options; a wrong one ends the program with status 2 before any work."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    devices = [*(device for device in there if there[device]), "cpu"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    either = parser.add_mutually_exclusive_group().add_argument
    either("--cell", choices=("gru", "lstm"), default="gru", help="what to train (default: gru)")
    either("--compare", action="store_true", help="train GRU and LSTM, 3 seeds at 3 rates each")
    either = parser.add_mutually_exclusive_group().add_argument
    either("--task", choices=("sine", "adding"), default="sine", help="(default: sine)")
    either("--data", type=Path, help="your own series: a file with one number a line, or CSV")
    add = parser.add_argument
    add("--column", help="the column of a CSV file with a header")
    for name, (kind, _, *defaults, text) in OPTIONS.items():
        text += " (default: sine {}, adding {}, data {})".format(*defaults)
        add("--" + name.replace("_", "-"), type=kind, help=text)
    add("--device", choices=devices, default=devices[0], help="default: %(default)s")
    add("--plots-dir", type=Path, default=Path(__file__).resolve().parent / "plots", help="figures")
    add("--quick", action="store_true", help="a smoke run, drawn in plots/quick")
    options = parser.parse_args(argv)
    if options.column is not None and options.data is None:
        parser.error("--column: expected --data beside it")
    if options.task == "adding" and not options.compare:
        parser.error("--task adding: expected --compare beside it")
    options.mode = options.task if options.data is None else "data"
    mode = ("sine", "adding", "data").index(options.mode)
    for name, (_, least, *defaults, _) in OPTIONS.items():
        value, default = getattr(options, name), defaults[mode]
        if value is None:
            setattr(options, name, default)
        elif default is None:
            parser.error(f"--{name} has no effect on {options.mode}")
        elif not least <= value < math.inf:
            parser.error(f"--{name.replace('_', '-')}: expected at least {least:g}, got {value:g}")
    if options.quick:
        options.epochs, options.plots_dir = min(options.epochs, 2), options.plots_dir / "quick"
    try:
        options.plots_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"--plots-dir: expected a folder, got {error}")
    return options


def main(argv: list[str] | None = None) -> None:
    """Run the command line. Status 2: wrong options or data; 1: it diverged; 130: Ctrl-C."""
    torch.set_num_threads(1)  # so small a network gains nothing from a second
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the same numbers again on CUDA
    o = parse_options(argv)
    setup = Setup(*(getattr(o, name) for name in Setup._fields))
    plots = str(o.plots_dir / f"{setup.cell}_pytorch")
    try:
        values = read_series(o.data, o.column) if o.mode == "data" else None
        make_task = {
            "sine": lambda seed: sine_task(seed, o.seq_len, o.noise, 128 if o.quick else 1000),
            "adding": lambda seed: adding_task(seed, o.seq_len, 128 if o.quick else 64 * 1200),
            "data": lambda seed: series_task(values, o.seq_len)[0],
        }[o.mode]
        if o.compare:
            compare(make_task, setup, o.plots_dir / f"gru_vs_lstm_{o.mode}.png")
        elif o.mode == "data":
            series_demo(values, o.seq_len, setup, f"{plots}_data")
        else:
            sine_demo(make_task(o.seed), setup, o.seq_len, o.noise, plots)
    except (DataError, csv.Error) as error:
        print(f"gru_pytorch.py: error: --data {o.data}: {error}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        sys.exit(f"gru_pytorch.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
