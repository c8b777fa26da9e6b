"""gru_from_scratch.py, apart from its gradients: the cell beside nn.GRU, learning beside PyTorch,
the data, what is refused, and the two demos."""

import copy
import math
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import no_figures, table
from test_gradients import leaf, random_case, states_by_torch

import gru_from_scratch
from gru_from_scratch import GRU, OPTIONS, Adam, History, clip_by_norm, main, sine_waves, train_step

SIZES = 2, 5, 3  # F, H, O of most networks below; T = 7 and B = 4


def passes(model, inputs, h0, dy):
    """One forward and one backward pass: y, gradient, dx, dh."""
    y, cache = model.forward(inputs, h0)
    return y, *model.backward(dy, cache)


def assert_close(a, b, tolerance):
    """Equal shapes, and no difference above tolerance times the largest entry of b."""
    a, b = (v.detach().numpy() if isinstance(v, torch.Tensor) else np.asarray(v) for v in (a, b))
    assert a.shape == b.shape
    assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def assert_same(a, b):
    """The same bits in every array of a and b."""
    for one, other in zip(a, b, strict=True):
        np.testing.assert_array_equal(one, other)


# --- The cell beside nn.GRU ---------------------------------------------------------------------


def by_torch_gru(model, inputs, h0, dy):
    """The states h_1 .. h_T of an nn.GRU with the weights of model, and its gradients by name. Its
    gates come in the order r, z, n; its z is our 1 - z, which is sigma of the negated argument."""
    p, (H, _) = model.parameters, h0.shape
    gru = torch.nn.GRU(inputs.shape[1], H, dtype=torch.float64)
    theirs = {"W": gru.weight_ih_l0, "U": gru.weight_hh_l0, "b": gru.bias_ih_l0}
    with torch.no_grad():
        gru.bias_hh_l0.zero_()
        for kind, weight in theirs.items():
            blocks = np.concatenate([p[f"{kind}_r"], -p[f"{kind}_z"], p[f"{kind}_h"]])
            weight.copy_(torch.tensor(blocks.reshape(weight.shape)))
    x, h0 = leaf(inputs), leaf(h0)
    h = gru(x.transpose(1, 2), h0.T[None].contiguous())[0].transpose(1, 2)
    (torch.tensor(p["W_y"]) @ h[-1]).backward(torch.tensor(dy))
    d = {"x": x.grad, "h0": h0.grad}
    for kind, weight in theirs.items():
        d_r, d_z, d_h = weight.grad.reshape(3, H, -1)
        d |= {f"{kind}_r": d_r, f"{kind}_z": -d_z, f"{kind}_h": d_h}
    return h, d


@pytest.mark.parametrize("H", [1, 5])
def test_with_one_unit_or_a_diagonal_U_h_states_and_gradients_are_those_of_nn_gru(H):
    """The cell resets before the product, U_h @ (r * h); nn.GRU after it, r * (U_h @ h). With a
    diagonal U_h that is the same, and so are all gradients but those off the diagonal."""
    model, inputs, h0, dy = random_case(12, 4, (2, H, 3))
    U_h = model.parameters["U_h"]
    U_h[:] = np.diag(np.diag(U_h))
    h, expected = by_torch_gru(model, inputs, h0, dy)

    _, cache = model.forward(inputs, h0)
    gradient, dx, dh = model.backward(dy, cache)
    d = model.named(gradient) | {"x": dx, "h0": dh[0]}
    assert_close(cache.h[1:], h, 1e-12)
    assert_close(np.diag(d["U_h"]), expected.pop("U_h").diagonal(), 1e-12)
    for name in expected:
        assert_close(d[name], expected[name], 1e-12)


def test_with_more_units_the_states_are_not_those_of_nn_gru():
    case = random_case(7, 4, SIZES)
    _, cache = case.model.forward(case.inputs, case.h0)
    assert np.abs(cache.h[1:] - by_torch_gru(*case)[0].detach().numpy()).max() > 0.05


# --- Forward and backward -----------------------------------------------------------------------


def test_a_batch_equals_its_sequences_one_by_one():
    model, inputs, h0, dy = random_case(7, 4, SIZES)
    y, gradient, dx, dh = passes(model, inputs, h0, dy)
    alone = [passes(model, inputs[..., [b]], h0[:, [b]], dy[:, [b]]) for b in range(4)]
    ys, gradients, dxs, dhs = zip(*alone)
    for batch, ones in ((y, ys), (dx, dxs), (dh, dhs)):
        assert_close(batch, np.concatenate(ones, axis=-1), 1e-13)
    assert_close(gradient, sum(gradients), 1e-13)


def test_a_list_of_steps_equals_one_array_and_no_h0_is_a_zero_h0():
    model, inputs, h0, dy = random_case(7, 4, SIZES)
    from_zero = passes(model, inputs, np.zeros_like(h0), dy)
    assert_same(passes(model, list(inputs), None, dy), from_zero)


def test_backward_gives_the_same_bits_whatever_happened_since_forward():
    model, inputs, h0, dy = random_case(7, 4, SIZES)
    _, cache = model.forward(inputs, h0)
    first = model.backward(dy, cache)
    kept = copy.deepcopy(first)
    passes(model, 2 * inputs, -h0, -dy)
    inputs[:], h0[:] = 0, 0
    assert_same(model.backward(dy, cache), kept)
    assert_same(first, kept)


def test_float32_stays_float32_whatever_the_dtype_of_the_arguments():
    case = random_case(7, 4, SIZES)
    model = GRU(*SIZES, dtype=np.float32)
    model.theta[:] = case.model.theta
    for single, double in zip(passes(model, *case[1:]), passes(*case)):
        assert single.dtype == np.float32 and double.dtype == np.float64
        assert_close(single, double, 1e-5)
    adam = Adam(model.theta)
    train_step(model, adam, case.inputs.astype(int), case.dy, max_norm=1.0)
    assert model.theta.dtype == adam.m.dtype == adam.v.dtype == np.float32


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gates_at_1000_and_minus_1000_are_exactly_1_and_0_without_a_warning(dtype):
    _, inputs, h0, _ = random_case(7, 4, SIZES)
    model = GRU(*SIZES, dtype=dtype)
    for b_z, z in ((1000, 1), (-1000, 0)):
        model.parameters["b_z"][:] = b_z
        _, cache = model.forward(inputs, h0)
        assert np.all(cache.z[1:] == z)
        assert_same(cache.h[-1], cache.h_tilde[-1] if z else h0.astype(dtype))


def test_gradient_norms_are_those_of_dh_over_that_of_the_last_step_for_every_sequence():
    model, inputs, _, _ = random_case(7, 4, (2, 5, 1))
    model.theta *= 4  # so that dh does not only shrink on its way back
    _, _, _, dh = passes(model, inputs, None, np.full((1, 4), -3.0))
    norms = gru_from_scratch.gradient_norms(model, inputs)
    assert norms.shape == (8, 4) and np.all(norms[-1] == 1) and norms.max() > 1
    for t, b in np.ndindex(8, 4):
        expected = math.hypot(*dh[t, :, b]) / math.hypot(*dh[7, :, b])
        assert norms[t, b] == pytest.approx(expected, rel=1e-12)


# --- The weights --------------------------------------------------------------------------------


def test_parameters_and_named_are_views_that_fill_a_vector_once():
    model = GRU(*SIZES)
    other = np.zeros_like(model.theta)
    for vector, views in ((model.theta, model.parameters), (other, model.named(other))):
        vector[:] = np.arange(vector.size)
        assert_same(np.concatenate([view.ravel() for view in views.values()]), vector)
        for view in views.values():
            view[:] = -1
        assert np.all(vector == -1)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_a_whole_network_of_its_own_that_can_be_trained(copied):
    model, inputs, _, target = random_case(7, 4, SIZES)
    y, _ = model.forward(inputs)
    twin = copied(model)
    assert_same(twin.forward(inputs)[0], y)
    train_step(twin, Adam(twin.theta), inputs, target, max_norm=1.0)
    assert np.all(twin.forward(inputs)[0] != y)
    assert_same(model.forward(inputs)[0], y)


def test_the_weights_are_drawn_from_plus_minus_1_over_the_root_of_H_by_the_seed():
    theta, again, other = (GRU(3, 64, 2, seed).theta for seed in (0, 0, 1))
    counts, _ = np.histogram(theta, bins=4, range=(-1 / 8, 1 / 8))
    assert counts.sum() == theta.size  # none outside
    assert np.all(np.abs(counts / theta.size - 1 / 4) < 0.02)
    assert_same(again, theta)
    assert np.all(other != theta)


# --- Learning -----------------------------------------------------------------------------------


# A large epsilon shows where it stands: beside the root of v_hat, and not under it.
@pytest.mark.parametrize("beta1, beta2, epsilon", [(0.9, 0.999, 1e-8), (0.8, 0.9, 0.1)])
def test_adam_takes_the_same_steps_as_torch(beta1, beta2, epsilon):
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(50)
    torch_theta = leaf(theta)
    adam = Adam(theta, 1e-2, beta1, beta2, epsilon)
    torch_adam = torch.optim.Adam([torch_theta], 1e-2, (beta1, beta2), epsilon)
    for k in range(200):
        adam.learning_rate = torch_adam.param_groups[0]["lr"] = 1e-2 / (1 + k)
        gradient = rng.standard_normal(50) * np.logspace(-6, 2, 50)
        torch_theta.grad = torch.tensor(gradient)
        adam.step(gradient)
        torch_adam.step()
        assert_close(theta, torch_theta, 1e-14)


def test_adam_has_the_defaults_of_the_paper_and_the_sine_demo_its_rate():
    adam = Adam(np.zeros(1))
    assert (adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon) == (1e-3, 0.9, 0.999, 1e-8)
    assert adam.learning_rate == OPTIONS["learning_rate"][2]


def test_clipping_scales_like_torch_apart_from_the_1e_6_that_torch_adds_to_the_norm():
    gradient = np.random.default_rng(0).standard_normal(40)
    norm = np.linalg.norm(gradient)
    for max_norm in (1e-3, 0.7, 0.999 * norm):
        torch_theta = leaf(gradient)
        torch_theta.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_(torch_theta, max_norm)
        clipped = clip_by_norm(gradient, max_norm)
        assert_close(clipped * norm / (norm + 1e-6), torch_theta.grad, 1e-14)
    for max_norm in (norm, 2 * norm):  # not too large: it stays as it is
        assert_same(clip_by_norm(gradient, max_norm), gradient)


def test_200_updates_end_at_the_same_weights_as_in_torch():
    """Forward, BPTT, clipping and Adam against autograd and torch.optim.Adam. clip_grad_norm_ would
    add 1e-6 to the norm, so the torch side clips by hand with the plain formula max_norm / norm."""
    max_norm, rng = 0.3, np.random.default_rng(0)
    model = GRU(1, 8, 2)
    adam, start = Adam(model.theta, learning_rate=1e-2), model.theta.copy()
    p = {name: leaf(array) for name, array in model.parameters.items()}
    torch_adam, clipped = torch.optim.Adam(p.values(), lr=1e-2), 0
    for _ in range(200):
        waves = sine_waves(rng, 3, 14, 0.05)
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
    assert np.abs(model.theta - start).max() > 0.1
    for name, weight in model.parameters.items():
        assert np.abs(weight - p[name].detach().numpy()).max() <= 1e-9, name


def test_training_is_a_new_batch_at_every_update_and_a_rate_that_falls_to_zero_as_a_cosine(capsys):
    def drawing(seed):
        rng = np.random.default_rng(seed)
        return lambda: gru_from_scratch.adding_problem(rng, 3, 6)

    updates, rate, max_norm, history = 63, 0.05, 0.3, History([], [])
    held_out = [drawing(2)(), drawing(3)()]
    model, by_hand = GRU(2, 4, 1), GRU(2, 4, 1)
    gru_from_scratch.train(model, drawing(1), held_out, updates, rate, max_norm, history)

    draw, adam, losses = drawing(1), Adam(by_hand.theta), []
    for k in range(updates):
        adam.learning_rate = rate * 0.5 * (1 + math.cos(math.pi * k / updates))
        losses.append(train_step(by_hand, adam, *draw(), max_norm))
    assert_close(history.losses, losses, 1e-12)
    assert_close(model.theta, by_hand.theta, 1e-12)

    mse = np.mean([np.mean((by_hand.forward(x)[0] - target) ** 2) for x, target in held_out])
    assert [k for k, _ in history.held_out] == [13, 26, 39, 52, 63]
    assert history.held_out[-1][1] == pytest.approx(mse, rel=1e-12)
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last[:3] == ["63", f"{np.mean(losses[-50:]):.5f}", f"{mse:.5f}"]


# --- Data ---------------------------------------------------------------------------------------


def test_the_waves_are_sines_of_period_30_amplitude_1_and_any_phase_with_noise_on_top():
    noisy, waves = (sine_waves(np.random.default_rng(3), 1000, 40, noise) for noise in (0.05, 0))
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
def test_the_adding_problem_marks_any_step_of_each_half_and_its_target_is_the_sum(length):
    x, target = gru_from_scratch.adding_problem(np.random.default_rng(0), 6000, length)
    assert x.shape == (length, 2, 6000) and target.shape == (1, 6000)
    numbers, marks = x[:, 0], x[:, 1]
    assert np.all((marks == 0) | (marks == 1))
    for half in (marks[: length // 2], marks[length // 2 :]):
        assert np.all(half.sum(axis=0) == 1)
        # Every step as often as the others.
        assert half.mean(axis=1) == pytest.approx(np.full(len(half), 1 / len(half)), rel=0.15)
    assert_close(target[0], (numbers * marks).sum(axis=0), 1e-15)
    # A sum of two numbers from U(0, 1) has a variance of 2 / 12 around its mean 1.
    assert np.mean((1 - target) ** 2) == pytest.approx(1 / 6, abs=0.01)


@pytest.mark.parametrize("free_running", [False, True])
def test_a_forecast_sees_the_true_window_before_or_free_running_its_own_predictions(free_running):
    model, wave, _, _ = random_case(20, 1, (1, 5, 1))
    predictions = gru_from_scratch.forecast(model, wave, 8, free_running)
    assert len(predictions) == 12
    seen = wave.copy()
    for t in range(8, 20):
        y, _ = model.forward(seen[t - 8 : t])
        assert predictions[t - 8] == y.item()
        if free_running:
            seen[t] = y


# --- What is refused ----------------------------------------------------------------------------


BAD_ARRAYS = [  # for F = 2, H = 5, O = 3, T = 7, B = 4
    ("inputs", "(T, 2, B)", (7, 3, 4)),
    ("inputs", "(T, 2, B)", (7, 2)),
    ("inputs", "(T, 2, B)", (0, 2, 4)),
    ("h0", "(5, 4)", (5,)),
    ("dy", "(3, 4)", (1, 4)),  # which would broadcast
    ("target", "(3, 4)", (4,)),
]


@pytest.mark.parametrize("name, expected, came", BAD_ARRAYS)
def test_a_bad_array_is_refused_with_what_was_expected_and_what_came(name, expected, came):
    model, inputs, h0, _ = random_case(7, 4, SIZES)
    _, cache = model.forward(inputs, h0)
    calls = {
        "inputs": lambda array: model.forward(array),
        "h0": lambda array: model.forward(inputs, array),
        "dy": lambda array: model.backward(array, cache),
        "target": lambda array: train_step(model, Adam(model.theta), inputs, array, 1.0),
    }
    message = f"{name}: expected shape {expected}, got {came}"
    with pytest.raises(ValueError, match=re.escape(message)):
        calls[name](np.zeros(came))


def test_a_size_below_1_is_refused():
    for sizes in ((0, 4, 1), (1, 0, 1), (1, 4, 0)):
        message = "sizes: expected at least 1, got {}, {}, {}".format(*sizes)
        with pytest.raises(ValueError, match=message):
            GRU(*sizes)


# --- The demos ----------------------------------------------------------------------------------

SCRIPT = Path(gru_from_scratch.__file__)
FIGURES = {
    "sine": {"gru_numpy_training_curve", "gru_numpy_learning_rates", "gru_numpy_forecast"},
    "adding": {"gru_numpy_adding_curve", "gru_numpy_gates", "gru_numpy_gradient_flow"},
}
CURVE = {"sine": {"gru_numpy_training_curve"}, "adding": {"gru_numpy_adding_curve"}}
BOTH = pytest.mark.parametrize("task", ["sine", "adding"])
SMALL = ("--updates", "20", "--hidden-size", "4")
LEAST_T = OPTIONS["seq_len"][1]


def figures(folder):
    """The names of the figures in folder, which must hold nothing but whole PNG pictures."""
    for path in folder.iterdir():
        content = path.read_bytes()
        assert path.suffix == ".png" and content.startswith(b"\x89PNG\r\n\x1a\n"), path
        assert content.endswith(b"IEND\xaeB`\x82"), path
    return {path.stem for path in folder.iterdir()}


def end_of_main(*argv):
    """What main ends the program with: a status, or a text for stderr, which means status 1."""
    with pytest.raises(SystemExit) as end:
        main(list(map(str, argv)))
    return end.value.code


@BOTH
def test_a_quick_run_prints_its_table_and_draws_in_plots_quick_beside_the_script(task, tmp_path):
    script = tmp_path / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())  # a copy, alone: it needs no other file
    command = [sys.executable, script, "--quick", "--task", task, *SMALL]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    assert re.search(r"^      20 +\d\.\d{5} +\d\.\d{5} +\d+\.\d$", run.stdout, re.MULTILINE)
    rows = table(run.stdout)
    if task == "sine":
        rates = re.findall(r"^learning rate (.*)", run.stdout, re.MULTILINE)
        assert rates == ["0.001", "1e-05", "0.001", "0.1"]
        assert rows["parameters"] == 3 * (4 + 16 + 4) + 4 + 1
        assert rows["noise variance"] == 0.0025
        assert rows["best possible"] == pytest.approx(0.0025 * (1 + 1 / 30), abs=5e-6)
        # Of a difference of two values: the wave's own 1 - cos(2 pi / 30), and two noises.
        assert rows["persistence"] == pytest.approx(0.0219 + 2 * 0.0025, abs=0.002)
    else:
        assert rows["always answering 1"] == pytest.approx(1 / 6, abs=0.01)
    assert figures(tmp_path / "plots" / "quick") == FIGURES[task]
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["quick"]


def test_quick_means_at_most_300_updates(tmp_path):
    quick = ["--quick", "--plots-dir", str(tmp_path)]
    assert gru_from_scratch.parse_options(quick).updates == 300
    assert gru_from_scratch.parse_options([*quick, "--updates", "7"]).updates == 7


@BOTH
def test_one_seed_prints_the_same_numbers_again_and_another_seed_others(
    task, tmp_path, capsys, monkeypatch
):
    def printed(seed):
        argv = ["--seed", seed, *SMALL, "--seq-len", "6", "--plots-dir", str(tmp_path)]
        main(["--task", task, *argv])
        out = capsys.readouterr().out
        return re.sub(r"^( *\d+ .*) +\S+$", r"\1", out, flags=re.MULTILINE)  # without the seconds

    no_figures(monkeypatch)
    first, again, other = map(printed, "112")
    assert first == again
    constant = {"noise variance", "parameters"}
    for label, value in table(first).items():
        assert (value == table(other)[label]) == (label in constant), label


TRAININGS = [  # the learning rate and the updates of each
    ("sine --noise 0", [(1e-3, 20), (1e-5, 7), (1e-3, 7), (0.1, 7)]),
    ("adding", [(0.03, 20)]),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("task, expected", TRAININGS)
def test_the_trainings_of_a_demo_differ_in_rate_and_updates_but_not_in_weights_and_data(
    task, expected, tmp_path, monkeypatch
):
    def begin(model, draw, held_out, updates, learning_rate, max_norm, history):
        assert max_norm == 0.7
        trainings.append((learning_rate, updates))
        starts.append((model.theta.sum(), draw()[0].sum(), held_out[0][0].sum()))
        history.held_out.append((updates, 1.0))

    no_figures(monkeypatch)
    monkeypatch.setattr(gru_from_scratch, "train", begin)
    of_seeds = set()
    for seed in "01":
        trainings, starts = [], []
        argv = f"--task {task} --seed {seed} --clip 0.7".split()
        main([*argv, *SMALL, "--plots-dir", str(tmp_path)])
        assert trainings == expected
        assert len(set(starts)) == 1
        of_seeds.update(starts)
    assert all(a != b for a, b in zip(*of_seeds))


@BOTH
@pytest.mark.filterwarnings("error")
def test_the_smallest_sizes_work_without_a_warning(task, tmp_path):
    smallest = ["--updates", "1", "--hidden-size", "1", "--seq-len", str(LEAST_T)]
    noise = ["--noise", "0"] if task == "sine" else []
    main(["--task", task, *smallest, *noise, "--plots-dir", str(tmp_path / "new" / "plots")])
    assert figures(tmp_path / "new" / "plots") == FIGURES[task]


WRONG_OPTIONS = [
    ("--updates 0", "--updates: expected at least 1, got 0"),
    ("--updates 1e3", "--updates: invalid int value: '1e3'"),
    ("--hidden-size -4", "--hidden-size: expected at least 1, got -4"),
    ("--seq-len 1", f"--seq-len: expected at least {LEAST_T}, got 1"),
    ("--learning-rate 0", "--learning-rate: expected at least 1e-09, got 0"),
    ("--learning-rate nan", "--learning-rate: expected at least 1e-09, got nan"),
    ("--clip 0", "--clip: expected at least 1e-09, got 0"),
    ("--noise -0.1", "--noise: expected at least 0, got -0.1"),
    ("--noise inf", "--noise: expected "),
    ("--task adding --noise 0.1", "--noise has no effect on --task adding"),
    ("--seed -1", "--seed: expected at least 0, got -1"),
    ("--task xor", "--task: invalid choice: 'xor' (choose from "),
    ("--hidden 3", "unrecognized arguments: --hidden"),  # a later option could change what it means
    ("--plots-dir FILE", "--plots-dir: expected a folder, got "),
    ("--plots-dir FILE/below", "--plots-dir: expected a folder, got "),
]


@pytest.mark.parametrize("argv, message", WRONG_OPTIONS)
def test_a_wrong_option_ends_with_status_2_and_what_would_be_right_before_any_work(
    argv, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(gru_from_scratch, "train", None)  # to call it is another error
    file = tmp_path / "file"
    file.write_text("mine")
    options = [word.replace("FILE", str(file)) for word in argv.split()]
    assert end_of_main("--plots-dir", tmp_path / "plots", *options) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("usage: ")
    assert message in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == [file] and file.read_text() == "mine"


@BOTH
@pytest.mark.filterwarnings("error")
def test_an_error_not_finite_ends_with_a_line_that_tells_what_to_try_and_keeps_the_curve(
    task, tmp_path
):
    wild = ["--task", task, *SMALL, "--learning-rate", "1e200", "--plots-dir", tmp_path]
    assert re.fullmatch(".*: update 2: error not finite; .* --learning-rate", end_of_main(*wild))
    assert figures(tmp_path) == CURVE[task]


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process alone")
def test_ctrl_c_ends_with_status_130_and_keeps_the_curve(tmp_path):
    argv = ["--updates", "10000", "--seq-len", str(LEAST_T), "--plots-dir", tmp_path]
    command, pipe = [sys.executable, SCRIPT, *argv, *SMALL[2:]], subprocess.PIPE
    # A shell may have started pytest with SIGINT ignored, which the child would inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
    signal.signal(signal.SIGINT, before)
    try:
        while not process.stdout.readline().startswith("    2000 "):  # the first progress line
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, "")
    assert figures(tmp_path) == CURVE["sine"]


@BOTH
def test_a_bug_inside_a_demo_is_not_swallowed(task, tmp_path, monkeypatch):
    def bug(*_):
        raise ValueError("a bug")

    monkeypatch.setattr(gru_from_scratch, "train", bug)
    with pytest.raises(ValueError, match="a bug"):
        main(["--task", task, "--plots-dir", str(tmp_path)])


@pytest.mark.parametrize("seed", range(5))
def test_the_default_run_on_sine_waves_comes_within_1_6_times_the_best_possible(seed, default_runs):
    assert default_runs["sine", seed].result()["held-out MSE"] <= 1.6 * 0.05**2 * (1 + 1 / 30)


@pytest.mark.parametrize("seed", range(5))
def test_the_default_run_on_the_adding_problem_learns_what_it_shows(seed, default_runs):
    """It answers, the update gate opens at the marks, and the gradient gets back to h_0."""
    rows = default_runs["adding", seed].result()
    assert rows["held-out MSE"] < 0.01
    assert rows["mean z, marked steps"] > rows["mean z, other steps"]
    assert rows["trained"] >= 1000 * rows["untrained"]
    assert rows["trained"] > 100 * rows["z held at 1"]
