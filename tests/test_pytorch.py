"""gru_pytorch.py: nn.GRU line by line, the loop that can be lifted out, the waves and what can be
known of them, one's own series, the comparison, and the command line with what it refuses."""

import contextlib
import io
import itertools
import math
import re
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import matplotlib.colors
import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import ROOT, curves, record_figures, table
from torch import nn
from torch.utils.data import DataLoader

import gru_pytorch as gp

SUNSPOTS = f"--data {ROOT / 'tests' / 'sunspots.csv'} --column sunspots"
NOT_WRITABLE = "/proc/self" if Path("/proc/self").is_dir() else "FILE"


def options(command):
    return gp.parse_options(
        gp.make_parser(), ["--device", "cpu", "--plots-dir", ".", *command.split()]
    )


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a command line: what it exits with (a text means status 1), stdout and stderr."""

    def run(command):
        with pytest.raises(SystemExit) as end:
            sys.exit(gp.main(["--device", "cpu", "--plots-dir", str(tmp_path), *command.split()]))
        return end.value.code or 0, *capsys.readouterr()

    return run


def record_fits(monkeypatch):
    """The calls of fit, which does its work all the same: arguments, result, by their names."""
    calls, fit = [], gp.fit

    def recorded(model, train_loader, validation_loader, **settings):
        first = [parameter.detach().clone() for parameter in model.parameters()]
        history = fit(model, train_loader, validation_loader, **settings)
        call = SimpleNamespace(model=model, first=first, history=history, **settings)
        call.train, call.validation = train_loader.dataset, validation_loader.dataset
        call.epochs_seen = [torch.cat([x for x, _ in train_loader]) for _ in range(2)]
        calls.append(call)
        return history

    monkeypatch.setattr(gp, "fit", recorded)
    return calls


@contextlib.contextmanager
def recorded_run(folder, command):
    """A run of the script as its user starts it: what it prints, draws, and the calls of fit."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        figures, fits = record_figures(monkeypatch), record_fits(monkeypatch)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            gp.main(["--device", "cpu", "--plots-dir", str(folder), *command.split()])
    yield SimpleNamespace(out=out.getvalue(), figures=figures, fits=fits, folder=folder)


# --- The lesson ---


def noise_sequences(seed):
    return torch.randn(20, 7, 1, generator=torch.Generator().manual_seed(seed))


def random_model(features=1):
    torch.manual_seed(3)
    return gp.SequenceModel("gru", features, 5)


def mse(model, sequences):
    """The error that the lesson speaks of: of every step but the first, from those before it."""
    return torch.mean((gp.predict(model, sequences[:, :-1]) - sequences[:, 1:]) ** 2).item()


def test_nn_gru_resets_after_the_product_and_has_two_biases():
    model = random_model(features=3).double()
    W, U, b, c = (parameter.chunk(3) for parameter in model.recurrent.parameters())
    x, h = torch.randn(4, 9, 3).double(), torch.zeros(4, 5).double()
    y = model(x)
    for t in range(9):
        r = torch.sigmoid(x[:, t] @ W[0].T + b[0] + h @ U[0].T + c[0])
        z = torch.sigmoid(x[:, t] @ W[1].T + b[1] + h @ U[1].T + c[1])
        n = torch.tanh(x[:, t] @ W[2].T + b[2] + r * (h @ U[2].T + c[2]))
        h = (1 - z) * n + z * h
        torch.testing.assert_close(y[:, t], model.head(h), rtol=0, atol=1e-12)


def test_fit_is_the_plain_loop_with_clipping_and_a_rate_that_falls_as_a_cosine():
    """Six epochs of batches of 8, 8 and 4 sequences."""
    train, validation = noise_sequences(0), noise_sequences(1)
    model, plain = random_model(), random_model()
    train_loader = DataLoader(gp.NextStep(train), batch_size=8)
    validation_loader = DataLoader(gp.NextStep(validation), batch_size=8)
    history = gp.fit(model, train_loader, validation_loader, 6, 0.1, 0.3, print_every=0)

    adam = torch.optim.Adam(plain.parameters())
    expected, update = [(mse(plain, train), mse(plain, validation))], 0
    for _ in range(6):
        total = 0
        for batch in train.split(8):
            adam.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * update / 18)) / 2
            adam.zero_grad()
            loss = nn.functional.mse_loss(plain(batch[:, :-1]), batch[:, 1:])
            loss.backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 0.3)
            adam.step()
            update += 1
            total += loss.item() * len(batch)
        expected.append((total / 20, mse(plain, validation)))
    np.testing.assert_allclose(history, expected, rtol=1e-4)


def test_the_weights_of_the_smallest_validation_error_are_kept_the_untrained_ones_too():
    validation = noise_sequences(1)
    for epochs, rate, best in ((12, 0.1, range(1, 12)), (3, 2.0, [0])):
        model = random_model()
        loaders = (DataLoader(gp.NextStep(noise_sequences(i)), batch_size=5) for i in (0, 1))
        history = gp.fit(model, *loaders, epochs, rate, 1.0, print_every=0)
        smallest = min(row[1] for row in history)
        assert history.index(min(history, key=lambda row: row[1])) in best
        assert mse(model, validation) == pytest.approx(smallest, rel=1e-5)


def test_only_training_has_gradients_and_dropout():
    model, loader, modes = random_model(), DataLoader(gp.NextStep(noise_sequences(0)), 20), []
    model.register_forward_hook(lambda *_: modes.append((model.training, torch.is_grad_enabled())))
    gp.fit(model, loader, loader, 1, 0.1, 1.0, print_every=0)
    trained, measured = (True, True), (False, False)
    assert modes == [measured, measured, trained, measured]
    model.train()
    gp.free_running(model, noise_sequences(0), 1)
    assert modes[-1] == measured


def test_targets_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match=r"^y: expected shape \(20, 6, 1\), got \(20, 6\)$"):
        gp.mean_squared_error(torch.zeros(20, 6, 1), torch.zeros(20, 6))


def test_waves_have_any_period_from_20_to_40_any_phase_and_the_noise_that_is_asked_for():
    torch.manual_seed(0)
    waves = gp.sine_waves(4000, 41)
    x = waves[:, :, 0].double()
    # x_{t+1} + x_{t-1} = 2 cos(2 pi / period) x_t
    cosine = ((x[:, 2:] + x[:, :-2]) * x[:, 1:-1]).sum(1) / (2 * x[:, 1:-1].square().sum(1))
    period = 2 * math.pi / torch.acos(cosine)
    assert period.min() > 19.99 and period.max() < 40.01
    assert torch.histc(period, 4, 20, 40).min() > 900  # of 1000
    rises = x[:, 1] > x[:, 0]
    quarters = [(rises & (x[:, 0] > 0)), (rises & (x[:, 0] < 0))]
    quarters += [(~rises & (x[:, 0] > 0)), (~rises & (x[:, 0] < 0))]
    assert min(quarter.sum() for quarter in quarters) > 800  # of some 1000
    noise = gp.with_noise(waves, 0.3) - waves
    assert noise.std() == pytest.approx(0.3, rel=0.02) and noise.mean().abs() < 0.01


def test_with_one_known_period_the_best_possible_is_off_by_the_noise_variance_over_T(monkeypatch):
    """That much of the noise a fit with one unknown, the phase, takes up."""
    monkeypatch.setattr(gp, "SHORTEST", 30)
    monkeypatch.setattr(gp, "LONGEST", 30)
    torch.manual_seed(0)
    clean = gp.sine_waves(1000, 31)
    best = gp.best_predictions(gp.with_noise(clean, 0.1), 0.1)
    off = torch.mean((best[:, -1] - clean[:, -1]) ** 2).item()
    assert off == pytest.approx(0.1**2 / 30, rel=0.15)  # 3 standard errors


def test_after_one_value_the_best_possible_weighs_each_phase_by_how_well_it_fits(monkeypatch):
    monkeypatch.setattr(gp, "SHORTEST", 30)
    monkeypatch.setattr(gp, "LONGEST", 30)
    phase, noise, value = 2 * np.pi * np.arange(120) / 120, 0.5, 0.8
    likelihood = np.exp(-((value - np.sin(phase)) ** 2) / (2 * noise**2))
    expected = np.average(np.sin(2 * np.pi / 30 + phase), weights=likelihood)
    best = gp.best_predictions(torch.tensor([[[value], [0.0]]]), noise)
    assert best.item() == pytest.approx(expected, rel=1e-4)


def test_the_best_possible_is_best_and_neither_it_nor_least_squares_looks_ahead():
    torch.manual_seed(0)
    train, waves = (gp.with_noise(gp.sine_waves(n, 13), 0.1) for n in (2000, 1000))
    predictions = {
        "least squares": lambda waves: gp.linear_predictions(train, waves),
        "best possible": lambda waves: gp.best_predictions(waves, 0.1),
    }
    errors = {}
    for name, predict in predictions.items():
        made = predict(waves)
        errors[name] = (made - waves[:, 1:]).square().mean(dim=(0, 2))
        torch.testing.assert_close(predict(waves[:, :8]), made[:, :7])
    assert torch.all(errors["best possible"][1:] < errors["least squares"][1:])
    assert 0.1**2 < errors["best possible"][-1] < 1.5 * 0.1**2


def test_least_squares_leaves_an_error_that_is_orthogonal_to_what_it_has_seen():
    torch.manual_seed(0)
    waves = gp.with_noise(gp.sine_waves(500, 6), 0.1)
    error = (waves[:, 1:] - gp.linear_predictions(waves, waves))[:, 4, 0]  # after 5 steps
    assert error.sum().abs() < 1e-3 and torch.all((waves[:, :5, 0].T @ error).abs() < 1e-3)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A small run on sine waves, and the sets that it should have drawn."""
    command = "--epochs 2 --batch-size 400 --hidden-size 3 --seq-len 12 --noise 0.1 --seed 1"
    with recorded_run(tmp_path_factory.mktemp("demo"), f"{command} --learning-rate 0.02") as demo:
        torch.manual_seed(1)
        demo.train, demo.validation = (
            gp.with_noise(gp.sine_waves(n, 13), 0.1) for n in (3000, 1000)
        )
        demo.clean = gp.sine_waves(1000, 12 + 80)
        demo.test = gp.with_noise(demo.clean, 0.1)
        demo.by_step, demo.free = demo.out.split("free-running, steps ahead")
        yield demo


def test_the_demo_trains_and_validates_on_sets_of_their_own(demo):
    (fit,) = demo.fits
    assert torch.equal(fit.train.sequences, demo.train)
    first, second = fit.epochs_seen
    assert len(first) == 3000 and not torch.equal(first, second)  # another order in each
    assert torch.equal(fit.validation.sequences, demo.validation)
    assert (fit.epochs, fit.learning_rate, fit.max_norm) == (2, 0.02, 1.0)
    assert fit.model.recurrent.hidden_size == 3


def test_the_table_and_the_figure_by_step_tell_the_test_errors(demo):
    waves, (fit,) = demo.test[:, :13], demo.fits
    predictions = {
        "persistence": waves[:, :-1],
        "least squares": gp.linear_predictions(demo.train, waves),
        "GRU": gp.predict(fit.model, waves[:, :-1]),
        "best possible": gp.best_predictions(waves, 0.1),
    }
    (axes,) = demo.figures["gru_pytorch_by_step.png"].axes
    shown = {line.get_color(): line for line in axes.lines}
    named = {text.get_text(): shown[text.get_color()] for text in axes.texts}
    last = {}
    for name, prediction in predictions.items():
        errors = (prediction - waves[:, 1:]).square().mean(dim=(0, 2))
        printed = torch.stack([errors[0], errors[4], errors[11], errors.mean()])
        assert table(demo.by_step)[name] == pytest.approx(printed.tolist(), abs=1e-5)
        assert list(named[name].get_xdata()) == [*range(1, 13)]
        assert list(named[name].get_ydata()) == pytest.approx(errors.tolist(), rel=1e-4)
        last[name] = errors
    after_12 = last["GRU"][-1] / last["best possible"][-1]
    mean = last["GRU"].mean() / last["best possible"].mean()
    told = f"GRU / best possible: {after_12:.2f} after 12 steps, {mean:.2f} in the mean\n"
    assert told in demo.by_step
    assert table(demo.by_step)["noise variance"] == 4 * [0.01]
    assert list(named["noise variance"].get_ydata()) == pytest.approx([0.01, 0.01])
    assert len(shown) == 5 and axes.get_yscale() == "log"


def test_free_running_sees_its_own_predictions(demo):
    (fit,) = demo.fits
    window, free = demo.test[:, :12], []
    for _ in range(80):
        following = gp.predict(fit.model, window)[:, -1:]
        free.append(following[:, 0, 0])
        window = torch.cat([window, following], dim=1)[:, 1:]
    free, future = torch.stack(free, dim=1), demo.test[:, 12:, 0]
    errors = (free - future).square().mean(dim=0)
    assert demo.free.startswith("          1        40        80      mean\n")
    printed = torch.stack([errors[0], errors[39], errors[79], errors.mean()])
    assert table(demo.free)["GRU"] == pytest.approx(printed.tolist(), abs=1e-5)
    assert table(demo.free)["always answering 0"][3] == pytest.approx(
        future.square().mean().item(), abs=1e-5
    )

    shown = curves(demo.figures["gru_pytorch_forecast.png"].axes[0])
    steps = [*range(12, 92)]
    assert shown["free-running"] == (steps, pytest.approx(free[0].tolist(), abs=1e-5))
    ahead = [gp.predict(fit.model, demo.test[:1, t - 12 : t])[0, -1, 0].item() for t in steps]
    assert shown["one step ahead"] == (steps, pytest.approx(ahead, abs=1e-5))
    assert shown["clean wave"][1] == demo.clean[0].flatten().tolist()
    assert shown["what is seen of it"][1] == demo.test[0].flatten().tolist()


def test_the_training_curve_tells_what_is_printed(demo):
    (axes,) = demo.figures["gru_pytorch_training_curve.png"].axes
    shown, (fit,) = curves(axes), demo.fits
    history = list(zip(shown["training"][1], shown["validation"][1], strict=True))
    assert history == fit.history and shown["validation"][0] == [0, 1, 2]
    for epoch, (train_mse, validation_mse) in enumerate(history):
        assert f"\n{epoch:5d}{train_mse:34.5f}{validation_mse:33.5f}\n" in demo.out
    assert shown["smallest: its weights are kept"] == ([2], [history[2][1]])
    assert "\nThe weights of epoch 2 are kept.\n" in demo.out
    for name in ("persistence", "least squares", "best possible"):
        assert shown[f"{name}, test"][1][0] == pytest.approx(table(demo.by_step)[name][3], abs=1e-5)
    lines = axes.lines[:2]
    assert lines[0].get_color() != lines[1].get_color() and axes.get_yscale() == "log"


def test_the_best_possible_is_left_out_where_its_grid_is_too_coarse(run, drawn):
    """It is there in the test above, with --noise 0.1 and 12 steps."""
    for noise in (0.03, 0):
        status, out, _ = run(f"--noise {noise} --seq-len 30 --epochs 1 --hidden-size 2")
        assert status == 0 and "least squares" in out and not re.search("best possible  |nan", out)


# --- One's own series: what is read ---


def read(tmp_path, content, column=None):
    (tmp_path / "series").write_bytes(content.encode())
    return gp.read_series(tmp_path / "series", column)


@pytest.mark.parametrize(
    "content, column",
    [
        ("\ufeff1\r\n2.5\r\n -3e2 \r\n\r\n \r\n", None),
        ("1\r2.5\r-3e2\r", None),  # line ends of old Macs
        ("sold\n1\n2.5\n-3e2\n", None),
        ("sold" + 79 * ";a" + "".join(f"\n{n}{79 * ';1,5'}" for n in (1, 2.5, -300)), "sold"),
        ("\ufeffsold \tnote\t\r\n1\tof\t\r\n2.5\tmy\t\r\n-3e2\town\t\r\n\r\n", "sold"),
        ('day,sold\n1\u2028May\x0b,1\n"2, ""May""",2.5\n"3\nMay",-3e2\n', "sold"),
        ("9,1\n1,2.5\n6,-3e2\n,\n,\n", "2"),  # no header: a position
        ("b,b\n9,1\n1,2.5\n6,-3e2\n", "2"),  # a name that stands there twice
        ("2019,2020,2021\n9,9,1\n9,9,2.5\n9,9,-3e2\n", "2021"),  # a name that is a number
        (",0\n0,1\n1,2.5\n2,-3e2\n", "0"),  # as pandas writes a series
        ("0\n1\n2.5\n-3e2\n", "0"),
        ("Tag;Temp, C\n1;1\n2;2.5\n3;-3e2\n", "Temp, C"),
    ],
)
def test_lines_and_the_column_of_a_table_are_read_as_the_same_series(content, column, tmp_path):
    values, _ = read(tmp_path, content, column)
    assert values == [1, 2.5, -300]


def test_what_was_read_shows_a_code_for_a_gap_a_total_and_an_order(tmp_path):
    content = "year,sold\n1703,10\n1702,-999\n,14\nTotal,1025\n"
    expected = (
        "4 values: first 10 (1703), last 1025 (Total), smallest -999 (1702), largest 1025 (Total)"
    )
    assert gp.what_was_read(*read(tmp_path, content, "sold")) == expected
    assert "smallest 14 (line 4)" in gp.what_was_read(
        *read(tmp_path, "y,sold\n1,15\n2,16\n,14", "2")
    )
    assert "first 1703 (line 2), last 3" in gp.what_was_read(
        *read(tmp_path, "a,b\n1703,1\n3,4", "a")
    )
    assert "first 980 (line 1), last 1.01 (line 3)" in gp.what_was_read(
        *read(tmp_path, "980\n990\n1.010")
    )


def test_what_was_read_is_printed_before_training(run, drawn, monkeypatch):
    monkeypatch.setattr(gp, "fit", None)
    with pytest.raises(TypeError):
        gp.main(SUNSPOTS.split())
    _, out, _ = run(f"{SUNSPOTS} --column 2 --seq-len 300")
    assert out.startswith(
        "309 values: first 5 (1700), last 2.9 (2008), smallest 0 (1711), largest "
    )


# --- One's own series: forecasts ---

WAVE = 3 + np.sin(np.arange(102) / 2) + 0.3 * np.random.default_rng(0).standard_normal(102)
TRAIN_END, VALIDATION_END, W = 71, 86, 12  # of WAVE


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run on WAVE, of which 71 values train, 15 validate and 16 test."""
    folder = tmp_path_factory.mktemp("own")
    np.savetxt(folder / "mine.txt", WAVE)
    with recorded_run(folder, f"--data {folder / 'mine.txt'} --epochs 40 --seed 1") as own:
        yield own


def forecasts_by_hand(network):
    """Forecasts of 12 values from every origin, an index of WAVE: a function for each name."""
    changes = np.diff(WAVE)
    unit = math.sqrt(np.mean(changes[: TRAIN_END - 1] ** 2))
    rows = [[*changes[i - 12 : i], 1] for i in range(12, TRAIN_END - 1)]
    for_small_weights = unit * np.eye(12, 13)
    targets = [*changes[12 : TRAIN_END - 1], *np.zeros(12)]
    weights = np.linalg.lstsq(np.concatenate([rows, for_small_weights]), targets, rcond=None)[0]

    def by_network(window):
        x = torch.tensor(window)[None, :, None] / unit
        return unit * gp.predict(network, x).item()

    def continued(predict, origin):
        seen = list(changes[:origin])
        for _ in range(12):
            seen.append(predict(np.array(seen[-12:])))
        return WAVE[origin] + np.cumsum(seen[origin:])

    return {
        "persistence": lambda origin: np.full(12, WAVE[origin]),
        "12 before": lambda origin: WAVE[origin - 11 : origin + 1],
        "least squares": lambda origin: continued(
            lambda window: window @ weights[:12] + weights[12], origin
        ),
        "GRU": lambda origin: continued(by_network, origin),
    }


def blend_by_hand(forecasts):
    """Weights of 1 / MSE^2, one step ahead, over the validation part; and the blend with them."""
    inverse = {}
    for name, forecast in forecasts.items():
        errors = [forecast(i - 1)[0] - WAVE[i] for i in range(TRAIN_END, VALIDATION_END)]
        inverse[name] = 1 / np.mean(np.square(errors)) ** 2
    weights = {name: value / sum(inverse.values()) for name, value in inverse.items()}

    def blend(origin):
        return sum(weight * forecasts[name](origin) for name, weight in weights.items())

    return weights, blend


def test_every_value_of_the_test_part_counts_at_every_distance(own):
    forecasts = forecasts_by_hand(own.fits[0].model)
    weights, forecasts["blend"] = blend_by_hand(forecasts)
    below = curves(own.figures["mine_gru_forecast.png"].axes[1])
    rmse = {}
    for name, forecast in forecasts.items():
        rmse[name] = []
        for h in range(1, 13):
            errors = [forecast(i - h)[h - 1] - WAVE[i] for i in range(VALIDATION_END, 102)]
            rmse[name].append(math.sqrt(np.mean(np.square(errors))))
            if name == "blend" and h in (1, 12):
                inside = np.mean(np.abs(errors) <= rmse[name][-1])
                assert f"\n{h} ahead, {inside:.0%} of the values lie within one RMSE" in own.out
        assert below[name] == ([*range(1, 13)], pytest.approx(rmse[name], rel=1e-5))
    assert "\nForecasting the last 16 values, each at every distance ...\n" in own.out
    for h in (1, 2, 4, 8, 12):
        row = "".join(f"{errors[h - 1]:15.5g}" for errors in rmse.values())
        assert f"\n{h:11d}{row}\n" in own.out
    told = " + ".join(f"{weight:.2f} {name}" for name, weight in weights.items())
    assert f"\nblend = {told}\n" in own.out


def test_the_verdict_is_against_the_best_of_the_simple_forecasts_at_each_distance(capsys):
    rmse = {"persistence": [1, 5, 5, 5], "4 before": [5, 1, 5, 5], "least squares": [5, 5, 1, 5]}
    for blend, verdict in (
        ([0.9, 0.9, 1.1, 1.1], "at 3 of 4 distances, at every one up to 2."),
        ([1, 0.9, 0.9, 0.9], "at 3 of 4 distances, and not one step ahead."),
        ([0, 0, 0, 0], "at 4 of 4 distances, at every one up to 4."),
    ):
        gp.print_distances(rmse | {"GRU": [9, 9, 9, 9], "blend": blend})
        _, told = capsys.readouterr().out.split("persistence, 4 before, least squares ")
        assert told == f"{verdict}\n"


def test_what_comes_next_is_drawn_with_its_band_and_written(own):
    forecasts = forecasts_by_hand(own.fits[0].model)
    _, blend = blend_by_hand(forecasts)
    top, below = own.figures["mine_gru_forecast.png"].axes
    shown, band = curves(top), curves(below)["blend"][1]
    assert shown["data"] == ([*range(87, 103)], WAVE[86:].tolist())
    ahead = [blend(i - 1)[0] for i in range(86, 102)]
    assert shown["test part, one step ahead"][1] == pytest.approx(ahead, rel=1e-5)
    steps, future = shown["what comes next; band: RMSE of this distance"]
    assert (steps, future) == ([*range(103, 115)], pytest.approx(blend(101), rel=1e-5))
    for step, value, error in zip(steps, future, band):
        edges = {y for x, y in top.collections[0].get_paths()[0].vertices if x == step}
        assert [min(edges), max(edges)] == pytest.approx([value - error, value + error])
    written = np.loadtxt(own.folder / "mine_gru_forecast.csv", delimiter=",", skiprows=1)
    np.testing.assert_allclose(written, np.column_stack([steps, future, band]))


def test_a_network_learns_from_the_training_part_alone_and_is_chosen_on_the_next(own):
    """The last change of a window is the target: that to value i is changes[i - 1]."""
    (fit,) = own.fits
    changes = np.diff(WAVE) / math.sqrt(np.mean(np.diff(WAVE)[: TRAIN_END - 1] ** 2))
    (x, y), (_, validation_y) = fit.train[:], fit.validation[:]
    np.testing.assert_allclose(y.flatten(), changes[12 : TRAIN_END - 1], rtol=1e-6)
    expected = changes[TRAIN_END - 1 : VALIDATION_END - 1]
    np.testing.assert_allclose(sorted(validation_y.flatten()), sorted(expected), rtol=1e-6)
    np.testing.assert_allclose(x[3].flatten(), changes[3:15], rtol=1e-6)
    assert fit.history[0][1] == pytest.approx(np.mean(expected**2))  # untrained: persistence
    (axes,) = own.figures["mine_gru_training_curve.png"].axes
    assert curves(axes)["validation"][1] == [row[1] for row in fit.history]
    assert axes.get_ylabel() == "mean squared error, in mean squares of a change"


def test_a_long_series_is_trained_and_tested_on_places_drawn_from_all_of_it(
    run, drawn, monkeypatch, tmp_path
):
    """Of hours, a fixed stride would meet only some."""
    fits = record_fits(monkeypatch)
    monkeypatch.setattr(gp, "MOST_STEPS", 100_000)
    np.savetxt(tmp_path / "hours", np.arange(33_000.0).cumsum())  # change i is i
    _, out, _ = run(f"--data {tmp_path}/hours --epochs 1 --seq-len 10")
    assert "Forecasting the last 4950 values, from 1000 random origins ..." in out
    unit = math.sqrt(np.mean(np.arange(1.0, 23_100) ** 2))
    (_, y), (_, validation_y) = fits[0].train[:], fits[0].validation[:]
    assert len(y) == 23_100 - 11
    first, second = fits[0].epochs_seen
    assert len(first) == 1000 and not torch.equal(first, second)
    changes = (validation_y.flatten() * unit).round().int()
    assert len(changes) == 1000 and len(set((changes % 24).tolist())) == 24
    assert changes.min() < 23_200 and changes.max() > 27_900  # of 23,100 to 28,049


def test_a_forecast_does_not_depend_on_the_unit_of_the_series(run, drawn, tmp_path):
    told, ahead = [], []
    for unit in (1, 1e-14, 1e14):
        np.savetxt(tmp_path / "mine", unit * WAVE)
        _, out, _ = run(f"--data {tmp_path}/mine --epochs 3")
        told.append(re.findall("blend.*", out))
        table = np.loadtxt(tmp_path / "mine_gru_forecast.csv", delimiter=",", skiprows=1)
        ahead.append(table[:, 1] / unit)
    assert told[0] == told[1] == told[2]
    np.testing.assert_allclose(ahead[1:], 2 * ahead[:1], rtol=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values, told",
    [
        ([*WAVE[:84], *16 * [3.0]], "blend beats persistence"),
        (
            [*WAVE[:70], *15 * [WAVE[69]], *WAVE[85:100]],
            "blend = 0.50 persistence + 0.00 12 before",
        ),
        (
            25 * [1, 2, 4, 8],
            "blend = 0.00 persistence + 1.00 12 before + 0.00 least squares + 0.00",
        ),
    ],
)
def test_parts_that_stand_still_and_a_series_that_repeats_itself_have_an_answer(
    values, told, run, drawn, tmp_path
):
    np.savetxt(tmp_path / "mine", values)
    status, out, err = run(f"--data {tmp_path / 'mine'} --epochs 1")
    assert (status, err) == (0, "") and told in out and not re.search("nan|inf", out)


def test_on_a_short_series_least_squares_does_not_explode_when_it_runs_free(run, drawn, tmp_path):
    """72 months, of which 50 train: 25 windows for 25 weights."""
    month, noise = np.arange(72), np.random.default_rng(0).standard_normal(72)
    np.savetxt(tmp_path / "months", 100 + 10 * np.sin(2 * np.pi * month / 12) + 3 * noise)
    run(f"--data {tmp_path}/months --seq-len 24 --epochs 1")
    rmse = curves(drawn["months_gru_forecast.png"].axes[1])
    for name in ("least squares", "blend"):
        assert max(rmse[name][1]) < 2 * max(rmse["persistence"][1])


def test_files_are_named_by_data_column_and_cell(run, drawn, tmp_path):
    table = "t;Temp, C\n" + "".join(f"{i};{value}\n" for i, value in enumerate(WAVE))
    (tmp_path / "my.days.csv").write_text(table)
    with pytest.raises(SystemExit):
        data = ["--data", str(tmp_path / "my.days.csv"), "--column", "Temp, C", "--cell", "lstm"]
        sys.exit(gp.main([*data, "--epochs", "1", "--plots-dir", str(tmp_path)]))
    stem = "my.days_Temp_C_lstm_"
    written = {path.name for path in tmp_path.glob(f"{stem}*")}
    assert written == {f"{stem}forecast.csv", f"{stem}forecast.png", f"{stem}training_curve.png"}


# --- The comparison ---


def test_the_adding_problem_asks_for_the_sum_of_one_marked_number_of_either_half():
    torch.manual_seed(0)
    x, y = gp.adding_problem(5000, 7)
    numbers, marks = x.unbind(dim=2)
    assert x.shape == (5000, 7, 2) and y.shape == (5000, 1, 1)
    assert 0 <= numbers.min() < 0.001 and 0.999 < numbers.max() < 1
    assert torch.all((marks == 0) | (marks == 1)) and torch.all(marks.sum(0) > 0)  # any step
    assert torch.all(marks[:, :3].sum(1) == 1) and torch.all(marks[:, 3:].sum(1) == 1)
    assert torch.equal(y[:, 0, 0], numbers[marks == 1].reshape(-1, 2).sum(1))


def test_the_levels_of_the_tasks_are_errors_on_their_test_sets():
    task = gp.adding_task(0, options("--compare adding"))
    _, y = task.test[:]
    assert task.references["always answering 1"] == torch.mean((y - 1) ** 2).item()
    assert 0.95 < task.references["least squares"] / task.references["always answering 1"] < 0.99
    task = gp.sine_task(0, options("--compare sine"))
    waves = torch.cat([task.test[:][0], task.test[:][1][:, -1:]], dim=1)
    persistence = torch.mean((waves[:, 1:] - waves[:, :-1]) ** 2).item()
    assert task.references["persistence"] == pytest.approx(persistence)
    ratio = task.references["least squares"] / task.references["best possible"]
    assert ratio == pytest.approx(1.5, rel=0.05)
    assert task.learned == pytest.approx(1.25 * task.references["best possible"], rel=0.05)


@pytest.mark.parametrize("make_task, length", [(gp.sine_task, 30), (gp.adding_task, 6)])
def test_the_sets_of_a_task_are_different_draws_which_the_seed_fixes(
    make_task, length, monkeypatch
):
    monkeypatch.setattr(gp, "best_predictions", lambda waves, _: waves[:, :-1])  # it takes long
    given = options("--compare adding --seq-len 6")
    tasks = [make_task(seed, given) for seed in (1, 1, 2)]
    sets = [torch.cat([s[:][0] for s in (t.train, t.validation, t.test)]) for t in tasks]
    assert torch.equal(sets[0], sets[1]) and sets[0].shape[1] == length
    assert len(torch.cat(sets[1:]).unique(dim=0)) == 2 * len(sets[0])


def test_networks_have_equal_batches_of_a_seed_and_one_lstm_a_forget_bias_of_1(monkeypatch):
    given = options("--compare adding --seq-len 6 --hidden-size 4 --batch-size 8 --epochs 2")
    task, calls = gp.adding_task(0, given), []

    def fit(model, train_loader, *_, **__):
        two_epochs = torch.cat([x for _ in range(2) for x, _ in train_loader])
        calls.append((model.recurrent, two_epochs))
        return [(1.0, 1.0)]

    monkeypatch.setattr(gp, "fit", fit)
    for name, seed in (*((name, 0) for name in gp.KINDS), ("GRU", 1)):
        gp.train_once(name, 0.01, seed, task, given)
    (gru, lstm, forget, plain, _), batches = zip(*calls)

    assert batches[0].shape == (2 * 10 * 8, 6, 2) and len(batches[0].unique(dim=0)) > 150
    assert all(torch.equal(batches[0], others) for others in batches[1:4])
    assert not torch.equal(batches[0], batches[4])  # of another seed

    kinds = [type(layer) for layer in (gru, lstm, forget, plain)]
    assert kinds == [nn.GRU, nn.LSTM, nn.LSTM, nn.RNN]
    bias = forget.bias_ih_l0 + forget.bias_hh_l0  # of the gates i, f, g, o
    assert torch.all(bias[4:8] == 1)
    assert torch.equal(forget.weight_ih_l0, lstm.weight_ih_l0)
    assert torch.equal(forget.bias_ih_l0[8:], lstm.bias_ih_l0[8:])


def test_learned_is_the_update_from_which_on_the_error_stays_below_the_level():
    for errors, after in (
        ([9, 1, 9, 1, 1], 30),
        ([1, 1, 1], 0),
        ([9, 9, 1], 20),
        ([9, 5, 1], 20),  # 5 is not below 5
        ([1, 1, 9], math.inf),
    ):
        assert gp.learned_after(errors, level=5) == after


def test_spread_tells_how_many_runs_have_learned():
    assert gp.spread([3, 1, 2], ".0f") == "2 (1 - 3)"
    assert gp.spread([3, math.inf, 2], ".0f") == "in 2 of 3 runs"
    assert gp.spread([math.inf, math.inf], ".0f") == "not learned"


SMALL = "--compare adding --seq-len 4 --hidden-size 3 --epochs 4 --batch-size 4 --seed 1"


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    """The whole of a small comparison with its real trainings. By its clock, each takes 1 s."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(gp, "RATES", (0.02, 0.08, 0.32))
        monkeypatch.setattr(time, "perf_counter", itertools.count().__next__)
        make_task = gp.adding_task
        tasks = {
            seed: replace(make_task(seed, options(SMALL)), learned=0.2) for seed in range(7, 14)
        }
        monkeypatch.setattr(gp, "adding_task", lambda seed, _: tasks[seed])
        with recorded_run(tmp_path_factory.mktemp("comparison"), SMALL) as comparison:
            comparison.tasks = tasks
            for fit in comparison.fits:
                (fit.seed,) = [seed for seed, task in tasks.items() if task.train is fit.train]
                assert fit.validation is tasks[fit.seed].validation
                fit.name = name_of(fit)
                x, y = tasks[fit.seed].test[:]
                fit.test_mse = torch.mean((gp.predict(fit.model, x) - y) ** 2).item()
            yield comparison


def name_of(fit):
    layer = fit.model.recurrent
    if isinstance(layer, nn.LSTM):
        _, _, bias_ih, bias_hh, _, _ = fit.first
        return "LSTM, forget bias 1" if torch.all((bias_ih + bias_hh)[3:6] == 1) else "LSTM"
    return "GRU" if isinstance(layer, nn.GRU) else "plain RNN"


def best_validation(fit):
    return min(row[1] for row in fit.history)


def test_a_rate_is_chosen_on_two_seeds_and_trained_on_five_others(comparison):
    for name in gp.KINDS:
        errors = {}  # of the seeds 7 and 8, by rate
        for fit in comparison.fits:
            if fit.name == name and fit.seed in (7, 8):
                errors.setdefault(fit.learning_rate, []).append(best_validation(fit))
        assert [len(of_rate) for of_rate in errors.values()] == [2, 2, 2]
        reported = [fit for fit in comparison.fits if fit.name == name and fit.seed > 8]
        assert [fit.seed for fit in reported] == [9, 10, 11, 12, 13]
        rate = min(errors, key=lambda rate: sum(errors[rate]))
        assert {fit.learning_rate for fit in reported} == {rate}
    assert len(comparison.fits) == 4 * (3 * 2 + 5)


def test_the_rate_is_that_of_the_smallest_validation_errors_in_the_mean(monkeypatch):
    """0.02 has the better last and test errors, 0.03 the smallest one of a single seed."""
    runs = {
        (0.01, 0): gp.Run(validation_mse=[9, 2, 8], test_mse=9, seconds=1),
        (0.01, 1): gp.Run(validation_mse=[9, 4, 8], test_mse=9, seconds=1),
        (0.02, 0): gp.Run(validation_mse=[9, 5, 5], test_mse=1, seconds=1),
        (0.02, 1): gp.Run(validation_mse=[9, 5, 5], test_mse=1, seconds=1),
        (0.03, 0): gp.Run(validation_mse=[9, 1, 9], test_mse=9, seconds=1),
        (0.03, 1): gp.Run(validation_mse=[9, 7, 9], test_mse=9, seconds=1),
    }
    monkeypatch.setattr(gp, "RATES", (0.02, 0.01, 0.03))
    monkeypatch.setattr(gp, "train_once", lambda name, rate, seed, *_: runs[rate, seed])
    assert gp.choose_rate("GRU", {0: None, 1: None}, None) == 0.01


def test_each_row_tells_what_the_five_trainings_of_its_network_have_reached(comparison):
    for name in gp.KINDS:
        reported = [fit for fit in comparison.fits if fit.name == name and fit.seed > 8]
        weights = sum(parameter.numel() for parameter in reported[0].model.parameters())
        updates = [gp.learned_after([row[1] for row in fit.history], 0.2) for fit in reported]
        seconds = [update / 40 for update in updates]  # of 40 in a training
        test_mse = [fit.test_mse for fit in reported]
        rate = reported[0].learning_rate
        edge = "*" if rate != 0.08 else ""
        (row,) = re.findall(rf"^{name}  +(.*)", comparison.out, re.MULTILINE)
        assert re.split("  +", row.replace("* ", "*  ")) == [
            f"{rate:.2g}{edge}", str(weights),
            gp.spread(updates, ".0f"), gp.spread(seconds, ".1f"), gp.spread(test_mse, ".3g"),
        ]  # fmt: skip
        for fit in reported:
            told = f"{name}, rate {rate}: validation MSE {best_validation(fit):.3g}\n"
            assert f"seed {fit.seed}, {told}" in comparison.out


def test_the_levels_are_those_of_the_reported_seeds_in_table_and_figure(comparison):
    (axes,) = comparison.figures["gru_vs_lstm_adding.png"].axes
    for name in ("always answering 1", "least squares"):
        levels = [task.references[name] for seed, task in comparison.tasks.items() if seed > 8]
        assert f"\n{name}: MSE {gp.spread(levels, '.4g')}\n" in comparison.out
        assert curves(axes)[name][1][0] == statistics.median(levels)
    assert curves(axes)["learned"][1][0] == 0.2
    assert "\nlearned: MSE 0.2 (0.2 - 0.2)\n" in comparison.out


def test_each_curve_is_the_median_of_its_network_in_its_colour_within_its_range(comparison):
    (axes,) = comparison.figures["gru_vs_lstm_adding.png"].axes
    colors = {}
    for line, band, name in zip(axes.lines, axes.collections, gp.KINDS):
        fits = [fit for fit in comparison.fits if fit.name == name and fit.seed > 8]
        errors = np.array([[row[1] for row in fit.history] for fit in fits])
        assert line.get_label() == f"{name}, rate {fits[0].learning_rate:.2g}"
        assert list(line.get_xdata()) == [0, 10, 20, 30, 40]
        np.testing.assert_allclose(line.get_ydata(), np.median(errors, axis=0), rtol=1e-6)
        corners = {(x, y) for x, y in band.get_paths()[0].vertices}
        edges = zip([0, 10, 20, 30, 40], errors.min(axis=0), errors.max(axis=0))
        for update, least, most in edges:
            at_update = [y for x, y in corners if x == update]
            assert [min(at_update), max(at_update)] == pytest.approx([least, most], rel=1e-6)
        colors[name] = line.get_color()
        assert np.allclose(band.get_facecolor()[0][:3], matplotlib.colors.to_rgb(colors[name]))
    assert len(set(colors.values())) == 4 and axes.get_legend() is not None


# --- The command line ---


def test_one_seed_gives_the_same_numbers_and_figures_whatever_a_matplotlibrc_says(run, tmp_path):
    command = f"--epochs 1 --hidden-size 3 --seq-len 4 --cell lstm --plots-dir {tmp_path}/a/b"
    first = run(command)
    with matplotlib.rc_context({"text.usetex": True, "figure.dpi": 7}):
        assert run(command) == first
    for name in ("training_curve", "by_step", "forecast"):  # 7 inches of 140 dots wide
        path = tmp_path / "a" / "b" / f"lstm_pytorch_{name}.png"
        assert matplotlib.image.imread(path).shape[1] == 980
        assert f"\n{path}\n" in first[1]


def test_a_file_that_cannot_be_written_stops_no_other_and_costs_no_result(run, tmp_path):
    for command, lost, kept in (
        ("", "gru_pytorch_training_curve.png", "gru_pytorch_forecast.png"),
        (SUNSPOTS, "sunspots_sunspots_gru_forecast.csv", "sunspots_sunspots_gru_forecast.png"),
    ):
        (tmp_path / lost).mkdir()
        status, out, err = run(f"{command} --epochs 1 --hidden-size 3")
        assert status == 1 and re.fullmatch(f"gru_pytorch.py: .*{lost}'\n", err)
        assert "persistence" in out and (tmp_path / kept).exists()
    assert not list(tmp_path.glob("*.part"))


def test_an_error_that_is_not_finite_ends_with_a_line_and_a_bug_with_its_traceback(
    run, monkeypatch
):
    errors = iter([1, 1, math.nan])
    monkeypatch.setattr(gp, "evaluate", lambda *_: next(errors))
    status, *_ = run("")
    assert status == "gru_pytorch.py: epoch 1: error not finite; a smaller rate may help"
    monkeypatch.setattr(gp, "evaluate", None)
    with pytest.raises(TypeError, match="not callable"):
        run("")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are others there")
@pytest.mark.parametrize("script", ["gru_pytorch.py --epochs", "gru_from_scratch.py --updates"])
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGPIPE])
def test_ctrl_c_and_a_reader_that_has_enough_end_a_script_quietly(script, end, tmp_path):
    command = [sys.executable, "-u", *script.split(), "1000", "--plots-dir", tmp_path]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as child:
        child.stdout.readline()
        if end == signal.SIGINT:
            child.send_signal(end)
            child.stdout.read()
        else:
            child.stdout.close()
        assert (child.stderr.read(), child.wait()) == (b"", -end)


@pytest.mark.parametrize("mode", gp.MODES)
def test_help_shows_the_defaults_of_each_mode_and_the_options_have_them(mode, run):
    command = "" if mode == "the sine waves" else mode.replace("--data", "--data x")
    given = vars(options(command))
    told = " ".join(f"{gp.flag(name)} {given[name]}" for name in gp.MODES[mode] if name != "column")
    status, out, _ = run("--help")
    assert status == 0 and f"\n  {mode}:\n    {told}\n" in out + "\n"
    for usage in gp.__doc__.split("\n\n")[1].splitlines():
        assert usage in out


def test_wrong_options_end_with_usage_and_a_line_before_any_work(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("FILE").write_text("")
    for work in ("sine_waves", "adding_problem", "fit"):
        monkeypatch.setattr(gp, work, None)  # to call it is another error
    for command, message in (
        ("--epochs 0", "--epochs: expected a whole number from 1 to 1000000, got 0"),
        ("--epochs 1e3", "--epochs: expected a whole number from 1 to 1000000, got 1e3"),
        ("--learning-rate 1e38", "--learning-rate: expected a number from 1e-09 to 100, got 1e38"),
        ("--clip nan", "--clip: expected a number from 1e-09 to inf, got nan"),
        ("--seq-len 1", "--seq-len: expected a whole number from 2 to 1000, got 1"),
        ("--epoch 3", "unrecognized arguments: --epoch 3"),  # a later option may begin so
        ("--cell tcn", "--cell: invalid choice: 'tcn'"),
        ("--column b", "--column: goes with --data; not with the sine waves"),
        ("--data x --noise 1", "--noise: goes with the sine waves; not with --data"),
        (
            "--compare sine --cell gru",
            "--cell: goes with the sine waves, --data; not with --compare",
        ),
        ("--compare adding --data x", "not allowed with argument"),
        ("--device tpu", "--device: expected one that is here, got tpu ("),
        ("--device hpu", "--device: expected one that is here, got hpu ("),
        ("--device cuda:99", "--device: expected one that is here, got cuda:99 ("),
        ("--plots-dir FILE", "--plots-dir: expected a folder to write to, got "),
        (f"--plots-dir {NOT_WRITABLE}", "--plots-dir: expected a folder to write to, got "),
    ):
        status, out, err = run(command)
        assert (status, out) == (2, "") and message in err.splitlines()[-1], command
        assert err.startswith("usage: ")


NUMBER, GAPS = "expected a number like 1.5, got", "(gaps have to be filled or cut first, decimal"


@pytest.mark.parametrize(
    "command, content, message",
    [
        ("", "1\n\n3", f"line 2: {NUMBER} '' {GAPS} commas to be points)"),
        ("", "1\n1e999", f"line 2: {NUMBER} '1e999'"),
        ("", "1\n1_000", f"line 2: {NUMBER} '1_000'"),
        ("", "\xff", "expected text in UTF-8, got 'utf-8' codec"),
        ("", "\n \n", "expected numbers, got an empty file"),
        ("", "price\n", "expected numbers below 'price', got nothing"),
        ("", "11,234\n11,240", "line 1: expected one number, got 2 cells: '11', '234'. Of a table, "
         "--column names one. If they are one number, write 1.5 for 1,5 and 1500 for 1,500"),
        ("", 28 * "1\n", "expected at least 29 values for --seq-len 12, got 28"),
        ("--seq-len 2", 8 * "1\n", "expected at least 9 values for --seq-len 2, got 8"),
        ("", 99 * "7.3\n", "expected numbers that vary in the first 69, by 1e-150 to 1e150, and"),
        ("", 75 * "7\n" + 25 * "8\n", "expected numbers that vary in the first 70"),
        ("", 50 * "1\n2\n" + "1e30", "and in the rest by less than 1e15 times as much"),
        ("", 50 * "1e180\n2e180\n", "expected numbers that vary in the first 70, by 1e-150 to"),
        ("--column b", "a,b\n1,2\n2,NA", f"line 3: {NUMBER} 'NA' {GAPS}"),
        ("--column Tag", "Tag;Temp, C\n1,5;7,5", f"line 2: {NUMBER} '1,5' {GAPS} commas to be"),
        ("--column 2", "2020,7\n1,2,3", "line 2: expected 2 cell(s) as in line 1, got 3 (a title"),
        ("", "# a comment\n# and one more\n1", f"line 2: {NUMBER} '# and one more'"),
        ("--column b", "sep=;\na;b\n1;2", "one of 'sep=', ''; got 'b' (a title, a comment or"),
        ("--column b", "My title\na,b\n1,2", "to be one of 'My title'; got 'b' (a title,"),
        ("--column b", "a,B\n1,2", "expected --column to be one of 'a', 'B'; got 'b'"),
        ("--column b", "b,b\n1,2", "2 columns are called 'b': give its position"),
        ("--column b", 'b\n"2\n3', "line 3: unexpected end of data (is a quote not closed?)"),
    ],
)  # fmt: skip
def test_bad_data_end_with_usage_and_a_line_before_any_work(
    command, content, message, run, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gp, "fit", None)
    Path("FILE").write_text(content, encoding="latin-1")
    status, _, err = run(f"--data FILE {command}")
    assert status == 2 and err.startswith("usage: ")
    assert "error: argument --data: FILE: " in err and message in err.splitlines()[-1]


def test_a_missing_file_and_a_folder_speak_for_themselves(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for name in ("missing", "folder"):
        status, _, err = run(f"--data {name}")
        assert status == 2 and re.search(
            rf"argument --data: {name}: \[Errno \d+\] .*'{name}'$", err
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["--cell gru", "--cell lstm", SUNSPOTS])
def test_two_runs_on_cuda_give_the_same_numbers(mode, run, drawn):
    first, again = (run(f"{mode} --epochs 2 --device cuda") for _ in range(2))
    assert first == again and first[::2] == (0, "")
