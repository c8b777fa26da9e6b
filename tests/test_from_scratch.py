"""gru_from_scratch.py but for gradients: learning beside PyTorch, what is refused, the data, what
can be reached without a network, what the demos print and draw, what their default runs show."""

import contextlib
import functools
import io
import math
import os
import re
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import curves, record_figures, table
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


def test_the_weights_are_drawn_from_plus_minus_1_over_the_root_of_H_by_the_seed():
    drawn, again, other = (GRU(3, 64, 2, seed).parameters.values() for seed in (0, 0, 1))
    values = np.concatenate([weight.ravel() for weight in (*drawn, *other)])
    counts, _ = np.histogram(values, bins=4, range=(-1 / 8, 1 / 8))
    assert counts.sum() == len(values) == len(np.unique(values))  # none outside, none twice
    assert np.all(np.abs(counts / len(values) - 1 / 4) < 0.02)
    assert_same(again, drawn)


def test_without_h0_the_state_begins_at_zero_and_the_steps_hold_every_state():
    model, x, _, _ = random_case(7, 4, SIZES)
    y, steps = model.forward(x)
    assert_same([y], [model.forward(x, np.zeros((5, 4)))[0]])
    p = model.parameters
    for t in range(1, 8):
        shorter, _ = model.forward(x[:t])
        assert_same([p["W_y"] @ steps[t - 1].h + p["b_y"]], [shorter], 1e-12)


def test_weights_in_32_bits_stay_so_with_states_gradients_and_means():
    model, x, _, dy = random_case(7, 4, SIZES)
    for name, weight in model.parameters.items():
        model.parameters[name] = weight.astype(np.float32)
    before, adam = dict(model.parameters), Adam()
    train_step(model, adam, x.astype(np.float32), dy.astype(np.float32), max_norm=1.0)
    _, steps = model.forward(x.astype(np.float32))
    arrays = *model.parameters.values(), *adam.m.values(), *adam.v.values(), steps[-1].h
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert all(np.all(model.parameters[name] != before[name]) for name in before)


def test_a_copy_of_the_dictionary_of_weights_keeps_them_as_they_were():
    model, x, _, dy = random_case(7, 4, SIZES)
    first, _ = model.forward(x)
    kept = dict(model.parameters)
    train_step(model, Adam(0.1), x, dy, max_norm=1.0)
    assert np.all(model.forward(x)[0] != first)
    model.parameters = kept
    assert_same([model.forward(x)[0]], [first])


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


# --- What is refused ----------------------------------------------------------------------------


def refused(message):
    return pytest.raises(ValueError, match=f"^{re.escape(message)}$")


def test_arrays_that_would_broadcast_are_refused_with_what_was_expected():
    model, x, h0, dy = random_case(7, 4, SIZES)
    with refused("inputs: expected shape (T, 2, B), got (7, 2)"):
        model.forward(x[:, :, 0])
    with refused("inputs: expected shape (T, 2, B), got (0, 2, 4)"):
        model.forward(x[:0])
    with refused("inputs: expected shape (T, 2, B), got (7, 2, 0)"):
        model.forward(x[:, :, :0])
    with refused("inputs: expected shape (T, 2, B), got (7, 1, 4)"):
        model.forward(x[:, :1])
    with refused("h0: expected shape (5, 4), got (5, 1)"):
        model.forward(x, h0[:, :1])
    with refused("target: expected shape (3, 4), got (4,)"):
        train_step(model, Adam(), x, dy[0], 1.0)


def test_a_weight_of_another_shape_or_a_misspelt_name_is_refused():
    model, x, _, _ = random_case(7, 5, SIZES)  # a bias (5,) would be added to each of 5 sequences
    model.parameters["b_z"] = np.zeros(5)
    with refused("b_z: expected shape (5, 1), got (5,)"):
        model.forward(x)
    model, x, _, _ = random_case(7, 4, SIZES)
    model.parameters["W_Z"] = model.parameters["W_z"]
    with pytest.raises(ValueError, match=r"^weights: expected W_z, .*, b_y; got W_z, .*, W_Z$"):
        model.forward(x)
    del model.parameters["W_Z"], model.parameters["b_r"]
    with pytest.raises(ValueError, match=r"^weights: expected W_z, .*; got "):
        model.forward(x)


def test_a_gradient_that_is_not_finite_and_a_norm_that_is_no_bound_are_refused():
    model, x, _, dy = random_case(7, 4, SIZES)
    before = dict(model.parameters)
    x[3, 0, 0] = math.inf  # the loss is finite: sigma and tanh are
    with (
        pytest.raises(FloatingPointError, match=r"^gradient: expected a finite norm, got nan$"),
        np.errstate(invalid="ignore"),
    ):
        train_step(model, Adam(), x, dy, 1.0)
    assert_same(model.parameters.values(), before.values())
    for max_norm in (0, -1, math.nan):  # a negative one would train uphill
        with refused(f"max_norm: expected more than 0, got {max_norm}"):
            clip_by_norm({"b": np.ones(2)}, max_norm)


# --- Data, and what can be reached without a network --------------------------------------------


def test_waves_have_any_period_from_20_to_40_any_phase_and_the_noise_that_is_asked_for():
    both = [gfs.sine_waves(default_rng(3), 4000, 39, noise) for noise in (0.3, 0)]
    noisy, waves = (np.concatenate([x[:, 0], target]) for x, target in both)
    # x_{t+1} + x_{t-1} = 2 cos(2 pi / period) x_t
    products = ((waves[2:] + waves[:-2]) * waves[1:-1]).sum(axis=0)
    period = 2 * np.pi / np.arccos(products / (2 * (waves[1:-1] ** 2).sum(axis=0)))
    assert period.min() > 19.99 and period.max() < 40.01
    assert np.histogram(period, 4, (20, 40))[0].min() > 900  # of 1000
    rises, positive = waves[1] > waves[0], waves[0] > 0
    quarters = rises & positive, rises & ~positive, ~rises & positive, ~rises & ~positive
    assert min(map(np.sum, quarters)) > 800  # of some 1000
    assert np.std(noisy - waves) == pytest.approx(0.3, rel=0.02)
    assert abs(np.mean(noisy - waves)) < 0.01


@pytest.mark.parametrize("length", [2, 5, 12])
def test_the_adding_problem_marks_any_step_of_each_half_and_its_target_is_the_sum(length):
    x, target = gfs.adding_problem(default_rng(0), 6000, length)
    numbers, marks = x[:, 0], x[:, 1]
    assert 0 <= numbers.min() < 0.001 and 0.999 < numbers.max() < 1
    for half in (marks[: length // 2], marks[length // 2 :]):
        assert np.all(half.sum(axis=0) == 1) and np.all(half.max(axis=0) == 1)
        assert half.mean(axis=1) == pytest.approx(np.full(len(half), 1 / len(half)), rel=0.15)
    assert_same(target, [(numbers * marks).sum(axis=0)], 1e-15)


def test_a_sum_begins_again_at_every_flag_with_the_number_of_that_step():
    numbers = np.array([0.1, 0.2, 0.3, 0.1, 0.2])
    flags = np.array([1, 0, 1, 1, 0])
    x = np.stack([numbers, flags], axis=1)[:, :, None]
    assert gfs.running_sums(x)[:, 0].tolist() == pytest.approx([0.1, 0.3, 0.3, 0.1, 0.3])


def test_numbers_and_flags_of_the_reset_task_are_drawn_as_it_says():
    x, target = gfs.sums_since_flag(default_rng(0), 4000, 9)
    numbers, flags = x[:, 0], x[:, 1]
    assert 0 <= numbers.min() < 0.001 and 0.299 < numbers.max() < 0.3
    assert np.all(flags[0] == 1) and flags[1:].mean() == pytest.approx(0.15, abs=0.01)
    assert_same(target, gfs.running_sums(x)[-1:])


DRAW = {
    "sine": functools.partial(gfs.sine_waves, length=8, noise=0.1),
    "adding": functools.partial(gfs.adding_problem, length=8),
    "reset": functools.partial(gfs.sums_since_flag, length=8),
}


def test_every_task_is_tested_here():
    assert DRAW.keys() == gfs.TASKS.keys()


@pytest.mark.parametrize("task", DRAW)
def test_every_task_hands_out_inputs_and_one_target_for_each_sequence(task):
    x, target = DRAW[task](default_rng(0), 5)
    assert x.shape == (8, 1 if task == "sine" else 2, 5) and target.shape == (1, 5)


@pytest.mark.parametrize("task", DRAW)
def test_least_squares_leaves_an_error_that_is_orthogonal_to_what_it_has_seen(task):
    predict = gfs.least_squares(DRAW[task], seed=0)
    x, target = DRAW[task](default_rng([0, gfs.TRAINING]), 10_000)  # what it was fitted to
    error = (predict(x) - target)[0]
    assert abs(error.sum()) < 1e-7 and np.all(np.abs(x @ error) < 1e-7)


def test_with_one_known_period_the_best_possible_is_off_by_the_noise_variance_over_T(monkeypatch):
    """That much of the noise a fit with one unknown, the phase, takes up."""
    monkeypatch.setattr(gfs, "SHORTEST", 30)
    monkeypatch.setattr(gfs, "LONGEST", 30)
    (noisy, _), (_, clean) = (gfs.sine_waves(default_rng(0), 1000, 30, s) for s in (0.1, 0))
    off = np.mean((gfs.best_prediction(noisy, 0.1) - clean) ** 2)
    assert off == pytest.approx(0.1**2 / 30, rel=0.15)  # 3 standard errors


def test_after_one_value_the_best_possible_weighs_each_phase_by_how_well_it_fits(monkeypatch):
    monkeypatch.setattr(gfs, "SHORTEST", 30)
    monkeypatch.setattr(gfs, "LONGEST", 30)
    phase, noise, value = 2 * np.pi * np.arange(120) / 120, 0.5, 0.8
    likelihood = np.exp(-((value - np.sin(phase)) ** 2) / (2 * noise**2))
    expected = np.average(np.sin(2 * np.pi / 30 + phase), weights=likelihood)
    best = gfs.best_prediction(np.array([[[value]]]), noise)
    assert best.item() == pytest.approx(expected)


# --- What the demos print and draw --------------------------------------------------------------

SMALL = {  # a run of each demo that takes a blink
    "sine": "--updates 30 --hidden-size 3 --seq-len 8 --noise 0.1",
    "adding": "--task adding --updates 60 --hidden-size 5 --seq-len 8",
    "reset": "--task reset --updates 30 --seq-len 8",
}
COMMON = "--learning-rate 0.02 --clip 0.3 --seed 5"


def run_demo(command, folder):
    """What it prints and draws, and what it trains: lists of networks and of their histories."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        figures, models, histories, train = record_figures(monkeypatch), [], [], gfs.train

        def recorded(model, draw, test, options, history, **more):
            models.append(model)
            histories.append(history)
            train(model, draw, test, options, history, **more)

        monkeypatch.setattr(gfs, "train", recorded)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            main([*command.split(), "--plots-dir", str(folder)])
    return SimpleNamespace(out=out.getvalue(), figures=figures, models=models, histories=histories)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """A small run of each task, once."""
    folder = tmp_path_factory.mktemp("demos")
    return {task: run_demo(f"{SMALL[task]} {COMMON}", folder) for task in SMALL}


def held_out(task, seed=5):
    rng = default_rng([seed, 2])
    return [DRAW[task](rng, 100) for _ in range(10)]


@pytest.mark.parametrize("task", SMALL)
def test_training_is_new_data_at_every_update_and_a_rate_that_falls_to_zero_as_a_cosine(
    task, demos
):
    out, model, history = demos[task].out, demos[task].models[0], demos[task].histories[0]
    (H, F), K, rng, losses = model.shapes["W_z"], max(history.weights), default_rng([5, 1]), []
    by_hand, adam = GRU(F, H, 1, seed=5), Adam()
    if task == "reset":  # small first weights
        by_hand.parameters = {name: 0.1 * w for name, w in by_hand.parameters.items()}
    for k in range(K):
        adam.learning_rate = 0.02 * (1 + math.cos(math.pi * k / K)) / 2
        x, target = DRAW[task](rng, 32)
        losses.append(train_step(by_hand, adam, x, target, 0.3))
    mse = np.mean([(by_hand.forward(x)[0] - target) ** 2 for x, target in held_out(task)])
    assert_same(model.parameters.values(), by_hand.parameters.values())
    means = {k: np.mean(losses[max(0, k - 10) : k]) for k in range(1, K + 1)}
    assert history.training_mse == pytest.approx(means)
    assert history.held_out_mse[K] == pytest.approx(mse)
    assert list(history.held_out_mse) == [k for k in (0, 25, 50) if k < K] + [K]
    assert re.match(r" +update +training MSE +held-out MSE\n +0 +- +\S+\n", out)
    assert re.search(rf"^ +{K} +{means[K]:.4g} +{mse:.4g}$", out, re.M)


def mean_squared(task, predict):
    return np.mean([(predict(x) - target) ** 2 for x, target in held_out(task)])


def levels(task):
    """What the curve and the rows of a task compare with, by name."""
    by_line = mean_squared(task, gfs.least_squares(DRAW[task], 5))
    if task == "sine":
        best = mean_squared(task, lambda x: gfs.best_prediction(x, 0.1))
        persistence = mean_squared(task, lambda x: x[-1])
        return {"persistence": persistence, "least squares": by_line, "best possible": best}
    if task == "adding":
        return {"always answering 1": mean_squared(task, lambda _: 1), "least squares": by_line}
    targets = [target for _, target in held_out(task)]
    return {"variance of the target": np.var(targets), "least squares": by_line}


@pytest.mark.parametrize("task", SMALL)
def test_curve_and_rows_show_the_history_and_levels_to_compare_with(task, demos):
    file = {"sine": "training", "adding": "adding", "reset": "reset"}[task]
    axes = demos[task].figures[f"gru_numpy_{file}_curve.png"].axes[0]
    history, shown = demos[task].histories[0], curves(axes)
    training, measured = history.training_mse, history.held_out_mse
    assert shown["training, mean of 10 updates"] == ([*training], [*training.values()])
    assert shown["held-out"] == ([*measured], [*measured.values()])
    for name, level in levels(task).items():
        assert shown[name][1] == pytest.approx([level, level])
        assert table(demos[task].out)[name] == [pytest.approx(level, rel=1e-3)]
    assert axes.get_xlabel() == "update" and axes.get_yscale() == "log" and axes.get_legend()


def test_the_sine_demo_ends_with_its_error_beside_the_best_possible(demos, tmp_path):
    rows, mse = table(demos["sine"].out), demos["sine"].histories[0].held_out_mse[30]
    assert rows["held-out MSE"] == [pytest.approx(mse, rel=1e-3)]
    ratio = mse / levels("sine")["best possible"]
    assert rows["held-out / best possible"] == [pytest.approx(ratio, rel=1e-3)]
    assert rows["noise variance"] == [0.01]
    for noise in (0, 0.009):  # too little for its grid, with 8 steps
        out = run_demo(f"{SMALL['sine']} --noise {noise}", tmp_path).out
        assert "least squares" in out and not re.search("best possible|nan", out)


def test_the_forecast_figure_shows_one_step_ahead_and_free_running(demos, tmp_path):
    model = demos["sine"].models[0]
    shown = curves(demos["sine"].figures["gru_numpy_forecast.png"].axes[0])
    steps, wave = shown["noisy wave"]
    assert wave == gfs.sine_waves(default_rng([5, 3]), 1, 88, 0.1)[0].ravel().tolist()
    assert steps == [*range(88)]
    free = wave[:8] + shown["free-running"][1]  # it sees its own predictions
    for name, seen in (("one step ahead", wave), ("free-running", free)):
        windows = [np.reshape(seen[t : t + 8], (8, 1, 1)) for t in range(80)]
        assert shown[name] == ([*range(8, 88)], [model.forward(x)[0].item() for x in windows])
    loud = run_demo(f"{SMALL['sine']} --noise 1", tmp_path).figures["gru_numpy_forecast.png"]
    low, high = loud.axes[0].get_ylim()
    assert all(low < min(y) and max(y) < high for _, y in curves(loud.axes[0]).values())


def answers(model, x):
    """The answer after each step: that of a sequence which ends there."""
    return [model.forward(x[:t])[0].item() for t in range(1, len(x) + 1)]


def gate(name, model, x):
    """z or r of every step: (T, H, B)."""
    _, steps = model.forward(x)
    return np.array([getattr(step, name) for step in steps])


def test_the_memory_figure_shows_the_answer_after_each_step_and_the_gate_of_every_unit(demos):
    model = demos["adding"].models[0]
    top, below, bar = demos["adding"].figures["gru_numpy_memory.png"].axes
    x, _ = held_out("adding")[0]
    second_marked = (x[4:, 0] * x[4:, 1]).max(axis=0)
    x = x[:, :, [np.argmax(second_marked)]]
    steps, shown, numbers, marked = np.arange(1, 9), curves(top), x[:, 0, 0], x[:, 1, 0] == 1
    assert shown["numbers"] == (list(steps), list(numbers))
    assert shown["marked"] == (list(steps[marked]), list(numbers[marked]))
    assert shown["sum of the marked"][1] == [numbers[marked].sum()] * 2
    assert shown["answer after each step"] == (list(steps), pytest.approx(answers(model, x)))
    assert top.lines[-1].get_drawstyle() == "steps-mid" and top.get_legend()
    z = gate("z", model, x)[:, :, 0].T  # (H, T)
    cells = below.collections[0]
    more_at_marks = z[:, marked].mean(axis=1) - z[:, ~marked].mean(axis=1)
    assert_same(cells.get_array(), z[np.argsort(more_at_marks)], 1e-12)
    assert cells.get_clim() == (0, 1) and bar.get_ylabel() == "$z_t$"
    assert list(cells.get_coordinates()[0, :, 0]) == [t + 0.5 for t in range(9)]  # around t


def test_the_learning_figure_and_table_show_mean_z_and_the_share_of_the_gradient(demos):
    model, history = GRU(2, 5, 1), demos["adding"].histories[0]
    axes = demos["adding"].figures["gru_numpy_learning.png"].axes[0]
    x, _ = held_out("adding")[0]
    _, out = demos["adding"].out.split("share of the gradient at h_8 that reaches h_0\n")
    for k, line, row in zip((0, 25, 50, 60), axes.lines, out.splitlines()):
        mse, model.parameters = history.held_out_mse[k], history.weights[k]
        _, _, dh = model.backward(np.full((1, 100), -3.0), model.forward(x)[1])  # any dL/dy
        norms = np.linalg.norm(dh, axis=1)
        share = np.median(norms[::-1] / norms[8], axis=1)  # by the distance to the end
        assert_same(line.get_data(), (range(9), share), 1e-12)
        assert line.get_label() == f"after {k} updates: MSE {mse:.2g}"
        z = gate("z", model, x).mean()
        assert row.split() == [str(k), f"{mse:.4g}", f"{z:.3f}", f"{share[8]:.1e}"]
    assert len(axes.lines) == 4 == len({tuple(line.get_color()) for line in axes.lines})
    assert axes.get_yscale() == "log" and axes.get_legend() and "distance" in axes.get_xlabel()


def test_the_reset_figure_shows_the_sums_the_answers_and_both_gates(demos):
    model, panels = demos["reset"].models[0], demos["reset"].figures["gru_numpy_reset.png"].axes
    numbers, steps = panels[0].lines[0].get_ydata(), list(range(1, 13))
    flags = [bar.get_height() > 0 for bar in panels[0].patches]
    x = np.stack([numbers, flags], axis=1)[:, :, None].astype(float)
    assert {**curves(panels[1]), **curves(panels[2])} == {
        "sum from the last flag, inclusive": (steps, gfs.running_sums(x)[:, 0].tolist()),
        "answer": (steps, pytest.approx(answers(model, x))),
        "update z: 0 keeps, 1 overwrites": (steps, gate("z", model, x).ravel().tolist()),
        "reset r: 0 = candidate ignores the old state": (
            steps,
            gate("r", model, x).ravel().tolist(),
        ),
    }
    styles = [line.get_drawstyle() for axes in panels[1:] for line in axes.lines]
    assert styles == ["steps-mid", "default", "steps-mid", "steps-mid"]  # stairs around each step
    for axes in panels:  # the bands of the flags go through all of them, and nothing is cut off
        bands = [(bar.get_center()[0], bar.get_height() > 0) for bar in axes.patches]
        assert bands == list(zip(steps, flags)) and axes.get_legend()
        assert all(np.all(line.get_ydata() <= axes.get_ylim()[1]) for line in axes.lines)


def test_the_sequence_of_the_picture_restarts_at_least_twice_and_drops_much():
    for seed in range(5):
        x = gfs.sequence_with_restarts(seed, 30)
        dropped = gfs.running_sums(x)[:-1, 0][x[1:, 1, 0] == 1]
        assert len(dropped) >= 2 and dropped.min() >= 1 and 2.5 < dropped.max() <= 3


def test_the_reset_demo_prints_a_flagged_step_with_either_gate_as_it_was_before(demos):
    out, model = demos["reset"].out, demos["reset"].models[0]
    _, middle, below = demos["reset"].figures["gru_numpy_reset.png"].axes
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


def test_the_flag_that_is_worked_out_by_hand_is_the_one_that_drops_the_largest_sum(capsys):
    numbers = np.array([0.1, 0.2, 0.1, 0.3, 0.3, 0.2])
    flags = np.array([1, 0, 1, 0, 0, 1])
    gfs.print_restart(gfs.one_unit(0), np.stack([numbers, flags], axis=1)[:, :, None])
    assert (
        "\nStep 6: a flag and the number 0.20, when the sum was 0.70\n" in capsys.readouterr().out
    )


def test_the_reset_demo_prints_mean_gates_weights_and_the_errors_with_a_gate_held_at_1(demos):
    out, rows, (model, *held) = demos["reset"].out, table(demos["reset"].out), demos["reset"].models
    names = "r held at 1", "r held at 1 at flags", "r held at 1 elsewhere", "z held at 1"
    errors = [history.held_out_mse[30] for history in demos["reset"].histories]
    for name, mse in zip(("held-out MSE", *names), errors, strict=True):
        assert rows[name] == [pytest.approx(mse, rel=1e-3)]
    x, _ = held_out("reset")[0]
    flagged = x[:, [1]] == 1  # (T, 1, B)
    always, at_flags, elsewhere, z_held = held
    assert np.all(gate("r", always, x) == 1) and np.all(gate("z", z_held, x) == 1)
    assert np.all((gate("r", at_flags, x) == 1) == flagged)
    assert np.all((gate("r", elsewhere, x) == 1) == ~flagged)
    for name in ("z", "r"):
        values = gate(name, model, x)
        means = rows[f"mean {name}, flagged steps"], rows[f"mean {name}, other steps"]
        expected = values[flagged].mean(), values[~flagged].mean()
        assert np.ravel(means) == pytest.approx(expected, rel=1e-3)
    weights = dict(re.findall(r"^([WUb]_.)((?: +-?\d+\.\d{3})+)$", out, re.M))
    for name, weight in model.parameters.items():
        assert weights[name].split() == [f"{value:.3f}" for value in weight.ravel()]


@pytest.mark.parametrize("task", SMALL)
def test_frozen_weights_stay_and_the_others_learn(task, tmp_path):
    demo = run_demo(f"{SMALL[task]} --freeze W_z b_y", tmp_path)
    first, last = demo.histories[0].weights[0], demo.models[0].parameters
    changed = {name for name in first if np.any(first[name] != last[name])}
    assert changed == first.keys() - {"W_z", "b_y"}


# --- The command line ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "task", ["sine --noise=0 --hidden-size=1", "adding --hidden-size=1", "reset"]
)
def test_the_smallest_sizes_draw_whole_pictures_whatever_a_matplotlibrc_says(
    task, tmp_path, capsys
):
    with matplotlib.rc_context({"text.usetex": True, "figure.dpi": 7}):
        main(f"--task {task} --updates=1 --seq-len=3 --plots-dir={tmp_path}/new/plots".split())
    paths = list((tmp_path / "new" / "plots").iterdir())
    assert {matplotlib.image.imread(path).shape[1] for path in paths} == {980}  # 7 inches
    assert set(map(str, paths)) == set(capsys.readouterr().out.splitlines()[-len(paths) :])


def test_help_shows_the_defaults_of_each_task_and_the_options_have_them(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    for task, (_, defaults) in gfs.TASKS.items():
        told = " ".join(f"{gfs.flag(name)} {value}" for name, value in defaults.items())
        assert f"\n  --task {task}: {told}\n" in out
        options = vars(gfs.parse_options(["--task", task]))
        assert defaults.items() <= options.items()
        assert options["plots_dir"] == Path(gfs.__file__).resolve().parent / "plots"


NO_FOLDER = "--plots-dir: expected a folder for figures, got "


@pytest.mark.parametrize("argv, message", [
    ("--updates 0", "--updates: expected a whole number from 1 to 10000000, got 0"),
    ("--updates 1e3", "--updates: expected a whole number from 1 to 10000000, got 1e3"),
    ("--hidden-size 0", "--hidden-size: expected a whole number from 1 to 1000, got 0"),
    ("--seq-len 2", "--seq-len: expected a whole number from 3 to 1000, got 2"),
    ("--learning-rate nan", "--learning-rate: expected a number from 1e-09 to 100, got nan"),
    ("--clip 0", "--clip: expected a number from 1e-09 to inf, got 0"),
    ("--noise inf", "--noise: expected a number from 0 to 100, got inf"),
    ("--task adding --noise 0.1", "--noise: goes with --task sine; not with --task adding"),
    ("--task reset --hidden-size 2", "goes with --task sine, --task adding; not with --task reset"),
    ("--seed -1", "--seed: expected a whole number from 0 to 1000000000, got -1"),
    ("--task xor", "--task: invalid choice: 'xor' (choose from "),
    ("--freeze W_z Wz", "--freeze: invalid choice: 'Wz' (choose from "),
    ("--hidden 3", "unrecognized arguments: --hidden"),  # a later option could change what it means
    ("--plots-dir FILE", NO_FOLDER),
    pytest.param("--plots-dir /proc/self", NO_FOLDER, marks=pytest.mark.skipif(
        not os.path.isdir("/proc/self"), reason="no folder that nobody can write in")),
])  # fmt: skip
def test_a_wrong_option_ends_with_status_2_and_what_would_be_right_before_any_work(
    argv, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(gfs, "train", None)  # to call it is another error
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").touch()
    with pytest.raises(SystemExit) as end:
        main(["--plots-dir", "plots", *argv.split()])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "") and not (tmp_path / "plots").exists()
    assert err.startswith("usage: ") and message in err.splitlines()[-1]


def test_ctrl_c_keeps_the_curve_of_what_was_reached_and_other_figures(monkeypatch, drawn, tmp_path):
    (tmp_path / "gru_numpy_forecast.png").write_text("mine")
    losses = iter([3.0, 1.0])

    def train_step(*_):
        for loss in losses:
            return loss
        raise KeyboardInterrupt

    monkeypatch.setattr(gfs, "train_step", train_step)
    with pytest.raises(KeyboardInterrupt):
        main(["--clip=inf", f"--plots-dir={tmp_path}"])
    [(name, figure)] = drawn.items()
    assert name == "gru_numpy_training_curve.png" and (tmp_path / name).exists()
    assert list(figure.axes[0].lines[0].get_ydata()) == [3, 2]  # the mean so far
    assert (tmp_path / "gru_numpy_forecast.png").read_text() == "mine"


def test_a_figure_that_cannot_be_written_stops_no_other_and_costs_no_result(tmp_path, capsys):
    (tmp_path / "gru_numpy_training_curve.png").mkdir()
    with pytest.raises(SystemExit) as end:
        main([*SMALL["sine"].split(), f"--plots-dir={tmp_path}"])
    out, err = capsys.readouterr()
    assert end.value.code == 1 and "held-out / best possible" in out
    assert re.fullmatch(r"gru_from_scratch.py: .*gru_numpy_training_curve.png'\n", err)
    assert (tmp_path / "gru_numpy_forecast.png").exists() and not list(tmp_path.glob("*.part"))


# --- What the default runs show, on five seeds --------------------------------------------------


def default_runs(task):
    command = f"gru_from_scratch.py --task {task} --seed "
    return [pytest.param(seed, marks=pytest.mark.run(command + str(seed))) for seed in range(5)]


@pytest.mark.parametrize("seed", default_runs("sine"))
def test_on_sine_waves_the_error_is_within_1_4_times_the_best_possible(seed, output):
    rows = table(output)
    assert rows["held-out / best possible"][0] <= 1.4
    assert rows["held-out MSE"] < rows["least squares"]


@pytest.mark.parametrize("seed", default_runs("adding"))
def test_the_gradient_finds_its_way_back_while_the_loss_still_sits_on_its_plateau(seed, output):
    """And at last the two marked numbers are summed, which least squares does not learn."""
    found = re.findall(r"^ +(\d+) +(\S+) +(\S+)   (\S+e\S+)$", output, re.M)
    mse, z, share = ({int(row[0]): float(row[i]) for row in found} for i in (1, 2, 3))
    assert share[50] > 1e5 * share[0] and share[600] > 0.05 and mse[600] < 0.001
    assert mse[25] > 0.85 / 6 and mse[50] > 0.85 / 6 and mse[125] < 0.5 / 6
    assert z[0] > 0.45 and z[50] < 0.4 and z[600] < 0.25
    assert table(output)["least squares"][0] > 0.9 / 6


@pytest.mark.parametrize("seed", default_runs("reset"))
def test_one_unit_overwrites_and_resets_at_a_flag(seed, output):
    rows = {name: values[0] for name, values in table(output).items()}
    assert rows["held-out MSE"] <= 0.01 * rows["variance of the target"]
    assert rows["mean z, flagged steps"] > 0.85 and rows["mean z, other steps"] < 0.45
    assert rows["mean r, flagged steps"] < 0.1 < rows["mean r, other steps"]
    for other in ("r held at 1", "z held at 1", "least squares"):
        assert rows[other] > 1.5 * rows["held-out MSE"]
    assert rows["r held at 1 at flags"] > 1.5 * rows["r held at 1 elsewhere"]
    last = dict(re.findall(r"^(W_.|as it is|[zr] as) .*?(\S+)$", output, re.M))
    assert float(last["W_z"]) > 3 and float(last["W_r"]) < -3  # of the flag
    assert float(last["r as"]) > float(last["as it is"]) + 0.1
    assert float(last["z as"]) > float(last["as it is"]) + 1
