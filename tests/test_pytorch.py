"""gru_pytorch.py: nn.GRU line by line, the loop that can be lifted out, the data, one's own series,
the comparison with LSTM, and the command line with what it refuses."""

import contextlib
import io
import itertools
import math
import os
import re
import signal
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from conftest import ROOT, curves, table
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

import gru_pytorch as gp

CELLS = pytest.mark.parametrize("cell", ["gru", "lstm"])
SMALL = "--hidden-size 3 --batch-size 8"


def noise_pairs(seed=0):
    """Noise that grows from the first of 20 sequences to the last: no two batches are alike."""
    sequences = torch.randn(20, 7, 1, generator=torch.Generator().manual_seed(seed))
    return gp.NextStep(sequences * torch.linspace(0.5, 3, 20)[:, None, None])


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


def last_step_mse(model, x, y):
    return torch.mean((model(x)[0][:, -1] - y[:, -1]) ** 2).item()


def options(command=""):
    return gp.parse_options(["--device", "cpu", "--plots-dir", os.curdir, *command.split()])


def run(command, folder):
    """What main exits with (a text means status 1), stdout and stderr."""
    status, out, err = 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            gp.main(["--device", "cpu", "--plots-dir", str(folder), *command.split()])
        except SystemExit as end:
            status = end.code
    return status, out.getvalue(), err.getvalue()


def noisy_wave(count):
    noise = 0.3 * np.random.default_rng(0).standard_normal(count)
    return 3 + np.sin(np.arange(count) / 2) + noise


def series_file(folder, values):
    path = folder / "mine.txt"
    path.write_text("".join(f"{float(value)!r}\n" for value in values))
    return path


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
    y, h_n = model(x, h0[None])
    states = states_by_hand(gru, x, h0)
    expected = states @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(h_n, states[None, :, -1], rtol=0, atol=1e-12)
    assert (states - states_by_hand(gru, x, h0, reset_after=False)).abs().max() > 0.1
    assert random_model(layers=2)(torch.zeros(4, 9, 1))[1].shape == (2, 4, 5)


@CELLS
def test_a_forecast_depends_on_its_own_sequence_up_to_its_own_step(cell):
    model, x = random_model(cell, 2, layers=2, dtype=torch.float64), torch.randn(3, 8, 2).double()
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x)[0], x)
    influence = jacobian[:, :, 0].abs().sum(dim=-1)
    for b in range(3):
        for c in range(3):  # of the steps of sequence c on the forecasts of sequence b
            expected = torch.ones(8, 8).tril() if b == c else torch.zeros(8, 8)
            assert torch.equal(influence[b, :, c] > 0, expected == 1)


# --- The loop -----------------------------------------------------------------------------------


def test_fit_is_the_plain_loop_over_passes_with_clipping_and_a_rate_that_falls_as_a_cosine():
    def shuffled():
        return DataLoader(
            noise_pairs(), 7, shuffle=True, generator=torch.Generator().manual_seed(5)
        )

    model, plain, rows = random_model(), random_model(), []
    validation = DataLoader(noise_pairs(1), 6)
    history = gp.fit(model, shuffled(), validation, 8, 4, 0.1, 0.7, rows.append)

    x, y = noise_pairs(1)[:]
    adam, loader = torch.optim.Adam(plain.parameters()), shuffled()
    first = [batch for batch in loader]  # that measure the untrained network
    expected = [
        (
            0,
            np.average([last_step_mse(plain, *b) for b in first], weights=[7, 7, 6]),
            last_step_mse(plain, x, y),
        )
    ]
    batches, errors, states = [*loader, *loader, *loader], [], [weights(plain)]
    for k in range(8):
        adam.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * k / 8)) / 2
        errors.append((last_step_mse(plain, *batches[k]), len(batches[k][0])))
        adam.zero_grad()
        nn.functional.mse_loss(plain(batches[k][0])[0], batches[k][1]).backward()  # of all steps
        nn.utils.clip_grad_norm_(plain.parameters(), 0.7)
        adam.step()
        if k in (3, 7):
            mse, counts = zip(*errors[k - 3 : k + 1], strict=True)
            expected.append((k + 1, np.average(mse, weights=counts), last_step_mse(plain, x, y)))
            states.append(weights(plain))
    assert history == rows
    for row, (updates, train_mse, validation_mse) in zip(history, expected, strict=True):
        assert row.updates == updates
        assert row.train_mse == pytest.approx(train_mse, rel=1e-4)
        assert row.validation_mse == pytest.approx(validation_mse, rel=1e-4)
    best = min(range(3), key=lambda i: expected[i][2])
    torch.testing.assert_close(weights(model), states[best], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "loader",
    [
        lambda pairs: DataLoader(pairs, 7, drop_last=True),
        lambda pairs: DataLoader(pairs, 4, sampler=SubsetRandomSampler([0, 1, 2, 3])),
    ],
)
def test_training_errors_are_means_of_the_samples_that_were_seen(loader):
    """With a rate that moves no weight, a pass gives the error of what the loader gives."""
    model, batches = random_model(), loader(noise_pairs())
    passes = len(batches)
    rows = gp.fit(
        model, batches, DataLoader(noise_pairs(1), 7), passes, passes, 1e-30, 1.0, lambda row: None
    )
    expected = np.mean([last_step_mse(model, x, y) for x, y in batches])
    assert [row.train_mse for row in rows] == pytest.approx([expected, expected], rel=1e-5)


def test_the_untrained_weights_are_kept_where_they_were_best():
    model = random_model()
    before, x = weights(model), noise_pairs()[:][0]
    own_forecasts = DataLoader(TensorDataset(x, model(x)[0].detach()), 7)
    history = gp.fit(
        model, DataLoader(noise_pairs(), 7), own_forecasts, 6, 3, 0.3, 1.0, lambda row: None
    )
    assert torch.equal(weights(model), before)
    assert gp.best_of(history).updates == 0 and len(history) == 3


def test_stop_ends_early_on_the_schedule_of_all_updates():
    whole, part = random_model(), random_model()
    loader, states = DataLoader(noise_pairs(), 7), {}
    gp.fit(
        whole,
        loader,
        loader,
        9,
        3,
        0.1,
        1.0,
        lambda row: states.update({row.updates: weights(whole)}),
    )
    history = gp.fit(part, loader, loader, 9, 3, 0.1, 1.0, lambda row: None, stop=6)
    assert [row.updates for row in history] == [0, 3, 6]
    assert torch.equal(weights(part), states[gp.best_of(history).updates])


def test_the_last_update_is_measured_and_a_network_in_evaluation_mode_is_trained_in_training_mode():
    model, loader = random_model().eval(), DataLoader(noise_pairs(), 7)
    history = gp.fit(model, loader, loader, 5, 3, 0.1, 1.0, lambda row: None)
    assert [row.updates for row in history] == [0, 3, 5] and model.training


@pytest.mark.parametrize("spoiled", [0, 1])
def test_an_error_that_is_not_finite_stops_training_and_says_when(spoiled):
    sets = noise_pairs(), noise_pairs(1)

    def spoil(row):
        sets[spoiled].sequences[3] = math.nan

    with pytest.raises(FloatingPointError, match=r"^3 updates: .*--learning-rate"):
        gp.fit(random_model(), *(DataLoader(each, 7) for each in sets), 6, 3, 0.01, 1.0, spoil)


def test_targets_of_the_last_step_alone_are_compared_with_the_last_prediction():
    model, (x, y) = random_model(), noise_pairs()[:]
    expected = last_step_mse(model, x, y)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    assert gp.train_step(model, optimizer, x, y[:, -1:], 1e9) == pytest.approx(expected)
    gradient = torch.cat([each.grad.flatten() for each in model.parameters()])
    loss = torch.mean((model(x)[0][:, -1] - y[:, -1]) ** 2)
    wanted = torch.cat(
        [each.flatten() for each in torch.autograd.grad(loss, [*model.parameters()])]
    )
    torch.testing.assert_close(gradient, wanted)


@pytest.mark.parametrize("training", [True, False])
def test_errors_and_forecasts_are_of_evaluation_mode_and_leave_the_mode_as_it_was(training):
    model, series = random_model(layers=2), torch.randn(2, 6, 1)
    model.recurrent.dropout = 0.5  # so that no two calls agree in training mode
    model.train(training)
    for call in (
        lambda: gp.evaluate(model, DataLoader(noise_pairs(), 7)),
        lambda: gp.free_running(model, series, 9).tolist(),
    ):
        assert call() == call()
        assert model.training == model.recurrent.training == training


def test_free_running_feeds_back_its_own_predictions():
    model, series = random_model(), torch.randn(2, 6, 1)
    forecast, seen = gp.free_running(model, series, 4), series
    for t in range(4):
        prediction = model(seen[:, -6:])[0][:, -1:]
        torch.testing.assert_close(forecast[:, t], prediction[:, 0, 0])
        seen = torch.cat([seen, prediction.detach()], dim=1)


# --- Data ---------------------------------------------------------------------------------------


def test_the_targets_are_the_inputs_one_step_later():
    sequences = torch.arange(5 * 8 * 2).reshape(5, 8, 2)  # no number twice
    pairs = gp.NextStep(sequences)
    assert len(pairs) == 5
    for i, (x, y) in enumerate(pairs[i] for i in range(5)):
        assert torch.equal(x, sequences[i, :7]) and torch.equal(y, sequences[i, 1:])


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

    task = gp.sine_task(options("--noise 0.1"), 0)
    x, y = task.test[:]
    best, persistence = 0.1**2 * (1 + 1 / 30), torch.mean((x[:, -1] - y[:, -1]) ** 2).item()
    sequences = torch.cat([x, y[:, -1:]], dim=1)
    error = torch.mean((fitted(sequences)[0][:, -1] - y[:, -1, 0]) ** 2).item()
    assert error == pytest.approx(best, rel=0.04)  # 2 standard errors
    assert task.levels == pytest.approx({"best possible": best, "persistence": persistence})
    assert task.learned == pytest.approx(1.5 * best)
    assert "best possible" not in gp.sine_task(options("--seq-len 31"), 0).levels


def test_the_adding_problem_asks_for_the_sum_of_one_marked_number_of_either_half():
    task = gp.adding_task(options("--compare --task adding --seq-len 7"), 0)
    x, y = task.train[:]
    numbers, marks = x.unbind(dim=2)
    assert x.shape == (76_800, 7, 2) and y.shape == (76_800, 1, 1)
    assert 0 <= numbers.min() < 0.001 and 0.999 < numbers.max() < 1
    assert torch.all((marks == 0) | (marks == 1)) and torch.all(marks.sum(0) > 0)  # any step
    assert torch.all(marks[:, :3].sum(1) == 1) and torch.all(marks[:, 3:].sum(1) == 1)
    assert torch.equal(y[:, 0, 0], numbers[marks == 1].reshape(-1, 2).sum(1))
    assert (task.levels, task.learned) == ({"always answering 1": 1 / 6}, 0.01)


@pytest.mark.parametrize(
    "make, command", [(gp.sine_task, ""), (gp.adding_task, "--compare --task adding")]
)
def test_the_three_sets_of_a_task_are_different_draws_which_the_seed_fixes(make, command):
    def inputs(seed):
        task = make(options(f"{command} --quick --seq-len 6"), seed)
        return [
            tuple(x.flatten().tolist())
            for part in (task.train, task.validation, task.test)
            for x in part[:][0]
        ]

    first, again, other = map(inputs, (1, 1, 2))
    assert first == again
    assert len({*first, *other}) == len(first) + len(other)


# --- One's own series ---------------------------------------------------------------------------


def test_each_change_is_a_target_of_one_part_alone_and_all_windows_train():
    """The change that leads to value i is i. Of 40,000 values, no window is left out."""
    for N, W, cut, last in ((100, 12, 70, 85), (57, 9, 39, 48), (40_000, 12, 28_000, 34_000)):
        values = np.cumsum(np.arange(N, dtype=float))
        parts, _ = gp.split_series(values, W)
        targets = [(part[:, -1] - part[:, -2]).tolist() for part in parts]
        assert targets == [[*range(W + 1, cut)], [*range(cut, last)], [*range(last, N)]]
        task = gp.series_task(values, options(f"--data x --seq-len {W}"), 0)
        x, y = task.train[:]
        assert x.shape == y.shape == (cut - W - 1, W, 1) and torch.equal(x[:, 1:], y[:, :-1])
        unit = math.sqrt(np.mean(np.arange(1, cut) ** 2.0))  # of the training part alone
        np.testing.assert_allclose(y[:, -1, 0] * unit, targets[0], rtol=1e-5)
        assert (len(task.validation), len(task.test)) == (min(last - cut, 2000), N - last)


def test_no_hour_of_the_day_is_left_out_of_a_long_series():
    """A stride over windows would meet the season: today's value at seven is one of 24."""
    values = np.where(np.arange(33_000) % 24 == 7, 5.0, 0.0)
    task = gp.series_task(values + 1e-3 * noisy_wave(33_000), options("--data x"), 0)
    targets = task.train.sequences[:, -1, 0]
    assert torch.sum(targets > targets.max() / 2) == torch.sum(targets < targets.min() / 2) == 962


def test_the_blend_is_the_mean_of_the_forecasts_weighted_by_1_over_mse_squared():
    values, W = noisy_wave(100), 12
    parts, simple = gp.split_series(values, W)
    network = gp.Forecaster(values[:70], W)
    network.network = random_model()
    all_three = {"GRU": network} | simple
    mixed, weights = gp.blend(all_three, parts[1])
    ones = {name: each.forecast(parts[1][:, :-1], 1)[:, 0] for name, each in all_three.items()}
    mse = {name: np.mean((one - values[70:85]) ** 2) for name, one in ones.items()}
    total = sum(1 / mse[name] ** 2 for name in mse)
    assert weights == pytest.approx({name: 1 / mse[name] ** 2 / total for name in mse})
    expected = sum(weights[name] * ones[name] for name in mse)
    np.testing.assert_allclose(mixed.forecast(parts[1][:, :-1], 1)[:, 0], expected, rtol=1e-6)
    parts, simple = gp.split_series(np.sin(np.arange(100) / 4), W)  # linear is exact
    assert gp.blend(simple, parts[1])[1]["linear"] == pytest.approx(1)


def test_persistence_repeats_the_last_value_and_linear_is_least_squares_on_the_training_part():
    values, W = noisy_wave(60), 4
    windows = np.array([[*values[i : i + 5], 1] for i in range(55)])
    x, y = windows[:37], values[5:42]
    expected = windows @ np.linalg.solve(x.T @ x, x.T @ y)
    _, simple = gp.split_series(values, W)
    np.testing.assert_allclose(
        simple["linear"].forecast(windows[:, :5], 1)[:, 0], expected, rtol=1e-8
    )
    assert np.array_equal(simple["persistence"].forecast(windows[:, :5], 3), windows[:, [4, 4, 4]])
    wild = np.concatenate([values[:42], 1e3 * (-1.01) ** np.arange(18)])  # what follows has no say
    _, other = gp.split_series(wild, W)
    assert np.array_equal(other["linear"].base, simple["linear"].base)


@pytest.mark.parametrize("scale", [1e-14, 1e14])
def test_a_forecast_does_not_depend_on_the_unit_of_the_series(scale):
    values, windows = noisy_wave(100), noisy_wave(100)[None, -13:]
    (_, simple), (_, scaled) = gp.split_series(values, 12), gp.split_series(scale * values, 12)
    expected = scale * simple["linear"].forecast(windows, 5)
    np.testing.assert_allclose(scaled["linear"].forecast(scale * windows, 5), expected, rtol=1e-9)


def test_errors_by_distance_are_those_of_every_forecast_that_ends_within_the_series():
    values, W, start = noisy_wave(50), 6, 42
    _, simple = gp.split_series(values, W)
    forecaster = simple["linear"]
    forecaster.network = random_model()
    squares = {h: [] for h in range(1, W + 1)}
    for begin in range(start, 50):
        forecast = forecaster.forecast(values[None, begin - W - 1 : begin], W)[0]
        for h in squares:
            if begin + h <= 50:
                squares[h].append((forecast[h - 1] - values[begin + h - 1]) ** 2)
    expected = [math.sqrt(np.mean(squares[h])) for h in squares]
    np.testing.assert_allclose(
        gp.errors_by_distance(forecaster, values, start), expected, rtol=1e-6
    )


@pytest.fixture
def own(tmp_path, drawn, monkeypatch):
    """Of a run on a noisy wave of 102 values: what it prints, its figures, its folder, and the
    network that has seen the training part."""
    models, train = [], gp.train
    monkeypatch.setattr(
        gp, "train", lambda model, *rest: models.append(model) or train(model, *rest)
    )
    data = series_file(tmp_path, noisy_wave(102))
    status, out, err = run(f"--data {data} --epochs 25 --save {tmp_path / 'saved.pt'}", tmp_path)
    assert (status, err) == (0, "")
    return out, drawn, tmp_path, models[0]


def next_value(window, network, unit, mean, share, base):
    """From the description in Forecaster's docstring."""
    changes = np.diff(window) / unit
    with torch.no_grad():
        answer = network(torch.tensor(changes, dtype=torch.float32)[None, :, None])[0][
            0, -1, 0
        ].item()
    features = np.array([*changes, (window[-1] - mean) / unit, 1])
    return window[-1] + unit * (features @ np.array(base) + share * answer)


def test_what_is_printed_and_drawn_of_ones_own_series_is_the_error_of_each_forecast(own):
    out, drawn, folder, network = own
    values = noisy_wave(102)
    parts, simple = gp.split_series(values, 12)
    alone = gp.Forecaster(values[:71], 12)
    alone.network = network
    mixed, weights = gp.blend({"GRU": alone} | simple, parts[1])
    for name, weight in weights.items():
        assert f"{weight:.2f} {name}" in out
    parts = network, mixed.unit, mixed.mean, mixed.share, mixed.base
    ahead = [next_value(values[i - 13 : i], *parts) for i in range(86, 102)]
    rows = [line.split() for line in re.findall(r"^ +\d+(?: +\S+){3}$", out, re.M)][-5:]
    assert [int(row[0]) for row in rows] == [1, 2, 4, 8, 12]
    rmse = math.sqrt(np.mean((np.array(ahead) - values[86:]) ** 2))
    repeated = math.sqrt(np.mean((values[85:-1] - values[86:]) ** 2))
    assert [float(rows[0][i]) for i in (1, 3)] == pytest.approx([rmse, repeated], rel=1e-3)
    assert f"{1 - rmse / repeated:.0%} below persistence" in out
    shown = curves(drawn["mine_distance.png"].axes[0])
    for column, name in enumerate(("GRU blend", "linear", "persistence"), start=1):
        distances, errors = shown[name]
        assert distances == [*range(1, 13)]
        assert [f"{errors[int(row[0]) - 1]:.5g}" for row in rows] == [row[column] for row in rows]
    above, below = drawn["mine_forecast.png"].axes
    assert curves(above)["data"] == ([*range(87, 103)], values[86:].tolist())
    assert curves(above)["forecast"] == ([*range(87, 103)], pytest.approx(ahead, rel=1e-4))
    steps, future = curves(below)["forecast, and its RMSE at this distance"]
    assert steps == [*range(103, 115)]
    band = below.collections[0].get_paths()[0].vertices
    for step, forecast, error in zip(steps, future, shown["GRU blend"][1], strict=True):
        edges = sorted({y for x, y in band if x == step})
        assert [edges[0], edges[-1]] == pytest.approx([forecast - error, forecast + error])
    lines = (folder / "mine_forecast.csv").read_text().splitlines()
    steps, truth, forecasts = zip(*(line.split(",") for line in lines), strict=True)
    assert steps == ("step", *map(str, range(87, 115)))
    assert truth == ("value", *map(str, values[86:].tolist()), *12 * [""])
    assert [*map(float, forecasts[1:])] == pytest.approx([*ahead, *future], rel=1e-4)


def test_what_is_saved_gives_the_forecast_that_is_drawn(own):
    out, drawn, folder, _ = own
    saved = torch.load(folder / "saved.pt", weights_only=True)
    network = gp.SequenceModel(saved["cell"], 1, saved["hidden_size"], saved["layers"])
    network.load_state_dict(saved["network"])
    parts = network, *(saved[name] for name in ("unit", "mean", "share", "base"))
    values = noisy_wave(102)
    last = gp.Forecaster(values, 12)  # scaled by and fitted to the whole series
    last.fit_base(np.lib.stride_tricks.sliding_window_view(values, 14))
    assert (saved["unit"], saved["mean"]) == (last.unit, last.mean)
    share = {name: float(weight) for weight, name in re.findall(r"(\d\.\d\d) (GRU|linear)", out)}
    np.testing.assert_allclose(saved["base"], share["linear"] * last.base, atol=0.006)
    assert saved["share"] == pytest.approx(share["GRU"], abs=0.005)
    seen, W = values.tolist(), len(saved["base"]) - 2
    for _ in range(12):
        seen.append(next_value(seen[-W - 1 :], *parts))
    shown = curves(drawn["mine_forecast.png"].axes[1])
    assert seen[102:] == pytest.approx(
        shown["forecast, and its RMSE at this distance"][1], rel=1e-4
    )


def test_an_error_beside_another_in_words():
    cases = {(1, 2): "50% below x", (3, 2): "50% above x", (5, 2): "2.5 times x"}
    cases |= {(2, 2.001): "level with x", (1, 0): "1, where x makes none"}
    for (error, other), words in cases.items():
        assert gp.against(error, other, "x") == words


def test_a_test_part_that_stands_still_is_told_as_that(tmp_path, drawn):
    still = np.concatenate([noisy_wave(85), np.full(15, 3.0)])
    still[84] = 3.0
    status, out, err = run(f"--quick --data {series_file(tmp_path, still)}", tmp_path)
    assert (status, err) == (0, "") and "nan" not in out
    assert "where persistence makes none" in out and "The test part stands still" in out


READABLE = {
    "lines": ("1\n2.5\n -3e2 ", None),
    "lines of Windows": ("\ufeff1\r\n2.5\r\n-3e2\r\n\r\n \r\n", None),
    "commas": ("day,sold\n1,1\n2,2.5\n3,-3e2\n\n", "sold"),
    "semicolons": ("day;sold;on\n1;1;1,5\n2;2.5;2,5\n3;-3e2;3,5\n", "sold"),
    "an empty last column": ("day\tsold\tnote\n1\t1\t\n2\t2.5\t\n3\t-3e2\t\n", "sold"),
    "80 columns": (
        ";".join(["sold", *"x" * 79]) + "\n" + "".join(f"{n}{';a' * 79}\n" for n in (1, 2.5, -300)),
        "sold",
    ),
    "quotes": ('day,sold\n"1, May",1\n"2 ""May""",2.5\n"3\nMay",-3e2\n', "sold"),
    "separators of lines": ("day,sold\n1\u2028,1\n2\x0b,2.5\n3\x85,-3e2\n", "sold"),
    "one column": ("sold\n1\n2.5\n-3e2\n", "sold"),
    "a table of Windows": ("\ufeffsold , day\r\n1,4\r\n2.5,5\r\n-3e2,6\r\n\r\n", "sold"),
    "a number of a column": ("2,1\n1,2.5\n6,-3e2\n", "2"),
}


@pytest.mark.parametrize("content, column", READABLE.values(), ids=READABLE)
def test_lines_and_the_column_of_a_table_are_read_as_the_same_series(content, column, tmp_path):
    path = tmp_path / "series"
    path.write_bytes(content.encode())
    assert gp.read_series(path, column).tolist() == [1, 2.5, -300]


NUMBER, TABLE = "expected a number like 1.5, got ", "; a table needs --column NAME, a decimal"
GAP = "; gaps have to be filled or cut first"
SIZE = "expected the size of the others, got"
UNREADABLE = {
    "text": ("1\n2\ntwelve\n4\n", "", f"line 3: {NUMBER}'twelve'{TABLE}"),
    "an empty line": ("1\n\n3\n", "", f"line 2: {NUMBER}''{GAP}"),
    "NA": ("a,b\n1,2\n2,NA\n", "--column b", f"line 3: {NUMBER}'NA'{GAP}"),
    "inf": ("-inf\n2\n3\n", "", f"line 1: {NUMBER}'-inf'{TABLE}"),
    "an underscore": ("1\n1_000\n", "", f"line 2: {NUMBER}'1_000'{TABLE}"),
    "a decimal comma": ("a;b\n1;2\n2;2,5\n", "--column b", f"line 3: {NUMBER}'2,5'"),
    "UTF-16": ("1\n2\n".encode("utf-16"), "", "expected a text file in UTF-8, got "),
    "an empty file": ("", "", "expected at least 13 values for --seq-len 5, got 0"),
    "a short series": ("1\n2\n4\n" * 4, "", "expected at least 13 values for --seq-len 5, got 12"),
    "a constant series": ("7.3\n" * 99, "", "expected numbers that vary"),
    "an outlier": ("1\n2\n" * 40 + "1e20\n" + "1\n2\n" * 9, "", f"value 81: {SIZE} 1e+20"),
    "an outlier early on": ("1\n1e20\n" + "1\n2\n" * 49, "", f"value 2: {SIZE} 1e+20"),
    "a table without --column": ("a,b\n1,2\n", "", f"line 1: {NUMBER}'a,b'{TABLE}"),
    "no such column": (
        "a,b\n1,2\n",
        "--column sold",
        "expected one of the columns a, b, got 'sold'",
    ),
    "another case": (
        "a,Sold\n1,2\n",
        "--column sold",
        "expected one of the columns Sold, got 'sold'",
    ),
    "a number beside names": (
        "a,b\n1,2\n",
        "--column 2",
        "expected one of the columns a, b, got '2'",
    ),
    "a number that is no column": (
        "4,1\n5,2\n",
        "--column 5",
        "expected one of the columns 1, 2, got '5'",
    ),
    "a cell too many": ("a,b\n1,2\n1,2,3\n", "--column a", "line 3: expected 2 cells, got 3"),
    "a name twice": ("a,a\n1,2\n", "--column a", "expected one of the columns a, a, got 'a'"),
    "an open quote": ('a\n1\n"2\n3\n', "--column a", "expected a table of cells in lines, got: "),
    "a long cell": (
        "a,b\n1," + 140_000 * "2" + "\n",
        "--column a",
        "expected a table of cells in lines, got: field larger",
    ),
}


@pytest.mark.parametrize("compared", ["", "--compare"])
@pytest.mark.parametrize("case", UNREADABLE)
def test_bad_data_ends_with_status_2_and_one_line_before_any_training(
    case, compared, tmp_path, monkeypatch
):
    monkeypatch.setattr(gp, "fit", None)  # to call it is another error
    content, column, message = UNREADABLE[case]
    path = tmp_path / "data"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    status, out, err = run(f"--data {path} --seq-len 5 {column} {compared}", tmp_path)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert err.startswith(f"gru_pytorch.py: error: --data {path}: {message}")


# --- The comparison -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "mode", ["--task sine --hidden-size 32", "--task adding --hidden-size 64", "--data FILE"]
)
def test_networks_share_the_batches_of_a_seed_and_seeds_share_nothing(
    mode, tmp_path, monkeypatch, drawn
):
    runs = []

    def fit(model, loader, validation, updates, every, rate, max_norm, record):
        batches = torch.stack([x for x, _ in loader if len(x) == 8])
        runs.append((type(model.recurrent).__name__, round(rate, 9), weights(model), batches))
        record(gp.Measurement(0, 1.0, 1.0))

    monkeypatch.setattr(gp, "fit", fit)
    monkeypatch.setattr(gp, "time_updates", lambda build, names, *_: dict.fromkeys(names, (1, 1.0)))
    mode = mode.replace("FILE", str(series_file(tmp_path, noisy_wave(245))))
    for seed in (0, 1):
        command = f"--compare {mode} --quick --seq-len 6 --batch-size 8 --seed {seed}"
        assert run(command, tmp_path)[::2] == (0, "")
    cells, rates, firsts, _ = zip(*runs, strict=True)
    assert len(runs) == 2 * 3 * 3 * 4 and len({*rates}) == 3  # seeds, rates and networks
    assert cells[:4] == ("GRU", "LSTM", "LSTM", "LSTM")
    gru, lstm, fewer, forget = (len(first) for first in firsts[:4])
    assert lstm == forget and abs(fewer - gru) < 0.04 * gru
    seeds = [runs[i : i + 12] for i in range(0, 72, 12)]
    for of_seed in seeds:  # the same batches for all, the same first weights at every rate
        assert all(torch.equal(each[3], of_seed[0][3]) for each in of_seed)
        assert all(torch.equal(of_seed[i][2], of_seed[i % 4][2]) for i in range(12))
    hidden_size = 64 if "adding" in mode else 32
    assert torch.sum(firsts[1] != firsts[3]) == 2 * hidden_size  # the forget blocks of two biases
    assert torch.all((firsts[0][-9:] == 0) == ("--data" in mode))  # the end of the head
    for one, other in itertools.combinations(seeds, 2):
        assert not torch.equal(one[0][3], other[0][3]) and not torch.equal(one[0][2], other[0][2])


def test_a_run_has_the_best_validation_error_and_the_test_error_of_those_weights():
    task = gp.Task(noise_pairs(0), noise_pairs(1), noise_pairs(2), {}, 1.0)
    model, few = random_model(), options("--compare --epochs 2 --batch-size 7")
    done = gp.train_and_test(model, task, few, 0.05, 0)
    for kept, pairs in ((done.validation_mse, task.validation), (done.test_mse, task.test)):
        assert kept == pytest.approx(last_step_mse(model, *pairs[:]), rel=1e-5)
    task.validation.sequences[3] = math.nan
    assert gp.train_and_test(model, task, few, 0.05, 0).test_mse == math.inf


def test_the_forget_bias_adds_up_to_1_and_nothing_else_changes():
    model, plain = random_model("lstm"), random_model("lstm")
    gp.set_forget_bias(model, 1.0)
    sums = [each.recurrent.bias_ih_l0 + each.recurrent.bias_hh_l0 for each in (model, plain)]
    assert torch.equal(sums[0][5:10], torch.ones(5))  # PyTorch's gates are i, f, g, o
    others = [0, 1, 2, 3, 4, *range(10, 20)]
    assert torch.equal(sums[0][others], sums[1][others])
    assert torch.equal(model.recurrent.weight_hh_l0, plain.recurrent.weight_hh_l0)


def of_seeds(*errors):
    """Runs with these (validation MSE, test MSE, updates until learned, or 0 for never)."""
    runs = []
    for validation_mse, test_mse, learned in errors:
        below = [gp.Measurement(k, 1.0, 0.01 if k == learned else 0.05 * k) for k in (10, 20, 30)]
        runs.append(gp.Run(below, validation_mse, test_mse))
    return runs


RUNS = {  # the first rate has the smallest median, the second mean, the third minimum on validation
    ("GRU 10", 0.1): of_seeds((0.1, 0.6, 20), (0.2, 0.8, 30), (9, 0.7, 0)),
    ("GRU 10", 0.3): of_seeds((0.3, 0.5, 10), (0.3, 0.5, 10), (0.3, 0.5, 10)),
    ("GRU 10", 0.9): of_seeds((0, 0.4, 10), (1, 0.4, 10), (1, 0.4, 10)),
    ("LSTM 10", 0.1): of_seeds((0.4, 0.3, 20), (math.inf, math.inf, 0), (0.5, 0.2, 30)),
    ("LSTM 10", 0.9): of_seeds(*3 * [(math.inf, math.inf, 0)]),
}


def test_the_rate_is_chosen_by_the_median_validation_error_and_test_errors_are_printed(capsys):
    task = gp.Task(None, None, None, {"level": 0.3}, 0.05)
    best = gp.chosen(RUNS)
    assert [*best] == [("GRU 10", 0.1), ("LSTM 10", 0.1)]
    gp.print_comparison(best, {"GRU 10": (401, 7.0), "LSTM 10": (531, 28.0)}, task)
    *_, gru, lstm, level = (re.split("  +", line) for line in capsys.readouterr().out.splitlines())
    assert gru == ["GRU 10", "401", "0.1", "30 (20 - never)", "7.00", "0.21", "0.7 (0.6 - 0.8)"]
    assert lstm == [
        "LSTM 10",
        "531",
        "0.1",
        "30 (20 - never)",
        "28.00",
        "0.84",
        "0.3 (0.2 - diverged)",
    ]
    assert level == ["level: MSE 0.3"]


def test_the_figure_of_a_comparison_shows_median_and_range_of_the_seeds(drawn, tmp_path):
    task = gp.Task(None, None, None, {"level": 0.3}, 0.05)
    gp.plot_comparison({("GRU 10", 0.1): RUNS["GRU 10", 0.1]}, task, tmp_path / "figure.png")
    (axes,) = drawn["figure.png"].axes
    shown = curves(axes)
    assert shown["level"][1] == [0.3, 0.3] and shown["learned"][1] == [0.05, 0.05]
    assert shown["GRU 10, rate 0.1, median and range of 3 seeds"] == ([10, 20, 30], [0.5, 1.0, 1.5])
    ends = {tuple(point) for point in axes.collections[0].get_paths()[0].vertices}
    assert ends >= {(20, 0.01), (20, 1.0), (30, 0.01), (30, 1.5)} and axes.get_yscale() == "log"


def test_ctrl_c_keeps_the_complete_runs_of_a_comparison(tmp_path, monkeypatch, drawn):
    left = [*of_seeds(*5 * [(0.1, 0.2, 10)])]

    def train_and_test(*_):
        if not left:
            raise KeyboardInterrupt
        return left.pop()

    monkeypatch.setattr(gp, "train_and_test", train_and_test)
    monkeypatch.setattr(gp, "time_updates", lambda build, names, *_: dict.fromkeys(names, (1, 1.0)))
    status, out, err = run(f"--compare --quick {SMALL}", tmp_path)
    assert (status, err) == (130, "") and len(re.findall(r"^(?:GRU|LSTM) \d", out, re.M)) == 4
    assert "gru_vs_lstm_sine.png" in drawn


# --- The sine demo and the command line ---------------------------------------------------------


def test_what_is_printed_and_drawn_of_the_sine_waves(tmp_path, drawn, monkeypatch):
    models, train = [], gp.train
    monkeypatch.setattr(
        gp, "train", lambda model, *rest: models.append(model) or train(model, *rest)
    )
    status, out, err = run(f"--quick {SMALL} --noise 0.1", tmp_path)
    assert (status, err) == (0, "")
    x, y = gp.sine_task(options("--quick --noise 0.1"), 0).test[:]
    mse, best = last_step_mse(models[0], x, y), 0.1**2 * (1 + 1 / 30)
    assert re.search(
        rf"^test MSE +{mse:.4g}   {mse / best:.2f} times the best possible$", out, re.M
    )
    rows = re.findall(r"^ +(\d+) +(\S+) +(\S+)$", out, re.M)
    assert [row[0] for row in rows] == ["0", "16", "32"]
    axes = drawn["gru_pytorch_training_curve.png"].axes[0]
    for column, name in ((1, "training"), (2, "validation")):
        updates, errors = curves(axes)[name]
        assert [*map(str, updates)] == [row[0] for row in rows]
        assert [f"{error:.4g}" for error in errors] == [row[column] for row in rows]
    smallest = min(curves(axes)["validation"][1])
    assert curves(axes)["best: its weights are kept"][1] == [smallest]
    assert curves(axes)["best possible"][1] == [best, best] and axes.get_yscale() == "log"
    above, below = (curves(panel) for panel in drawn["gru_pytorch_forecast.png"].axes)
    wave = torch.tensor(np.array(above["data"][1]))[None, :, None]
    ahead = [models[0](wave[:, t : t + 30])[0][0, -1, 0].item() for t in range(60)]
    assert above["forecast"] == ([*range(30, 90)], pytest.approx(ahead, abs=1e-5))
    free = gp.free_running(models[0], wave[:, :30], 60)[0].tolist()
    assert below["forecast"] == ([*range(30, 90)], pytest.approx(free, abs=1e-5))


@CELLS
def test_one_seed_prints_the_same_numbers_again_and_another_seed_others(cell, tmp_path, drawn):
    command = f"--quick {SMALL} --seq-len 4 --cell {cell} --layers 2 --seed "
    first, again, other = (run(command + seed, tmp_path)[1] for seed in "112")
    assert first == again
    assert table(first)["test MSE"] != table(other)["test MSE"]
    assert [*drawn] == [f"{cell}_pytorch_training_curve.png", f"{cell}_pytorch_forecast.png"]


def test_quick_is_at_most_two_epochs_that_draw_in_plots_quick_beside_the_script(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(gp, "__file__", str(tmp_path / "gru_pytorch.py"))
    quick = gp.parse_options(["--quick"])
    assert (quick.epochs, quick.plots_dir) == (2, tmp_path / "plots" / "quick")
    assert gp.parse_options(["--quick", "--epochs", "1"]).epochs == 1


def test_figures_are_whole_pictures_whatever_a_matplotlibrc_says(tmp_path):
    with matplotlib.rc_context({"text.usetex": True, "figure.dpi": 7}):
        assert run(f"--quick {SMALL}", tmp_path)[::2] == (0, "")
    for figure in (tmp_path / "quick").iterdir():
        content = figure.read_bytes()  # 7 inches of 140 dots wide
        assert content.startswith(b"\x89PNG") and content.endswith(b"IEND\xaeB`\x82")
        assert int.from_bytes(content[16:20], "big") == 980


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process alone")
@pytest.mark.parametrize("end", ["Ctrl-C", "head"])
def test_ctrl_c_keeps_the_curve_and_a_reader_that_has_enough_is_no_error(end, tmp_path):
    options = ["--epochs", "10", "--batch-size", "8", "--seq-len", "3", "--plots-dir", tmp_path]
    command = [sys.executable, ROOT / "gru_pytorch.py", *options]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have ignored it
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as child:
        signal.signal(signal.SIGINT, before)
        for _ in range(3):  # the head of the table and its first two rows
            child.stdout.readline()
        if end == "Ctrl-C":
            child.send_signal(signal.SIGINT)
        else:
            child.stdout.close()
        err = child.stderr.read()
    assert (child.returncode, err) == (130 if end == "Ctrl-C" else 0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["gru_pytorch_training_curve.png"]


@pytest.mark.parametrize("mode", ["", "--data x", "--compare", "--compare --task adding"])
def test_help_names_each_option_of_the_mode_with_its_default(mode, capsys):
    with pytest.raises(SystemExit) as end:
        gp.main([*mode.split(), "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0 and "None" not in out
    given = vars(options(mode))
    for name in gp.RANGES.keys() & given.keys():
        assert re.search(
            rf"--{name.replace('_', '-')} [A-Z_]+ [^(]*\(default: {given[name]}\)", out
        ), name
    assert ("--cell" in out, "--save" in out) == ("compare" not in mode, mode == "--data x")


WRONG_OPTIONS = {
    "--epochs 0": "--epochs: expected int from 1 to 1e+06, got 0",
    "--epochs 1e3": "--epochs: expected int from 1 to 1e+06, got 1e3",
    "--seq-len 1": "--seq-len: expected int from 2 to 1000, got 1",
    "--learning-rate 1e38": "--learning-rate: expected float from 1e-09 to 100, got 1e38",
    "--hidden-size 1000000": "--hidden-size: expected int from 1 to 4096, got 1000000",
    "--noise -0.1": "--noise: expected float from 0 to 100, got -0.1",
    "--noise 0.1 --data x": "unrecognized arguments: --noise 0.1",
    "--seed -1": "--seed: expected int from 0 to 1e+09, got -1",
    "--cell lstm --compare": "unrecognized arguments: --cell lstm",
    "--task adding": "--task adding: expected --compare beside it",
    "--task adding --compare --data x": "--data: not allowed with argument --task",
    "--column a": "unrecognized arguments: --column a",
    "--device tpu": "--device: expected cpu, cuda:0 or the like, got tpu",
    "--hidden 3": "unrecognized arguments: --hidden",  # a later option could change what it means
    "--plots-dir FILE": "--plots-dir: expected a folder for figures, got ",
    "--data x --save no/such": "--save: expected a file in a folder that exists, got ",
}


@pytest.mark.parametrize("argv", WRONG_OPTIONS)
def test_a_wrong_option_ends_with_status_2_before_any_work(argv, tmp_path, monkeypatch):
    for work in ("read_series", "sine_task", "adding_task", "fit"):
        monkeypatch.setattr(gp, work, None)  # to call it is another error
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("mine")
    status, out, err = run(argv, "plots")
    assert (status, out) == (2, "") and err.startswith("usage: ")
    assert WRONG_OPTIONS[argv] in err.splitlines()[-1]
    assert (tmp_path / "FILE").read_text() == "mine"


def test_to_look_whether_figures_can_be_written_leaves_those_that_are_there(tmp_path):
    (tmp_path / "gru_pytorch_forecast.png").write_text("mine")
    options(f"--plots-dir {tmp_path}")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_training_that_diverges_ends_with_a_line_and_a_bug_with_its_traceback(
    tmp_path, monkeypatch
):
    def diverge(*_, **__):
        raise FloatingPointError("9 updates: error not finite; lower --learning-rate")

    monkeypatch.setattr(gp, "fit", diverge)
    status, _, _ = run("--quick", tmp_path)
    assert status == "gru_pytorch.py: 9 updates: error not finite; lower --learning-rate"
    monkeypatch.setattr(gp, "fit", None)
    with pytest.raises(TypeError, match="not callable"):
        run("--quick", tmp_path)


# --- With a GPU ---------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.gpu
@pytest.mark.parametrize("command", ["--quick", "--quick --cell lstm", "--quick --compare"])
def test_two_runs_on_cuda_give_the_same_numbers(command, tmp_path):
    (status, out, err), (_, again, _) = (
        run(f"{command} --device cuda", tmp_path) for _ in range(2)
    )
    assert (status, err) == (0, "")
    assert command.endswith("compare") or table(out) == table(again)
