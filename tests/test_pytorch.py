"""gru_pytorch.py: nn.GRU line by line, the loop that can be lifted out, the data, one's own series,
the comparison with LSTM, and the command line with what it refuses."""

import itertools
import math
import re
import signal
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import ROOT, curves
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

import gru_pytorch as gp

WAVE = 3 + np.sin(np.arange(102) / 2) + 0.3 * np.random.default_rng(0).standard_normal(102)
NOT_WRITABLE = "/proc/self" if Path("/proc/self").is_dir() else "FILE"
SUNSPOTS = f"--data {ROOT / 'tests' / 'sunspots.csv'} --column sunspots"


def noise_pairs(seed=0):
    return gp.NextStep(torch.randn(20, 7, 1, generator=torch.Generator().manual_seed(seed)))


def random_model(features=1):
    torch.manual_seed(3)
    return gp.SequenceModel("gru", features, 5)


def last_step_loss(model, x, y):
    return torch.mean((model(x)[0][:, -1] - y[:, -1]) ** 2)


def options(command):
    return gp.parse_options(["--device", "cpu", "--plots-dir", ".", *command.split()])


@pytest.fixture
def run(tmp_path, capsys):
    """Runs a command line: what it exits with (a text means status 1), stdout and stderr."""

    def run(command):
        with pytest.raises(SystemExit) as end:
            sys.exit(gp.main(["--device", "cpu", "--plots-dir", str(tmp_path), *command.split()]))
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def fits(monkeypatch):
    """The arguments of each call of fit, which does its work all the same."""
    calls, fit = [], gp.fit
    monkeypatch.setattr(gp, "fit", lambda *args, **more: calls.append(args) or fit(*args, **more))
    return calls


def test_nn_gru_resets_after_the_product_and_has_two_biases():
    model = random_model(features=3).double()
    W, U, b, c = (parameter.chunk(3) for parameter in model.recurrent.parameters())
    x, h = torch.randn(4, 9, 3).double(), torch.randn(4, 5).double()
    y, h_n = model(x, h[None])
    for t in range(9):
        r = torch.sigmoid(x[:, t] @ W[0].T + b[0] + h @ U[0].T + c[0])
        z = torch.sigmoid(x[:, t] @ W[1].T + b[1] + h @ U[1].T + c[1])
        n = torch.tanh(x[:, t] @ W[2].T + b[2] + r * (h @ U[2].T + c[2]))
        h = (1 - z) * n + z * h
        torch.testing.assert_close(y[:, t], model.head(h), rtol=0, atol=1e-12)
    torch.testing.assert_close(h_n, h[None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [6, 1])
def test_fit_is_the_plain_loop_over_passes_with_clipping_and_a_rate_that_falls_as_a_cosine(steps):
    """Three passes in batches of 7, 7, 4; with targets of the last step alone no update is best."""
    (x, y), validation, order = noise_pairs()[:], noise_pairs(1), torch.Generator().manual_seed(5)
    sampler = SubsetRandomSampler(range(18), order)
    loader = DataLoader(TensorDataset(x, y[:, -steps:]), 7, sampler=sampler)
    model, plain, modes = random_model(), random_model(), []
    model.register_forward_hook(lambda *_: modes.append((model.training, torch.is_grad_enabled())))
    history, best = gp.fit(model, loader, DataLoader(validation, 6), 3, 4, 0.1, 0.7)
    trained, measured = [(True, True)], [(False, False)]
    assert modes == 7 * measured + 2 * (4 * trained + 4 * measured) + trained + 4 * measured

    order.manual_seed(5)
    adam = torch.optim.Adam(plain.parameters())
    errors, sizes = [last_step_loss(plain, *batch).item() for batch in loader], [7, 7, 4]
    untrained = np.average(errors, weights=sizes)
    expected = [(0, untrained, last_step_loss(plain, *validation[:]).item())]
    errors, sizes = [], []
    for k, (x, y) in enumerate([*loader, *loader, *loader], 1):
        adam.param_groups[0]["lr"] = 0.1 * (1 + math.cos(math.pi * (k - 1) / 9)) / 2
        errors.append(last_step_loss(plain, x, y).item())
        sizes.append(len(x))
        adam.zero_grad()
        nn.functional.mse_loss(plain(x)[0][:, -steps:], y).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.7)
        adam.step()
        if k in (4, 8, 9):
            train_mse = np.average(errors, weights=sizes)
            expected.append((k, train_mse, last_step_loss(plain, *validation[:]).item()))
            errors, sizes = [], []
    rows = [(row.updates, row.train_mse, row.validation_mse) for row in history]
    np.testing.assert_allclose(rows, expected, rtol=1e-5)
    assert best == min(history, key=lambda row: row.validation_mse)
    assert (best.updates == 0) == (steps == 1)
    assert last_step_loss(model, *validation[:]).item() == pytest.approx(best.validation_mse)


def test_targets_that_would_broadcast_are_refused():
    (x, y), model = noise_pairs()[:], random_model()
    with pytest.raises(ValueError, match=r"^y: expected shape \(20, 1, 1\), got \(20, 1\)$"):
        gp.train_step(model, torch.optim.SGD(model.parameters()), x, y[:, -1], 1.0)


def test_sine_waves_and_their_levels_are_those_of_a_phase_fitted_to_a_whole_period():
    task, angle = gp.sine_task(options("--noise 0.1")), 2 * math.pi * torch.arange(31) / 30
    x, y = task.test[:]
    assert torch.equal(x[:, 1:], y[:, :-1])
    clean = gp.sine_waves(torch.Generator().manual_seed(0), 20_000, 31, 0.0)[:, :, 0]
    waves = torch.cat([clean, torch.cat([x, y[:, -1:]], dim=1)[:, :, 0]])
    phase = torch.atan2(waves[:, :30] @ angle.cos()[:30], waves[:, :30] @ angle.sin()[:30])
    sines = torch.sin(angle + phase[:, None])
    torch.testing.assert_close(clean, sines[:20_000], rtol=0, atol=1e-5)
    assert torch.histc(phase[:20_000], 8, -math.pi, math.pi).min() > 2200  # any phase: of 2500
    best, error = 0.1**2 * (1 + 1 / 30), torch.mean((sines[20_000:, -1] - y[:, -1, 0]) ** 2).item()
    assert error == pytest.approx(best, rel=0.04)  # 2 standard errors
    persistence = torch.mean((x[:, -1] - y[:, -1]) ** 2).item()
    assert task.levels == pytest.approx({"persistence": persistence, "best possible": best})
    assert task.learned == pytest.approx(1.5 * best)
    for other in ("--seq-len 31", "--noise 0", "--noise 1"):
        assert "best possible" not in gp.sine_task(options(other)).levels
    assert [gp.sine_task(options(f"--noise {n}")).learned for n in (0, 2)] == [0.001, 0.001]


def test_the_adding_problem_asks_for_the_sum_of_one_marked_number_of_either_half():
    task = gp.adding_task(options("--compare adding --seq-len 7"))
    x, y = task.train[:]
    numbers, marks = x.unbind(dim=2)
    assert x.shape == (76_800, 7, 2) and y.shape == (76_800, 1, 1)
    assert 0 <= numbers.min() < 0.001 and 0.999 < numbers.max() < 1
    assert torch.all((marks == 0) | (marks == 1)) and torch.all(marks.sum(0) > 0)  # any step
    assert torch.all(marks[:, :3].sum(1) == 1) and torch.all(marks[:, 3:].sum(1) == 1)
    assert torch.equal(y[:, 0, 0], numbers[marks == 1].reshape(-1, 2).sum(1))
    assert (task.levels, task.learned) == ({"always answering 1": 1 / 6}, 0.01)


def test_the_three_sets_of_a_task_are_different_draws_which_the_seed_fixes():
    for make_task in (gp.sine_task, gp.adding_task):
        tasks = [make_task(options(f"--seq-len 6 --seed {seed}")) for seed in (1, 1, 2)]
        sets = [torch.cat([s[:][0] for s in (t.train, t.validation, t.test)]) for t in tasks]
        assert torch.equal(sets[0], sets[1])
        assert len(torch.cat(sets[1:]).unique(dim=0)) == 2 * len(sets[0])


def test_each_change_is_a_target_of_one_part_alone_and_all_windows_train(fits):
    """The change that leads to value i is i. A pass draws 1000 at random, of all hours of a day."""
    for N, W, cut, last in ((100, 12, 70, 85), (57, 9, 39, 48), (33_000, 2, 23_100, 28_050)):
        parts = gp.split_series(torch.arange(N).double().cumsum(0), W)
        targets = [(part[:, W + 1] - part[:, W]).flatten().tolist() for part in parts]
        assert targets == [[*range(W + 1, cut)], [*range(cut, last)], [*range(last, N)]]
    gp.split_series((torch.arange(400) % 40 == 0).double().cumsum(0), 12)  # mostly stands still
    gp.split_series(torch.tensor([*WAVE, 1e8]), 12)  # large, and yet believable
    model, *_ = gp.fit_forecaster(*parts[:2], options("--data x --epochs 1 --seq-len 2"))
    loader = fits[0][1]
    units = [loader.dataset[:][1], *(torch.cat([y for _, y in loader]) for _ in range(2))]
    all_of_them, first, second = ((model.unit * y[:, -1, 0]).round().tolist() for y in units)
    assert all_of_them == targets[0] and first != second and len({*first}) == 1000
    assert {i % 24 for i in first} == {*range(24)} and min(first) < 100 and max(first) > 23_000


def by_hand(network, linear_share, network_share):
    """Entry i forecasts value i of WAVE, by least squares and a network fitted to 71 values."""
    changes = np.diff(WAVE)
    windows = np.lib.stride_tricks.sliding_window_view(changes, 12)
    rows, targets = np.column_stack([windows, np.ones(len(windows))]), changes[12:70]
    linear = rows @ np.linalg.lstsq(rows[:58], targets, rcond=None)[0]
    unit = math.sqrt(np.mean(targets**2))
    with torch.no_grad():
        answers = network(torch.tensor(windows / unit).float()[:, :, None])[0][:, -1, 0].numpy()
    ahead = WAVE[12:] + linear_share * linear + network_share * unit * answers
    return np.concatenate([np.full(13, np.nan), ahead])


@pytest.fixture
def own(run, drawn, fits, tmp_path):
    """A run on WAVE, of which 71 values train, 15 validate and 16 test: what it prints, the network
    that it trains, what comes after its loaders in the call of fit, and the forecaster it saves."""
    np.savetxt(tmp_path / "mine.txt", WAVE)
    command = f"--data {tmp_path / 'mine.txt'} --save {tmp_path / 'saved.pt'} --epochs 40 --seed 1"
    _, out, _ = run(command)
    ((network, _, _, *rest),) = fits
    saved = torch.load(tmp_path / "saved.pt", weights_only=True)
    fresh = gp.SequenceModel(saved["cell"], 1, saved["hidden_size"], saved["layers"])
    forecaster = gp.Forecaster(fresh, saved["seq_len"])
    forecaster.load_state_dict(saved["forecaster"])
    return out, network, rest, forecaster


def test_the_blend_weighs_each_forecast_by_1_over_its_mse_squared_in_validation(own, drawn):
    out, network, _, forecaster = own
    below, inverse = curves(drawn["mine_forecast.png"].axes[1]), {}
    for name, alone in {"persistence": (0, 0), "linear": (1, 0), "GRU": (0, 1)}.items():
        errors = by_hand(network, *alone)[:102] - WAVE
        inverse[name] = 1 / np.mean(errors[71:86] ** 2) ** 2
        one_ahead = math.sqrt(np.mean(errors[86:95] ** 2))  # where 8 steps are to come
        assert below[name][1][0] == pytest.approx(one_ahead, rel=1e-5)
    share = {name: each / sum(inverse.values()) for name, each in inverse.items()}
    assert f"blend = {' + '.join(f'{each:.2f} {name}' for name, each in share.items())}\n" in out
    assert forecaster.shares.tolist() == pytest.approx([share["linear"], share["GRU"]], rel=1e-4)


def test_the_table_and_the_verdict_tell_the_errors_that_are_drawn(own, drawn):
    out, network, _, forecaster = own
    top, below = (curves(axes) for axes in drawn["mine_forecast.png"].axes)
    ahead, steps = by_hand(network, *forecaster.shares.tolist()), [*range(87, 103)]
    assert top["data"] == (steps, WAVE[86:].tolist())
    assert top["test part, one step ahead"] == (steps, pytest.approx(ahead[86:102], rel=1e-5))
    one_ahead = math.sqrt(np.mean((ahead[86:95] - WAVE[86:95]) ** 2))
    errors = {name: y for name, (_, y) in below.items()}
    assert errors["blend"][0] == pytest.approx(one_ahead, rel=1e-5)
    for h in (1, 2, 4, 8):
        assert f"\n{h:11d}" + "".join(f"{each[h - 1]:14.5g}" for each in errors.values()) in out
        ratio = f"{errors['blend'][h - 1] / errors['persistence'][h - 1]:.2f} times persistence"
        told = f"\n{h} ahead, the blend's error is {ratio} (seed 1).\n"
        assert (told in out) == (h in (1, 8))


def test_what_comes_next_is_forecast_by_what_is_saved_and_has_a_band(own, drawn, tmp_path):
    _, network, _, forecaster = own
    top, below = drawn["mine_forecast.png"].axes
    steps, future = curves(top)["what comes next; band: RMSE of this distance"]
    expected = gp.free_running(forecaster, torch.tensor(WAVE)[None, -13:, None], 12)[0].tolist()
    assert (steps, future) == ([*range(103, 115)], pytest.approx(expected))
    last = by_hand(network, *forecaster.shares.tolist())[102]
    assert future[0] == pytest.approx(last, rel=1e-5)
    for step, forecast, error in zip(steps, future, curves(below)["blend"][1]):
        edges = {y for x, y in top.collections[0].get_paths()[0].vertices if x == step}
        assert [min(edges), max(edges)] == pytest.approx([forecast - error, forecast + error])
    lines = (tmp_path / "mine_forecast.csv").read_text().splitlines()
    assert lines == ["step,forecast", *(f"{i},{value:.17g}" for i, value in zip(steps, future))]


def test_ones_own_network_begins_at_the_persistence_of_the_part_that_the_curve_shows(own, drawn):
    _, _, rest, _ = own
    curve, changes = curves(drawn["mine_training_curve.png"].axes[0]), np.diff(WAVE)
    start = np.mean(changes[70:85] ** 2) / np.mean(changes[12:70] ** 2)
    assert [curve[n][1][0] for n in ("persistence", "validation")] == pytest.approx([start, start])
    assert 0 < curve["best: its weights are kept"][0][0] < 80
    assert rest == [40, 4, 0.005, 1.0]  # epochs, every, rate, clip


def test_errors_by_distance_are_those_of_every_forecast_that_ends_within_the_series():
    model, values = gp.Forecaster(random_model(), 6), torch.tensor(WAVE[:16])
    model.shares += 0.5
    ends = [values[None, i : i + 12, None] for i in range(5)]  # 7 values, and the next 5
    errors = torch.cat([gp.free_running(model, end[:, :7], 5) - end[:, 7:, 0] for end in ends])
    assert not (model.training or errors.requires_grad)
    expected = errors.square().mean(dim=0).sqrt()
    np.testing.assert_allclose(gp.errors_by_distance(model, values), expected)
    long = torch.tensor(np.resize(WAVE, 1100))  # 1000 windows of 7 + 6 values count
    last = gp.errors_by_distance(model, long[-1012:])
    assert gp.errors_by_distance(model, long).tolist() == last.tolist()


def test_a_forecast_does_not_depend_on_the_unit_of_the_series(run, drawn, tmp_path):
    told, ahead = [], []
    for unit in (1, 1e-14, 1e14):
        np.savetxt(tmp_path / "mine", unit * WAVE)
        _, out, _ = run(f"--data {tmp_path}/mine --epochs 3")
        told.append(re.findall("blend = .*|blend's error .*", out))
        ahead.append(float((tmp_path / "mine_forecast.csv").read_text().split(",")[-1]) / unit)
    assert told[0] == told[1] == told[2] and ahead == pytest.approx(3 * ahead[:1], rel=1e-5)


@pytest.mark.filterwarnings("error")
def test_parts_that_stand_still_and_a_series_that_repeats_itself_have_an_answer(
    run, drawn, tmp_path
):
    still, blend = "\n8 ahead, the test part stands still: it tells nothing.\n", "\nblend = "
    for values, told in (
        ([*WAVE[:84], *16 * [3.0]], still),
        ([*WAVE[:70], *15 * [WAVE[69]], *WAVE[85:100]], blend + "0.50 persistence + 0.00 linear"),
        (25 * [1, 2, 4, 8], blend + "0.00 persistence + 1.00 linear + 0.00 GRU\n"),
    ):
        np.savetxt(tmp_path / "mine", values)
        status, out, err = run(f"--data {tmp_path / 'mine'} --epochs 1")
        assert (status, err) == (0, "") and told in out and not re.search("nan|inf", out)


def test_lines_and_the_column_of_a_table_are_read_as_the_same_series(tmp_path):
    for content, column in (
        ("\ufeff1\r\n2.5\r\n -3e2 \r\n\r\n \r\n", None),
        ("sold" + 79 * ";a" + "".join(f"\n{n}{79 * ';1,5'}" for n in (1, 2.5, -300)), "sold"),
        ("\ufeffsold \tnote\t\r\n1\tof\t\r\n2.5\tmy\t\r\n-3e2\town\t\r\n\r\n", "sold"),
        ('day,sold\n1\u2028May\x0b,1\n"2, ""May""",2.5\n"3\nMay",-3e2\n', "sold"),
        ("2,1\n1,2.5\n6,-3e2\n,\n,\n", "2"),
    ):
        (tmp_path / "series").write_bytes(content.encode())
        assert gp.read_series(tmp_path / "series", column).tolist() == [1, 2.5, -300], content


@pytest.fixture
def untrained(monkeypatch):
    """The calls of a fit that trains nothing: the model, its first weights, and all batches."""
    calls, row = [], gp.Measurement(0, 1.0, 1.0)

    def fit(model, loader, *rest):
        first = nn.utils.parameters_to_vector(model.parameters())
        calls.append((model, first, torch.stack([x for x, _ in loader]), *rest))
        return [row], row

    monkeypatch.setattr(gp, "fit", fit)
    return calls


def test_a_gru_and_three_lstms_are_compared_at_three_rates(run, drawn, untrained, monkeypatch):
    monkeypatch.setattr(gp, "evaluate", lambda *_: 1.0)
    _, out, _ = run("--compare --epochs 3 --batch-size 200 --learning-rate 0.06 --clip 0.5")
    models, firsts, _, _, epochs, every, rates, clip = zip(*untrained)
    assert ({*epochs}, {*every}, {*clip}) == ({3}, {10}, {0.5})
    assert rates == pytest.approx(4 * (3 * [0.02] + 3 * [0.06] + 3 * [0.18]))
    gru, lstm, fewer, forget = firsts[::9]
    assert [type(model.recurrent) for model in models[::9]] == [nn.GRU, nn.LSTM, nn.LSTM, nn.LSTM]
    assert len(lstm) == len(forget) and len(fewer) == pytest.approx(len(gru), rel=0.04)
    assert torch.sum(lstm != forget) == 2 * 32  # the forget gates, second of i, f, g, o
    biases = models[-1].recurrent.bias_ih_l0 + models[-1].recurrent.bias_hh_l0
    assert torch.all(biases[32:64] == 1)
    names = ["GRU 32", "LSTM 32", "LSTM 28, as many weights", "LSTM 32, forget bias 1"]
    rows = re.findall(r"^(.*), rate \S+ +(\d+) ", out, re.M)
    assert rows == [(name, str(len(first))) for name, first in zip(names, firsts[::9])]
    (axes,) = drawn["gru_vs_lstm_sine.png"].axes
    assert len({line.get_color() for line in axes.lines[:4]}) == 4 and axes.get_yscale() == "log"
    assert {"persistence", "best possible", "learned"} < curves(axes).keys()


def test_all_networks_see_the_same_batches_of_a_seed_and_seeds_share_nothing(untrained, capsys):
    command = "--compare adding --seq-len 6 --batch-size 200 --seed"
    for seed, cell, rate in ((0, "gru", 1), (0, "gru", 2), (0, "lstm", 1), (1, "gru", 1)):
        own = vars(options(f"{command} {seed}")) | {"cell": cell, "learning_rate": rate}
        runs = gp.run_seeds(gp.adding_task, gp.Options(**own), forget_bias=False)
    models, firsts, batches, validation, *_ = zip(*untrained, strict=True)
    for i in range(3):
        assert torch.equal(batches[i], batches[i + 3]) and torch.equal(batches[i], batches[i + 6])
        assert torch.equal(firsts[i], firsts[i + 3])
    for i, j in itertools.combinations((0, 1, 2, 9, 10, 11), 2):  # seeds 0 to 5
        assert not torch.equal(batches[i], batches[j]) and not torch.equal(firsts[i], firsts[j])
    task = gp.adding_task(options(f"{command} 5"))
    assert torch.equal(validation[-1].dataset[:][0], task.validation[:][0])
    assert capsys.readouterr().out.endswith(f": test MSE {runs.test_mse[-1]:.3g}\n")
    assert runs.test_mse[-1] == pytest.approx(last_step_loss(models[-1], *task.test[:]).item())


def test_the_rate_is_chosen_by_the_median_of_the_best_validation_errors(run, drawn, monkeypatch):
    """0.01 has the smaller median, the others have the smaller mean and minimum."""
    best, other = np.array([[9, 5, 1], [9, 2, 4], [9, 30, 7]]), np.array([[9, 3], [9, 0.5], [9, 3]])
    chosen = gp.Runs(401, np.array([0, 10, 20]), best, np.array([7, 6, 8]))
    others = gp.Runs(401, np.array([0, 10]), other, np.array([5, 4, 5]))
    runs = {True: chosen, False: others}
    monkeypatch.setattr(gp, "run_seeds", lambda _, own, bias: runs[own.learning_rate == 0.01])
    monkeypatch.setattr(gp, "adding_task", lambda _: gp.Task(None, None, None, {"level": 0.3}, 2.5))
    _, out, _ = run("--compare adding")
    *_, row, _, _, _, level, learned = (re.split("  +", line) for line in out.splitlines())
    assert row == ["GRU 64, rate 0.01", "401", "20 (10 - inf)", "7 (6 - 8)"]
    assert (level, learned) == (["level: MSE 0.3"], ["learned: MSE 2.5"])
    (axes,) = drawn["gru_vs_lstm_adding.png"].axes
    shown = curves(axes)
    assert shown["GRU 64, rate 0.01"] == ([0, 10, 20], [9, 5, 4])
    assert (shown["level"][1], shown["learned"][1]) == ([0.3, 0.3], [2.5, 2.5])
    band = {tuple(point) for point in axes.collections[0].get_paths()[0].vertices}
    assert band == {(0, 9), (10, 2), (10, 30), (20, 1), (20, 7)}


def test_what_is_printed_and_drawn_of_the_sine_waves(run, drawn, fits):
    numbers = "--epochs 2 --batch-size 100 --learning-rate 0.02 --clip 0.5 --noise 0.1"
    status, out, err = run(f"{numbers} --hidden-size 3 --layers 2")
    ((model, *_, epochs, every, rate, clip),) = fits
    assert (status, err, epochs, every, rate, clip) == (0, "", 2, 10, 0.02, 0.5)
    assert (model.recurrent.hidden_size, model.recurrent.num_layers) == (3, 2)
    task = gp.sine_task(options("--noise 0.1"))
    mse = last_step_loss(model, *task.test[:]).item()
    assert f"\nThe weights after 20 updates are kept.\n\ntest MSE        {mse:.4g}\n" in out
    (axes,) = drawn["gru_pytorch_training_curve.png"].axes
    curve = curves(axes)
    assert axes.get_yscale() == "log"
    for name, level in task.levels.items():
        assert f"\n{name:16}{level:.4g}   test is {mse / level:.2f} times that\n" in out
        assert curve[name][1] == [level, level]
    assert curve["training"][0] == [0, 10, 20]
    for k, train, held_out in zip(*curve["training"], curve["validation"][1], strict=True):
        assert f"\n{k:8d}{train:15.4g}{held_out:17.4g}\n" in out
    held_out = pytest.approx(last_step_loss(model, *task.validation[:]).item())
    assert curve["best: its weights are kept"] == ([20], [held_out])
    shown, steps = curves(drawn["gru_pytorch_forecast.png"].axes[0]), [*range(30, 90)]
    assert shown["noisy wave"][0] == [*range(90)]
    wave = torch.tensor(np.array(shown["noisy wave"][1]))
    assert (wave[60:] - wave[30:60]).std() == pytest.approx(0.1 * 2**0.5, rel=0.3)
    expected = [model(wave[None, t - 30 : t, None])[0][0, -1, 0].item() for t in steps]
    assert shown["one step ahead"] == (steps, pytest.approx(expected, abs=1e-5))
    seen = wave[None, :30, None]
    for _ in steps:  # its own forecasts are fed back
        seen = torch.cat([seen, model(seen[:, -30:])[0][:, -1:]], dim=1)
    assert shown["free-running"] == (steps, pytest.approx(seen[0, 30:, 0].tolist(), abs=1e-5))


def test_one_seed_gives_the_same_numbers_and_figures_whatever_a_matplotlibrc_says(run, tmp_path):
    command = f"--epochs 1 --hidden-size 3 --seq-len 4 --cell lstm --plots-dir {tmp_path}/a/b"
    first = run(command)
    with matplotlib.rc_context({"text.usetex": True, "figure.dpi": 7}):
        assert run(command) == first
    for name in ("training_curve", "forecast"):  # 7 inches of 140 dots wide
        assert (
            matplotlib.image.imread(tmp_path / "a" / "b" / f"lstm_pytorch_{name}.png").shape[1]
            == 980
        )


def test_a_figure_that_cannot_be_written_costs_no_printed_result(run, tmp_path):
    for command, stem, last in (("", "gru_pytorch", "best"), (SUNSPOTS, "sunspots", "12 ahead")):
        (tmp_path / f"{stem}_training_curve.png").mkdir()
        status, out, _ = run(f"{command} --epochs 1")
        assert re.fullmatch(f"gru_pytorch.py: .*{stem}_training_curve.png'", status)
        assert out.splitlines()[-1].startswith(last)


def test_divergence_ends_with_a_line_ctrl_c_without_and_a_bug_with_its_traceback(run, monkeypatch):
    for errors, k in (([1, 1, math.nan], 32), ([math.nan, 1], 0)):
        monkeypatch.setattr(gp, "evaluate", lambda *_: errors.pop(0))  # noqa: B023
        status, *_ = run("")
        assert status == f"gru_pytorch.py: {k} updates: error not finite; lower the learning rate"
    monkeypatch.setattr(gp, "evaluate", lambda *_: signal.default_int_handler(signal.SIGINT, None))
    assert run("")[::2] == (130, "")
    monkeypatch.setattr(gp, "evaluate", None)
    with pytest.raises(TypeError, match="not callable"):
        run("")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes end in another way there")
@pytest.mark.parametrize("script", ["gru_pytorch.py --epochs", "gru_from_scratch.py --updates"])
def test_a_reader_that_has_enough_is_no_error(script, tmp_path):
    command = [sys.executable, *script.split(), "1", "--plots-dir", tmp_path]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as child:
        child.stdout.readline()
        child.stdout.close()
        assert (child.stderr.read(), child.wait()) == (b"", -signal.SIGPIPE)


@pytest.mark.parametrize("mode, T", [("", 30), ("--data x", 12), ("--compare adding", 50)])
def test_help_shows_each_option_with_the_default_of_the_mode(mode, T, run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (status, out, _), given = run(f"{mode} --help"), vars(options(mode))
    assert (status, given["seq_len"]) == (0, T) and "None" not in out
    has = {"noise": mode == "", "cell": "compare" not in mode, "column": "data" in mode}
    assert {name: f"--{name}" in out for name in has} == has
    for name in given.keys() - {"data", "compare", "column", "save", "plots_dir", "cell"}:
        pattern = rf"\n  --{name.replace('_', '-')} [^()]*\(default:\s+{given[name]}\)"
        assert re.search(pattern, out), name
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert re.search(r"\(default:\s+cuda\)", run("--help")[1])


def test_wrong_options_and_bad_data_end_with_a_line_before_any_work(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for work in ("sine_task", "adding_task", "fit"):
        monkeypatch.setattr(gp, work, None)  # to call it is another error
    number, gap = "expected a number like 1.5, got", "(gaps have to be filled or cut first, decimal"
    for command, content, message in (
        ("--epochs 0", "", "--epochs: expected 1 to 1e+06, got 0"),
        ("--learning-rate 1e38", "", "--learning-rate: expected 1e-09 to 100, got 1e+38"),
        ("--compare --cell lstm", "", "unrecognized arguments: --cell lstm"),
        ("--clip nan", "", "--clip: expected 1e-09 to inf, got nan"),
        ("--seq-len 1", "", "--seq-len: expected 2 to 1000, got 1"),
        ("--epoch 3", "", "unrecognized arguments: --epoch 3"),  # a later option may begin so
        ("--cell rnn", "", "argument --cell: invalid choice: 'rnn'"),
        (f"--data x --save {tmp_path}/x", "", "--save: expected another file than --data, got "),
        ("--data x --save no/such", "", "--save: expected a file in a folder that exists, got no"),
        ("--data x --save .", "", "--save: expected a file in a folder that exists, got ."),
        ("--device tpu", "", "--device: expected cpu, cuda:0 or the like, got tpu"),
        ("--plots-dir FILE", "", "--plots-dir: expected a folder for figures, got "),
        (f"--plots-dir {NOT_WRITABLE}", "", "--plots-dir: expected a folder for figures, got "),
        ("--data FILE", "1\n\n3", f"line 2: {number} '' {gap} commas to be points, a table"),
        ("--data FILE", "1\n1e999", f"line 2: {number} '1e999'"),
        ("--data FILE", "1\n1_000", f"line 2: {number} '1_000'"),
        ("--data FILE", "\xff", "expected lines of text in UTF-8, got 'utf-8' codec"),
        ("--data FILE", 22 * "1\n", "expected at least 23 values for --seq-len 12, got 22"),
        ("--data FILE", 99 * "7.3\n", "expected numbers that vary"),
        ("--data FILE", 75 * "7\n" + 25 * "8\n", "expected numbers that vary"),
        ("--data FILE", 90 * "1\n2\n" + "1e20", "value 181: expected the size of the others, got"),
        ("--data FILE", "1\n-1e20\n" + 90 * "1\n2\n", "value 2: expected the size of the others"),
        ("--data FILE --column b", "a,b\n1,2\n2,NA", f"line 3: {number} 'NA' {gap}"),
        ("--data FILE --column 2", "2020,7\n1,2,3", f"line 2: expected 2 cell(s), got 3 {gap}"),
        ("--data FILE --column 2", "May,7,2\n1,2,3", "line 1: expected names, or numbers alone, "),
        ("--data FILE --column b", "a,B\n1,2", "expected one of the columns B, got 'b'"),
        ("--data FILE --column b", "b,b\n1,2", "expected one of the columns b, b, got 'b'"),
        ("--data FILE --column b", "a,b\n1,2\n1,2,3", f"line 3: expected 2 cell(s), got 3 {gap}"),
        ("--data FILE --column b", 'b\n"2\n3', "expected lines of text in UTF-8, got unexpected"),
    ):
        (tmp_path / "FILE").write_text(content, encoding="latin-1")
        status, out, err = run(command)
        assert (status, out) == (2, "") and message in err.splitlines()[-1], command
        assert err.startswith("gru_pytorch.py: error: --data FILE: " if content else "usage: ")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["--cell gru", "--cell lstm", SUNSPOTS])
def test_two_runs_on_cuda_give_the_same_numbers(mode, run, drawn):
    first, again = (run(f"{mode} --epochs 2 --device cuda") for _ in range(2))
    assert first == again and first[::2] == (0, "")
