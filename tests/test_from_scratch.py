"""gru_from_scratch.py, apart from its gradients: the cell, learning beside PyTorch, the data, what
is refused, what the three demos print and draw, and what their default runs show."""

import copy
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
from test_gradients import leaf, random_case, states_by_torch

import gru_from_scratch as gfs
from gru_from_scratch import GRU, Adam, clip_by_norm, main, train_step

SIZES = 2, 5, 3  # F, H, O of most networks below; T = 7 and B = 4


def passes(model, inputs, h0, dy):
    """One forward and one backward pass: y, all weights' gradients as one vector, dx, dh."""
    y, cache = model.forward(inputs, h0)
    d, dx, dh = model.backward(dy, cache)
    return y, np.concatenate([d[name].ravel() for name in model.shapes]), dx, dh


def assert_close(a, b, tolerance):
    """Equal shapes, and no difference above tolerance times the largest entry of b."""
    a, b = (v.detach().numpy() if isinstance(v, torch.Tensor) else np.asarray(v) for v in (a, b))
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def assert_same(a, b):
    """The same bits in every array of a and b."""
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


# --- The cell -----------------------------------------------------------------------------------


def test_a_batch_equals_its_sequences_one_by_one():
    model, inputs, h0, dy = random_case(7, 4, SIZES)
    y, d, dx, dh = passes(model, inputs, h0, dy)
    alone = [passes(model, inputs[..., [b]], h0[:, [b]], dy[:, [b]]) for b in range(4)]
    ys, ds, dxs, dhs = zip(*alone, strict=True)
    for batch, ones in ((y, ys), (dx, dxs), (dh, dhs)):
        assert_close(batch, np.concatenate(ones, axis=-1), 1e-13)
    assert_close(d, sum(ds), 1e-13)


def test_a_list_of_steps_equals_one_array_and_no_h0_is_a_zero_h0():
    model, inputs, h0, dy = random_case(7, 4, SIZES)
    from_zero = passes(model, inputs, np.zeros_like(h0), dy)
    assert_same(passes(model, list(inputs), None, dy), from_zero)


def test_backward_gives_the_same_bits_again_after_other_passes_through_the_network():
    model, inputs, h0, dy = random_case(7, 4, SIZES)
    _, cache = model.forward(inputs, h0)
    d, *first = copy.deepcopy(model.backward(dy, cache))
    passes(model, 2 * inputs, -h0, -dy)
    again, *second = model.backward(dy, cache)
    assert_same(second, first)
    assert_same(again.values(), d.values())


def test_float32_stays_float32_whatever_the_dtype_of_the_arguments():
    case = random_case(7, 4, SIZES)
    model = GRU(*SIZES, dtype=np.float32)
    for name, weight in case.model.parameters.items():
        model.parameters[name] = weight  # in 64 bits
    for single, double in zip(passes(model, *case[1:]), passes(*case), strict=True):
        assert single.dtype == np.float32 and double.dtype == np.float64
        assert_close(single, double, 1e-5)
    adam = Adam(model.parameters)
    train_step(model, adam, case.inputs.astype(int), case.dy, max_norm=1e-3)
    for arrays in (model.parameters, adam.m, adam.v):
        assert {array.dtype for array in arrays.values()} == {np.dtype(np.float32)}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("b_z, z", [(1000, 1), (-1000, 0)])
def test_a_gate_at_1000_or_minus_1000_is_exactly_1_or_0_without_a_warning(b_z, z, dtype):
    _, inputs, h0, _ = random_case(7, 4, SIZES)
    model = GRU(*SIZES, dtype=dtype)
    model.parameters["b_z"][:] = b_z
    _, (steps, h_T) = model.forward(inputs, h0)
    assert all(np.all(step.z == z) for step in steps)
    assert_same(h_T, steps[-1].h_tilde if z else h0.astype(dtype))


def test_the_weights_are_drawn_from_plus_minus_1_over_the_root_of_H_by_the_seed():
    drawn, again, other = (GRU(3, 64, 2, seed).parameters for seed in (0, 0, 1))
    values = np.concatenate([weight.ravel() for weight in drawn.values()])
    counts, _ = np.histogram(values, bins=4, range=(-1 / 8, 1 / 8))
    assert counts.sum() == values.size  # none outside
    assert np.all(np.abs(counts / values.size - 1 / 4) < 0.02)
    assert len(np.unique(values)) == values.size
    assert_same(again.values(), drawn.values())
    assert all(np.all(drawn[name] != other[name]) for name in drawn)


def test_a_weight_that_a_caller_replaces_counts_and_is_trained():
    case = random_case(7, 4, SIZES)
    model = GRU(*SIZES)
    adam = Adam(model.parameters)
    for name, weight in case.model.parameters.items():
        model.parameters[name] = weight.tolist()
    assert_same(passes(model, *case[1:]), passes(*case))
    train_step(model, adam, case.inputs, case.dy, max_norm=1.0)
    for name, weight in case.model.parameters.items():
        assert np.all(model.parameters[name] != weight)


# --- Learning -----------------------------------------------------------------------------------


# A large epsilon shows where it stands: beside the root of v_hat, and not under it.
@pytest.mark.parametrize("beta1, beta2, epsilon", [(0.9, 0.999, 1e-8), (0.8, 0.9, 0.1)])
def test_adam_takes_the_same_steps_as_torch(beta1, beta2, epsilon):
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(50)
    torch_theta = leaf(theta)
    adam = Adam({"theta": theta}, 1e-2, beta1, beta2, epsilon)
    torch_adam = torch.optim.Adam([torch_theta], 1e-2, (beta1, beta2), epsilon)
    for k in range(200):
        adam.learning_rate = torch_adam.param_groups[0]["lr"] = 1e-2 / (1 + k)
        gradient = rng.standard_normal(50) * np.logspace(-6, 2, 50)
        torch_theta.grad = torch.tensor(gradient)
        adam.step({"theta": gradient})
        torch_adam.step()
        assert_close(theta, torch_theta, 1e-14)


def test_adam_has_the_defaults_of_the_paper():
    adam = Adam({})
    assert (adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon) == (1e-3, 0.9, 0.999, 1e-8)


def test_clipping_scales_two_gradients_of_norm_5_together_to_the_largest_norm():
    gradients = {"a": np.array([[3.0]]), "b": np.array([[0.0, -4.0]])}
    clipped = clip_by_norm(gradients, 0.5)
    assert_close(clipped["a"], [[0.3]], 1e-15)
    assert_close(clipped["b"], [[0.0, -0.4]], 1e-15)
    for max_norm in (5.0, 6.0, math.inf):  # not too large: it stays as it is
        assert_same(clip_by_norm(gradients, max_norm).values(), gradients.values())


@pytest.mark.filterwarnings("error")
def test_clipping_takes_a_zero_gradient_and_one_whose_square_overflows_in_32_bits():
    zero, large = np.zeros((2, 1)), np.array([[3e20], [4e20]], np.float32)
    assert_same(clip_by_norm({"b": zero}, 1.0)["b"], zero)
    clipped = clip_by_norm({"b": large}, 1.0)["b"]
    assert clipped.dtype == np.float32
    assert_close(clipped, np.array([[0.6], [0.8]]), 1e-6)


def test_200_updates_end_at_the_same_weights_as_in_torch():
    """Forward, BPTT, clipping and Adam against autograd and torch.optim.Adam. clip_grad_norm_ would
    add 1e-6 to the norm, so the torch side clips by hand with the plain formula max_norm / norm."""
    max_norm, rng = 0.3, np.random.default_rng(0)
    model = GRU(1, 8, 2)
    adam, start = Adam(model.parameters, learning_rate=1e-2), copy.deepcopy(model.parameters)
    p = {name: leaf(array) for name, array in model.parameters.items()}
    torch_adam, clipped = torch.optim.Adam(p.values(), lr=1e-2), 0
    for _ in range(200):
        waves = gfs.sine_waves(rng, 3, 14, 0.05)
        x, target = waves[:12], waves[12:, 0]  # two values to predict
        mse = train_step(model, adam, x, target, max_norm)

        h = states_by_torch(p, torch.tensor(x), torch.zeros(8, 3, dtype=torch.float64))
        torch_mse = torch.mean((p["W_y"] @ h[-1] + p["b_y"] - torch.tensor(target)) ** 2)
        torch_adam.zero_grad()
        torch_mse.backward()
        norm = torch.sqrt(sum((w.grad**2).sum() for w in p.values()))
        if norm > max_norm:
            clipped += 1
            for w in p.values():
                w.grad *= max_norm / norm
        torch_adam.step()
        assert mse == pytest.approx(torch_mse.item(), rel=1e-9)  # that before the update

    assert 20 < clipped < 180
    for name, weight in model.parameters.items():
        assert np.abs(weight - start[name]).max() > 0.05, name
        assert np.abs(weight - p[name].detach().numpy()).max() <= 1e-9, name


# --- Data ---------------------------------------------------------------------------------------


def test_the_waves_are_sines_of_period_30_amplitude_1_and_any_phase_with_noise_on_top():
    noisy, waves = (gfs.sine_waves(np.random.default_rng(3), 1000, 40, n) for n in (0.05, 0))
    assert noisy.shape == waves.shape == (40, 1, 1000)
    assert np.std(noisy - waves) == pytest.approx(0.05, rel=0.02)
    assert abs(np.mean(noisy - waves)) < 0.001

    angle = 2 * np.pi * np.arange(40) / 30
    sine_and_cosine = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    parts, residual, *_ = np.linalg.lstsq(sine_and_cosine, waves[:, 0], rcond=None)
    assert residual.max() < 1e-25
    np.testing.assert_allclose(np.linalg.norm(parts, axis=0), 1)
    counts, _ = np.histogram(np.arctan2(parts[1], parts[0]), bins=8, range=(-np.pi, np.pi))
    assert counts.min() > 80  # of 125 on average


@pytest.mark.parametrize("length", [2, 5, 12])
def test_the_adding_problem_marks_any_step_of_each_half_and_its_answer_is_the_sum(length):
    x, answer = gfs.adding_problem(np.random.default_rng(0), 6000, length)
    assert x.shape == (length, 2, 6000) and answer.shape == (1, 6000)
    numbers, marks = x[:, 0], x[:, 1]
    assert np.all((marks == 0) | (marks == 1))
    for half in (marks[: length // 2], marks[length // 2 :]):
        assert np.all(half.sum(axis=0) == 1)
        # Every step as often as the others.
        assert half.mean(axis=1) == pytest.approx(np.full(len(half), 1 / len(half)), rel=0.15)
    assert_close(answer[0], (numbers * marks).sum(axis=0), 1e-15)
    # A sum of two numbers from U(0, 1) has a variance of 2 / 12 around its mean 1.
    assert np.mean((1 - answer) ** 2) == pytest.approx(1 / 6, abs=0.01)


def test_the_sums_begin_again_at_every_flag_with_the_number_of_that_step():
    x, sums = gfs.sums_since_flag(np.random.default_rng(0), 4000, 9)
    assert x.shape == (9, 2, 4000) and sums.shape == (9, 4000)
    numbers, flags = x[:, 0], x[:, 1]
    assert 0 <= numbers.min() < 0.001 and 0.299 < numbers.max() < 0.3
    assert np.all(flags[0] == 1) and np.all((flags == 0) | (flags == 1))
    assert flags[1:].mean() == pytest.approx(0.15, abs=0.01)
    for b in range(100):
        for t in range(9):
            last_flag = max(s for s in range(t + 1) if flags[s, b])
            assert sums[t, b] == pytest.approx(numbers[last_flag : t + 1, b].sum())


# --- What is refused ----------------------------------------------------------------------------

REFUSED = {  # what a caller does with a model of F = 2, H = 5, O = 3, for T = 7 and B = 4
    "inputs: expected shape (T, 2, B), got (7, 2)": lambda m, x, h0, dy: m.forward(x[:, :, 0]),
    "inputs: expected shape (T, 2, B), got (0, 2, 4)": lambda m, x, h0, dy: m.forward(x[:0]),
    "inputs: expected shape (T, 2, B), got (7, 2, 0)": lambda m, x, h0, dy: m.forward(x[..., :0]),
    "inputs: expected shape (2, 4), got (3, 4)": lambda m, x, h0, dy: m.forward(
        np.zeros((7, 3, 4))
    ),
    "inputs: expected shape (2, 4), got (2, 3)": lambda m, x, h0, dy: m.forward(
        [x[0], x[1, :, :3]]
    ),
    "h0: expected shape (5, 4), got (5, 1)": lambda m, x, h0, dy: m.forward(x, h0[:, :1]),
    "dy: expected shape (3, 4), got (1, 4)": lambda m, x, h0, dy: m.backward(
        dy[:1], m.forward(x)[1]
    ),
    "target: expected shape (3, 4), got (4,)": lambda m, x, h0, dy: train_step(
        m, Adam(m.parameters), x, dy[0], 1.0
    ),
    "b_z: expected shape (5, 1), got (5,)": lambda m, x, h0, dy: (
        m.parameters.update(b_z=np.zeros(5)),
        m.forward(x),
    ),
    "optimizer: expected Adam(model.parameters), got one of other weights": lambda m, x, h0, dy: (
        train_step(m, Adam(GRU(*SIZES).parameters), x, dy, 1.0)
    ),
    "sizes: expected at least 1, got 1, 0, 1": lambda *_: GRU(1, 0, 1),
    "dtype: expected float32 or float64, got int64": lambda *_: GRU(*SIZES, dtype=np.int64),
    "dtype: expected float32 or float64, got float16": lambda *_: GRU(*SIZES, dtype=np.float16),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_would_broadcast_or_lose_digits_is_refused_with_what_was_expected(message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        REFUSED[message](*random_case(7, 4, SIZES))


# --- What the demos print and draw --------------------------------------------------------------

SMALL = {  # a run of each demo that takes a blink
    "sine": "--updates 60 --hidden-size 3 --seq-len 30",
    "adding": "--task adding --updates 60 --hidden-size 3 --seq-len 8",
    "reset": "--task reset --updates 60 --seq-len 8",
}
FIGURES = {
    "sine": {"gru_numpy_training_curve.png", "gru_numpy_forecast.png"},
    "adding": {"gru_numpy_adding_curve.png", "gru_numpy_learning.png", "gru_numpy_memory.png"},
    "reset": {"gru_numpy_reset_curve.png", "gru_numpy_reset.png"},
}


@pytest.fixture
def demo(monkeypatch, capsys, drawn, tmp_path):
    """A function that runs a demo: what it prints, the networks it has trained, and their steps."""

    def run(options):
        models, train = [], gfs.train

        def train_and_keep(model, *rest, **named):
            models.append((model, train(model, *rest, **named)))
            return models[-1][1]

        with monkeypatch.context() as patch:
            patch.setattr(gfs, "train", train_and_keep)
            main([*options.split(), "--plots-dir", str(tmp_path)])
        return capsys.readouterr().out, models

    return run


def answers(model, x):
    """The answer after each step: that of a sequence which ends there."""
    return [model.forward(x[:t])[0].item() for t in range(1, len(x) + 1)]


def gates(model, x):
    """z and r of a sequence, (T, H) each."""
    _, (steps, _) = model.forward(x)
    return (np.array([getattr(step, name)[:, 0] for step in steps]) for name in "zr")


@pytest.mark.parametrize("task", SMALL)
def test_training_is_new_data_at_every_update_and_a_rate_that_falls_to_zero_as_a_cosine(
    task, demo, drawn
):
    out, [(model, history), *_] = demo(f"{SMALL[task]} --learning-rate 0.02 --clip 0.3 --seed 5")
    batch = 1 if task == "sine" else 32
    draws = {
        "sine": lambda rng, n: (
            (w := gfs.sine_waves(rng, n, 31, 0.05)) is not None and (w[:-1], w[-1])
        ),
        "adding": lambda rng, n: gfs.adding_problem(rng, n, 8),
        "reset": lambda rng, n: ((pair := gfs.sums_since_flag(rng, n, 8))[0], pair[1][-1:]),
    }
    rng, by_hand = (
        np.random.default_rng([5, 0]),
        GRU(*(model.shapes[k][i] for k, i in (("W_z", 1), ("W_z", 0), ("W_y", 0))), seed=5),
    )
    adam, losses = Adam(by_hand.parameters), []
    for k in range(60):
        adam.learning_rate = 0.02 * 0.5 * (1 + math.cos(math.pi * k / 60))
        losses.append(train_step(by_hand, adam, *draws[task](rng, batch), 0.3))
    assert_close(history.losses, losses, 1e-12)
    for name, weight in model.parameters.items():
        assert_close(weight, by_hand.parameters[name], 1e-12)

    held_out = [draws[task](rng, 200) for rng in np.random.default_rng([5, 1]).spawn(10)]
    mse = np.mean([np.mean((by_hand.forward(x)[0] - target) ** 2) for x, target in held_out])
    assert table(out)["held-out MSE"] == pytest.approx(mse, abs=5e-6)
    rows = [line.split() for line in re.findall(r"^ +\d+ +[\d.-]+ +[\d.]+$", out, re.M)][:4]
    assert [row[0] for row in rows] == ["0", "25", "50", "60"]
    assert rows[-1][1:] == [f"{np.mean(losses[-50:]):.5f}", f"{mse:.5f}"]
    curve = f"gru_numpy_{'training' if task == 'sine' else task}_curve.png"
    line, dots, level = drawn[curve].axes[0].lines
    labels = {"sine": "noise variance", "adding": "always answering 1"}
    label = labels.get(task, "variance of the target")
    assert level.get_label() == label and drawn[curve].axes[0].get_yscale() == "log"
    assert level.get_ydata()[0] == pytest.approx(table(out)[label], abs=5e-6)
    assert_close(line.get_ydata(), [np.mean(losses[k - 50 : k]) for k in range(50, 61)], 1e-12)
    assert list(line.get_xdata()) == list(range(50, 61))
    assert list(dots.get_xdata()) == [0, 25, 50, 60]
    assert [f"{y:.5f}" for y in dots.get_ydata()] == [row[2] for row in rows]


def test_the_sine_demo_prints_what_its_error_is_to_be_compared_with(demo):
    rows = table(demo(SMALL["sine"] + " --noise 0.1")[0])
    assert rows["noise variance"] == 0.01
    assert rows["best possible"] == pytest.approx(0.01 * (1 + 1 / 30), abs=5e-6)
    # Of a difference of two values: the wave's own 1 - cos(2 pi / 30), and two noises.
    assert rows["persistence"] == pytest.approx(0.0219 + 2 * 0.01, rel=0.05)
    assert rows["parameters"] == 3 * (3 + 9 + 3) + 3 + 1
    for without in ("--noise 0", "--seq-len 20"):
        assert "best possible" not in table(demo(f"{SMALL['sine']} {without}")[0])


def test_the_forecast_figure_shows_one_step_ahead_above_and_free_running_below(demo, drawn):
    _, [(model, _)] = demo(SMALL["sine"])
    above, below = (curves(axes) for axes in drawn["gru_numpy_forecast.png"].axes)
    wave, truth = (np.array(above[name][1]) for name in ("noisy wave", "wave without noise"))
    assert 0.03 < np.std(wave - truth) < 0.07 and abs(np.max(truth) - 1) < 0.01
    assert above["noisy wave"] == below["noisy wave"]
    ahead, free = (lines["prediction"] for lines in (above, below))
    assert ahead[0] == free[0] == list(range(30, 90))
    seen = list(wave[:30])
    for t in range(60):
        for window, prediction in ((wave[t : t + 30], ahead[1][t]), (seen[-30:], free[1][t])):
            assert model.forward(np.reshape(window, (30, 1, 1)))[0].item() == prediction
        seen.append(free[1][t])
    titles = [axes.get_title() for axes in drawn["gru_numpy_forecast.png"].axes]
    assert [title.split(":")[0] for title in titles] == ["One step ahead", "Free-running"]


def test_the_memory_figure_shows_the_answer_after_each_step_and_the_gate_of_every_unit(demo, drawn):
    _, [(model, _)] = demo(SMALL["adding"])
    top, below, _ = drawn["gru_numpy_memory.png"].axes
    shown = curves(top)
    numbers, marked = shown["numbers"][1], shown["marked"]
    marks = np.isin(np.arange(1, 9), marked[0])
    assert marks.sum() == 2 and marked[1] == [numbers[t - 1] for t in marked[0]]
    assert shown["sum of the marked"][1] == [sum(marked[1])] * 2
    x = np.stack([numbers, marks], axis=1)[:, :, None].astype(float)
    for steps, _ in (shown["numbers"], shown["answer after each step"]):
        assert steps == list(range(1, 9))
    assert shown["answer after each step"][1] == pytest.approx(answers(model, x), rel=1e-12)
    z, _ = gates(model, x)
    opened = z[marks].mean(axis=0) - z[~marks].mean(axis=0)
    np.testing.assert_allclose(below.collections[0].get_array(), z.T[np.argsort(opened)])
    assert below.collections[0].get_clim() == (0, 1)
    corners = below.collections[0].get_coordinates()  # of the cells, half a step around each
    assert corners[0, :, 0].tolist() == [t + 0.5 for t in range(9)]


def test_units_are_sorted_by_how_much_more_a_mark_opens_them_than_other_steps(drawn, tmp_path):
    """The first unit is always open, and so opens less than the second."""
    x = np.array([[0.5, 1.0], [0.5, 0.0]])
    gfs.plot_memory(x, np.zeros(2), np.array([[0.9, 0.6], [0.9, 0.1]]), tmp_path / "figure.png")
    shown = drawn["figure.png"].axes[1].collections[0].get_array()
    assert shown.tolist() == [[0.9, 0.9], [0.6, 0.1]]


def test_the_learning_figure_and_table_show_the_share_of_the_gradient_by_update(demo, drawn):
    out, [(model, history)] = demo(SMALL["adding"])
    x, _ = gfs.adding_problem(np.random.default_rng([0, 1]).spawn(10)[0], 200, 8)
    lines = curves(drawn["gru_numpy_learning.png"].axes[0])
    printed = re.findall(r"^ +(\d+) +(\S+)   (\S+)$", out.split("reaches h_0\n")[1], re.M)
    assert len(lines) == len(printed) == 4
    for (label, (distance, share)), (k, mse, at_h_0) in zip(lines.items(), printed, strict=True):
        assert label == f"after {k} updates: MSE {float(history.mse[int(k)]):.2g}"
        assert mse == f"{history.mse[int(k)]:.5f}"
        model.parameters = history.weights[int(k)]
        _, cache = model.forward(x)
        _, _, dh = model.backward(np.full((1, 200), -3.0), cache)  # any dL/dy will do
        ratios = [np.linalg.norm(dh[t], axis=0) / np.linalg.norm(dh[8], axis=0) for t in range(9)]
        assert share[::-1] == pytest.approx(np.median(ratios, axis=1), rel=1e-9)
        assert distance == list(range(9)) and share[0] == 1
        assert at_h_0 == f"{share[8]:.1e}"
    assert [k for k, *_ in printed] == ["0", "25", "50", "60"]
    assert len({float(share[8]) for _, share in lines.values()}) == 4  # of four networks


def test_the_reset_figure_shows_the_sums_the_answers_and_both_gates(demo, drawn):
    _, [(model, _), _] = demo(SMALL["reset"])
    top, middle, below, state = drawn["gru_numpy_reset.png"].axes
    numbers, flags = top.lines[0].get_ydata(), [bar.get_height() > 0 for bar in top.patches]
    x = np.stack([numbers, flags], axis=1)[:, :, None].astype(float)
    sums = [numbers[max(s for s in range(t + 1) if flags[s]) : t + 1].sum() for t in range(len(x))]
    assert len(x) == 12 and flags[0] and sum(flags) > 1
    assert curves(middle)["sum from the last flag, inclusive"][1] == pytest.approx(sums)
    assert curves(middle)["answer"][1] == pytest.approx(answers(model, x), rel=1e-9)
    for line in (*top.lines, *middle.lines, *below.lines):
        assert list(line.get_xdata()) == list(range(1, 13))
        assert min(line.axes.get_ylim()) <= min(line.get_ydata())
        assert max(line.axes.get_ylim()) >= max(line.get_ydata())
    for axes in (middle, below):  # the bands of the flags go through all panels
        assert [bar.get_height() > 0 for bar in axes.patches] == flags
        assert [bar.get_center()[0] for bar in axes.patches] == list(range(1, 13))
    z, r = gates(model, x)
    shown = curves(below)
    assert shown["update z: 0 keeps, 1 replaces"][1] == pytest.approx(z[:, 0])
    assert shown["reset r: 0 = candidate ignores the old state"][1] == pytest.approx(r[:, 0])
    p = {name: weight.item() for name, weight in model.parameters.items() if weight.size == 1}
    expected = [p["W_y"] * h + p["b_y"] for h in state.get_ylim()]  # answer = W_y h + b_y
    assert expected == pytest.approx(middle.get_ylim())


def test_the_reset_demo_prints_a_flagged_step_with_either_gate_as_it_was_before(demo, drawn):
    out, [(model, _), _] = demo(SMALL["reset"])
    _, middle, below, _ = drawn["gru_numpy_reset.png"].axes
    i = int(re.search(r"^Step (\d+): a flag", out, re.M)[1]) - 1
    number, before = re.search(r"number (\S+), when the sum was (\S+)", out).groups()
    sums, y = (curves(middle)[name][1] for name in ("sum from the last flag, inclusive", "answer"))
    assert (number, before) == (f"{sums[i]:.2f}", f"{sums[i - 1]:.2f}")
    z, r = (line[1] for line in curves(below).values())
    p, x = model.parameters, np.array([[sums[i]], [1.0]])
    h_prev = (y[i - 1] - p["b_y"]) / p["W_y"]
    rows = {"as it is": (z[i], r[i]), f"r as at step {i}": (z[i], r[i - 1])}
    for name, (z_i, r_i) in (rows | {f"z as at step {i}": (z[i - 1], r[i])}).items():
        h_tilde = np.tanh(p["W_h"] @ x + p["U_h"] @ (r_i * h_prev) + p["b_h"])
        h = (1 - z_i) * h_prev + z_i * h_tilde
        answer = p["W_y"] @ h + p["b_y"]
        expected = [
            f"{z_i:.3f}",
            f"{r_i:.3f}",
            *(f"{v.item():.2f}" for v in (h_prev, h_tilde, h, answer)),
        ]
        assert re.search(rf"^{name} +(.*)$", out, re.M)[1].split() == expected
        if name == "as it is":
            assert answer.item() == pytest.approx(y[i])


def test_the_reset_demo_prints_its_14_weights_and_holds_r_at_1_in_the_other_network(demo):
    out, [(model, history), (held, held_history)] = demo(SMALL["reset"])
    weights = {name: row.split() for name, row in re.findall(r"^([WUb]_.) +(.*)$", out, re.M)}
    assert sum(map(len, weights.values())) == 14
    for name, weight in model.parameters.items():
        assert weights[name] == [f"{value:.3f}" for value in weight.ravel()]
    x, _ = gfs.sums_since_flag(np.random.default_rng([0, 1]).spawn(10)[0], 200, 8)
    _, (steps, _) = held.forward(x)
    assert all(np.all(step.r == 1) for step in steps)
    rows = table(out)
    assert rows["with r held at 1"] == pytest.approx(held_history.mse[60], abs=5e-6)
    assert rows["held-out MSE"] == pytest.approx(history.mse[60], abs=5e-6)
    assert history.mse[60] != held_history.mse[60]
    _, (steps, _) = model.forward(x)
    for name in "zr":
        gate = np.array([getattr(step, name)[0] for step in steps])
        flagged = x[:, 1] == 1
        assert rows[f"mean {name}, flagged steps"] == pytest.approx(gate[flagged].mean(), abs=5e-4)
        assert rows[f"mean {name}, other steps"] == pytest.approx(gate[~flagged].mean(), abs=5e-4)


@pytest.mark.parametrize("task", SMALL)
def test_one_seed_prints_the_same_again_and_another_seed_other_numbers(task, demo):
    first, again, other = (demo(f"{SMALL[task]} --seed {seed}")[0] for seed in (1, 1, 2))
    assert first == again
    assert table(first)["held-out MSE"] != table(other)["held-out MSE"]


# --- The command line ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("task", SMALL)
def test_the_smallest_sizes_work_without_a_warning(task, tmp_path):
    smallest = ["--updates", "1", "--seq-len", "3"]
    smallest += {
        "sine": ["--noise", "0", "--hidden-size", "1"],
        "adding": ["--hidden-size", "1"],
    }.get(task, [])
    main(["--task", task, *smallest, "--plots-dir", str(tmp_path / "new" / "plots")])
    assert {path.name for path in (tmp_path / "new" / "plots").iterdir()} == FIGURES[task]


def test_to_look_whether_figures_can_be_written_leaves_those_that_are_there(tmp_path):
    (tmp_path / "gru_numpy_forecast.png").write_text("mine")
    gfs.parse_options(["--plots-dir", str(tmp_path)])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_quick_is_at_most_300_updates_that_draw_in_plots_quick_beside_the_script(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(gfs, "__file__", str(tmp_path / "gru_from_scratch.py"))
    quick = gfs.parse_options(["--quick"])
    assert (quick.updates, quick.plots_dir) == (300, tmp_path / "plots" / "quick")
    assert gfs.parse_options(["--quick", "--updates", "7"]).updates == 7


@pytest.mark.parametrize("task", SMALL)
def test_figures_are_whole_pictures_whatever_a_matplotlibrc_says(task, tmp_path):
    with matplotlib.rc_context({"text.usetex": True, "figure.dpi": 7}):
        main([*SMALL[task].split(), "--plots-dir", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == FIGURES[task]
    for figure in tmp_path.iterdir():
        content = figure.read_bytes()  # 7 inches of 140 dots wide
        assert content.startswith(b"\x89PNG") and content.endswith(b"IEND\xaeB`\x82")
        assert int.from_bytes(content[16:20], "big") == 980


@pytest.mark.parametrize("task", SMALL)
def test_help_names_each_option_of_the_task_with_its_default(task, capsys):
    with pytest.raises(SystemExit) as end:
        main(["--task", task, "--help"])
    assert end.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    defaults = vars(gfs.parse_options(["--task", task]))
    for name in set(defaults) - {"task", "plots_dir", "quick"}:
        assert re.search(
            rf"--{name.replace('_', '-')} [A-Z_]+ [^(]*\(default: {defaults[name]}\)", out
        ), name
    assert "None" not in out and ("--noise" in out) == (task == "sine")


WRONG_OPTIONS = [
    ("--updates 0", "--updates: expected int from 1 to 1e+07, got 0"),
    ("--updates 1e3", "--updates: expected int from 1 to 1e+07, got 1e3"),
    ("--hidden-size -4", "--hidden-size: expected int from 1 to 1000, got -4"),
    ("--seq-len 2", "--seq-len: expected int from 3 to 1000, got 2"),
    (
        "--learning-rate -123456789",
        "--learning-rate: expected float from 1e-09 to 100, got -123456789",
    ),
    ("--learning-rate nan", "--learning-rate: expected float from 1e-09 to 100, got nan"),
    ("--clip 0", "--clip: expected float from 1e-09 to inf, got 0"),
    ("--noise inf", "--noise: expected float from 0 to 100, got inf"),
    ("--task adding --noise 0.1", "unrecognized arguments: --noise 0.1"),
    ("--task reset --hidden-size 3", "unrecognized arguments: --hidden-size 3"),
    ("--seed -1", "--seed: expected int from 0 to 1e+09, got -1"),
    ("--task xor", "--task: invalid choice: 'xor' (choose from "),
    ("--hidden 3", "unrecognized arguments: --hidden"),  # a later option could change what it means
    ("--plots-dir FILE", "--plots-dir: expected a folder for figures, got "),
    ("--plots-dir FILE/below", "--plots-dir: expected a folder for figures, got "),
    ("--plots-dir FIGURE_IS_A_FOLDER", "--plots-dir: expected a folder for figures, got "),
]


@pytest.mark.parametrize("argv, message", WRONG_OPTIONS)
def test_a_wrong_option_ends_with_status_2_and_what_would_be_right_before_any_work(
    argv, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(gfs, "train", None)  # to call it is another error
    (tmp_path / "FILE").write_text("mine")
    (tmp_path / "FIGURE_IS_A_FOLDER" / "gru_numpy_forecast.png").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["--plots-dir", "plots", *argv.split()])
    out, err = capsys.readouterr()
    assert (end.value.code, out) == (2, "")
    assert err.startswith("usage: ") and message in err.splitlines()[-1]
    assert (tmp_path / "FILE").read_text() == "mine" and not (tmp_path / "plots").exists()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no folder that nobody can write in")
def test_a_folder_that_cannot_be_written_is_noticed_before_training(capsys, monkeypatch):
    monkeypatch.setattr(gfs, "train", None)
    with pytest.raises(SystemExit) as end:
        main(["--plots-dir", "/proc"])
    assert end.value.code == 2 and "--plots-dir: expected a folder" in capsys.readouterr().err


def test_clip_inf_clips_nothing(demo, monkeypatch):
    _, [(_, history)] = demo(SMALL["adding"] + " --clip inf")
    monkeypatch.setattr(gfs, "clip_by_norm", lambda gradients, max_norm: gradients)
    _, [(_, unclipped)] = demo(SMALL["adding"])
    assert history.losses == unclipped.losses


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process alone")
def test_ctrl_c_ends_with_status_130_and_keeps_the_curve(tmp_path):
    argv = ["--updates", "100000", "--hidden-size", "1", "--seq-len", "3", "--plots-dir", tmp_path]
    command, pipe = [sys.executable, ROOT / "gru_from_scratch.py", *argv], subprocess.PIPE
    # A shell may have started pytest with SIGINT ignored, which the child would inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    signal.signal(signal.SIGINT, before)
    try:
        for _ in range(3):  # the head, and two rows: training has begun
            assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "")
    assert [path.name for path in tmp_path.iterdir()] == ["gru_numpy_training_curve.png"]


# --- What the default runs show, on five seeds --------------------------------------------------


def default_runs(task):
    command = f"gru_from_scratch.py --task {task} --seed "
    return [pytest.param(seed, marks=pytest.mark.run(command + str(seed))) for seed in range(5)]


@pytest.mark.parametrize("seed", default_runs("sine"))
def test_on_sine_waves_the_error_is_within_1_5_times_the_best_possible(seed, output):
    rows = table(output)
    assert rows["held-out MSE"] <= 1.5 * 0.05**2 * (1 + 1 / 30)
    ratio = float(re.search(r"held-out is (\S+) times that", output)[1])
    assert ratio == pytest.approx(rows["held-out MSE"] / rows["best possible"], abs=0.01)


@pytest.mark.parametrize("seed", default_runs("adding"))
def test_the_gradient_finds_its_way_back_while_the_loss_still_sits_on_its_plateau(seed, output):
    """And at last the two marked numbers are summed, by gates that open at the marks."""
    rows = table(output)
    assert rows["held-out MSE"] < 0.001
    assert rows["mean z, marked steps"] > 2 * rows["mean z, other steps"]
    found = re.findall(r"^ +(\d+) +(\S+)   (\S+e\S+)$", output, re.M)
    mse = {int(k): float(error) for k, error, _ in found}
    share = {int(k): float(share) for k, _, share in found}
    assert share[50] > 1e5 * share[0] and share[1000] > 0.05
    assert mse[25] > 0.9 / 6 and mse[50] > 0.9 / 6 and mse[125] < 0.5 / 6


@pytest.mark.parametrize("seed", default_runs("reset"))
def test_one_unit_restarts_at_a_flag_by_an_open_z_and_a_closed_r(seed, output):
    rows = table(output)
    assert rows["held-out MSE"] <= 0.01 * rows["variance of the target"]
    assert rows["with r held at 1"] > 3 * rows["held-out MSE"]
    assert rows["mean z, flagged steps"] > 0.85 and rows["mean r, flagged steps"] < 0.1
    assert rows["mean z, other steps"] < 0.4 and rows["mean r, other steps"] > 0.2
    by_name = {
        name: float(row.split()[-1]) for name, row in re.findall(r"^([WU]_.) +(.*)$", output, re.M)
    }
    assert by_name["W_z"] > 4 and by_name["W_r"] < -3  # the flag opens z and closes r
    number = float(re.search(r"a flag and the number (\S+),", output)[1])
    answer = {
        name: float(row.split()[-1])
        for name, row in re.findall(r"^(as it is|[zr] as) (.*)$", output, re.M)
    }
    assert abs(answer["as it is"] - number) < 0.1
    assert answer["r as"] > answer["as it is"] + 0.1 and answer["z as"] > answer["as it is"] + 1
