"""gru_pytorch.py: the data, one's own series, nn.GRU line by line, training, the comparison with
LSTM, and the command line with what it refuses."""

import contextlib
import io
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import table
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gru_pytorch as gp

CELLS = pytest.mark.parametrize("cell", ["gru", "lstm"])
SMALL = ("--quick", "--hidden-size", "4", "--seq-len", "2")
SETUP = gp.Setup("gru", 10, 1, 2, 7, 0.3, 0.7, 0, "cpu")
CURVE, FORECAST = "gru_pytorch_training_curve.png", "gru_pytorch_forecast.png"


def noise_pairs(seed=0, only_last=False):
    """Noise that grows from the first sequence to the last, so that no two batches are alike."""
    sequences = torch.randn(20, 7, 1, generator=torch.Generator().manual_seed(seed))
    return gp.NextStep(sequences * torch.linspace(0.5, 3, 20)[:, None, None], only_last)


def loaders():
    """Two data sets in batches of 7, 7 and 6. The second has targets for the last step alone."""
    return DataLoader(noise_pairs(0), 7), DataLoader(noise_pairs(1, only_last=True), 7)


def random_model(cell="gru", features=1, layers=1, dtype=torch.float32):
    """A network with larger random weights than nn.GRU's own first ones, biases included."""
    torch.manual_seed(3)
    model = gp.SequenceModel(cell, features, 5, layers).to(dtype)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -1, 1)
    return model


def weights(model):
    """A copy of all parameters as one vector."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def noisy_wave(count):
    noise = 0.3 * np.random.default_rng(0).standard_normal(count)
    return 3 + np.sin(np.arange(count) / 2) + noise


def numbers_file(folder, values):
    path = folder / "series.txt"
    path.write_text("".join(f"{float(value)!r}\n" for value in values))
    return path


def run(*argv):
    """What main exits with (a text means status 1), stdout and stderr, on the CPU."""
    status, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            gp.main(["--device", "cpu", *map(str, argv)])
        except SystemExit as end:
            status = end.code
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def drawn(monkeypatch):
    """The figures, by the names of their files, instead of the files."""
    kept = {}
    monkeypatch.setattr(Figure, "savefig", lambda self, path: kept.update({path.name: self}))
    return kept


def curves(axes):
    """What the legend names: x and y."""
    named = zip(*axes.get_legend_handles_labels())
    return {label: (list(line.get_xdata()), list(line.get_ydata())) for line, label in named}


@pytest.fixture
def models(monkeypatch):
    """The networks that a demo trains."""
    kept, train = [], gp.train
    monkeypatch.setattr(gp, "train", lambda *rest: kept.append(train(*rest)) or kept[-1])
    return kept


# --- Data ---------------------------------------------------------------------------------------


def test_the_targets_are_the_inputs_one_step_later_or_just_the_last_of_these():
    sequences = torch.arange(5 * 8 * 2).reshape(5, 8, 2)  # no number twice
    for only_last in (False, True):
        pairs = gp.NextStep(sequences, only_last)
        assert len(pairs) == 5
        for i in range(5):
            x, y = pairs[i]
            assert torch.equal(x, sequences[i, :7])
            assert torch.equal(y, sequences[i, 7:] if only_last else sequences[i, 1:])


def test_sine_waves_and_their_levels_are_those_of_a_phase_fitted_to_a_whole_period():
    def fitted(waves):
        x, angle = waves[:, :30, 0], 2 * math.pi * torch.arange(waves.shape[1]) / 30
        phase = torch.atan2((x * angle.cos()[:30]).sum(1), (x * angle.sin()[:30]).sum(1))
        return torch.sin(angle + phase[:, None]), phase

    seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
    clean, noisy = (gp.sine_waves(seeds[i], 20_000, 31, 0.1 * i) for i in range(2))
    sines, phase = fitted(clean)
    torch.testing.assert_close(clean[:, :, 0], sines, rtol=0, atol=1e-5)
    assert torch.all(torch.histc(phase, 8, -math.pi, math.pi) > 2200)  # any phase: of 2500
    noise = (noisy - clean)[:, :, 0]
    assert noise.std().item() == pytest.approx(0.1, rel=0.01) and abs(noise.mean()) < 0.001
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 0.0001

    task = gp.sine_task(0, 30, 0.1, 20_000)
    assert [part[:][1].shape[1] for part in task[:3]] == [30, 1, 1]
    x, y = task.test[:]
    best, persistence = 0.1**2 * (1 + 1 / 30), torch.mean((x[:, -1:] - y) ** 2).item()
    error = torch.mean((fitted(torch.cat([x, y], dim=1))[0][:, -1:] - y[:, :, 0]) ** 2).item()
    assert error == pytest.approx(best, rel=0.01)  # 2 standard errors
    # Of a difference of two values: the wave's own 1 - cos(2 pi / 30), and two noises.
    assert persistence == pytest.approx(1 - math.cos(2 * math.pi / 30) + 2 * 0.1**2, rel=0.02)
    assert task.levels == pytest.approx({"best possible": best, "persistence": persistence})
    assert task.learned == pytest.approx(1.5 * best) and gp.sine_task(0, 9, 0, 5).learned == 0.001
    assert "best possible" not in gp.sine_task(0, 31, 0.1, 5).levels


@pytest.mark.parametrize("T", [2, 7])
def test_the_adding_problem_asks_for_the_sum_of_one_marked_number_of_either_half(T):
    count, half = 76_800, T // 2
    task = gp.adding_task(0, T, count)
    x, y = task.train[:]
    numbers, marks = x.unbind(dim=2)
    assert x.shape == (count, T, 2) and y.shape == (count, 1, 1)
    assert 0 <= numbers.min() < 0.001 and 0.999 < numbers.max() < 1
    assert set(marks.unique().tolist()) <= {0, 1} and torch.all(marks.sum(0) > 0)  # any step
    assert torch.all(marks[:, :half].sum(1) == 1) and torch.all(marks[:, half:].sum(1) == 1)
    assert torch.equal(y[:, 0, 0], numbers[marks == 1].reshape(count, 2).sum(1))
    # Always answering 1: the squared error has the deviation 0.2, so this is 5 standard errors.
    assert torch.mean((y - 1) ** 2).item() == pytest.approx(1 / 6, abs=0.0036)
    assert (task.levels, task.learned) == ({"always answering 1": 1 / 6}, 0.01)


@pytest.mark.parametrize("make, noise", [(gp.sine_task, [0]), (gp.adding_task, [])])
def test_the_three_sets_of_a_task_are_different_draws_which_the_seed_fixes(make, noise):
    def inputs(seed):
        task = make(seed, 6, *noise, 50)
        return [tuple(x.flatten().tolist()) for part in task[:3] for x in part[:][0]]

    first, again, other = map(inputs, (1, 1, 2))
    assert first == again
    assert len({*first, *other}) == len(first) + len(other)


# --- One's own series ---------------------------------------------------------------------------

SPLITS = [(10, 5, 7, 8), (20, 12, 14, 17), (57, 9, 39, 48), (100, 12, 70, 85)]
SPLITS.append((3000, 12, 2100, 2550))


@pytest.mark.parametrize("N, T, cut, last", SPLITS)
def test_every_value_is_a_target_of_one_part_alone_and_training_sees_no_other(N, T, cut, last):
    task, changes, unit = gp.series_task(np.arange(N) ** 2.0, T)  # 2 i - 1 leads to value i

    def places(pairs):
        return [torch.round((each[..., 0].double() * unit + 1) / 2).int() for each in pairs]

    assert places([changes])[0].tolist() == [*range(1, N)]
    parts = [places(part[:]) for part in task[:3]]
    for x, y in parts:
        assert x.shape[1] == T and torch.all(x.diff(dim=1) == 1)
        assert torch.equal(y, x[:, -y.shape[1] :] + 1)
    (x, y), (_, validation), (_, test) = parts
    every = math.ceil((cut - 1 - T) / 1000)  # of a long series, 1000 windows at most
    assert x[:, 0].tolist() == [*range(1, cut - T, every)]
    assert y.shape == x.shape and y.max() < cut
    assert validation.flatten().tolist() == [*range(cut, last)]
    assert test.flatten().tolist() == [*range(last, N)]


@CELLS
def test_an_untrained_network_repeats_the_last_value_exactly_in_the_unit_of_training(cell):
    values = noisy_wave(1600)
    wild = np.concatenate([values[:1120], 1e3 * (-1.01) ** np.arange(480)])
    (task, x, unit), (other, _, other_unit) = (gp.series_task(each, 12) for each in (values, wild))
    parts = values[:1120], values[1119:1360], values[1359:]
    squares = [np.mean(np.diff(part) ** 2) for part in parts]
    assert unit == other_unit == pytest.approx(math.sqrt(squares[0]), rel=1e-12)
    assert all(map(torch.equal, task.train[:], other.train[:]))
    assert task.learned == pytest.approx(squares[1] / unit**2, rel=1e-5)  # as good as repeating
    model, repeating = gp.build(task, SETUP._replace(cell=cell)), squares[2] / unit**2
    assert gp.one_step(model, x, 12).tolist() == 1587 * [0]  # more than a part of 1024
    assert gp.evaluate(model, DataLoader(task.test, 7)) == pytest.approx(repeating, rel=1e-5)
    assert task.levels == pytest.approx({"persistence": repeating}, rel=1e-5)


def test_the_linear_forecast_is_least_squares_on_the_training_part_and_exact_where_it_can_be():
    values, t = noisy_wave(60), np.arange(60)
    windows = np.array([[*values[i : i + 5], 1] for i in range(55)])
    x, y = windows[:35], values[5:40]
    expected = windows @ np.linalg.solve(x.T @ x, x.T @ y)
    np.testing.assert_allclose(gp.linear_forecast(values, 5, 40), expected, rtol=1e-9)
    values = 1e6 + np.sin(t / 4) + t / 50  # without noise, each is linear in those before it
    np.testing.assert_allclose(gp.linear_forecast(values, 5, 40), values[5:], rtol=0, atol=1e-6)


def test_what_is_printed_saved_and_drawn_of_ones_own_series(tmp_path, models, drawn):
    """Against forecasts with the trained network, one window at a time."""
    values, T = noisy_wave(102), 12
    data = numbers_file(tmp_path, values)
    status, out, err = run("--data", data, "--epochs", 25, "--plots-dir", tmp_path)
    assert (status, err) == (0, "")
    assert [*map(int, re.findall(r"^ +(\d+) ", out, re.M))] == [*range(3, 25, 3), 25]
    unit = np.sqrt(np.mean(np.diff(values[:71]) ** 2))

    def next_value(before):
        x = torch.tensor(np.diff(before[-T - 1 :]) / unit, dtype=torch.float32)
        return before[-1] + unit * models[0](x[None, :, None])[0, -1, 0].item()

    ahead, continued = [next_value(values[:i]) for i in range(86, 102)], list(values)
    for _ in range(T):
        continued.append(next_value(continued))
    lines = (tmp_path / "gru_pytorch_data_forecast.csv").read_text().splitlines()
    steps, truth, forecasts = zip(*(line.split(",") for line in lines))
    assert steps == ("step", *map(str, range(87, 103 + T)))
    assert truth == ("value", *map(str, values[86:].tolist()), *T * [""])
    np.testing.assert_allclose(list(map(float, forecasts[1:])), ahead + continued[102:], rtol=1e-5)
    panels = [curves(axes)["forecast"] for axes in drawn["gru_pytorch_data_forecast.png"].axes]
    assert [steps for steps, _ in panels] == [[*range(16)], [*range(3 * T, 4 * T)]]
    assert [y for _, each in panels for y in each] == list(map(float, forecasts[1:]))

    linear = gp.linear_forecast(values, T + 1, 71)[-16:]
    each = {"test RMSE": ahead, "persistence": values[85:-1], "linear": linear}
    rmse = {name: np.sqrt(np.mean((each[name] - values[86:]) ** 2)) for name in each}
    assert table(out) == pytest.approx(rmse, rel=1e-4)
    verdicts = re.findall(r"(\d+)% (below|above) (persistence|linear)", out.splitlines()[-1])
    assert {side for _, side, _ in verdicts} == {"below", "above"}
    for percent, side, name in verdicts:
        ratio = rmse["test RMSE"] / rmse[name]
        assert (int(percent), side == "below") == (round(100 * abs(ratio - 1)), ratio < 1)


def test_errors_are_in_the_units_of_the_series(tmp_path, drawn):
    def printed(values):
        argv = ("--quick", "--data", numbers_file(tmp_path, values), "--plots-dir", tmp_path)
        return table(run(*argv)[1])

    first, scaled = printed(noisy_wave(100)), printed(1000 * noisy_wave(100) + 5)
    expected = {name: 1000 * value for name, value in first.items()}
    assert len(expected) == 3 and scaled == pytest.approx(expected, rel=2e-4)


READABLE = {
    "lines": (b"1\n2.5\n -3e2 ", None),
    "lines of Windows": (b"\xef\xbb\xbf1\r\n2.5\r\n-3e2\r\n\r\n \r\n", None),
    "commas": (b"day,sold\n1,1\n2,2.5\n3,-3e2\n\n", "sold"),
    "semicolons": (b"day;sold;on\n1;1;1,5\n2;2.5;2,5\n3;-3e2;3,5\n", "sold"),
    "tabs": (b"day\tsold\n1\t1\n2\t2.5\n3\t-3e2\n", "sold"),
    "quotes": (b'day,sold\n"1, May",1\n"2, May",2.5\n"3, May",-3e2\n', "sold"),
    "one column": (b"sold\n1\n2.5\n-3e2\n", "sold"),
    "a table of Windows": (b"\xef\xbb\xbfsold , day\r\n1,4\r\n2.5,5\r\n-3e2,6\r\n\r\n", "sold"),
}


@pytest.mark.parametrize("content, column", READABLE.values(), ids=READABLE)
def test_lines_and_the_column_of_a_table_are_read_as_the_same_series(content, column, tmp_path):
    path = tmp_path / "series"
    path.write_bytes(content)
    assert gp.read_series(path, column).tolist() == [1, 2.5, -300]


NUMBER, TEXT = "expected a number like 1.5, got ", "expected a text file in UTF-8, got .*"
FEW, HINT = "expected at least 10 values for --seq-len 5, got ", "; for a table, add --column NAME"
UNREADABLE = {
    "text": (b"1\n2\ntwelve\n4\n", None, f"line 3: {NUMBER}'twelve'{HINT}"),
    "an empty line": (b"1\n\n3\n", None, f"line 2: {NUMBER}''{HINT}"),
    "nan": (b"1\nnan\n3\n", None, f"line 2: {NUMBER}'nan'{HINT}"),
    "inf": (b"-inf\n2\n3\n", None, f"line 1: {NUMBER}'-inf'{HINT}"),
    "a decimal comma": (b"1\n2,5\n", None, f"line 2: {NUMBER}'2,5'{HINT}"),
    "a decimal comma in a table": (b"a;b\n1;2\n2;2,5\n3;4\n", "b", f"line 3: {NUMBER}'2,5'"),
    "UTF-16": ("1\n2\n".encode("utf-16"), None, TEXT),
    "a binary file": (b"\x89PNG\r\n\x1a\n\x00\xff", None, TEXT),
    "a missing file": (None, None, TEXT),
    "a folder": (None, None, TEXT),
    "an empty file": (b"", None, f"{FEW}0"),
    "a short series": (b"1\n2\n4\n" * 3, None, f"{FEW}9"),
    "a constant series": (b"7.3\n" * 99, None, "expected numbers that vary in the first 70 % .*"),
    "a table without --column": (b"a,b\n1,2\n", None, f"line 1: {NUMBER}'a,b'{HINT}"),
    "no such column": (b"a,b\n1,2\n", "sold", "expected one of the columns a, b, got 'sold'"),
    "a missing value": (b"a,b\n1,2\n2,\n3,4\n", "b", f"line 3: {NUMBER}''"),
    "a short row": (b"a,b\n1,2\n2\n3,4\n", "a", f"line 3: {NUMBER}''"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_bad_data_ends_with_status_2_and_one_line_before_any_training(case, tmp_path, monkeypatch):
    monkeypatch.setattr(gp, "train", None)  # to call it is another error
    content, column, message = UNREADABLE[case]
    path = tmp_path if case == "a folder" else tmp_path / "data"
    if content is not None:
        path.write_bytes(content)
    argv = ["--data", path, "--seq-len", 5, "--plots-dir", tmp_path / "plots"]
    status, out, err = run(*argv, *([] if column is None else ["--column", column]))
    assert (status, out) == (2, "")
    assert re.fullmatch(f"gru_pytorch.py: error: --data {re.escape(str(path))}: {message}\n", err)


# --- The model ----------------------------------------------------------------------------------


def states_by_hand(gru, x, h, reset_after=True):
    """The states of an nn.GRU, line by line: x (B, T, F), h (B, H) -> (B, T, H)."""
    W_r, W_z, W_n = gru.weight_ih_l0.chunk(3)
    U_r, U_z, U_n = gru.weight_hh_l0.chunk(3)
    b_r, b_z, b_n = gru.bias_ih_l0.chunk(3)
    c_r, c_z, c_n = gru.bias_hh_l0.chunk(3)
    states = []
    for x_t in x.unbind(dim=1):
        r = torch.sigmoid(x_t @ W_r.T + b_r + h @ U_r.T + c_r)
        z = torch.sigmoid(x_t @ W_z.T + b_z + h @ U_z.T + c_z)
        recurrent = r * (h @ U_n.T + c_n) if reset_after else (r * h) @ U_n.T + c_n
        n = torch.tanh(x_t @ W_n.T + b_n + recurrent)
        h = (1 - z) * n + z * h
        states.append(h)
    return torch.stack(states, dim=1)


def test_nn_gru_resets_after_the_product_and_has_two_biases():
    model = random_model(features=3, dtype=torch.float64)
    gru, x, h0 = model.recurrent, torch.randn(4, 9, 3).double(), torch.randn(4, 5).double()
    states, h_n = gru(x, h0[None])
    torch.testing.assert_close(states, states_by_hand(gru, x, h0), rtol=0, atol=1e-12)
    assert (states - states_by_hand(gru, x, h0, reset_after=False)).abs().max() > 0.1
    assert torch.equal(h_n, states[None, :, -1])  # (layers, B, H), whatever batch_first says
    assert random_model(layers=2).recurrent(torch.zeros(4, 9, 1))[1].shape == (2, 4, 5)
    y = states_by_hand(gru, x, 0 * h0) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(x), y, rtol=0, atol=1e-12)


@CELLS
def test_a_forecast_depends_on_its_own_sequence_up_to_its_own_step(cell):
    model, x = random_model(cell, 2, layers=2, dtype=torch.float64), torch.randn(3, 8, 2).double()
    influence = torch.autograd.functional.jacobian(model, x)[:, :, 0].abs().sum(dim=-1)
    for b in range(3):
        for c in range(3):  # of the steps of sequence c on the forecasts of sequence b
            expected = torch.ones(8, 8).tril() if b == c else torch.zeros(8, 8)
            assert torch.equal(influence[b, :, c] > 0, expected == 1)


# --- Training and evaluation --------------------------------------------------------------------


def test_batches_of_unequal_size_give_the_errors_of_one_large_batch():
    model, records = random_model(), []
    gp.fit(model, *loaders(), 2, 1e-30, 1.0, records.append)  # a rate that moves no weight
    errors = []
    for x, y in (each.dataset[:] for each in loaders()):
        errors.append(torch.mean((model(x)[:, -y.shape[1] :] - y) ** 2).item())
    assert [record.number for record in records] == [1, 2]
    for record in records:
        assert record[1:] == pytest.approx(errors, rel=1e-6)


@pytest.mark.parametrize("max_norm, clipped", [(1e-3, True), (1e9, False)])
def test_the_step_is_the_gradient_of_this_batch_with_at_most_the_largest_norm(max_norm, clipped):
    model, (x, y) = random_model(dtype=torch.float64), (v.double() for v in noise_pairs()[:])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    gp.train_step(model, optimizer, 2 * x, -y, max_norm)  # leaves a gradient, and all weights
    optimizer.param_groups[0]["lr"] = 1.0
    before, y = weights(model), y[:, -3:]  # targets for the last three steps alone
    loss = torch.mean((model(x)[:, -3:] - y) ** 2)
    gradient = nn.utils.parameters_to_vector(torch.autograd.grad(loss, [*model.parameters()]))
    assert 2e-3 < gradient.norm() < 1e3

    assert gp.train_step(model, optimizer, x, y, max_norm) == pytest.approx(loss.item(), rel=1e-12)
    step = before - weights(model)
    expected = gradient * max_norm / gradient.norm() if clipped else gradient
    torch.testing.assert_close(step, expected, rtol=1e-4, atol=1e-12)  # torch adds 1e-6 to the norm
    assert step.norm() <= max_norm


def test_an_epoch_is_every_sequence_once_in_a_new_order_and_the_rate_a_cosine(monkeypatch):
    rates, batches, train_step = [], [], gp.train_step

    def step(model, optimizer, x, *rest):
        assert rest[-1] == SETUP.clip
        rates.append(optimizer.param_groups[0]["lr"])
        batches.append(x[:, 0, 0].tolist())
        return train_step(model, optimizer, x, *rest)

    monkeypatch.setattr(gp, "train_step", step)
    gp.train(gp.Task(noise_pairs(), noise_pairs(1), None, 1, {}), SETUP, lambda _: None)
    expected = [0.15 * (1 + math.cos(math.pi * k / 6)) for k in range(6)]  # and then 0
    np.testing.assert_allclose(rates, expected, rtol=1e-9)
    assert [len(batch) for batch in batches] == [7, 7, 6] * 2
    orders = [[n for batch in batches[i : i + 3] for n in batch] for i in (0, 3)]
    orders.append(noise_pairs()[:][0][:, 0, 0].tolist())
    assert all(orders[i] != orders[i - 1] for i in range(3))
    assert sorted(orders[0]) == sorted(orders[1]) == sorted(orders[2])


def test_fit_keeps_the_weights_with_the_smallest_validation_error_even_those_it_came_with():
    model, records, states = random_model().eval(), [], []

    def record(epoch):
        assert model.training
        records.append(epoch)
        states.append(weights(model))

    gp.fit(model, *loaders(), 8, 0.1, 1.0, record)
    best = min(range(8), key=lambda i: records[i].validation_mse)
    assert 0 < best < 7 and torch.equal(weights(model), states[best])

    before, x = weights(model), noise_pairs()[:][0]
    own_forecasts = TensorDataset(x, model(x).detach())
    gp.fit(model, loaders()[0], DataLoader(own_forecasts, 7), 2, 0.3, 1.0, record)
    assert torch.equal(weights(model), before) and not torch.equal(states[-1], before)


def test_training_lowers_the_error_and_sees_nothing_of_the_validation_set():
    task, records = gp.sine_task(0, 12, 0.05, 100), []
    for validation in (task.validation, gp.NextStep(1e3 * torch.rand(9, 13, 1))):
        sets = DataLoader(task.train, 10), DataLoader(validation, 6)
        gp.fit(gp.build(task, SETUP), *sets, 8, 0.03, 1.0, records.append)
    assert records[7].train_mse < 0.1 * records[0].train_mse
    assert [e.train_mse for e in records[:8]] == [e.train_mse for e in records[8:]]


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_that_is_not_finite_stops_training_with_the_number_of_the_epoch(bad):
    sets, records = loaders(), []

    def spoil(epoch):
        records.append(epoch)
        sets[bad].dataset.sequences[3] = math.nan

    with pytest.raises(FloatingPointError, match=r"^epoch 2: .*--learning-rate"):
        gp.fit(random_model(), *sets, 3, 0.01, 1.0, spoil)
    assert len(records) == 1


@pytest.mark.parametrize("training", [True, False])
def test_errors_and_forecasts_are_of_evaluation_mode_and_leave_the_mode_as_it_was(training):
    model, series = random_model(layers=2), torch.randn(20, 1)
    model.recurrent.dropout = 0.5  # so that no two calls agree in training mode
    model.train(training)
    for call in (
        lambda: gp.evaluate(model, loaders()[0]),
        lambda: gp.one_step(model, series, 6).tolist(),
        lambda: gp.free_running(model, series[:6], 9).tolist(),
    ):
        assert call() == call()
        assert model.training == model.recurrent.training == training


# --- The comparison -----------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that only updates move, which do nothing else: by 0.01 s a sequence with oneDNN and
    0.02 s without, and by 0.03 s more in an LSTM."""
    clock = SimpleNamespace(now=0.0)

    def step(model, _, x, *rest):
        lstm, onednn = isinstance(model.recurrent, nn.LSTM), torch.backends.mkldnn.enabled
        clock.now += len(x) * (0.03 * lstm + (0.01 if onednn else 0.02))

    monkeypatch.setattr(gp, "train_step", step)
    monkeypatch.setattr(gp, "time", SimpleNamespace(perf_counter=lambda: clock.now))


@pytest.mark.parametrize("H, mode", [(32, "sine"), (64, "adding"), (32, "data")])
def test_networks_share_the_batches_of_a_seed_and_seeds_share_nothing(
    H, mode, tmp_path, monkeypatch, drawn, clock
):
    runs, seeds = [], []

    def fit(model, loader, _, epochs, rate, max_norm, record):
        batches = torch.stack([x for _ in range(epochs) for x, _ in loader])
        first = weights(model).numpy().tobytes()
        runs.append((model.recurrent.mode, round(rate, 5), first, batches))
        record(gp.Epoch(1, 1.0, 1.0))

    monkeypatch.setattr(gp, "fit", fit)
    monkeypatch.setattr(gp, "evaluate", lambda *_: 1.0)
    data = "--data", numbers_file(tmp_path, noisy_wave(245))
    argv = ["--compare", *(data if mode == "data" else ("--task", mode)), "--epochs", 2]
    argv += ["--quick", "--seq-len", 6, "--hidden-size", H, "--batch-size", 8]
    for seed in (0, 1):
        status, out, err = run(*argv, "--seed", seed, "--plots-dir", tmp_path)
        assert (status, err, [*drawn]) == (0, "", [f"gru_vs_lstm_{mode}.png"])
        seeds += re.findall(r"^\d+ of 27: .*, seed (\d):", out, re.M)
    assert {*seeds} == {*"012345"}

    modes, rates, firsts, batches = zip(*runs)
    networks = [*zip(seeds, modes, map(len, firsts))]
    assert len({*zip(networks, rates)}) == 6 * 3 * 3
    assert len({*firsts}) == len({*zip(networks, firsts)}) == 6 * 3  # whatever the rate
    gru, lstm, smaller = (len(first) // 4 for first in firsts[:3])
    assert modes[:3] == ("GRU", "LSTM", "LSTM")
    assert 4 * (gru - H - 1) == 3 * (lstm - H - 1)  # but for the head
    assert abs(smaller - gru) < 0.04 * gru
    # Two passes over 128 or 164 sequences are 32 or 42 updates; 10 lie between two measurements.
    assert {each.shape[:2] for each in batches} == {(50 if mode == "data" else 40, 8)}
    orders = [each.numpy().tobytes() for each in batches]
    assert len({*orders}) == len({*zip(seeds, orders)}) == 6
    if mode != "data":  # which all seeds share
        numbers = [{*each.flatten().tolist()} - {0, 1} for each in batches[::9]]
        assert len(set().union(*numbers)) == sum(map(len, numbers))


# By network and rate, for the seeds 0, 1 and 2: validation MSE, test MSE and the measurement that
# shows that it has learned (0: none), or None for a run that diverges. The GRU's first rate has the
# smallest median on validation, the second the smallest mean, the third the smallest minimum and,
# on the test set, the smallest of all.
OUTCOMES = {
    ("GRU 10", 0.1): [(0.1, 0.6, 2), (0.2, 0.8, 3), (9, 0.7, 0)],
    ("GRU 10", 0.3): [(0.3, 0.5, 1), (0.3, 0.5, 1), (0.3, 0.5, 1)],
    ("GRU 10", 0.9): [(0, 0.4, 1), (1, 0.4, 1), (1, 0.4, 1)],
    ("LSTM 10", 0.1): [(0.4, 0.3, 2), None, (0.5, 0.2, 3)],
    ("LSTM 10", 0.9): [None, None, None],
    ("LSTM 9", 0.9): [(0.5, 0.6, 3), (0.7, 0.4, 3), (0.6, 0.5, 2)],
}
TABLE = """\
GRU 10  401  0.1  30 (20 - never)  0.7 (0.6 - 0.8)  70.00  2.10  140.00  4.20
LSTM 10  531  0.1  30 (20 - never)  0.3 (0.2 - diverged)  280.00  8.40  350.00  10.50
LSTM 9  442  0.9  30 (20 - 30)  0.5 (0.4 - 0.6)  280.00  8.40  350.00  10.50
Others
LSTM 10  531  0.9  never (never - never)  diverged (diverged - diverged)  280.00  inf  350.00  inf
"""


def rows(out):
    """The rows of both tables, and one between them."""
    return [re.split("  +", row) for row in re.findall(r"^(?:\w+ \d+  .*|Others)$", out, re.M)]


def test_the_rate_is_chosen_by_the_median_validation_error_and_the_test_error_is_reported(
    monkeypatch, drawn, clock, capsys
):
    def train(task, setup, record, every):
        key = f"{setup.cell.upper()} {setup.hidden_size}", round(setup.learning_rate, 9)
        outcome = OUTCOMES.get(key, 3 * [(2, 2, 1)])[setup.seed]
        for number in (1, 2, 3) if outcome else (1,):
            below = 0.01 * (1 + setup.seed) if outcome and number == outcome[2] else 0.05
            record(gp.Epoch(number, 1.0, below))  # learned means below 0.05, and once will do
        if outcome is None:
            raise FloatingPointError
        return dict(zip(("validation", "test"), outcome))  # instead of a network

    monkeypatch.setattr(gp, "train", train)
    monkeypatch.setattr(gp, "evaluate", lambda errors, loader: errors[loader.dataset])
    task = gp.Task(noise_pairs(), "validation", "test", 0.05, {"level": 0.3})
    gp.compare(lambda seed: task, SETUP, Path("figure.png"))
    shown, expected = rows(capsys.readouterr().out), rows(TABLE)
    assert shown[:4] == expected[:4] and expected[4] in shown[4:]
    assert len({(name, rate) for name, _, rate, *_ in shown[:3] + shown[4:]}) == len(shown) - 1 == 9

    (axes,) = drawn["figure.png"].axes
    label, medians = "{}, rate {}, median and range of {} seeds", curves(axes)
    assert medians.pop("level")[1] == [0.3, 0.3] and medians.pop("learned")[1] == [0.05, 0.05]
    assert medians == {
        label.format("GRU 10", 0.1, 3): ([10, 20, 30], [0.05, 0.05, 0.05]),
        label.format("LSTM 10", 0.1, 2): ([10, 20, 30], pytest.approx([0.05, 0.03, 0.04])),
        label.format("LSTM 9", 0.9, 3): ([10, 20, 30], [0.05, 0.05, 0.02]),
    }
    ends = {tuple(point) for point in axes.collections[0].get_paths()[0].vertices}
    assert ends >= {(20, 0.01), (20, 0.05), (30, 0.02), (30, 0.05)} and axes.get_yscale() == "log"


def test_ctrl_c_keeps_the_complete_runs_of_a_comparison(tmp_path, monkeypatch, drawn, clock):
    left = 5 * [None]

    def train(task, setup, record, every):
        if not left:
            raise KeyboardInterrupt
        record(gp.Epoch(1, 1.0, 1.0))
        return left.pop()

    monkeypatch.setattr(gp, "train", train)
    monkeypatch.setattr(gp, "evaluate", lambda *_: 1.0)
    status, out, err = run("--compare", *SMALL, "--plots-dir", tmp_path)
    assert (status, err, len(rows(out))) == (130, "", 5 + 1)
    (axes,) = drawn["gru_vs_lstm_sine.png"].axes
    assert [label[-7:] for label in curves(axes)][:3] == 3 * ["1 seeds"]


# --- The command line ---------------------------------------------------------------------------

SCRIPT = Path(gp.__file__)
MODES = ["", "--compare", "--compare --task adding", "--data series.txt"]
FILES = {CURVE, FORECAST, CURVE.replace("h_", "h_data_"), FORECAST.replace("h_", "h_data_")}
FILES |= {"gru_vs_lstm_sine.png", "gru_vs_lstm_adding.png", "gru_pytorch_data_forecast.csv"}
RUN_ALL = """
import runpy, sys
script, *runs = sys.argv[1:]
for run in runs:
    sys.argv = [script, *run.split()]
    print("begin")
    runpy.run_path(script, run_name="__main__")
"""


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """Status, stdout and stderr of the script, and its folders: it runs in every mode with --quick
    and at last, but on Windows, until Ctrl-C. One process, as to import PyTorch takes longest."""
    here, elsewhere = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("elsewhere")
    script = here / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())  # a copy, alone: it needs no other file
    numbers_file(elsewhere, noisy_wave(50))
    runs = [" ".join((*SMALL, mode)) for mode in MODES]
    if os.name != "nt":  # where Ctrl-C cannot be sent to one process alone
        runs.append("--epochs 10 --seq-len 2 --batch-size 4 --plots-dir stopped")
    command = [sys.executable, "-c", RUN_ALL, script, *runs]
    files = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    files["env"] = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    # A shell may have started pytest with SIGINT ignored, which the child would inherit.
    before, out = signal.signal(signal.SIGINT, signal.default_int_handler), ""
    with subprocess.Popen(command, cwd=elsewhere, **files) as child:
        signal.signal(signal.SIGINT, before)
        for line in child.stdout:
            out += line
            if out.count("begin") > len(MODES) and line.startswith("       1 "):
                child.send_signal(signal.SIGINT)
        err = child.stderr.read()
    return child.returncode, out, err, here, elsewhere


def names(folder):
    """The names of the files in folder, in which every figure must be a whole PNG picture."""
    for path in folder.glob("*.png"):
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n") and content.endswith(b"IEND\xaeB`\x82")
    return {path.name for path in folder.iterdir()}


def test_every_mode_runs_as_a_process_and_quick_writes_in_plots_quick_alone(process):
    _, out, err, here, elsewhere = process
    _, sine, compared, adding, own, *_ = out.split("begin\n")
    assert err == "" and table(sine).keys() >= {"test MSE", "persistence"}
    assert all(len(rows(each)) == 9 + 1 and "\n27 of 27: " in each for each in (compared, adding))
    assert table(own).keys() == {"test RMSE", "persistence", "linear"}
    assert names(elsewhere) - {"stopped"} == {"series.txt"}
    assert names(here) - {"__pycache__"} == {SCRIPT.name, "plots"}
    assert names(here / "plots") == {"quick"} and names(here / "plots" / "quick") == FILES


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process alone")
def test_ctrl_c_ends_with_status_130_and_keeps_the_curve(process):
    status, _, err, _, elsewhere = process
    assert (status, err, names(elsewhere / "stopped")) == (130, "", {CURVE})


def test_what_is_printed_and_drawn_of_the_sine_waves(tmp_path, models, drawn):
    _, out, _ = run("--quick", "--hidden-size", 4, "--noise", 0.1, "--plots-dir", tmp_path)
    (model,), (x, y), best = models, gp.sine_task(0, 30, 0.1, 128).test[:], 0.1**2 * (1 + 1 / 30)
    mse = torch.mean((model(x)[:, -1:] - y) ** 2).item()
    assert f"test MSE        {mse:.5f}   {mse / best:.2f} times the best possible" in out
    printed = zip(*re.findall(r"^ +\d+ +(\S+) +(\S+)", out, re.M))
    lines = curves(drawn[CURVE].axes[0])
    for name, errors in zip(("training, mean of all steps", "validation, last step"), printed):
        assert lines[name] == ([1, 2], pytest.approx([*map(float, errors)], abs=1e-5))
    assert lines["best epoch"][1] == [min(lines["validation, last step"][1])]
    assert lines["best possible"][1] == [best, best]
    one, free = (curves(axes) for axes in drawn[FORECAST].axes)
    wave = torch.tensor(one["data"][1])[:, None]
    assert one["forecast"][0] == free["forecast"][0] == [*range(30, 90)]
    assert one["forecast"][1] == gp.one_step(model, wave, 30).tolist()
    assert free["forecast"][1] == gp.free_running(model, wave[:30], 60).tolist()


@CELLS
def test_one_seed_prints_the_same_numbers_again_and_another_seed_others(
    cell, tmp_path, models, drawn
):
    def printed(seed):
        argv = (*SMALL, "--cell", cell, "--layers", "2", "--seed", seed, "--plots-dir", tmp_path)
        status, out, err = run(*argv)
        assert (status, err) == (0, "")
        return re.sub(r"^( *\d+ .*) +\S+$", r"\1", out, flags=re.M)  # without the seconds

    first, again, other = map(printed, "112")
    assert first == again
    assert table(first)["test MSE"] != table(other)["test MSE"]
    assert len(weights(models[0])) == len(weights(gp.SequenceModel(cell, 1, 4, layers=2)))
    assert [*drawn] == [name.replace("gru", cell) for name in (CURVE, FORECAST)]


def test_help_names_every_option():
    status, out, _ = run("--help")
    options = "cell compare task data column epochs batch-size hidden-size layers seq-len noise"
    options += " learning-rate clip seed device plots-dir quick"
    assert (status, {*re.findall(r"^ +--(\S+)", out, re.M)}) == (0, {*options.split()})


WRONG_OPTIONS = [
    ("--epochs 0", "--epochs: expected at least 1, got 0"),
    ("--epochs 1e3", "--epochs: invalid int value: '1e3'"),
    ("--seq-len 1", "--seq-len: expected at least 2, got 1"),
    ("--learning-rate nan", "--learning-rate: expected at least 1e-09, got nan"),
    ("--clip inf", "--clip: expected at least 1e-09, got inf"),
    ("--noise -0.1", "--noise: expected at least 0, got -0.1"),
    ("--noise 0.1 --data x", "--noise has no effect on data"),
    ("--noise 0.1 --task adding --compare", "--noise has no effect on adding"),
    ("--seed -1", "--seed: expected at least 0, got -1"),
    ("--cell lstm --compare", "--compare: not allowed with argument --cell"),
    ("--task adding", "--task adding: expected --compare beside it"),
    ("--task adding --compare --data x", "--data: not allowed with argument --task"),
    ("--column a", "--column: expected --data beside it"),
    ("--device tpu", "--device: invalid choice: 'tpu'"),
    ("--hidden 3", "unrecognized arguments: --hidden"),  # a later option could change what it means
    ("--plots-dir FILE", "--plots-dir: expected a folder, got "),
    ("--plots-dir FILE/below", "--plots-dir: expected a folder, got "),
]


@pytest.mark.parametrize("argv, message", WRONG_OPTIONS)
def test_a_wrong_option_ends_with_status_2_before_any_work(argv, message, tmp_path, monkeypatch):
    for work in ("read_series", "sine_task", "adding_task", "train"):
        monkeypatch.setattr(gp, work, None)  # to call it is another error
    file = tmp_path / "file"
    file.write_text("mine")
    options = [word.replace("FILE", str(file)) for word in argv.split()]
    status, out, err = run("--plots-dir", tmp_path / "plots", *options)
    assert (status, out) == (2, "") and err.startswith("usage: ")
    assert message in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == "mine"


def test_an_error_that_is_not_finite_ends_with_status_1_and_keeps_the_curve(tmp_path, monkeypatch):
    factors, train_step = iter([1.0] * 5), gp.train_step  # an epoch has 4 updates
    step = lambda *rest: train_step(*rest) * next(factors, math.nan)  # noqa: E731
    monkeypatch.setattr(gp, "train_step", step)
    status, _, _ = run(*SMALL, "--plots-dir", tmp_path)
    assert re.fullmatch("gru_pytorch.py: epoch 2: .* --learning-rate", status)
    assert names(tmp_path / "quick") == {CURVE}


def test_a_bug_is_not_swallowed(tmp_path, monkeypatch):
    def bug(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(gp, "train", bug)
    with pytest.raises(ValueError, match="a bug"):
        run(*SMALL, "--plots-dir", tmp_path)


# --- With a GPU ---------------------------------------------------------------------------------

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")


@CUDA
@pytest.mark.gpu
@CELLS
def test_two_runs_on_cuda_give_the_same_numbers(cell, tmp_path):
    argv = ("--quick", "--cell", cell, "--device", "cuda", "--plots-dir", tmp_path)
    (status, out, err), (_, again, _) = run(*argv), run(*argv)
    assert (status, err, table(out)) == (0, "", table(again))


@CUDA
@pytest.mark.gpu
def test_a_comparison_runs_on_cuda(tmp_path):
    status, out, err = run("--compare", "--quick", "--device", "cuda", "--plots-dir", tmp_path)
    assert (status, err, len(rows(out))) == (0, "", 9 + 1)
