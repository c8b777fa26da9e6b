"""gru_from_scratch.py but for gradients: learning beside PyTorch, the data, what is refused, what
the three demos print and draw, and what their default runs show."""

import copy
import math
import os
import re
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import curves, table
from numpy.random import default_rng
from test_gradients import leaf, random_case, states_by_torch

import gru_from_scratch as gfs
from gru_from_scratch import GRU, Adam, clip_by_norm, main, train_step

SIZES = 2, 5, 3  # F, H, O of most networks below; T = 7 and B = 4


def assert_same(a, b, tolerance=0.0):
    """In no array of a an entry is off by more than this share of the largest one in b."""
    for one, other in zip(a, b, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


# --- The cell and learning ----------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigma_of_minus_1000_and_1000_is_exactly_0_and_1_without_a_warning(dtype):
    assert gfs.sigmoid(np.array([-1000, 1000], dtype)).tolist() == [0, 1]


def test_the_weights_are_drawn_from_plus_minus_1_over_the_root_of_H_by_the_seed():
    drawn, again, other = (GRU(3, 64, 2, seed).parameters.values() for seed in (0, 0, 1))
    values = np.concatenate([weight.ravel() for weight in (*drawn, *other)])
    counts, _ = np.histogram(values, bins=4, range=(-1 / 8, 1 / 8))
    assert counts.sum() == len(values) == len(np.unique(values))  # none outside, none twice
    assert np.all(np.abs(counts / len(values) - 1 / 4) < 0.02)
    assert_same(again, drawn)


def test_a_weight_that_a_caller_replaces_counts_and_is_trained_and_float32_stays_float32():
    double, inputs, h0, dy = random_case(7, 4, SIZES)
    single, adam = GRU(*SIZES, dtype=np.float32), Adam()
    assert {weight.dtype for weight in single.parameters.values()} == {np.dtype(np.float32)}
    for name, weight in double.parameters.items():
        single.parameters[name] = weight.tolist()
    y, _ = single.forward(inputs, h0)
    before = copy.deepcopy(single.parameters)
    train_step(single, adam, inputs.astype(int), dy, max_norm=1.0)
    assert_same([y], [double.forward(inputs, h0)[0]], 1e-5)
    assert all(np.all(single.parameters[name] != before[name]) for name in before)
    arrays = (y, *single.parameters.values(), *adam.m.values(), *adam.v.values())
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


def test_clipping_scales_two_gradients_of_norm_5_together_to_the_largest_norm():
    gradients = {"a": np.array([[3.0]]), "b": np.array([[0.0, -4.0]])}
    assert_same(clip_by_norm(gradients, 0.5).values(), ([[0.3]], [[0.0, -0.4]]), 1e-15)
    for max_norm in (5.0, 6.0, math.inf):  # not too large: it stays as it is
        assert_same(clip_by_norm(gradients, max_norm).values(), gradients.values())


@pytest.mark.filterwarnings("error")
def test_clipping_takes_a_zero_gradient_and_one_whose_square_overflows_in_32_bits():
    assert clip_by_norm({"b": np.zeros(2)}, 1.0)["b"].tolist() == [0, 0]
    clipped = clip_by_norm({"b": np.array([3e20, 4e20], np.float32)}, 1.0)["b"]
    assert clipped.dtype == np.float32 and clipped == pytest.approx([0.6, 0.8])


# A large epsilon shows where it stands: beside the root of v_hat, and not under it.
@pytest.mark.parametrize("others", [{}, {"beta1": 0.8, "beta2": 0.9, "epsilon": 0.1}])
def test_200_updates_end_at_the_same_weights_as_in_torch(others):
    """clip_grad_norm_ would add 1e-6 to the norm, so the torch side clips by hand."""
    rng, model, adam, norms = default_rng(0), GRU(1, 8, 2), Adam(**others), []
    p = {name: leaf(weight) for name, weight in model.parameters.items()}
    beta1, beta2, epsilon = others.values() or (0.9, 0.999, 1e-8)  # as in the paper
    torch_adam = torch.optim.Adam(p.values(), 1e-3, (beta1, beta2), epsilon)
    for _ in range(200):
        waves, _ = gfs.sine_waves(rng, 3, 8, 0.05)
        mse = train_step(model, adam, waves[:6], waves[6:, 0], max_norm=0.5)  # two to predict
        x, target = torch.tensor(waves[:6]), torch.tensor(waves[6:, 0])
        h = states_by_torch(p, x, torch.zeros(8, 3, dtype=torch.float64))
        torch_mse = torch.mean((p["W_y"] @ h[-1] + p["b_y"] - target) ** 2)
        torch_adam.zero_grad()
        torch_mse.backward()
        norms.append(torch.sqrt(sum((w.grad**2).sum() for w in p.values())).item())
        for w in p.values():
            w.grad *= min(1, 0.5 / norms[-1])
        torch_adam.step()
        assert mse == pytest.approx(torch_mse.item(), rel=1e-9)  # that before the update
    assert min(norms) < 0.5 < max(norms)
    assert_same(model.parameters.values(), [w.detach().numpy() for w in p.values()], 1e-9)


# --- Data, and what is refused ------------------------------------------------------------------


def test_the_waves_are_sines_of_period_30_amplitude_1_and_any_phase_with_noise_on_top():
    both = [gfs.sine_waves(default_rng(3), 1000, 39, noise) for noise in (0.05, 0)]
    noisy, waves = (np.concatenate([x[:, 0], answer]) for x, answer in both)
    phase = default_rng(3).uniform(0, 2 * np.pi, 1000)
    assert_same(waves, np.sin(2 * np.pi * np.arange(40)[:, None] / 30 + phase), 1e-12)
    assert np.std(noisy - waves) == pytest.approx(0.05, rel=0.02)
    assert abs(np.mean(noisy - waves)) < 0.001


@pytest.mark.parametrize("length", [2, 5, 12])
def test_the_adding_problem_marks_any_step_of_each_half_and_its_answer_is_the_sum(length):
    x, answer = gfs.adding_problem(default_rng(0), 6000, length)
    numbers, marks = x[:, 0], x[:, 1]
    assert 0 <= numbers.min() < 0.001 and 0.999 < numbers.max() < 1
    for half in (marks[: length // 2], marks[length // 2 :]):
        assert np.all(half.sum(axis=0) == 1) and np.all(half.max(axis=0) == 1)
        assert half.mean(axis=1) == pytest.approx(np.full(len(half), 1 / len(half)), rel=0.15)
    assert_same(answer, [(numbers * marks).sum(axis=0)], 1e-15)


def sums_by_hand(numbers, flags):
    """After each step, the sum of the numbers from the last flag on."""
    last_flags = [max(s for s in range(t + 1) if flags[s]) for t in range(len(flags))]
    return [sum(numbers[last : t + 1]) for t, last in enumerate(last_flags)]


def test_the_sums_begin_again_at_every_flag_with_the_number_of_that_step():
    x, sums = gfs.sums_since_flag(default_rng(0), 4000, 9)
    numbers, flags = x[:, 0], x[:, 1]
    assert 0 <= numbers.min() < 0.001 and 0.299 < numbers.max() < 0.3
    assert np.all(flags[0] == 1) and flags[1:].mean() == pytest.approx(0.15, abs=0.01)
    for b in range(100):
        assert list(sums[:, b]) == pytest.approx(sums_by_hand(numbers[:, b], flags[:, b]))


def refused(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def test_what_would_broadcast_or_lose_digits_is_refused_with_what_was_expected():
    model, x, h0, dy = random_case(7, 4, SIZES)
    with refused("inputs: expected shape (T, 2, B), got (7, 2)"):
        model.forward(x[:, :, 0])
    with refused("inputs: expected shape (T, 2, B), got (0, 2, 4)"):
        model.forward(x[:0])
    with refused("inputs: expected shape (T, 2, B), got (7, 2, 0)"):
        model.forward(x[:, :, :0])
    with refused("step 1: expected shape (2, 4), got (1, 4)"):
        model.forward(x[:, :1])
    with refused("step 2: expected shape (2, 4), got (2, 3)"):
        model.forward([x[0], x[1, :, :3]])
    with refused("h0: expected shape (5, 4), got (5, 1)"):
        model.forward(x, h0[:, :1])
    with refused("dy: expected shape (3, 4), got (1, 4)"):
        model.backward(dy[:1], model.forward(x)[1])
    with refused("target: expected shape (3, 4), got (4,)"):
        train_step(model, Adam(), x, dy[0], 1.0)
    for sizes in ((0, 1, 1), (1, 0, 1), (1, 1, 0)):
        with refused("sizes: expected at least 1, got {}, {}, {}".format(*sizes)):
            GRU(*sizes)
    with refused("dtype: expected float32 or float64, got float16"):
        GRU(*SIZES, dtype=np.float16)
    model.parameters["b_z"] = np.zeros(5)
    with refused("b_z: expected shape (5, 1), got (5,)"):
        model.forward(x)


# --- What the demos print and draw --------------------------------------------------------------

SMALL = {  # a run of each demo that takes a blink
    "sine": "--updates 30 --hidden-size 3",
    "adding": "--task adding --updates 60 --hidden-size 5 --seq-len 8",
    "reset": "--task reset --updates 30 --seq-len 8",
}
DRAW = {
    "sine": partial(gfs.sine_waves, length=30, noise=0.05),
    "adding": partial(gfs.adding_problem, length=8),
    "reset": partial(gfs.sums_since_flag, length=8),
}


def held_out(task, seed=0):
    return [DRAW[task](rng, 200) for rng in default_rng([seed, 1]).spawn(10)]


@pytest.fixture
def demo(monkeypatch, capsys, drawn):
    """A function that runs a demo: what it prints, and what it trains: networks and histories."""
    trained, train = [], gfs.train

    def train_and_keep(model, *rest):
        trained.append((model, train(model, *rest)))
        return trained[-1][1]

    monkeypatch.setattr(gfs, "train", train_and_keep)

    def run(options):
        main(options.split())
        return capsys.readouterr().out, trained

    return run


def answers(model, x):
    """The answer after each step: that of a sequence which ends there."""
    return [model.forward(x[:t])[0].item() for t in range(1, len(x) + 1)]


def gates(model, x):
    """z and r of every step, (T, B, H) each."""
    _, (steps, _) = model.forward(x)
    return np.array([step.z.T for step in steps]), np.array([step.r.T for step in steps])


@pytest.mark.parametrize("task", SMALL)
def test_training_is_new_data_at_every_update_and_a_rate_that_falls_to_zero_as_a_cosine(task, demo):
    out, [(model, history), *_] = demo(f"{SMALL[task]} --learning-rate 0.02 --clip 0.3 --seed 5")
    (H, F), K, rng, losses = model.shapes["W_z"], max(history.weights), default_rng([5, 0]), []
    by_hand, adam = GRU(F, H, 1, seed=5), Adam()
    for k in range(K):
        adam.learning_rate = 0.02 * (1 + math.cos(math.pi * k / K)) / 2
        x, y = DRAW[task](rng, 32)
        losses.append(train_step(by_hand, adam, x, y[-1:], 0.3))
    mse = np.mean([(by_hand.forward(x)[0] - y[-1]) ** 2 for x, y in held_out(task, seed=5)])
    assert_same(model.parameters.values(), by_hand.parameters.values())
    means = {k: np.mean(losses[max(0, k - 10) : k]) for k in range(1, K + 1)}
    assert history.training_mse == means and history.held_out_mse[K] == mse
    assert list(history.held_out_mse) == [k for k in (0, 25, 50) if k < K] + [K]
    assert sorted(gfs.REPORTS)[:7] == [0, 25, 50, 125, 250, 500, 1000]
    assert re.match(r" +update +training MSE +held-out MSE\n +0 +- +\S+\n", out)
    assert re.search(rf"^ +{K} +{means[K]:.4g} +{mse:.4g}$", out, re.M)


LEVELS = {
    "sine": ("training", "noise variance", 0.05**2),
    "adding": ("adding", "always answering 1", 1 / 6),
    "reset": ("reset", "variance of the target", np.var([y[-1] for _, y in held_out("reset")])),
}


@pytest.mark.parametrize("task", LEVELS)
def test_the_curve_shows_the_history_and_a_level_to_compare_with(task, demo, drawn):
    (_, [(_, history), *_]), (name, label, level) = demo(SMALL[task]), LEVELS[task]
    axes = drawn[f"gru_numpy_{name}_curve.png"].axes[0]
    training, held_out = history.training_mse, history.held_out_mse
    labels = axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()
    assert labels == ("update", "mean squared error", "log") and axes.get_legend()
    assert curves(axes) == {
        "training, mean of 10 updates": ([*training], [*training.values()]),
        "held-out": ([*held_out], [*held_out.values()]),
        label: ([0, 1], [level, level]),
    }


def test_the_sine_demo_prints_what_its_error_is_to_be_compared_with(demo):
    out, [(_, history)] = demo(SMALL["sine"] + " --noise 0.1")
    rows, mse, best = table(out), history.held_out_mse[30], 0.01 * (1 + 1 / 30)
    data = [gfs.sine_waves(rng, 200, 30, 0.1) for rng in default_rng([0, 1]).spawn(10)]
    persistence = np.mean([(x[-1] - y) ** 2 for x, y in data])
    # Of a difference of two values: the wave's own 1 - cos(2 pi / 30), and two noises.
    assert persistence == pytest.approx(0.0219 + 2 * 0.01, rel=0.05)
    assert rows.pop("persistence") == pytest.approx(persistence, rel=1e-3)
    expected = {"held-out MSE": mse, "best possible": best, "held-out / best possible": mse / best}
    assert rows == pytest.approx(expected | {"noise variance": 0.01}, rel=1e-3)
    for other in (" --seq-len 20", " --noise 0", " --noise 1"):
        assert "best possible" not in table(demo(SMALL["sine"] + other)[0])


def test_the_forecast_figure_shows_one_step_ahead_and_free_running(demo, drawn):
    _, [(model, _)] = demo(SMALL["sine"] + " --noise 0.1 --seed 5")
    shown = curves(drawn["gru_numpy_forecast.png"].axes[0])
    steps, wave = shown["noisy wave"]
    assert wave == gfs.sine_waves(default_rng([5, 2]), 1, 90, 0.1)[0].ravel().tolist()
    free = wave[:30] + shown["free-running"][1]  # it sees its own predictions
    assert steps == [*range(90)]
    for name, seen in (("one step ahead", wave), ("free-running", free)):
        windows = [np.reshape(seen[t : t + 30], (30, 1, 1)) for t in range(60)]
        assert shown[name] == ([*range(30, 90)], [model.forward(x)[0].item() for x in windows])


def test_the_memory_figure_shows_the_answer_after_each_step_and_the_gate_of_every_unit(demo, drawn):
    _, [(model, _)] = demo(SMALL["adding"])
    (x, _), (top, below, _) = held_out("adding")[0], drawn["gru_numpy_memory.png"].axes
    x, steps, shown = x[:, :, [5]], np.arange(1, 9), curves(top)
    numbers, marked, z = x[:, 0, 0], x[:, 1, 0] == 1, gates(model, x)[0][:, 0]
    assert shown["numbers"] == (list(steps), list(numbers))
    assert shown["marked"] == (list(steps[marked]), list(numbers[marked]))
    assert shown["sum of the marked"][1] == [numbers[marked].sum()] * 2
    assert shown["answer after each step"] == (list(steps), pytest.approx(answers(model, x)))
    assert top.lines[-1].get_drawstyle() == "steps-mid" and "0 keeps" in below.get_title()
    cells, opening = below.collections[0], z[marked].mean(axis=0) - z[~marked].mean(axis=0)
    assert_same(cells.get_array(), z.T[np.argsort(opening)], 1e-12)
    assert cells.get_clim() == (0, 1)
    assert list(cells.get_coordinates()[0, :, 0]) == [t + 0.5 for t in range(9)]  # around t


def test_the_learning_figure_and_table_show_the_share_of_the_gradient_by_update(demo, drawn):
    out, [(model, history)] = demo(SMALL["adding"])
    (x, _), axes = held_out("adding")[0], drawn["gru_numpy_learning.png"].axes[0]
    printed = re.findall(r"^ +\d+ +\S+   \S+$", out.split("h_8 that reaches h_0\n")[1], re.M)
    for k, line, row in zip((0, 25, 50, 60), axes.lines, printed, strict=True):
        mse, model.parameters = history.held_out_mse[k], history.weights[k]
        _, _, dh = model.backward(np.full((1, 200), -3.0), model.forward(x)[1])  # any dL/dy
        norms = np.linalg.norm(dh, axis=1)
        share = np.median(norms[::-1] / norms[8], axis=1)  # by the distance to the end
        assert_same(line.get_data(), (range(9), share), 1e-12)
        assert line.get_label() == f"after {k} updates: MSE {mse:.2g}"
        assert row.split() == [str(k), f"{mse:.4g}", f"{share[8]:.1e}"]
    assert len({row[-7:] for row in printed}) == 4  # they differ
    assert len({tuple(line.get_color()) for line in axes.lines}) == 4
    assert axes.get_yscale() == "log"


def test_the_reset_figure_shows_the_sums_the_answers_and_both_gates(demo, drawn):
    _, [(model, _), _] = demo(SMALL["reset"])
    *panels, state = drawn["gru_numpy_reset.png"].axes
    numbers, steps = panels[0].lines[0].get_ydata(), list(range(1, 13))
    flags = [bar.get_height() > 0 for bar in panels[0].patches]
    x = np.stack([numbers, flags], axis=1)[:, :, None].astype(float)
    z, r = np.squeeze(gates(model, x))
    assert {**curves(panels[1]), **curves(panels[2])} == {
        "sum from the last flag, inclusive": (steps, pytest.approx(sums_by_hand(numbers, flags))),
        "answer": (steps, pytest.approx(answers(model, x))),
        "update z: 0 keeps, 1 replaces": (steps, list(z)),
        "reset r: 0 = candidate ignores the old state": (steps, list(r)),
    }
    styles = [line.get_drawstyle() for axes in panels[1:] for line in axes.lines]
    assert styles == ["steps-mid", "default", "steps-mid", "steps-mid"]  # stairs around each step
    for axes in panels:  # the bands of the flags go through all of them, and nothing is cut off
        bands = [(bar.get_center()[0], bar.get_height() > 0) for bar in axes.patches]
        assert bands == list(zip(steps, flags))
        assert all(np.all(line.get_ydata() <= axes.get_ylim()[1]) for line in axes.lines)
    p, limits = model.parameters, np.array([panels[1].get_ylim()])
    assert p["W_y"] * state.get_ylim() + p["b_y"] == pytest.approx(limits)


def test_the_reset_demo_prints_a_flagged_step_with_either_gate_as_it_was_before(demo, drawn):
    out, [(model, _), _] = demo(SMALL["reset"])
    _, middle, below, _ = drawn["gru_numpy_reset.png"].axes
    (_, sums), (_, y), (_, z), (_, r) = (*curves(middle).values(), *curves(below).values())
    p, i = model.parameters, int(re.search(r"^Step (\d+): ", out, re.M)[1]) - 1
    assert f": a flag and the number {sums[i]:.2f}, when the sum was {sums[i - 1]:.2f}\n" in out
    h_prev = (y[i - 1] - p["b_y"]) / p["W_y"]
    rows = [("as it is", z[i], r[i]), (f"r as at step {i}", z[i], r[i - 1])]
    for name, z_i, r_i in [*rows, (f"z as at step {i}", z[i - 1], r[i])]:
        h_tilde = np.tanh(p["W_h"] @ [[sums[i]], [1]] + p["U_h"] * r_i * h_prev + p["b_h"])
        h = (1 - z_i) * h_prev + z_i * h_tilde
        values = [z_i, r_i, *np.ravel([h_prev, h_tilde, h, p["W_y"] * h + p["b_y"]])]
        assert re.search(rf"^{name} +(.*)$", out, re.M)[1].split() == [f"{v:.3f}" for v in values]


def test_the_reset_demo_prints_the_error_with_r_held_at_1_the_mean_gates_and_the_weights(demo):
    out, [(model, history), (r_held, r_held_history)] = demo(SMALL["reset"] + " --seed 1")
    x, _ = held_out("reset", seed=1)[0]
    flagged, (z, r), rows = x[:, 1] == 1, gates(model, x), table(out)
    assert np.all(gates(r_held, x)[1] == 1)
    assert_same([r_held_history.weights[0]["U_h"]], [history.weights[0]["U_h"]])
    variance = np.var([sums[-1] for _, sums in held_out("reset", seed=1)])
    expected = [history.held_out_mse[30], r_held_history.held_out_mse[30], variance]
    expected += [gate.mean() for gate in (z[flagged], z[~flagged], r[flagged], r[~flagged])]
    assert list(rows.values())[:7] == pytest.approx(expected, rel=1e-3)
    weights = dict(re.findall(r"^([WUb]_.)((?: +-?\d+\.\d{3})+)$", out, re.M))
    for name, weight in model.parameters.items():
        assert weights[name].split() == [f"{value:.3f}" for value in weight.ravel()]


# --- The command line ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "task", ["sine --noise=0 --hidden-size=1", "adding --hidden-size=1", "reset"]
)
def test_the_smallest_sizes_draw_whole_pictures_whatever_a_matplotlibrc_says(task, tmp_path):
    with matplotlib.rc_context({"text.usetex": True, "figure.dpi": 7}):
        main(f"--task {task} --updates=1 --seq-len=3 --plots-dir={tmp_path}/new/plots".split())
    figures = [matplotlib.image.imread(path) for path in (tmp_path / "new" / "plots").iterdir()]
    assert {figure.shape[1] for figure in figures} == {980}  # 7 inches of 140 dots


@pytest.mark.parametrize("task, updates", [("sine", 400), ("adding", 600), ("reset", 1000)])
def test_help_names_each_option_of_the_task_with_its_default(task, updates, capsys):
    with pytest.raises(SystemExit):
        main(["--task", task, "--help"])
    out = " ".join(capsys.readouterr().out.split())
    defaults = vars(gfs.parse_options(["--task", task]))
    assert defaults["updates"] == updates and ("--noise" in out) == (task == "sine")
    assert defaults["plots_dir"] == Path(gfs.__file__).resolve().parent / "plots"
    for name in set(defaults) - {"task", "plots_dir"}:
        assert re.search(rf" {name.upper()} [^(]*\(default: {defaults[name]}\)", out), name


NO_FOLDER = "--plots-dir: expected a folder for figures, got "


@pytest.mark.parametrize("argv, message", [
    ("--updates 0", "argument --updates: expected 1 to 1e+07, got 0"),
    ("--updates 1e3", "argument --updates: invalid int value: '1e3'"),
    ("--hidden-size 0", "argument --hidden-size: expected 1 to 1000, got 0"),
    ("--seq-len 2", "argument --seq-len: expected 3 to 1000, got 2"),
    ("--learning-rate nan", "argument --learning-rate: expected 1e-09 to 100, got nan"),
    ("--clip 0", "argument --clip: expected 1e-09 to inf, got 0.0"),
    ("--noise inf", "argument --noise: expected 0 to 100, got inf"),
    ("--task adding --noise 0.1", "unrecognized arguments: --noise 0.1"),
    ("--seed -1", "argument --seed: expected 0 to 1e+09, got -1"),
    ("--task xor", "argument --task: invalid choice: 'xor' (choose from "),
    ("--hidden 3", "unrecognized arguments: --hidden"),  # a later option could change what it means
    ("--plots-dir FILE", NO_FOLDER),
    ("--plots-dir FIGURE_IS_A_FOLDER", NO_FOLDER),
    pytest.param("--plots-dir /proc/self", NO_FOLDER, marks=pytest.mark.skipif(
        not os.path.isdir("/proc/self"), reason="no folder that nobody can write in")),
])  # fmt: skip
def test_a_wrong_option_ends_with_status_2_and_what_would_be_right_before_any_work(
    argv, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(gfs, "train", None)  # to call it is another error
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    (tmp_path / "FIGURE_IS_A_FOLDER" / "gru_numpy_forecast.png").mkdir(parents=True)
    with pytest.raises(SystemExit) as end:
        main(["--plots-dir", "plots", *argv.split()])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "") and not (tmp_path / "plots").exists()
    assert err.startswith("usage: ") and message in err.splitlines()[-1]


def test_ctrl_c_ends_with_status_130_and_keeps_the_curve_and_other_figures(
    monkeypatch, drawn, tmp_path
):
    (tmp_path / "gru_numpy_forecast.png").write_text("mine")
    monkeypatch.setattr(gfs, "train_step", Mock(side_effect=[3.0, 1.0, KeyboardInterrupt]))
    with pytest.raises(SystemExit) as end:
        main(["--clip=inf", f"--plots-dir={tmp_path}"])
    [(name, figure)] = drawn.items()
    assert (end.value.code, name) == (130, "gru_numpy_training_curve.png")
    assert list(figure.axes[0].lines[0].get_ydata()) == [3, 2]  # the mean so far
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


# --- What the default runs show, on five seeds --------------------------------------------------


def default_runs(task):
    command = f"gru_from_scratch.py --task {task} --seed "
    return [pytest.param(seed, marks=pytest.mark.run(command + str(seed))) for seed in range(5)]


@pytest.mark.parametrize("seed", default_runs("sine"))
def test_on_sine_waves_the_error_is_within_1_5_times_the_best_possible(seed, output):
    assert table(output)["held-out / best possible"] <= 1.5


@pytest.mark.parametrize("seed", default_runs("adding"))
def test_the_gradient_finds_its_way_back_while_the_loss_still_sits_on_its_plateau(seed, output):
    """And at last the two marked numbers are summed."""
    found = re.findall(r"^ +(\d+) +(\S+)   (\S+e\S+)$", output, re.M)
    mse, share = ({int(row[0]): float(row[i]) for row in found} for i in (1, 2))
    assert share[50] > 1e5 * share[0] and share[600] > 0.05 and mse[600] < 0.001
    assert mse[25] > 0.9 / 6 and mse[50] > 0.9 / 6 and mse[125] < 0.5 / 6


@pytest.mark.parametrize("seed", default_runs("reset"))
def test_one_unit_restarts_at_a_flag_by_an_open_z_and_a_closed_r(seed, output):
    rows = table(output)
    assert rows["held-out MSE"] <= 0.01 * rows["variance of the target"]
    assert rows["with r held at 1"] > 3 * rows["held-out MSE"]
    assert rows["mean z, flagged steps"] > 0.85 and rows["mean r, flagged steps"] < 0.1
    assert rows["mean z, other steps"] < 0.4 and rows["mean r, other steps"] > 0.2
    last = dict(re.findall(r"^(W_.|as it is|[zr] as) .*?(\S+)$", output, re.M))
    assert float(last["W_z"]) > 4 and float(last["W_r"]) < -3  # the flag opens z and closes r
    assert float(last["r as"]) > float(last["as it is"]) + 0.1
    assert float(last["z as"]) > float(last["as it is"]) + 1
