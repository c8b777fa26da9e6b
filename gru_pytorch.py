"""nn.GRU with a linear head: on noisy sine waves, on your own series, and beside other cells.

    python gru_pytorch.py                            learn to predict sine waves: ten seconds
    python gru_pytorch.py --data FILE --column NAME  forecast your own series: seconds
    python gru_pytorch.py --compare sine             GRU, LSTM and a plain network: ten minutes
    python gru_pytorch.py --compare adding           the same on the adding problem: twenty minutes

The lesson comes first. A wave is seen step by step, and after every step its next value is to be
predicted. Each wave has a period and a phase of its own. Only the values seen so far can tell them,
so the network has to gather them in its state. The lesson ends where "Your own series" begins.

Shapes, with batch_first=True: B sequences side by side (a batch), of T steps with F numbers each,
are a tensor (B, T, F). The recurrent layer starts from a state of zeros and loops over the T steps.
It gives the hidden state after every step, (B, T, H), and the head makes of each a prediction of
the next step, (B, T, 1).

What a GRU computes is in README.md, and where nn.GRU differs from the cell that is written out in
gru_from_scratch.py.
"""

import argparse
import contextlib
import copy
import csv
import functools
import io
import math
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, TensorDataset

# --- The lesson: model and data -----------------------------------------------------------------


class SequenceModel(nn.Module):
    """A recurrent layer, and a linear head on its hidden state after every step."""

    def __init__(self, cell: str, input_size: int, hidden_size: int) -> None:
        super().__init__()
        layer = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[cell]
        self.recurrent = layer(input_size, hidden_size, batch_first=True)
        self.head = nn.Linear(hidden_size, 1)

    def forward(self, x: Tensor) -> Tensor:
        """A prediction after every step of x (B, T, F): (B, T, 1)."""
        h, _ = self.recurrent(x)  # h is (B, T, H); the second result, the last state, is not needed
        return self.head(h)


class NextStep(Dataset):
    """Sequences (N, T + 1, 1) as pairs: the first T steps, and the same steps one later."""

    def __init__(self, sequences: Tensor) -> None:
        self.sequences = sequences

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.sequences[i, :-1], self.sequences[i, 1:]


# --- The lesson: training -----------------------------------------------------------------------

History = list[tuple[float, float]]  # training and validation error by epoch, untrained first


def mean_squared_error(prediction: Tensor, y: Tensor) -> Tensor:
    """Over all sequences and all steps. ValueError if the shapes differ: they might broadcast."""
    if prediction.shape != y.shape:
        raise ValueError(f"y: expected shape {tuple(prediction.shape)}, got {tuple(y.shape)}")
    return nn.functional.mse_loss(prediction, y)


def train_epoch(
    model: nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    max_norm: float,
) -> float:
    """One pass over the data. Returns the mean error of its batches, each before its update."""
    model.train()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for x, y in loader:
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        loss = mean_squared_error(model(x), y)
        loss.backward()
        # On its way back through many steps a gradient can explode. Clipped to this length, a
        # single huge one does not rule Adam's moving means for many updates.
        nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        schedule.step()  # after every batch, so that the rate falls smoothly
        total += loss.item() * len(x)  # the last batch may be smaller
        count += len(x)
    return total / count


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader) -> float:
    """Mean squared error over all that the loader gives."""
    model.eval()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for x, y in loader:
        x, y = x.to(device), y.to(device)
        total += mean_squared_error(model(x), y).item() * len(x)
        count += len(x)
    return total / count


def fit(
    model: nn.Module,
    train_loader: DataLoader,
    validation_loader: DataLoader,
    epochs: int,
    learning_rate: float,
    max_norm: float,
    print_every: int = 1,
) -> History:
    """Train with Adam, its rate falling to zero as a cosine, and keep the weights with the smallest
    validation error. Prints the errors of every print_every-th epoch; 0 prints nothing. Raises
    FloatingPointError if an error is not finite.
    """
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(train_loader))
    history = [(evaluate(model, train_loader), evaluate(model, validation_loader))]
    best, best_weights = 0, copy.deepcopy(model.state_dict())
    if print_every:
        print("epoch   training MSE, before each update   validation MSE, after the epoch")
        print_epoch(0, *history[0])
    for epoch in range(1, epochs + 1):
        train_mse = train_epoch(model, train_loader, optimizer, schedule, max_norm)
        validation_mse = evaluate(model, validation_loader)
        if not math.isfinite(train_mse + validation_mse):
            raise FloatingPointError(f"epoch {epoch}: error not finite; a smaller rate may help")
        history.append((train_mse, validation_mse))
        if print_every and epoch % print_every == 0:
            print_epoch(epoch, train_mse, validation_mse)
        if validation_mse < history[best][1]:
            best, best_weights = epoch, copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)
    if print_every:
        print(f"The weights of epoch {best} are kept.\n")
    return history


def print_epoch(epoch: int, train_mse: float, validation_mse: float) -> None:
    """A row, at once, even where the output goes to a file."""
    print(f"{epoch:5d}{train_mse:34.5f}{validation_mse:33.5f}", flush=True)


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    """What the model makes of x (B, T, F), without training it."""
    model.eval()
    return model(x)


def free_running(model: nn.Module, series: Tensor, steps: int) -> Tensor:
    """Continue series (B, T, 1) by so many steps, (B, steps), seeing its own predictions: predict a
    step, append it, drop the oldest. So the network always sees T steps from a state of zeros, as
    in training. To carry the state on would be faster, but it was never trained on longer ones.
    """
    window = series
    predictions = []
    for _ in range(steps):
        prediction = predict(model, window)[:, -1:]  # of the step after the window: (B, 1, 1)
        predictions.append(prediction[:, 0])
        window = torch.cat([window[:, 1:], prediction], dim=1)
    return torch.cat(predictions, dim=1)


# --- The lesson: sine waves, and what can be known of them --------------------------------------

SHORTEST, LONGEST = 20, 40  # steps in a period


def sine_waves(count: int, length: int) -> Tensor:
    """Waves sin(2 pi t / period + phase), each of its own period and phase: (count, length, 1)."""
    period = SHORTEST + (LONGEST - SHORTEST) * torch.rand(count, 1)
    phase = 2 * math.pi * torch.rand(count, 1)
    return torch.sin(2 * math.pi * torch.arange(length) / period + phase)[:, :, None]


def with_noise(waves: Tensor, noise: float) -> Tensor:
    """The waves plus Gaussian noise of this standard deviation."""
    return waves + noise * torch.randn(waves.shape)


def with_constant(x: Tensor) -> Tensor:
    """x (N, T) and a column of ones, whose weight is the constant of a linear map: (N, T + 1)."""
    return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)


def linear_predictions(train: Tensor, waves: Tensor) -> Tensor:
    """Predictions after every step of waves (N, T + 1, 1) but the last: (N, T, 1). For each number
    of steps, the linear map of all values seen that fits the waves in train best (least squares).

    A network can find out the period of its wave and predict accordingly; a linear map has the same
    weights for all periods. Without noise such weights are found (--noise 0 leaves hardly any
    error), but they are large, and would multiply the noise in the values that they weigh.
    """
    train, waves = train.double(), waves.double()  # waves without noise need the precision
    predictions = []
    for t in range(1, waves.shape[1]):
        weights = torch.linalg.lstsq(with_constant(train[:, :t, 0]), train[:, t]).solution
        predictions.append(with_constant(waves[:, :t, 0]) @ weights)
    return torch.stack(predictions, dim=1).float()


def best_predictions(waves: Tensor, noise: float) -> Tensor:
    """Predictions after every step of waves (N, T + 1, 1) but the last: (N, T, 1). They are the
    best that anybody can make, on average, who knows how the waves are drawn and how large the
    noise is, but not the period and the phase of a wave. (With a noise below T / 800, the waves
    that are tried lie too far apart, and they are 1 % off and more.)

    Try 100 periods with 120 phases each: 12,000 waves. After every step, weigh each of them by how
    well it has fitted so far (Bayes' rule), and take the mean of their next values. This is a
    recurrence too: its state is how likely each of them is.
    """
    T = waves.shape[1] - 1
    period = torch.linspace(SHORTEST, LONGEST, 100)[:, None]
    phase = 2 * math.pi * torch.arange(120) / 120
    steps = torch.arange(T + 1)[:, None, None]
    tried = torch.sin(2 * math.pi * steps / period + phase)  # (T + 1, 100, 120)
    tried = tried.flatten(1)  # (T + 1, 12000)
    log_likelihood = torch.zeros(len(waves), tried.shape[1])  # (N, 12000)
    predictions = []
    for t in range(T):
        difference = waves[:, t] - tried[t]  # (N, 1) - (12000,): each wave with each one tried
        log_likelihood -= difference**2 / (2 * noise**2)  # of Gaussian noise
        weights = torch.softmax(log_likelihood, dim=1)  # (N, 12000), of sum 1: how likely each is
        predictions.append(weights @ tried[t + 1])
    return torch.stack(predictions, dim=1)[:, :, None]


# --- The lesson: the demo -----------------------------------------------------------------------

SINE = {  # the options of the demo besides --device and --plots-dir, and their defaults
    "cell": "gru",  # or lstm, or rnn
    "hidden_size": 32,
    "seq_len": 30,  # T
    "noise": 0.05,  # standard deviation
    "epochs": 25,
    "batch_size": 64,
    "learning_rate": 0.06,
    "clip": 1.0,  # largest norm of a gradient
    "seed": 0,
}
AHEAD = 2 * LONGEST  # steps of free-running
BLUE, RED, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#777777"
STYLE = {"figure.dpi": 140, "figure.constrained_layout.use": True, "legend.frameon": False}
Options = argparse.Namespace


def sine_demo(options: Options) -> None:
    """Train a network on the sine waves; print and draw its errors beside what can be reached."""
    T, noise = options.seq_len, options.noise
    torch.manual_seed(options.seed)
    train = with_noise(sine_waves(3000, T + 1), noise)
    validation = with_noise(sine_waves(1000, T + 1), noise)
    clean = sine_waves(1000, T + AHEAD)
    test = with_noise(clean, noise)

    model = SequenceModel(options.cell, input_size=1, hidden_size=options.hidden_size)
    model.to(options.device)
    history = fit(
        model,
        DataLoader(NextStep(train), options.batch_size, shuffle=True),
        DataLoader(NextStep(validation), 256),
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        max_norm=options.clip,
    )
    model.cpu()  # the rest is little work

    network = options.cell.upper()
    waves = test[:, : T + 1]
    x, y = waves[:, :-1], waves[:, 1:]
    predictions = {
        "persistence": x,  # the last value again
        "least squares": linear_predictions(train, waves),
        network: predict(model, x),
    }
    if noise >= T / 800:
        best = [best_predictions(some, noise) for some in waves.split(100)]  # faster than at once
        predictions["best possible"] = torch.cat(best)
    else:
        print("Too little noise, or too many steps, to find the best possible error.")
    errors = {}  # by the number of steps seen, (T,)
    for name, prediction in predictions.items():
        errors[name] = (prediction - y).square().mean(dim=(0, 2))
    print_by_step(errors, network, noise)

    free = free_running(model, x, AHEAD)
    future = test[:, T:, 0]
    free_errors = {network: (free - future).square().mean(dim=0)}
    free_errors["always answering 0"] = future.square().mean(dim=0)
    print_table("free-running, steps ahead", [1, AHEAD // 2, AHEAD], free_errors)

    before = [test[0, t - T : t] for t in range(T, T + AHEAD)]  # T values before each of the last
    one_ahead = predict(model, torch.stack(before))[:, -1, 0]
    levels = {name: mse.mean().item() for name, mse in errors.items() if name != network}
    stem = f"{options.cell}_pytorch"
    figures = {
        f"{stem}_training_curve.png": plot_curve(
            history, levels, "mean squared error of all steps"
        ),
        f"{stem}_by_step.png": plot_by_step(errors, noise),
        f"{stem}_forecast.png": plot_forecast(clean[0], test[0], one_ahead, free[0]),
    }
    write_files(figures, options.plots_dir)


def print_table(head: str, columns: list[int], rows: dict[str, Tensor]) -> None:
    """Errors by step, (T,): those of some steps, and the mean of all."""
    print(f"{head:26}" + "".join(f"{t:10d}" for t in columns) + f"{'mean':>10}")
    for name, errors in rows.items():
        shown = [errors[t - 1] for t in columns] + [errors.mean()]
        print(f"{name:26}" + "".join(f"{value:10.5f}" for value in shown))


def print_by_step(errors: dict[str, Tensor], network: str, noise: float) -> None:
    """The errors (T,) by the number of steps seen, and how near the network is to the best."""
    T = len(errors[network])
    rows = errors | {"noise variance": torch.full((T,), noise**2)}
    print_table("test MSE, steps seen", sorted({1, min(5, T), T}), rows)
    if "best possible" in errors:
        last = errors[network][-1] / errors["best possible"][-1]
        mean = errors[network].mean() / errors["best possible"].mean()
        print(f"{network} / best possible: {last:.2f} after {T} steps, {mean:.2f} in the mean")
    print()


def plot_curve(history: History, levels: dict[str, float], error: str) -> Figure:
    """Training and validation error by epoch, the epoch whose weights are kept, and test errors of
    others to compare with. What the error is goes to the axis.
    """
    train_mse, validation_mse = zip(*history)
    best = validation_mse.index(min(validation_mse))
    axes = Figure((7.0, 4.0)).subplots()
    axes.plot(train_mse, color=BLUE, label="training")
    axes.plot(validation_mse, color=RED, label="validation")
    axes.plot(best, validation_mse[best], "o", color=RED, label="smallest: its weights are kept")
    for (name, level), dashes in zip(levels.items(), (":", "--", "-.")):
        axes.axhline(level, color="black", ls=dashes, lw=1, label=f"{name}, test")
    axes.set(xlabel="epoch", ylabel=error, yscale="log")
    axes.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize="small")
    return axes.figure


def plot_by_step(errors: dict[str, Tensor], noise: float) -> Figure:
    """The errors (T,) by the number of steps seen, each with its name at its end."""
    colors = {"persistence": GREY, "least squares": PURPLE, "best possible": BLUE}
    axes = Figure((7.0, 4.5)).subplots()
    for name, mse in errors.items():
        color = colors.get(name, RED)  # the network's
        axes.plot(range(1, len(mse) + 1), mse, color=color)
        above = "bottom" if color == RED else "center"  # clear of the best possible, just below
        axes.text(len(mse) + 0.3, mse[-1], name, color=color, va=above)
    if noise > 0:
        axes.plot([1, len(mse)], [noise**2, noise**2], color="black", ls=":")
        axes.text(len(mse) + 0.3, noise**2, "noise variance", color="black", va="center")
    axes.set(title="Test error: what each makes of the steps that it has seen", yscale="log")
    axes.set(xlabel="steps seen", ylabel="mean squared error of the next value", xlim=1)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.spines[["top", "right"]].set_visible(False)
    return axes.figure


def plot_forecast(clean: Tensor, noisy: Tensor, one_ahead: Tensor, free: Tensor) -> Figure:
    """One wave, its forecasts one step ahead, and the free-running one."""
    T = len(clean) - len(free)
    steps = range(T, len(clean))
    axes = Figure((7.0, 4.0)).subplots()
    axes.plot(clean, color=GREY, lw=1, label="clean wave")
    axes.plot(noisy, ".", color=GREY, ms=4, label="what is seen of it")
    axes.plot(steps, one_ahead, color=BLUE, label="one step ahead")
    axes.plot(steps, free, color=RED, ls="--", label="free-running")
    axes.axvline(T - 0.5, color="black", ls=":", lw=1)
    axes.set(title="Free-running, it sees its own predictions in place of the wave")
    axes.set(xlabel="step", ylabel="value")
    axes.set_ylim(top=1.3 * axes.get_ylim()[1])  # room for the legend
    axes.legend(ncols=4, loc="upper right", fontsize="small")
    return axes.figure


def write_files(files: dict[str, Figure | str], folder: Path) -> None:
    """Write figures and texts by the names of their files, each whole or not at all, and say where.
    One that fails stops no other, but ends the program with status 1.
    """
    failed = False
    for name, content in files.items():
        path, part = folder / name, folder / f"{name}.{os.getpid()}.part"
        try:
            if isinstance(content, Figure):
                content.savefig(part, format="png")
            else:
                part.write_text(content, encoding="utf-8")
            os.replace(part, path)
            print(path)
        except OSError as error:
            print(f"gru_pytorch.py: {error}", file=sys.stderr)
            failed = True
            with contextlib.suppress(OSError):
                part.unlink()
    if failed:
        sys.exit(1)


# --- Your own series: what is read --------------------------------------------------------------

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)


class DataError(Exception):
    """A file that holds no series to learn from; the message says what would do."""


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """The rows of a table with their lines in the file, without empty rows at its end. Cells are
    separated by tabs or semicolons, if the first line has any, else by commas.
    """
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise DataError(error) from None
    except UnicodeDecodeError as error:
        raise DataError(f"expected text in UTF-8, got {error}") from None
    first_line = text.split("\n")[0]
    separator = ","
    for mark in "\t;":
        if mark in first_line:
            separator = mark
            break
    reader = csv.reader(io.StringIO(text), delimiter=separator, strict=True)
    rows = []
    try:
        for cells in reader:
            rows.append((reader.line_num, [cell.strip() for cell in cells] or [""]))
    except csv.Error as error:
        raise DataError(f"line {reader.line_num}: {error} (is a quote not closed?)") from None
    while rows and not any(rows[-1][1]):
        rows.pop()
    if not rows:
        raise DataError("expected numbers, got an empty file")
    return rows


def find_column(names: list[str], column: str | None) -> int:
    """The index of a column, given by its name in the first line, else by its position from 1."""
    listed = f"{', '.join(map(repr, names)):.300}"
    if column is None and len(names) > 1:
        raise DataError(
            f"line 1: expected one number, got {len(names)} cells: {listed}. Of a table, --column "
            "names one. If they are one number, write 1.5 for 1,5 and 1500 for 1,500"
        )
    if column is None:
        return 0
    if names.count(column) == 1:
        return names.index(column)
    if column.isdecimal() and 1 <= int(column) <= len(names):
        return int(column) - 1
    if names.count(column) > 1:
        raise DataError(f"{names.count(column)} columns are called {column!r}: give its position")
    raise DataError(
        f"expected --column to be one of {listed}; got {column!r} (a title, a comment or a sep= "
        "line above the table has to be deleted)"
    )


def read_series(path: Path, column: str | None) -> tuple[list[float], list[str]]:
    """The numbers of a text file, one per line, or of a column of a table, and where each stands:
    the first cell of its row, or else its line. DataError if there are none.
    """
    rows = read_rows(path)
    _, names = rows[0]
    index = find_column(names, column)
    if names[index] == column or not NUMBER.fullmatch(names[index]):
        rows = rows[1:]  # the first line is a header
    if not rows:
        raise DataError(f"expected numbers below {names[index]!r:.40}, got nothing")
    values, places = [], []
    for line, cells in rows:
        if len(cells) != len(names):
            raise DataError(
                f"line {line}: expected {len(names)} cell(s) as in line 1, got {len(cells)} "
                "(a title, a comment or an empty line has to be deleted)"
            )
        cell = cells[index]
        if not NUMBER.fullmatch(cell) or math.isinf(float(cell)):
            raise DataError(
                f"line {line}: expected a number like 1.5, got {cell!r:.40} "
                "(gaps have to be filled or cut first, decimal commas to be points)"
            )
        values.append(float(cell))
        places.append(f"line {line}" if index == 0 or cells[0] == "" else cells[0])
    return values, places


def what_was_read(values: list[float], places: list[str]) -> str:
    """One line in which a user can spot a reversed order, a total, a code for gaps, or that it is
    the wrong column.
    """
    smallest, largest = min(values), max(values)
    return (
        f"{len(values)} values: first {values[0]:.15g} ({places[0]}), "
        f"last {values[-1]:.15g} ({places[-1]}), "
        f"smallest {smallest:.15g} ({places[values.index(smallest)]}), "
        f"largest {largest:.15g} ({places[values.index(largest)]})"
    )


# --- Your own series: forecasts -----------------------------------------------------------------
# The network and least squares predict changes, not values, so that they can follow a trend to
# where no value has been before. They see the W changes (--seq-len) up to the last known value, the
# origin, and forecast W steps from there. Values and origins go by their index in the series.
#
#     value           0 1 2 3 4 5        W = 3: from the origin 3, the changes 0, 1, 2 forecast the
#     change           0 1 2 3 4         values 4, 5 and 6. Change i leads from value i to i + 1.

MOST_STEPS = 20_000_000  # of the network when it is tested, for half a minute or so


def part_ends(N: int) -> tuple[int, int]:
    """Of N values 70 % are for training, the next 15 % for validation, the rest for the test."""
    return N * 70 // 100, N * 85 // 100


class LastStep(SequenceModel):
    """A SequenceModel that answers once, after the last step."""

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, F): (B, 1, 1)."""
        return super().forward(x)[:, -1:]


class LeastSquares(nn.Module):
    """The linear map that on windows (n, W + 1, 1) best predicts the last number from the others.
    As a model it goes from (B, W, 1) to (B, 1, 1).
    """

    def __init__(self, windows: Tensor) -> None:
        super().__init__()
        seen, target = with_constant(windows[:, :-1, 0]), windows[:, -1]
        # W rows more, each of which asks for one weight to be 0 (ridge regression). Among many
        # windows they hardly count. Of few, they keep the map from exploding when it runs free.
        W = windows.shape[1] - 1
        seen = torch.cat([seen, torch.eye(W, W + 1, dtype=seen.dtype)])
        target = torch.cat([target, torch.zeros(W, 1, dtype=target.dtype)])
        self.weights = torch.linalg.lstsq(seen, target).solution  # (W + 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (with_constant(x[:, :, 0]) @ self.weights)[:, None]


def split_changes(values: Tensor, W: int) -> tuple[Tensor, Tensor, float]:
    """Windows (n, W + 1, 1) of changes, the last of which is to be predicted: those in which it
    leads to a value of the training part, and to one of the validation part. And their unit, the
    root mean square of the changes in the training part. DataError if nothing can be learned.
    """
    N = len(values)
    train_end, validation_end = part_ends(N)
    three_windows = train_end >= W + 4
    all_distances = validation_end >= 2 * W  # origins up to W steps before each test value
    if not (three_windows and all_distances):
        needed = max(math.ceil(100 * (W + 4) / 70), math.ceil(100 * 2 * W / 85))
        raise DataError(f"expected at least {needed} values for --seq-len {W}, got {N}")
    changes = values.diff()
    unit = root_mean_square(changes[: train_end - 1])
    if not (0 < unit < math.inf and changes.abs().max() < 1e15 * unit):
        raise DataError(
            f"expected numbers that vary in the first {train_end}, by 1e-150 to 1e150, and in the "
            "rest by less than 1e15 times as much"
        )
    windows = (changes / unit).unfold(0, W + 1, 1).unsqueeze(2)  # item i leads to value i + W + 1
    train = windows[: train_end - W - 1]
    validation = windows[train_end - W - 1 : validation_end - W - 1]
    return train, validation, unit


def root_mean_square(errors: Tensor) -> float:
    return errors.square().mean().sqrt().item()


def at_most(count: int, items: Tensor) -> Tensor:
    """So many of the items, drawn at random, or all of them."""
    return items[torch.randperm(len(items))[:count]]


def fit_network(train: Tensor, validation: Tensor, options: Options) -> tuple[nn.Module, History]:
    """A network that predicts the last change in windows (n, W + 1, 1), and what fit returns."""
    network = LastStep(options.cell, input_size=1, hidden_size=options.hidden_size)
    nn.init.zeros_(network.head.weight)  # untrained, it expects no change
    nn.init.zeros_(network.head.bias)
    network.to(options.device)
    pairs = TensorDataset(train[:, :-1].float(), train[:, -1:].float())
    validation = at_most(1000, validation).float()
    validation_pairs = TensorDataset(validation[:, :-1], validation[:, -1:])
    sampler = RandomSampler(pairs, num_samples=min(len(pairs), 1000))  # others at every epoch
    history = fit(
        network,
        DataLoader(pairs, options.batch_size, sampler=sampler),
        DataLoader(validation_pairs, 256),
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        max_norm=options.clip,
        print_every=math.ceil(options.epochs / 10),
    )
    return network.cpu().double(), history


def forecast_by_changes(
    model: nn.Module, values: Tensor, origins: Tensor, W: int, steps: int
) -> Tensor:
    """The values that follow each origin, by a model of changes: (origins, steps)."""
    windows = values.diff().unfold(0, W, 1)  # item i is what is known at the origin i + W
    forecasts = []
    for some in origins.split(1000):  # to bound the memory
        changes = free_running(model, windows[some - W].unsqueeze(2), steps)
        forecasts.append(values[some].unsqueeze(1) + changes.cumsum(dim=1))
    return torch.cat(forecasts)


def forecast(
    models: dict[str, nn.Module], values: Tensor, origins: Tensor, W: int, steps: int
) -> dict[str, Tensor]:
    """The simple forecasts and those of the models: (origins, steps) each, of at most W steps."""
    last_values = values.unfold(0, W, 1)[origins - W + 1]  # the W values up to each origin
    forecasts = {
        "persistence": last_values[:, -1:].expand(-1, steps),  # the last value again
        f"{W} before": last_values[:, :steps],  # the value a window before
    }
    for name, model in models.items():
        forecasts[name] = forecast_by_changes(model, values, origins, W, steps)
    return forecasts


def blend_weights(models: dict[str, nn.Module], values: Tensor, W: int) -> dict[str, float]:
    """Weights for the mean of all forecasts: 1 / MSE^2 of each in the validation part, one step
    ahead, divided by their sum. Bates & Granger 1969 have 1 / MSE; with the square a poor forecast
    counts for less.
    """
    train_end, validation_end = part_ends(len(values))
    origins = at_most(MOST_STEPS // W, torch.arange(train_end - 1, validation_end - 1))
    weights = {}
    for name, made in forecast(models, values, origins, W, steps=1).items():
        mse = (made[:, 0] - values[origins + 1]).square().mean().item()
        weights[name] = 1 / max(mse, 1e-12) ** 2  # an exact forecast has all the weight
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def blend(weights: dict[str, float], forecasts: dict[str, Tensor]) -> Tensor:
    """The mean of the forecasts with these weights."""
    return sum(weights[name] * made for name, made in forecasts.items())


def test_errors(
    models: dict[str, nn.Module], weights: dict[str, float], values: Tensor, W: int
) -> dict[str, list[Tensor]]:
    """For each forecast and the blend, item h - 1 holds its errors h steps ahead in the test part:
    of every value, unless that were too much work.
    """
    N = len(values)
    _, validation_end = part_ends(N)
    origins = torch.arange(validation_end - W, N - 1)
    most = max(200, MOST_STEPS // W**2)  # W forecasts from each, which see W steps each
    how = "each at every distance" if len(origins) <= most else f"from {most} random origins"
    print(f"Forecasting the last {N - validation_end} values, {how} ...\n", flush=True)
    origins = at_most(most, origins)
    forecasts = forecast(models, values, origins, W, steps=W)
    forecasts["blend"] = blend(weights, forecasts)
    errors = {name: [] for name in forecasts}
    for h in range(1, W + 1):
        targets = origins + h
        counts = (targets >= validation_end) & (targets < N)
        for name, made in forecasts.items():
            errors[name].append(made[counts, h - 1] - values[targets[counts]])
    return errors


def series_demo(options: Options) -> None:
    """Forecast one's own series, and say what that is worth and how far ahead."""
    numbers, places = read_series(options.data, options.column)
    print(f"{what_was_read(numbers, places)}\n", flush=True)
    values, W, N = torch.tensor(numbers, dtype=torch.float64), options.seq_len, len(numbers)
    torch.manual_seed(options.seed)
    train, validation, unit = split_changes(values, W)
    network, history = fit_network(train, validation, options)
    least_squares = LeastSquares(at_most(20_000, train))
    models = {"least squares": least_squares, options.cell.upper(): network}

    scaled = values / unit
    weights = blend_weights(models, scaled, W)
    errors = test_errors(models, weights, scaled, W)
    rmse = {}
    for name, by_distance in errors.items():
        rmse[name] = [unit * root_mean_square(error) for error in by_distance]
    print_distances(rmse)
    for h in (1, W):
        error = errors["blend"][h - 1]
        inside = (error.abs() <= root_mean_square(error)).double().mean()
        print(f"{h} ahead, {inside:.0%} of the values lie within one RMSE of the blend.")
    told = " + ".join(f"{weight:.2f} {name}" for name, weight in weights.items())
    print(f"blend = {told}\n")

    last = torch.arange(max(part_ends(N)[1], N - 10 * W) - 1, N)  # origins to be drawn
    one_ahead = unit * blend(weights, forecast(models, scaled, last[:-1], W, steps=1))[:, 0]
    future = unit * blend(weights, forecast(models, scaled, last[-1:], W, steps=W))[0]
    table = "step,forecast,rmse\n"
    for h in range(1, W + 1):
        table += f"{N + h},{future[h - 1]:.17g},{rmse['blend'][h - 1]:.17g}\n"
    column = "" if options.column is None else re.sub(r"\W+", "_", f"_{options.column}")
    stem = f"{options.data.stem}{column}_{options.cell}"
    files = {
        f"{stem}_forecast.csv": table,
        f"{stem}_training_curve.png": plot_curve(
            history, {}, "mean squared error, in mean squares of a change"
        ),
        f"{stem}_forecast.png": plot_series(values, one_ahead, future, rmse),
    }
    write_files(files, options.plots_dir)


def print_distances(rmse: dict[str, list[float]]) -> None:
    """The errors 1, 2, 4, ... steps ahead, and at how many distances the blend was worth it."""
    W = len(rmse["blend"])
    print("steps ahead" + "".join(f"{name:>15}" for name in rmse) + "   (RMSE)")
    for h in sorted({2**n for n in range(10) if 2**n < W} | {W}):
        print(f"{h:11d}" + "".join(f"{of_each[h - 1]:15.5g}" for of_each in rmse.values()))
    simple = ["persistence", f"{W} before", "least squares"]
    wins = []
    for h in range(1, W + 1):
        best_simple = min(rmse[name][h - 1] for name in simple)
        wins.append(rmse["blend"][h - 1] < best_simple)
    in_a_row = [*wins, False].index(False)
    print(f"\nThe blend beats {', '.join(simple)} at {sum(wins)} of {W} distances, ", end="")
    print(f"at every one up to {in_a_row}." if in_a_row else "and not one step ahead.")


def plot_series(
    values: Tensor, one_ahead: Tensor, future: Tensor, rmse: dict[str, list[float]]
) -> Figure:
    """The end of the series, forecast one step ahead; what comes next; the errors by distance."""
    top, below = Figure((7.0, 6.0)).subplots(2)
    N, n, W = len(values), len(one_ahead), len(future)
    known, coming = range(N - n + 1, N + 1), range(N + 1, N + W + 1)
    top.plot(known, values[-n:], ".-", color=GREY, ms=4, lw=0.5, label="data")
    top.plot(known, one_ahead, color=BLUE, lw=1, label="test part, one step ahead")
    top.plot(coming, future, color=RED, label="what comes next; band: RMSE of this distance")
    band = torch.tensor(rmse["blend"], dtype=torch.float64)
    top.fill_between(coming, future - band, future + band, color=RED, alpha=0.2, lw=0)
    top.set(xlabel="step", ylabel="value")
    styles = {
        "persistence": ("s--", GREY),
        f"{W} before": ("+--", PURPLE),
        "least squares": ("^:", GREEN),
        "blend": ("o-", RED),
    }
    for name, errors in rmse.items():
        form, color = styles.get(name, ("x:", BLUE))  # the network
        below.plot(range(1, W + 1), errors, form, color=color, ms=4, label=name)
    below.set(title="How far ahead a forecast is worth anything: the test part", ylim=0)
    below.set(xlabel="steps ahead", ylabel="RMSE, in the unit of the series")
    top.legend(ncols=3, loc="lower left", bbox_to_anchor=(0, 1), fontsize="small")
    below.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return top.figure


# --- The comparison of cells --------------------------------------------------------------------

RATES = 0.005, 0.01, 0.02, 0.04, 0.08, 0.16
CHOOSING, REPORTED = 2, 5  # seeds: a rate is chosen on the first, the others are reported
UPDATES = 10  # from one validation to the next; the comparison calls them an epoch


@dataclass
class Kind:
    """Of network: its cell, the colour of its curve, whether its forget gate has a bias of 1."""

    cell: str
    color: str
    forget_bias: bool = False


KINDS = {
    "GRU": Kind("gru", RED),
    "LSTM": Kind("lstm", BLUE),
    "LSTM, forget bias 1": Kind("lstm", GREEN, forget_bias=True),
    "plain RNN": Kind("rnn", GREY),
}


@dataclass
class Task:
    """Data; the class of its models, and how many numbers they see at a step; the validation error
    below which one has learned; and errors on the test set to compare with, by name.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    model: type[SequenceModel]
    features: int
    learned: float
    references: dict[str, float]


def sine_task(seed: int, options: Options) -> Task:
    """The task of the lesson, for which the options are fixed. Learned: within 1.25 times the best
    possible error; least squares has 1.5 times.
    """
    torch.manual_seed(seed)
    T, noise = SINE["seq_len"], SINE["noise"]
    train, validation, test = (with_noise(sine_waves(n, T + 1), noise) for n in (4000, 500, 1000))

    def mse(predictions: Tensor, waves: Tensor) -> float:
        return (predictions - waves[:, 1:]).square().mean().item()

    learned = 1.25 * mse(best_predictions(validation, noise), validation)
    references = {
        "persistence": mse(test[:, :-1], test),
        "least squares": mse(linear_predictions(train, test), test),
        "best possible": mse(best_predictions(test, noise), test),
    }
    pairs = NextStep(train), NextStep(validation), NextStep(test)
    return Task(*pairs, SequenceModel, 1, learned, references)


def adding_problem(count: int, T: int) -> tuple[Tensor, Tensor]:
    """The adding problem (Hochreiter & Schmidhuber 1997): a step holds a number from U(0, 1) and a
    mark, 1 at one step of either half and 0 elsewhere, (count, T, 2); the target is the sum of the
    marked numbers, (count, 1, 1).
    """
    numbers = torch.rand(count, T)
    first = torch.randint(0, T // 2, (count, 1))
    second = torch.randint(T // 2, T, (count, 1))
    marks = torch.zeros(count, T)
    marks.scatter_(1, first, 1.0)  # in each row, at the column drawn for it
    marks.scatter_(1, second, 1.0)
    target = (numbers * marks).sum(dim=1)
    return torch.stack([numbers, marks], dim=2), target[:, None, None]


def adding_task(seed: int, options: Options) -> Task:
    """Memory over many steps. Learned: a mean squared error below 0.01."""
    torch.manual_seed(seed)
    train, validation, test = (adding_problem(n, options.seq_len) for n in (64_000, 500, 1000))
    x, y = train
    test_x, test_y = test
    weights = torch.linalg.lstsq(with_constant(x.flatten(1)), y[:, 0], driver="gelsd").solution
    linear = with_constant(test_x.flatten(1)) @ weights
    references = {
        "always answering 1": (test_y - 1).square().mean().item(),
        "least squares": (test_y[:, 0] - linear).square().mean().item(),
    }
    pairs = TensorDataset(*train), TensorDataset(*validation), TensorDataset(*test)
    return Task(*pairs, LastStep, 2, 0.01, references)


def new_model(kind: Kind, task: Task, options: Options) -> SequenceModel:
    """With its first weights."""
    model = task.model(kind.cell, task.features, options.hidden_size)
    if kind.forget_bias:
        # An LSTM keeps more to begin with if the forget gate's bias is 1 (Jozefowicz et al. 2015).
        # It has two biases, which add up. The forget gate is the second of the four in each.
        for name, parameter in model.recurrent.named_parameters():
            if name.startswith("bias"):
                nn.init.constant_(parameter.chunk(4)[1], 0.5)
    return model


@dataclass
class Run:
    """One training: its validation errors by epoch, untrained first; the test error of the weights
    that were kept; and the seconds that it took, validation included.
    """

    validation_mse: list[float]
    test_mse: float
    seconds: float


def train_once(name: str, rate: float, seed: int, task: Task, options: Options) -> Run:
    """Train a network of the kind of this name. All kinds see the same batches of a seed."""
    torch.manual_seed(seed)
    model = new_model(KINDS[name], task, options).to(options.device)
    torch.manual_seed(seed)  # again, since the networks have drawn more or fewer weights
    sampler = RandomSampler(task.train, num_samples=UPDATES * options.batch_size)
    start = time.perf_counter()
    history = fit(
        model,
        DataLoader(task.train, options.batch_size, sampler=sampler),
        DataLoader(task.validation, 256),
        epochs=options.epochs,
        learning_rate=rate,
        max_norm=1.0,
        print_every=0,
    )
    seconds = time.perf_counter() - start
    validation_mse = [row[1] for row in history]
    print(f"seed {seed}, {name}, rate {rate}: validation MSE {min(validation_mse):.3g}", flush=True)
    test_mse = evaluate(model, DataLoader(task.test, 256))
    return Run(validation_mse, test_mse, seconds)


def choose_rate(name: str, tasks: dict[int, Task], options: Options) -> float:
    """The rate with the smallest validation error, in the mean over the seeds of the tasks."""
    errors = {}
    for rate in RATES:
        runs = [train_once(name, rate, seed, task, options) for seed, task in tasks.items()]
        errors[rate] = statistics.mean(min(run.validation_mse) for run in runs)
    return min(errors, key=errors.get)


def learned_after(validation_mse: list[float], level: float) -> float:
    """The update from which on the errors stay below the level; inf if the last one is not."""
    stays_below = math.inf
    for epoch, mse in reversed(list(enumerate(validation_mse))):
        if mse >= level:
            break
        stays_below = UPDATES * epoch
    return stays_below


def compare(options: Options) -> None:
    """Choose a rate for each kind, train it on other seeds, print and draw what it reaches."""
    make_task = {"sine": sine_task, "adding": adding_task}[options.compare]
    first = (CHOOSING + REPORTED) * options.seed
    seeds = range(first, first + CHOOSING + REPORTED)
    tasks = {seed: make_task(seed, options) for seed in seeds}
    choosing = {seed: tasks[seed] for seed in seeds[:CHOOSING]}
    reported = {seed: tasks[seed] for seed in seeds[CHOOSING:]}
    rates = {name: choose_rate(name, choosing, options) for name in KINDS}
    runs = {name: [] for name in KINDS}
    for seed, task in reported.items():
        for name, rate in rates.items():  # in turns, so that a slow minute slows all of them
            runs[name].append(train_once(name, rate, seed, task, options))
    print_comparison(runs, rates, list(reported.values()), options)
    figure = plot_comparison(runs, rates, list(reported.values()))
    write_files({f"gru_vs_lstm_{options.compare}.png": figure}, options.plots_dir)


def spread(values: list[float], form: str) -> str:
    """Median (smallest - largest) of updates or seconds or errors; inf: it has not learned."""
    least, median, most = min(values), statistics.median(values), max(values)
    if least == math.inf:
        return "not learned"
    if most == math.inf:
        return f"in {sum(map(math.isfinite, values))} of {len(values)} runs"
    return f"{median:{form}} ({least:{form}} - {most:{form}})"


def print_comparison(
    runs: dict[str, list[Run]], rates: dict[str, float], tasks: list[Task], options: Options
) -> None:
    """A row for each kind, and the errors to compare with."""
    print(f"\nMedian (smallest - largest) of {len(tasks)} seeds; the rates were chosen on others.")
    print("Learned: from this update on the validation error stays below the last line's. Seconds:")
    print("what part of its training that is, by the clock, validation every 10 updates included.")
    print(f"\n{'network':21}{'rate':>7} {'weights':>9}{'learned after':>19}", end="")
    print(f"{'seconds until then':>20}{'test MSE':>33}")
    for name, rate in rates.items():
        model = new_model(KINDS[name], tasks[0], options)
        weights = sum(parameter.numel() for parameter in model.parameters())
        mark = "*" if rate in (min(RATES), max(RATES)) else " "
        updates, seconds = [], []
        for run, task in zip(runs[name], tasks):
            update = learned_after(run.validation_mse, task.learned)
            updates.append(update)
            seconds.append(run.seconds * update / (UPDATES * options.epochs))
        test_mse = [run.test_mse for run in runs[name]]
        print(f"{name:21}{rate:7.2g}{mark}{weights:9d}{spread(updates, '.0f'):>19}", end="")
        print(f"{spread(seconds, '.1f'):>20}{spread(test_mse, '.3g'):>33}")
    if {min(RATES), max(RATES)} & set(rates.values()):
        print("* the smallest or the largest rate that was tried: a better one may lie beyond it")
    print()
    for name, errors in references(tasks).items():
        print(f"{name}: MSE {spread(errors, '.4g')}")


def references(tasks: list[Task]) -> dict[str, list[float]]:
    """Errors to compare with, of all tasks: those on the test sets, and last what is learned."""
    errors = {name: [task.references[name] for task in tasks] for name in tasks[0].references}
    errors["learned"] = [task.learned for task in tasks]
    return errors


def plot_comparison(
    runs: dict[str, list[Run]], rates: dict[str, float], tasks: list[Task]
) -> Figure:
    """Validation errors by update: the median of the seeds, and their range."""
    axes = Figure((8.0, 4.8)).subplots()
    for name, rate in rates.items():
        color = KINDS[name].color
        validation_mse = torch.tensor([run.validation_mse for run in runs[name]])  # (seeds, epochs)
        updates = [UPDATES * epoch for epoch in range(validation_mse.shape[1])]
        least, most = validation_mse.min(dim=0).values, validation_mse.max(dim=0).values
        median = validation_mse.median(dim=0).values
        axes.plot(updates, median, color=color, label=f"{name}, rate {rate:.2g}")
        axes.fill_between(updates, least, most, color=color, alpha=0.2, lw=0)
    for (name, errors), dashes in zip(references(tasks).items(), (":", "--", "-.", "-")):
        axes.axhline(statistics.median(errors), color="black", ls=dashes, lw=1, label=name)
    axes.set(title=f"Median of {len(tasks)} seeds, and their range", yscale="log")
    axes.set(xlabel="update", ylabel="validation MSE")
    axes.set_ylim(top=2 * max(max(errors) for errors in references(tasks).values()))
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    return axes.figure


# --- The command line ---------------------------------------------------------------------------

MODES = {  # the options that each has, and their defaults
    "the sine waves": SINE,
    "--data": {
        "column": None,
        "cell": "gru",
        "hidden_size": 32,
        "seq_len": 12,
        "epochs": 100,
        "batch_size": 32,
        "learning_rate": 0.005,
        "clip": 1.0,
        "seed": 0,
    },
    "--compare sine": {"hidden_size": 32, "epochs": 100, "batch_size": 64, "seed": 0},
    "--compare adding": {
        "hidden_size": 64,
        "seq_len": 50,
        "epochs": 100,
        "batch_size": 64,
        "seed": 0,
    },
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


def make_parser() -> argparse.ArgumentParser:
    """All options, still without their defaults, which differ from mode to mode."""
    usage = __doc__.split("\n\n")[1]
    defaults = "defaults:"
    for mode, options in MODES.items():
        flags = (f"{flag(name)} {value}" for name, value in options.items() if value is not None)
        defaults += f"\n  {mode}:\n    {' '.join(flags)}"
    parser = argparse.ArgumentParser(
        description=usage,
        epilog=defaults,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a later option may begin with the same letters
    )
    whole = functools.partial(number, int)
    real = functools.partial(number, float)
    epochs = "passes over the data (--data: over 1000 windows of it; --compare: ten updates)"
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--data", type=Path, help="your own series: lines of numbers, or a table")
    modes.add_argument("--compare", choices=("sine", "adding"), help="GRU, LSTM, plain network")
    add = parser.add_argument
    add("--column", help="of a table: its name in the first line, or its position from 1")
    add("--cell", choices=("gru", "lstm", "rnn"), help="kind of recurrent layer")
    add("--hidden-size", type=whole(1, 4096), help="hidden units")
    add("--seq-len", type=whole(2, 1000), help="steps seen; with --data also steps ahead")
    add("--noise", type=real(0, 100), help="standard deviation of the waves' noise")
    add("--epochs", type=whole(1, 10**6), help=epochs)
    add("--batch-size", type=whole(1, 10**5), help="sequences in an update")
    add("--learning-rate", type=real(1e-9, 100), help="Adam's first rate, which falls to zero")
    add("--clip", type=real(1e-9, math.inf), help="largest norm of a gradient; inf: any")
    add("--seed", type=whole(0, 10**9), help="seed of data, weights and order")
    here = "cuda" if torch.cuda.is_available() else "cpu"
    add("--device", default=here, help=f"cpu, cuda:0 or the like (default: {here})")
    plots = Path(__file__).resolve().parent / "plots"
    add("--plots-dir", type=Path, default=plots, help="folder to write to (default: plots)")
    return parser


def flag(name: str) -> str:
    """How the option of this name is written on the command line."""
    return f"--{name.replace('_', '-')}"


def parse_options(parser: argparse.ArgumentParser, argv: list[str] | None) -> Options:
    """Read the options and fill in the mode's defaults; a wrong one ends the program with status 2
    before any work.
    """
    options = parser.parse_args(argv)
    mode = "the sine waves"
    if options.data is not None:
        mode = "--data"
    elif options.compare is not None:
        mode = f"--compare {options.compare}"
    for name, value in vars(options).items():
        modes = [each for each in MODES if name in MODES[each]]
        if value is None and mode in modes:
            setattr(options, name, MODES[mode][name])
        elif value is not None and modes and mode not in modes:
            parser.error(f"argument {flag(name)}: goes with {', '.join(modes)}; not with {mode}")
    try:
        torch.zeros(1, device=options.device).item()
    except (RuntimeError, AssertionError, NotImplementedError, ImportError) as error:
        reason = str(error).splitlines()[0]
        parser.error(
            f"argument --device: expected one that is here, got {options.device} ({reason})"
        )
    try:
        options.plots_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=options.plots_dir).close()
    except OSError as error:
        parser.error(f"argument --plots-dir: expected a folder to write to, got {error}")
    return options


def main(argv: list[str] | None = None) -> None:
    """Run the command line. Status 2: wrong options or data; 1: it diverged, or a file could not be
    written.
    """
    parser = make_parser()
    options = parse_options(parser, argv)
    torch.set_num_threads(1)  # so small a network gains nothing from a second
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":16:8")  # the same numbers again on CUDA
    try:
        with style.context(["default", STYLE]):  # whatever the user's own matplotlibrc says
            if options.compare is not None:
                compare(options)
            elif options.data is not None:
                series_demo(options)
            else:
                sine_demo(options)
    except DataError as error:
        parser.error(f"argument --data: {options.data}: {error}")
    except FloatingPointError as error:
        sys.exit(f"gru_pytorch.py: {error}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it, and a shell's loop around it
    if hasattr(signal, "SIGPIPE"):  # | head ends it quietly
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    main()
