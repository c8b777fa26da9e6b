"""nn.GRU with a linear head: on noisy sine waves, on your own series, and compared with LSTM.

    python gru_pytorch.py                             train on sine waves, save figures
    python gru_pytorch.py --data FILE --column NAME   forecast your own series
    python gru_pytorch.py --compare                   GRU against LSTM on the sine waves
    python gru_pytorch.py --compare --task adding     the same on the adding problem

Shapes, with batch_first=True: B sequences of T steps of F features are (B, T, F). The recurrent
layer gives (B, T, H), one hidden state a step, and the head (B, T, 1): a prediction of the next
step at every step. h_0 and h_n stay (layers, B, H) whatever batch_first says.

nn.GRU is not the cell of gru_from_scratch.py: its z weighs the old state, and its reset gate acts
after the matrix product (README.md, "The same name, different cells").
"""

import argparse
import contextlib
import copy
import csv
import glob
import io
import itertools
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib import style
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

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


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor,
               y: torch.Tensor, max_norm: float) -> float:  # fmt: skip
    """One update, by the mean squared error of all steps of y, which belong to the last ones of x.
    Returns the error of the last step alone, before the update: what evaluate measures.
    """
    optimizer.zero_grad()
    prediction, _ = model(x)
    errors = (prediction[:, -y.shape[1] :] - y) ** 2
    errors.mean().backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_norm)  # after backward, before step
    optimizer.step()
    return errors[:, -1].mean().item()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator:
    """Evaluation mode without gradients; then the model is in the mode again that it was in."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def evaluate(model: nn.Module, batches: Iterable) -> float:
    """Mean squared error of the last step. Batches count by their size, as the last is smaller."""
    device, total, count = next(model.parameters()).device, 0.0, 0
    with evaluating(model):
        for x, y in batches:
            prediction, _ = model(x.to(device))
            total += ((prediction[:, -1] - y[:, -1].to(device)) ** 2).sum().item()
            count += len(x)
    return total / count


@dataclass
class Measurement:
    """Mean squared errors of the last step, after so many updates. That of training is the mean
    since the measurement before; at 0 updates both are of the untrained network.
    """

    updates: int
    train_mse: float
    validation_mse: float


def fit(model: nn.Module, train_loader: DataLoader, validation_loader: DataLoader, updates: int,
        every: int, learning_rate: float, max_norm: float, record: Callable[[Measurement], None],
        stop: int | None = None) -> list[Measurement]:  # fmt: skip
    """Train with Adam for so many updates, in passes over the loader, while the learning rate falls
    to zero as a cosine. Measure after every so many of them, and keep the weights with the smallest
    validation error. With stop it ends earlier on the same schedule.

    Returns the measurements, of which the first is of the untrained network, and calls record with
    each of them. Raises FloatingPointError if one is not finite.
    """
    device = next(model.parameters()).device
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    history, best, total, count = [], copy.deepcopy(model.state_dict()), 0.0, 0

    def measure(k: int, train_mse: float) -> None:
        row = Measurement(k, train_mse, evaluate(model, validation_loader))
        if not math.isfinite(row.train_mse + row.validation_mse):
            raise FloatingPointError(f"{k} updates: error not finite; lower --learning-rate")
        history.append(row)
        record(row)

    model.train()
    measure(0, evaluate(model, itertools.islice(train_loader, every)))
    last = updates if stop is None else stop
    passes = itertools.chain.from_iterable(itertools.repeat(train_loader))  # each in a new order
    for k, (x, y) in enumerate(itertools.islice(passes, last), start=1):
        total += len(x) * train_step(model, optimizer, x.to(device), y.to(device), max_norm)
        count += len(x)
        schedule.step()
        if k % every == 0 or k == last:
            measure(k, total / count)
            total, count = 0.0, 0
            if history[-1] is best_of(history):
                best = copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return history


def best_of(history: list[Measurement]) -> Measurement:
    """The measurement with the smallest validation error, the first of equal ones."""
    return min(history, key=lambda each: each.validation_mse)


def free_running(model: nn.Module, series: torch.Tensor, steps: int) -> torch.Tensor:
    """Continue series (B, T, 1): predict a step, append it, drop the oldest. Returns (B, steps)."""
    T = series.shape[1]
    with evaluating(model):
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
    """Sets that share no target; errors to compare with, by name; and the validation error below
    which a network has learned, or None.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    levels: dict[str, float]
    learned: float | None


def sine_waves(generator: torch.Generator, count: int, length: int, noise: float) -> torch.Tensor:
    """Waves sin(2 pi t / PERIOD + phase) + noise * N(0, 1): (count, length, 1)."""
    phase = 2 * math.pi * torch.rand(count, 1, generator=generator)
    clean = torch.sin(2 * math.pi * torch.arange(length) / PERIOD + phase)
    return (clean + noise * torch.randn(count, length, generator=generator))[:, :, None]


def sine_task(options: Options, seed: int) -> Task:
    """Next-step prediction on sine waves; learned means 1.5 times the best possible error."""
    generator, T, noise = torch.Generator().manual_seed(seed), options.seq_len, options.noise
    count = 128 if options.quick else 1000
    waves = [sine_waves(generator, n, T + 1, noise) for n in (count, count, 4 * count)]
    # T values with small noise tell the phase to a variance of 2 noise^2 / T, which moves the next
    # value by the square of its slope, 1/2 on average.
    best = noise**2 * (1 + 1 / T)
    levels = {"best possible": best} if T % PERIOD == 0 and 0 < noise < 1 else {}
    levels["persistence"] = (waves[2][:, -1] - waves[2][:, -2]).square().mean().item()
    return Task(*map(NextStep, waves), levels, 1.5 * best or 0.001)


def new_network(options: Options, task: Task, seed: int, zero_head: bool = False) -> SequenceModel:
    """With the first weights of this seed; with zero_head it answers 0 until it is trained."""
    torch.manual_seed(seed)
    features = task.train[0][0].shape[-1]
    model = SequenceModel(options.cell, features, options.hidden_size, options.layers)
    if zero_head:
        nn.init.zeros_(model.head.weight)
        nn.init.zeros_(model.head.bias)
    return model.to(options.device)


def updates_per_epoch(task: Task, options: Options) -> int:
    """Those of a pass over the training set; of one's own series, over 1000 windows at most."""
    count = len(task.train)
    return math.ceil((min(count, 1000) if options.mode == "data" else count) / options.batch_size)


def train(model: nn.Module, task: Task, options: Options, curve: Path) -> list[Measurement]:
    """fit by the options, and measure after every epoch; print progress and draw the curve."""
    order, history = torch.Generator().manual_seed(options.seed), []
    loader = DataLoader(task.train, options.batch_size, shuffle=True, generator=order)
    epoch = updates_per_epoch(task, options)
    shown = epoch * math.ceil(options.epochs / 10)

    def record(row: Measurement) -> None:
        history.append(row)
        if row.updates % shown == 0 or row.updates == options.epochs * epoch:
            print(f"{row.updates:8d}{row.train_mse:15.4g}{row.validation_mse:17.4g}", flush=True)

    print(f"{'update':>8}{'training MSE':>15}{'validation MSE':>17}", flush=True)
    try:
        return fit(model, loader, DataLoader(task.validation, 256), options.epochs * epoch, epoch,
                   options.learning_rate, options.clip, record)  # fmt: skip
    finally:
        if len(history) > 1:  # a run that is broken off keeps its curve
            levels = {name: level for name, level in task.levels.items() if "on test" not in name}
            plot_curve(history, levels, curve)


def plot_curve(history: list[Measurement], levels: dict[str, float], path: Path) -> None:
    """Training and validation error by update, the best measurement, and levels to compare with."""
    updates, best = [row.updates for row in history], best_of(history)
    axes = Figure((7.0, 4.0)).subplots()
    axes.plot(updates, [row.train_mse for row in history], color=BLUE, label="training")
    axes.plot(updates, [row.validation_mse for row in history], color=RED, label="validation")
    axes.plot(best.updates, best.validation_mse, "o", color=RED, label="best: its weights are kept")
    for (name, level), dashes in zip(levels.items(), ("--", ":")):
        axes.axhline(level or math.nan, color="black", ls=dashes, lw=1, label=name)  # no log of 0
    axes.set(xlabel="update", ylabel="mean squared error of the last step", yscale="log")
    axes.legend(ncols=2)
    axes.figure.savefig(path)


def sine_demo(options: Options) -> None:
    """Train one network on the sine waves, print what it reached and draw its forecasts."""
    task, T = sine_task(options, options.seed), options.seq_len
    model = new_network(options, task, options.seed)
    files = str(options.plots_dir / f"{options.cell}_pytorch")
    train(model, task, options, Path(f"{files}_training_curve.png"))
    mse, best = evaluate(model, DataLoader(task.test, 256)), task.levels.get("best possible")
    ratio = f"   {mse / best:.2f} times the best possible" if best else ""
    print(f"\ntest MSE        {mse:.4g}{ratio}")
    for name, level in task.levels.items():
        print(f"{name:16}{level:.4g}")

    generator = torch.Generator().manual_seed(options.seed + 10**9)  # for a wave that is in no set
    wave = sine_waves(generator, 1, T + 2 * PERIOD, options.noise).to(options.device)
    windows = wave[0, :-1].unfold(0, T, 1).transpose(1, 2)  # (2 * PERIOD, T, 1)
    ahead, free = free_running(model, windows, 1), free_running(model, wave[:, :T], 2 * PERIOD)
    panels = Figure((7.0, 5.2)).subplots(2, sharex=True, sharey=True)
    for axes, forecast in zip(panels, (ahead, free)):
        axes.plot(wave[0, :, 0].cpu(), ".-", color=GREY, ms=4, lw=0.5, label="data")
        axes.plot(range(T, T + 2 * PERIOD), forecast.flatten().cpu(), color=RED, label="forecast")
        axes.set(ylabel="value", ylim=(-1.5, 1.7))
    panels[0].set_title("One step ahead: each forecast sees the data before it")
    panels[1].set_title("Free-running: the first window, then its own forecasts")
    panels[1].set_xlabel("step")
    panels[0].legend(ncols=2, loc="upper right")
    panels[0].figure.savefig(f"{files}_forecast.png")


# --- Your own series ----------------------------------------------------------------------------


class DataError(Exception):
    """A series that cannot be used; the message says what would do."""


def is_number(text: str) -> bool:
    """As 1.5 or -3e2, but not nan, inf or 1_000, which Python's float takes."""
    with contextlib.suppress(ValueError):
        return math.isfinite(float(text)) and "_" not in text
    return False


def read_series(path: Path, column: str | None) -> np.ndarray:
    """The numbers of a text file, one per line, or of a column of a table: by its name in the first
    line, or by its number, from 1, where that line holds numbers. Raises DataError.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"expected a text file in UTF-8, got {error}") from None
    lines, index = list(io.StringIO(text, newline=None)), 0
    rows = [(number, [line]) for number, line in enumerate(lines, start=1)]
    if column is not None:
        first = lines[:1]
        try:
            cells = {sep: len(next(csv.reader(first, delimiter=sep), [])) for sep in ",;\t"}
            sep = max(cells, key=cells.get)
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=sep, strict=True)
            rows = [(reader.line_num, cells) for cells in reader]
        except csv.Error as error:
            raise DataError(f"expected a table of cells in lines, got: {error}") from None
    while rows and not "".join(rows[-1][1]).strip():  # blank lines at the end
        rows.pop()
    names = [name.strip() for name in rows[0][1]] if rows else [""]
    if column is not None:
        if all(map(is_number, names)):  # no header
            names = [str(number) for number in range(1, len(names) + 1)]
        else:
            rows = rows[1:]
        if names.count(column) != 1:
            like = [name for name in names if name.lower() == column.lower()] or names
            raise DataError(f"expected one of the columns {', '.join(like):.300}, got {column!r}")
        index = names.index(column)
    for line, cells in rows:
        if len(cells) != len(names):
            raise DataError(f"line {line}: expected {len(names)} cells, got {len(cells)}")
        cell = cells[index].strip()
        if not is_number(cell):
            hint = "; a table needs --column NAME, a decimal comma a point" * (column is None)
            if cell.lower() in ("", "na", "n/a", "nan", "null", "none"):
                hint = "; gaps have to be filled or cut first"
            raise DataError(f"line {line}: expected a number like 1.5, got {cell!r:.40}{hint}")
    return np.array([float(cells[index]) for _, cells in rows])


class Forecaster:
    """next value = last value + unit * (base + share * network), from a window of values: unit is
    the usual size of a change; base is linear in the changes of the window, its last value and 1;
    the network sees the changes. With a base of zeros and no network that is persistence.
    """

    def __init__(self, values: np.ndarray, window: int) -> None:
        """Scaled by the root mean square of the changes in these values, and by their mean."""
        self.window, self.network, self.share = window, None, 1.0
        self.unit, self.mean = np.sqrt(np.mean(np.diff(values) ** 2)), np.mean(values)
        self.base = np.zeros(window + 2)

    def features(self, windows: np.ndarray) -> np.ndarray:
        """Of windows (N, window + 1) of values: changes, last value and 1, (N, window + 2)."""
        changes, last = np.diff(windows) / self.unit, (windows[:, -1:] - self.mean) / self.unit
        return np.hstack([changes, last, np.ones_like(last)])

    def fit_base(self, windows: np.ndarray) -> None:
        """Least squares on windows (N, window + 2), a million of them at most."""
        if len(windows) > 10**6:
            windows = windows[np.random.default_rng(0).choice(len(windows), 10**6, replace=False)]
        x, y = self.features(windows[:, :-1]), (windows[:, -1] - windows[:, -2]) / self.unit
        self.base, *_ = np.linalg.lstsq(x, y, rcond=None)

    def pairs(self, windows: np.ndarray) -> NextStep:
        """Windows (N, window + 2) of values as changes, each of which is to predict the next."""
        changes = torch.tensor(np.diff(windows) / self.unit, dtype=torch.float32)
        return NextStep(changes[:, :, None])

    def forecast(self, windows: np.ndarray, steps: int) -> np.ndarray:
        """Continue windows (N, window + 1) of values by (N, steps), free-running."""
        values = windows
        for _ in range(steps):
            features = self.features(values[:, -self.window - 1 :])
            change = features @ self.base
            if self.network is not None:
                x = torch.tensor(features[:, :-2, None], dtype=torch.float32)
                device = next(self.network.parameters()).device
                with evaluating(self.network):
                    parts = [self.network(part.to(device))[0][:, -1, 0] for part in x.split(1024)]
                change = change + self.share * torch.cat(parts).cpu().numpy()
            values = np.column_stack([values, values[:, -1] + self.unit * change])
        return values[:, windows.shape[1] :]


def split_series(values: np.ndarray, window: int) -> tuple[list[np.ndarray], dict[str, Forecaster]]:
    """Windows (N, window + 2) whose last values are the training, validation and test part, 70, 15
    and 15 %; and the two simple forecasts, which know the training part alone.
    """
    count, enough = len(values), math.ceil(10 * (window + 4) / 7)
    if count < enough:
        raise DataError(f"expected at least {enough} values for --seq-len {window}, got {count}")
    ends = count * 70 // 100, count * 85 // 100
    with np.errstate(over="ignore"):  # which is looked at here
        simple = {name: Forecaster(values[: ends[0]], window) for name in ("linear", "persistence")}
        if not 0 < simple["linear"].unit < math.inf:
            raise DataError("expected numbers that vary, by 1e-150 to 1e150, in the first 70 %")
        changes = np.abs(np.diff(values))
    if changes.max() > 1e9 * np.quantile(changes[changes > 0], 0.9):
        step = np.abs(values - np.median(values)).argmax()
        raise DataError(f"value {step + 1}: expected the size of the others, got {values[step]:g}")
    windows = np.lib.stride_tricks.sliding_window_view(values, window + 2)
    parts = np.split(windows, [end - window - 1 for end in ends])
    simple["linear"].fit_base(parts[0])
    return parts, simple


def series_task(values: np.ndarray, options: Options, seed: int) -> Task:
    """Next-step prediction of the changes; as an answer of 0 repeats the last value, a network with
    a zero head begins as persistence. Of a long validation part 2000 windows are measured.
    """
    parts, simple = split_series(values, options.seq_len)
    some = np.sort(np.random.default_rng(seed).permutation(len(parts[1]))[:2000])
    sets = [simple["linear"].pairs(part) for part in (parts[0], parts[1][some], parts[2])]
    level = sets[1].sequences[:, -1].square().mean().item()
    on_test = sets[2].sequences[:, -1].square().mean().item()
    return Task(*sets, {"persistence, on validation": level, "persistence, on test": on_test}, None)


def blend(forecasters: dict[str, Forecaster], windows: np.ndarray) -> tuple[Forecaster, dict]:
    """The mean of forecasts, weighted by 1 / MSE^2 on windows (N, window + 2); and the weights. The
    first is of a network on persistence, the others have none.
    """
    errors = [
        each.forecast(windows[:, :-1], 1)[:, 0] - windows[:, -1] for each in forecasters.values()
    ]
    mse = np.maximum([np.mean(error**2) for error in errors], 1e-99)
    weights = dict(zip(forecasters, (mse.min() / mse) ** 2 / np.sum((mse.min() / mse) ** 2)))
    mixed = copy.copy(next(iter(forecasters.values())))
    mixed.base = sum(weight * forecasters[name].base for name, weight in weights.items())
    mixed.share = next(iter(weights.values()))
    return mixed, weights


def errors_by_distance(forecaster: Forecaster, values: np.ndarray, start: int) -> np.ndarray:
    """RMSE of forecasts 1, 2, ... steps ahead, up to the window's length, free-running. They begin
    at every value from start on, or at 2000 of them at random; the larger the distance, the fewer
    of them end within the series.
    """
    W, steps = forecaster.window, min(forecaster.window, len(values) - start)
    begins = start + np.sort(np.random.default_rng(0).permutation(len(values) - start)[:2000])
    windows = np.lib.stride_tricks.sliding_window_view(values, W + 1)[begins - W - 1]
    padded = np.concatenate([values, np.full(steps, np.nan)])
    truth = np.lib.stride_tricks.sliding_window_view(padded, steps)[begins]
    return np.sqrt(np.nanmean((forecaster.forecast(windows, steps) - truth) ** 2, axis=0))


def print_distances(rmse: dict[str, np.ndarray], test_part: int, seed: int) -> None:
    """A table of 1, 2, 4, ... steps and the last, and in words what it says."""
    (_, errors), *others = rmse.items()
    last = len(errors)
    print(f"\n{'steps ahead':>11}" + "".join(f"{name:>15}" for name in rmse) + "   (RMSE)")
    for h in [h for h in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if h < last] + [last]:
        print(f"{h:11d}" + "".join(f"{each[h - 1]:15.5g}" for each in rmse.values()))
    for h in sorted({1, last}):
        verdict = " and ".join(against(errors[h - 1], other[h - 1], name) for name, other in others)
        count = f"{min(test_part - h + 1, 2000)} forecasts, seed {seed} alone"
        print(f"{h} ahead, its error is {verdict} ({count}).")
    if rmse["persistence"][0] == 0:
        print("The test part stands still: it tells nothing.")


def against(error: float, other: float, name: str) -> str:
    """An error in words, beside that of another forecast."""
    if other == 0:
        return f"{error:.3g}, where {name} makes none"
    ratio = error / other
    if abs(ratio - 1) < 0.005:
        return f"level with {name}"
    share = f"{abs(ratio - 1):.0%} {'below' if ratio < 1 else 'above'}"
    return f"{share if ratio < 2 else f'{ratio:.3g} times'} {name}"


def series_demo(values: np.ndarray, options: Options) -> None:
    """Forecast one's own series, and say what that is worth and how far ahead."""
    W, N, start = options.seq_len, len(values), len(values) * 85 // 100
    files, name, seed = (
        str(options.plots_dir / options.data.stem),
        options.cell.upper(),
        options.seed,
    )
    task, (parts, simple) = series_task(values, options, seed), split_series(values, W)
    alone = Forecaster(values[: N * 70 // 100], W)
    alone.network = new_network(options, task, seed, zero_head=True)
    history = train(alone.network, task, options, Path(f"{files}_training_curve.png"))
    mixed, weights = blend({name: alone} | simple, parts[1])
    shares = " + ".join(f"{weight:.2f} {each}" for each, weight in weights.items())
    print(f"\nThe forecast is {shares},\nweighted by 1 / MSE^2 on the validation part.")
    rmse = {f"{name} blend": errors_by_distance(mixed, values, start)}
    rmse |= {each: errors_by_distance(other, values, start) for each, other in simple.items()}
    print_distances(rmse, N - start, seed)
    plot_distances(rmse, Path(f"{files}_distance.png"))

    # For what comes next, all is fitted again to the whole series, but for the weights of the blend
    # and the number of updates.
    windows = np.lib.stride_tricks.sliding_window_view(values, W + 2)
    last, best = Forecaster(values, W), best_of(history).updates
    last.fit_base(windows)
    last.base, last.share = weights["linear"] * last.base, weights[name]
    last.network = new_network(options, task, seed, zero_head=True)
    if best > 0:
        order, pairs = torch.Generator().manual_seed(seed), last.pairs(windows)
        loader = DataLoader(pairs, options.batch_size, shuffle=True, generator=order)
        measured = DataLoader(last.pairs(windows[-2000:]), 1024)  # as nothing is held out
        fit(last.network, loader, measured, history[-1].updates, best, options.learning_rate,
            options.clip, lambda row: None, stop=best)  # fmt: skip
    ahead = mixed.forecast(windows[start - W - 1 :, :-1], 1)[:, 0]
    future = last.forecast(values[None, -W - 1 :], W)[0]
    plot_series(values, ahead, future, rmse[f"{name} blend"], Path(f"{files}_forecast.png"))
    with Path(f"{files}_forecast.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["step", "value", "forecast"])
        table.writerows(zip(range(start + 1, N + 1), values[start:], ahead))
        table.writerows((N + h, "", value) for h, value in enumerate(future, start=1))
    if options.save is not None:
        kept = {name: getattr(options, name) for name in ("cell", "hidden_size", "layers")}
        kept |= {name: float(getattr(last, name)) for name in ("unit", "mean", "share")}
        kept |= {"base": last.base.tolist(), "network": last.network.cpu().state_dict()}
        with options.save.open("wb") as file:
            torch.save(kept, file)


def plot_distances(rmse: dict[str, np.ndarray], path: Path) -> None:
    """How the error of each forecast grows with the distance."""
    axes = Figure((7.0, 4.0)).subplots()
    for (name, errors), color, line in zip(rmse.items(), (RED, GREY, BLUE), ("o-", "s--", "^:")):
        axes.plot(range(1, len(errors) + 1), errors, line, color=color, ms=4, label=name)
    axes.set(xlabel="steps ahead", ylabel="RMSE, in the unit of the series", ylim=0)
    axes.set_title("How far ahead a forecast is worth anything: the test part")
    axes.legend()
    axes.figure.savefig(path)


def plot_series(values: np.ndarray, ahead: np.ndarray, future: np.ndarray, rmse: np.ndarray,
                path: Path) -> None:  # fmt: skip
    """Of the test part at most 300 steps, one step ahead; below, what comes next and how sure."""
    N, W, ahead = len(values), len(future), ahead[-300:]
    above, below = Figure((7.0, 5.4)).subplots(2)
    for axes, count in ((above, len(ahead)), (below, min(N, 5 * W))):
        steps = range(N - count + 1, N + 1)
        axes.plot(steps, values[-count:], ".-", color=GREY, ms=4, lw=0.5, label="data")
        axes.set(ylabel="value", xlabel="step")
    above.plot(range(N - len(ahead) + 1, N + 1), ahead, color=RED, label="forecast")
    above.set_title("The end of the test part, each forecast one step ahead")
    steps, band = range(N + 1, N + W + 1), np.pad(rmse, (0, W - len(rmse)), "edge")
    below.plot(steps, future, color=RED, label="forecast, and its RMSE at this distance")
    below.fill_between(steps, future - band, future + band, color=RED, alpha=0.2, lw=0)
    below.set_title("What comes next, free-running from the last window")
    for axes in (above, below):
        axes.legend(ncols=2)
    above.figure.savefig(path)


# --- GRU against LSTM ---------------------------------------------------------------------------

SEEDS = 3  # runs of each network at each learning rate
RATES = (1 / 3, 1, 3)  # times the task's learning rate
EVERY = 10  # updates between two measurements
FORGET = "forget bias 1"  # Jozefowicz et al. 2015


def adding_task(options: Options, seed: int) -> Task:
    """The adding problem (Hochreiter & Schmidhuber 1997): a step holds a number from U(0, 1) and a
    mark, 1 at one step of either half and 0 elsewhere; the target is the sum of the marked numbers.
    """
    generator, T = torch.Generator().manual_seed(seed), options.seq_len

    def draw(count: int) -> TensorDataset:
        numbers = torch.rand(count, T, generator=generator)
        first = torch.randint(0, T // 2, (count, 1), generator=generator)
        second = torch.randint(T // 2, T, (count, 1), generator=generator)
        marks = torch.zeros(count, T).scatter_(1, torch.cat([first, second], dim=1), 1.0)
        x, sums = torch.stack([numbers, marks], dim=2), (numbers * marks).sum(dim=1)
        return TensorDataset(x, sums[:, None, None])

    levels = {"always answering 1": 1 / 6}  # the variance of the sum of two such numbers
    return Task(draw(128 if options.quick else 64 * 1200), draw(1000), draw(1000), levels, 0.01)


@dataclass
class Run:
    """What one training reached; errors are infinite if it diverged."""

    history: list[Measurement]
    validation_mse: float
    test_mse: float

    def updates_to(self, level: float) -> float:
        """How many updates it took to get below this validation error."""
        return next((row.updates for row in self.history if row.validation_mse < level), math.inf)


def set_forget_bias(model: SequenceModel, value: float) -> None:
    """So that an LSTM begins by keeping. Two biases add up; the forget gate is second of four."""
    for name, bias in model.recurrent.named_parameters():
        if name.startswith("bias"):
            nn.init.constant_(bias.chunk(4)[1], value if name.startswith("bias_ih") else 0.0)


def compare(make_task: Callable[[Options, int], Task], options: Options, path: Path) -> None:
    """Train a GRU and three LSTMs at every learning rate with every seed (--seed 1 has none of the
    seeds of --seed 0); print a table and draw a figure.
    """
    seeds = range(SEEDS * options.seed, SEEDS * (options.seed + 1))
    tasks, H = {seed: make_task(options, seed) for seed in seeds}, options.hidden_size
    fewer = max(1, round(H * math.sqrt(3 / 4)))  # an LSTM has 4 blocks of weights, a GRU 3
    networks = {f"GRU {H}": ("gru", H), f"LSTM {H}": ("lstm", H)}
    networks |= {f"LSTM {fewer}, as many weights": ("lstm", fewer)}
    networks |= {f"LSTM {H}, {FORGET}": ("lstm", H)}

    def build(name: str, seed: int) -> SequenceModel:
        cell, size = networks[name]
        sized = Options(**vars(options) | {"cell": cell, "hidden_size": size})
        model = new_network(sized, tasks[seed], seed, zero_head=tasks[seed].learned is None)
        if FORGET in name:
            set_forget_bias(model, 1.0)
        return model

    plan = list(itertools.product(seeds, RATES, networks))
    costs, runs = time_updates(build, networks, tasks[seeds[0]], options), {}
    start = time.perf_counter()
    try:
        for done, (seed, factor, name) in enumerate(plan, start=1):
            rate = factor * options.learning_rate
            run = train_and_test(build(name, seed), tasks[seed], options, rate, seed)
            runs.setdefault((name, rate), []).append(run)
            left = (time.perf_counter() - start) / done * (len(plan) - done)
            what = f"{name}, rate {rate:.3g}, seed {seed}: validation MSE {run.validation_mse:.3g}"
            print(f"{done} of {len(plan)}: {what}, about {left:.0f} s left", flush=True)
    finally:  # a comparison that is broken off still shows what is complete
        if runs:
            best = chosen(runs)
            print_comparison(best, costs, tasks[seeds[0]])
            plot_comparison(best, tasks[seeds[0]], path)


def train_and_test(model, task: Task, options: Options, rate: float, seed: int) -> Run:
    """All networks see the same batches of a seed in the same order."""
    order, history = torch.Generator().manual_seed(seed), []
    loader = DataLoader(task.train, options.batch_size, shuffle=True, generator=order)
    validation, test = DataLoader(task.validation, 256), DataLoader(task.test, 256)
    updates = options.epochs * updates_per_epoch(task, options)
    try:
        fit(model, loader, validation, updates, EVERY, rate, options.clip, history.append)
    except FloatingPointError:
        return Run(history, math.inf, math.inf)
    return Run(history, best_of(history).validation_mse, evaluate(model, test))


def time_updates(build: Callable, networks, task: Task, options: Options) -> dict[str, tuple]:
    """Of each network how many weights it has, and the milliseconds of an update: medians, the
    networks taking turns.
    """
    models = {name: build(name, SEEDS * options.seed) for name in networks}
    optimizers = {name: torch.optim.Adam(model.parameters()) for name, model in models.items()}
    times = {name: [] for name in networks}
    batch = next(iter(DataLoader(task.train, options.batch_size)))
    x, y = (part.to(options.device) for part in batch)
    for name in 20 * list(networks):
        start = time.perf_counter()
        for _ in range(5):
            train_step(models[name], optimizers[name], x, y, options.clip)
        times[name].append(1000 * (time.perf_counter() - start) / 5)
    count = {name: sum(each.numel() for each in models[name].parameters()) for name in networks}
    return {name: (count[name], statistics.median(times[name])) for name in networks}


def chosen(runs: dict[tuple[str, float], list[Run]]) -> dict[tuple[str, float], list[Run]]:
    """Of each network the runs at the learning rate with the smallest median validation error."""
    best = {}
    for (name, rate), of_rate in runs.items():
        median = statistics.median(run.validation_mse for run in of_rate)
        best[name] = min(best.get(name, (math.inf, rate)), (median, rate))
    return {(name, rate): runs[name, rate] for name, (_, rate) in best.items()}


def print_comparison(best: dict, costs: dict[str, tuple], task: Task) -> None:
    """A row for each network at its chosen rate; seconds are updates times ms per update."""
    level = "learned after" if task.learned is None else f"updates to {task.learned:.2g}"
    print("\nAt the learning rate chosen on validation: median (smallest - largest) of the seeds")
    print(f"{'network':26}{'weights':>8}{'rate':>8}{level:>24}{'ms':>7}{'s':>8}{'test MSE':>32}")
    for (name, rate), of_rate in best.items():
        weights, ms = costs[name]
        errors = spread([run.test_mse for run in of_rate], ".3g", "diverged")
        learned, seconds = "-", "-"
        if task.learned is not None:
            updates = [run.updates_to(task.learned) for run in of_rate]
            learned = spread(updates, ".0f", "never")
            seconds = f"{statistics.median(updates) * ms / 1000:.2f}".replace("inf", "-")
        print(f"{name:26}{weights:8d}{rate:8.3g}{learned:>24}{ms:7.2f}{seconds:>8}{errors:>32}")
    for name, value in task.levels.items():
        print(f"{name}: MSE {value:.4g}")


def spread(values: list[float], form: str, infinite: str) -> str:
    """Median (smallest - largest), with a word for infinity."""
    three = statistics.median(values), min(values), max(values)
    texts = [infinite if math.isinf(value) else format(value, form) for value in three]
    return f"{texts[0]} ({texts[1]} - {texts[2]})"


def plot_comparison(best: dict, task: Task, path: Path) -> None:
    """Validation error by update, each network at its chosen rate: median, range of the seeds."""
    axes = Figure((7.0, 4.8)).subplots()
    for ((name, rate), of_rate), color in zip(best.items(), (BLUE, RED, PURPLE, GREEN)):
        histories = [run.history for run in of_rate if run.test_mse < math.inf]
        if histories:
            mses = np.array([[row.validation_mse for row in history] for history in histories])
            updates = [row.updates for row in histories[0]]
            label = f"{name}, rate {rate:.2g}, median and range of {len(mses)} seeds"
            axes.fill_between(updates, mses.min(0), mses.max(0), color=color, alpha=0.2, lw=0)
            axes.plot(updates, np.median(mses, axis=0), color=color, label=label)
    levels = task.levels | ({"learned": task.learned} if task.learned else {})
    for (name, level), dashes in zip(levels.items(), ("--", ":", "-.")):
        axes.axhline(level or math.nan, color="black", ls=dashes, lw=1, label=name)
    axes.set(xlabel="update", ylabel="validation MSE of the last step", yscale="log")
    axes.legend(fontsize="small")
    axes.figure.savefig(path)


# --- The command line ---------------------------------------------------------------------------

RANGES = {  # of the options: least, most, meaning
    "epochs": (1, 1e6, "passes over the training data; of a series, over 1000 windows of it"),
    "batch_size": (1, 1e5, "sequences in an update"),
    "hidden_size": (1, 4096, "hidden units"),
    "layers": (1, 100, "recurrent layers"),
    "seq_len": (2, 1000, "steps in a sequence"),
    "learning_rate": (1e-9, 100, "Adam's first rate, which falls to zero"),
    "clip": (1e-9, math.inf, "largest norm of the gradient; inf: any"),
    "noise": (0, 100, "standard deviation of the sine waves' noise"),
    "seed": (0, 1e9, "seed of weights, data and order"),
}
COMMON = {"layers": 1, "clip": 1.0, "seed": 0}
DEFAULTS = {  # of the options that a mode has
    "sine": {"epochs": 30, "batch_size": 32, "hidden_size": 32, "seq_len": 30,
             "learning_rate": 0.03, "noise": 0.05},
    "adding": {"epochs": 1, "batch_size": 64, "hidden_size": 64, "seq_len": 50,
               "learning_rate": 0.01},
    "data": {"epochs": 100, "batch_size": 32, "hidden_size": 32, "seq_len": 12,
             "learning_rate": 0.005},
}  # fmt: skip


def number(kind: type, least: float, most: float) -> Callable[[str], float]:
    """An argparse type: a number of this kind and range."""

    def convert(text: str) -> float:
        with contextlib.suppress(ValueError):
            if least <= kind(text) <= most:
                return kind(text)
        expected = f"expected {kind.__name__} from {least:g} to {most:g}"
        raise argparse.ArgumentTypeError(f"{expected}, got {text}")

    return convert


def device(text: str) -> str:
    """An argparse type: a device that PyTorch can use here."""
    try:
        torch.zeros(1, device=text)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(
            f"expected cpu, cuda:0 or the like, got {text}: {reason}"
        ) from None
    return text


def parse_options(argv: list[str] | None) -> Options:
    """Read the options; a wrong one ends the program with status 2 before any work."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.description = __doc__.splitlines()[0]
    parser.epilog = (
        "Options and defaults are those of one mode; for another's, name it before --help"
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--task", choices=("sine", "adding"), default="sine", help="what to learn")
    either.add_argument(
        "--data", type=Path, help="your own series: one number per line, or a table"
    )
    parser.add_argument("--compare", action="store_true", help="GRU against LSTM, 3 seeds, 3 rates")
    options, _ = parser.parse_known_args(argv)
    mode = options.task if options.data is None else "data"
    if mode == "adding" and not options.compare:
        parser.error("--task adding: expected --compare beside it")
    for name, default in (DEFAULTS[mode] | COMMON).items():
        least, most, text = RANGES[name]
        kind, text = number(type(default), least, most), f"{text} (default: {default})"
        parser.add_argument("--" + name.replace("_", "-"), type=kind, default=default, help=text)
    if mode == "data":
        parser.add_argument("--column", help="of a table: its name, or its number")
        if not options.compare:
            parser.add_argument("--save", type=Path, help="file for the weights and what they need")
    parser.set_defaults(cell="gru", save=None, column=None)
    if not options.compare:
        parser.add_argument("--cell", choices=("gru", "lstm"), help="(default: gru)")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", type=device, default=best, help=f"default: {best}")
    plots = Path(__file__).resolve().parent / "plots"
    parser.add_argument("--plots-dir", type=Path, default=plots, help="folder for the figures")
    parser.add_argument("--quick", action="store_true", help="a smoke run, drawn in plots/quick")
    parser.add_argument("-h", "--help", action="help", help="show this")
    options = parser.parse_args(argv)
    options.mode = mode
    if options.save is not None and (options.save.is_dir() or not options.save.parent.is_dir()):
        parser.error(f"--save: expected a file in a folder that exists, got {options.save}")
    if options.quick:
        options.epochs, options.plots_dir = min(options.epochs, 2), options.plots_dir / "quick"
    try:
        options.plots_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.plots_dir).close()
        own = glob.escape(options.data.stem) if mode == "data" else f"{options.cell}_pytorch"
        pattern = f"gru_vs_lstm_{mode}.png" if options.compare and mode != "data" else f"{own}_*"
        for file in options.plots_dir.glob(pattern):
            file.open("ab").close()
    except OSError as error:
        parser.error(f"--plots-dir: expected a folder for figures, got {error}")
    return options


def run(options: Options) -> None:
    """What the options ask for."""
    torch.set_num_threads(1)  # so small a network gains nothing from a second
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the same numbers again on CUDA
    values = read_series(options.data, options.column) if options.mode == "data" else None
    if options.compare and options.mode == "data":
        path = options.plots_dir / f"{options.data.stem}_gru_vs_lstm.png"
        compare(lambda options, seed: series_task(values, options, seed), options, path)
    elif options.compare:
        make_task = sine_task if options.mode == "sine" else adding_task
        compare(make_task, options, options.plots_dir / f"gru_vs_lstm_{options.mode}.png")
    elif options.mode == "data":
        series_demo(values, options)
    else:
        sine_demo(options)


def main(argv: list[str] | None = None) -> None:
    """Run the command line. Status 2: wrong options or data; 1: it diverged, or a file could not be
    written; 130: Ctrl-C.
    """
    options = parse_options(argv)
    try:
        with style.context(["default", STYLE]):  # whatever the user's own matplotlibrc says
            run(options)
    except DataError as error:
        print(f"gru_pytorch.py: error: --data {options.data}: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # as of | head, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (FloatingPointError, OSError) as error:
        sys.exit(f"gru_pytorch.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
