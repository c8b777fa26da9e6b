"""gru_pytorch.py: what the networks see, nn.GRU line by line, training, the comparison with LSTM,
the figures, and the command line with what can go wrong there."""

import contextlib
import dataclasses
import errno
import io
import itertools
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import gru_pytorch
from gru_pytorch import (
    Network,
    NextStep,
    Record,
    SequenceModel,
    Task,
    adding_task,
    best_possible_mse,
    build,
    evaluate,
    first_below,
    fit,
    free_running,
    lstm_size_like_gru,
    main,
    make_task,
    networks,
    one_step,
    parameter_count,
    parse_options,
    plot_comparison,
    plot_forecast,
    plot_training_curve,
    read_series,
    series_task,
    sine_waves,
    split_series,
    spread,
    time_updates,
    train_step,
)

CPU = torch.device("cpu")
CELLS = pytest.mark.parametrize("cell", ["gru", "lstm"])
# Without noise there is no best possible MSE to work out, which takes longer than this training.
SMALL = ("--quick", "--seq-len", "6", "--hidden-size", "4", "--noise", "0", "--device", "cpu")


@pytest.fixture
def chosen(tmp_path):
    """The options as the script reads them from a command line."""

    def parse(*argv):
        folder = ("--plots-dir", tmp_path / "plots", "--device", "cpu")
        return parse_options([str(word) for word in (*folder, *argv)])

    return parse


def random_pairs(count=20, T=6, seed=0):
    """Noise that grows from the first sequence to the last, so that no two batches are alike."""
    sequences = torch.randn(count, T + 1, 1, generator=torch.Generator().manual_seed(seed))
    return NextStep(sequences * torch.linspace(0.5, 3, count)[:, None, None])


def small_task(count=20):
    return Task("small", "noise", 1, random_pairs(count), random_pairs(count, seed=1), 0.01, {})


def small_model(cell="gru", input_size=1, output_size=1, layers=1, dtype=torch.float32):
    """A network with larger random weights than nn.GRU's own first ones, biases included."""
    torch.manual_seed(3)
    model = SequenceModel(cell, input_size, 5, output_size, layers).to(dtype)
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -1, 1)
    return model


def weights(model):
    """A copy of all parameters as one vector."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def numbers_file(folder, values, name="series.txt"):
    path = folder / name
    path.write_text("".join(f"{value!r}\n" for value in values))
    return path


def wave(length):
    """A series of Python's own floats that is neither periodic in steps nor without a mean."""
    return [3 + math.sin(i / 4) + 0.3 * math.sin(i / 1.7) for i in range(length)]


# --- What the networks see ----------------------------------------------------------------------


def test_the_targets_are_the_inputs_one_step_later():
    sequences = torch.arange(5 * 8 * 2).reshape(5, 8, 2)  # no number twice
    pairs = NextStep(sequences)
    assert len(pairs) == 5
    for i, (x, y) in enumerate(pairs[i] for i in range(5)):
        assert x.shape == y.shape == (7, 2)
        assert torch.equal(x, sequences[i, :-1])
        assert torch.equal(y[:-1], x[1:])
        assert torch.equal(y[-1], sequences[i, -1])


def test_a_loader_gives_batches_of_sequences_in_the_layout_of_batch_first(chosen):
    task = make_task(chosen("--quick", "--seq-len", 9, "--noise", 0), seed=0)
    x, y = next(iter(DataLoader(task.train, 7)))
    assert x.shape == y.shape == (7, 9, 1)
    assert torch.equal(y[:, :-1], x[:, 1:])


@pytest.mark.parametrize("length, seq_len", [(60, 5), (57, 9), (2003, 5), (3000, 40)])
def test_no_window_crosses_the_split(length, seq_len, tmp_path, chosen):
    path = numbers_file(tmp_path, range(length))  # a number is its own place in the series
    options = chosen("--quick", "--data", path, "--seq-len", seq_len)
    task = series_task(options)
    cut = length * 4 // 5

    def places(pairs):
        x, y = zip(*(pairs[i] for i in range(len(pairs))))
        windows = torch.cat([torch.stack(x), torch.stack(y)[:, -1:]], dim=1)[:, :, 0]
        return torch.round(task.mean + task.scale * windows.double()).int()

    for pairs, first, end in ((task.train, 0, cut), (task.validation, cut, length)):
        windows = places(pairs)
        assert windows.shape[1] == seq_len + 1
        assert torch.all(windows.diff(dim=1) == 1)  # steps that follow each other
        assert windows[0, 0] == first and windows.max() < end
        # Every window of a short part; of a long one about options.sequences, evenly spaced.
        every, (step,) = end - first - seq_len, windows[:, 0].diff().unique().tolist()
        assert len(windows) == math.ceil(every / step)
        assert min(every, options.sequences) <= len(windows) <= 2 * options.sequences


def test_the_statistics_are_those_of_the_training_part():
    numbers = [2.0, 4, 4, 4, 5, 5, 7, 9]  # mean 5, deviation 2
    split = split_series(torch.tensor([*numbers, 11, 1], dtype=torch.float64), seq_len=1)
    assert (split.mean, split.deviation) == (5, 2)
    assert split.train[:, 0].tolist() == [-1.5, -0.5, -0.5, -0.5, 0, 0, 1, 2]
    assert split.validation[:, 0].tolist() == [3, -2]


def test_persistence_is_in_the_units_of_the_series_and_what_has_to_be_beaten(tmp_path, chosen):
    path = numbers_file(tmp_path, range(0, 200, 2))  # a step of 2 is a squared error of 4
    task = series_task(chosen("--data", path, "--seq-len", 5))
    assert task.references == {"persistence": pytest.approx(4, rel=1e-4)}
    assert task.threshold == task.references["persistence"]


def test_nothing_of_the_validation_part_leaks_into_the_training_windows(tmp_path, chosen):
    def task(validation):
        path = numbers_file(tmp_path, wave(80) + validation)
        return series_task(chosen("--data", path, "--seq-len", 5))

    calm, wild = task(wave(100)[80:]), task([1e6 * (-3) ** i for i in range(20)])
    assert (calm.mean, calm.scale) == (wild.mean, wild.scale)
    assert calm.mean == pytest.approx(np.mean(wave(80)), rel=1e-12)
    assert calm.scale == pytest.approx(np.std(wave(80)), rel=1e-12)
    assert torch.equal(calm.train.sequences, wild.train.sequences)
    assert not torch.equal(calm.validation.sequences, wild.validation.sequences)


@pytest.mark.parametrize("noise", [0, 0.2])
def test_training_and_validation_waves_are_different_draws(noise, chosen):
    task = make_task(chosen("--quick", "--noise", noise), seed=0)
    ours, theirs = (pairs.sequences[:, :, 0] for pairs in (task.train, task.validation))
    assert ours.shape == theirs.shape == (128, 31)
    assert torch.all((ours[:, None] != theirs[None]).any(dim=2))  # not one wave is in both


@pytest.mark.parametrize("task", ["sine", "adding"])
def test_the_same_seed_draws_the_same_data_and_another_seed_other_data(task, chosen):
    options = chosen("--quick", "--noise", 0, "--compare", "--task", task)

    def drawn(seed):
        task = make_task(options, seed)
        return [torch.cat([task.train[i][0], task.validation[i][0]]) for i in range(100)]

    first, again, other = map(drawn, (1, 1, 2))
    assert all(map(torch.equal, first, again))
    assert not any(map(torch.equal, first, other))


def test_the_noise_is_on_top_of_a_sine_of_amplitude_1_and_any_phase():
    noisy, clean = sine_waves(torch.Generator().manual_seed(0), 2000, 60, noise=0.2)
    torch.testing.assert_close(clean[:, :30], clean[:, 30:], rtol=0, atol=1e-5)  # the period
    assert clean.abs().max().item() == pytest.approx(1, abs=1e-4)
    assert abs(clean[:, 0].mean().item()) < 0.07
    assert clean[:, 0].var().item() == pytest.approx(0.5, abs=0.04)
    assert (noisy - clean).std().item() == pytest.approx(0.2, rel=0.02)
    assert abs((noisy - clean).mean().item()) < 0.005


def test_the_best_possible_mse_of_the_first_step_is_the_known_one():
    """0.0264 (a wave's first value leaves two phases open), where persistence has 0.0269."""
    waves, _ = sine_waves(torch.Generator().manual_seed(0), 8000, 2, noise=0.05)
    assert best_possible_mse(waves, 0.05) == pytest.approx(0.0264, rel=0.05)


def test_the_best_possible_mse_is_nan_where_its_grid_is_too_coarse():
    waves, _ = sine_waves(torch.Generator().manual_seed(0), 3, 5, noise=0)
    assert math.isnan(best_possible_mse(waves, 0))


@pytest.mark.parametrize("T", [2, 7, 10])
def test_the_adding_problem_asks_for_the_sum_of_one_marked_number_of_either_half(T, chosen):
    options = chosen("--quick", "--compare", "--task", "adding", "--seq-len", T)
    task = adding_task(options, seed=0)
    x, y = task.train[:]
    assert x.shape == (128, T, 2) and y.shape == (128, 1, 1)
    numbers, markers = x.unbind(dim=2)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert set(markers.unique().tolist()) <= {0, 1}
    assert torch.all(markers[:, : T // 2].sum(dim=1) == 1)
    assert torch.all(markers[:, T // 2 :].sum(dim=1) == 1)
    assert torch.all(markers.sum(dim=0) > 0)  # any step can be marked
    for i in range(128):
        first, second = numbers[i, markers[i] == 1].tolist()
        assert y[i].item() == pytest.approx(first + second, rel=1e-6)
    assert not torch.equal(x, task.validation[: len(x)][0])


def test_always_answering_1_has_the_mse_one_sixth_on_the_adding_problem(chosen):
    task = adding_task(chosen("--compare", "--task", "adding", "--seq-len", 4), seed=0)
    _, y = task.train[:]
    # The squared error has the deviation 0.2, so this is 5 standard errors of 76,800 draws.
    assert torch.mean((y - 1) ** 2).item() == pytest.approx(1 / 6, abs=0.0036)
    assert task.references == {"always answering 1": 1 / 6}


@pytest.mark.parametrize(
    "content, column, values",
    [
        (b"1\n2.5\n-3e2\n", None, [1, 2.5, -300]),
        (b" 1 \n2", None, [1, 2]),
        (b"\xef\xbb\xbf1\r\n2\r\n\r\n\r\n", None, [1, 2]),  # as Windows writes it
        (b'day,sold\n"1, May",2\n"2, May",3\n', "sold", [2, 3]),
        (b"\xef\xbb\xbfsold , day\r\n4,1\r\n5,2\r\n", "sold", [4, 5]),
    ],
)
def test_a_series_is_read_from_lines_or_from_a_column(content, column, values, tmp_path):
    path = tmp_path / "series"
    path.write_bytes(content)
    series = read_series(path, column)
    assert series.dtype == torch.float64
    assert series.tolist() == values


# --- The model ----------------------------------------------------------------------------------


@CELLS
def test_every_step_of_every_sequence_gets_an_output(cell):
    model = small_model(cell, input_size=3, output_size=2, layers=2)
    assert model(torch.randn(4, 7, 3)).shape == (4, 7, 2)


@CELLS
def test_the_first_axis_is_the_batch(cell):
    model = small_model(cell, input_size=3, dtype=torch.float64)
    x = torch.randn(4, 7, 3, dtype=torch.float64)
    order = [2, 0, 3, 1]
    y = model(x)
    torch.testing.assert_close(model(x[order]), y[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(model(x[1:2]), y[1:2], rtol=0, atol=1e-12)


@CELLS
def test_the_last_state_keeps_layers_batch_hidden_whatever_batch_first_says(cell):
    model = small_model(cell, input_size=3, layers=2)
    output, last = model.recurrent(torch.randn(4, 7, 3))
    h_n = last if cell == "gru" else last[0]
    assert output.shape == (4, 7, 5)
    assert h_n.shape == (2, 4, 5)
    assert torch.equal(h_n[-1], output[:, -1])


def states_by_hand(gru, x, h, reset_after):
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
    model = small_model(input_size=3, output_size=2, dtype=torch.float64)
    x = torch.randn(4, 9, 3, dtype=torch.float64)
    h0 = torch.randn(4, 5, dtype=torch.float64)
    with torch.no_grad():
        states, _ = model.recurrent(x, h0[None])
        after = states_by_hand(model.recurrent, x, h0, reset_after=True)
        before = states_by_hand(model.recurrent, x, h0, reset_after=False)
        from_zero = states_by_hand(model.recurrent, x, torch.zeros_like(h0), reset_after=True)
        y = from_zero @ model.head.weight.T + model.head.bias
        torch.testing.assert_close(model(x), y, rtol=0, atol=1e-12)
    torch.testing.assert_close(states, after, rtol=0, atol=1e-12)
    assert (states - before).abs().max() > 0.1


@CELLS
@pytest.mark.parametrize("layers", [1, 2])
def test_the_forecast_at_a_step_depends_on_no_later_input(cell, layers):
    model = small_model(cell, input_size=2, layers=layers, dtype=torch.float64)
    x = torch.randn(1, 8, 2, dtype=torch.float64)
    y = model(x)
    for t in range(7):
        changed = x.clone()
        changed[:, t + 1 :] += 1
        torch.testing.assert_close(model(changed)[:, : t + 1], y[:, : t + 1], rtol=0, atol=1e-12)

    jacobian = torch.autograd.functional.jacobian(lambda x: model(x)[0, :, 0], x)[:, 0]
    influence = jacobian.abs().sum(dim=2)  # (t of the forecast, s of the input)
    assert torch.all(influence.triu(diagonal=1) == 0)
    assert torch.all(influence[torch.ones(8, 8).tril() == 1] > 0)


@pytest.mark.parametrize("features, hidden_size, layers", [(1, 32, 1), (2, 64, 1), (3, 5, 3)])
def test_the_recurrent_layers_of_lstm_and_gru_have_parameters_as_4_to_3(
    features, hidden_size, layers
):
    lstm, gru = (
        parameter_count(SequenceModel(cell, features, hidden_size, layers=layers).recurrent)
        for cell in ("lstm", "gru")
    )
    assert 3 * lstm == 4 * gru
    in_each_gate = hidden_size * (features + hidden_size + 2)
    in_each_gate += (layers - 1) * hidden_size * (2 * hidden_size + 2)
    assert gru == 3 * in_each_gate


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("hidden_size", [1, 2, 3, 8, 13, 32])
def test_the_smaller_lstm_has_the_size_closest_to_the_parameters_of_the_gru(hidden_size, layers):
    def count(cell, size):
        return parameter_count(SequenceModel(cell, 2, size, layers=layers))

    wanted = count("gru", hidden_size)
    distance = {size: abs(count("lstm", size) - wanted) for size in range(1, hidden_size + 2)}
    assert distance[lstm_size_like_gru(2, hidden_size, layers)] == min(distance.values())


def test_the_seed_fixes_the_first_weights(chosen):
    options, task = chosen("--layers", 2), small_task()
    one, again, other = (weights(build("gru", 6, task, options, seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len(one) == parameter_count(SequenceModel("gru", 1, 6, layers=2))


# --- Training -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [7, 19])
def test_batches_of_unequal_size_give_the_same_validation_error_as_one_large_batch(batch_size):
    model, pairs = small_model(), random_pairs()
    errors = [evaluate(model, DataLoader(pairs, size), CPU) for size in (len(pairs), batch_size)]
    assert errors[1] == pytest.approx(errors[0], rel=1e-6)
    x, y = map(torch.stack, zip(*(pairs[i] for i in range(len(pairs)))))
    assert errors[0] == pytest.approx(torch.mean((model(x) - y) ** 2).item(), rel=1e-6)


@pytest.mark.parametrize("batch_size", [7, 19])
def test_batches_of_unequal_size_give_the_same_training_error_as_one_large_batch(
    batch_size, chosen
):
    model, task = small_model(), small_task()
    before = weights(model)
    whole = evaluate(model, DataLoader(task.train, 20), CPU)
    options = chosen("--batch-size", batch_size, "--epochs", 2)
    epoch = math.ceil(20 / batch_size)
    records = list(fit(model, task, options, 1e-30, 0, epoch))  # a rate that moves no weight
    assert torch.equal(weights(model), before)
    assert [record.update for record in records] == [epoch, 2 * epoch]
    for record in records:
        assert record.train_mse == pytest.approx(whole, rel=1e-6)
        validation = evaluate(model, DataLoader(task.validation, 20), CPU)
        assert record.validation_mse == pytest.approx(validation, rel=1e-6)


def test_a_record_covers_the_batches_since_the_record_before(chosen):
    model, task = small_model(), small_task()
    whole = evaluate(model, DataLoader(task.train, 20), CPU)
    options = chosen("--batch-size", 7, "--epochs", 1)
    first, last = fit(model, task, options, 1e-30, seed=0, record_every=2)
    assert (first.update, last.update) == (2, 3)  # 14 sequences, and the 6 that are left
    assert (14 * first.train_mse + 6 * last.train_mse) / 20 == pytest.approx(whole, rel=1e-6)
    assert first.train_mse != pytest.approx(whole, rel=1e-3)


def test_errors_are_in_the_squared_units_of_the_data(chosen):
    options = chosen("--batch-size", 7, "--epochs", 2)

    def errors(scale):
        task = dataclasses.replace(small_task(), mean=4.0, scale=scale)
        records = list(fit(small_model(), task, options, 0.01, 0, 3))
        return np.array([record[1:3] for record in records])

    np.testing.assert_allclose(errors(10.0), 100 * errors(1.0), rtol=1e-6)


def test_nothing_of_the_validation_set_touches_training(chosen):
    options = chosen("--batch-size", 7, "--epochs", 3)

    def trained(validation):
        model, task = small_model(), dataclasses.replace(small_task(), validation=validation)
        records = list(fit(model, task, options, 0.01, 0, 1))
        return [record.train_mse for record in records], weights(model)

    errors, end = trained(random_pairs(seed=1))
    other_errors, other_end = trained(random_pairs(9, seed=2))
    assert errors == other_errors
    assert torch.equal(end, other_end)


def test_training_lowers_both_errors(chosen):
    task = make_task(chosen("--quick", "--noise", 0), seed=0)
    model, options = small_model(), chosen("--epochs", 4)
    records = list(fit(model, task, options, 0.03, 0, 4))
    assert len(records) == 4
    assert records[-1].train_mse < 0.2 * records[0].train_mse
    assert records[-1].validation_mse < 0.2 * records[0].validation_mse
    assert records[-1].seconds > records[0].seconds > 0


def gradient_of(model, x, y):
    """The gradient of the mean squared error as one vector, and that error."""
    loss = torch.mean((model(x) - y) ** 2)
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    return nn.utils.parameters_to_vector(gradient), loss


def test_an_update_clips_between_backward_and_step(monkeypatch):
    calls = []

    def noting(name, function):
        def wrapper(*args, **kwargs):
            calls.append(name)
            return function(*args, **kwargs)

        return wrapper

    model, (x, y) = small_model(), next(iter(DataLoader(random_pairs(), 20)))
    optimizer = torch.optim.Adam(model.parameters())
    for owner, name in (
        (torch.Tensor, "backward"),
        (nn.utils, "clip_grad_norm_"),
        (optimizer, "step"),
    ):
        monkeypatch.setattr(owner, name, noting(name, getattr(owner, name)))
    for _ in range(2):
        train_step(model, optimizer, x, y, clip=1.0)
    assert calls == ["backward", "clip_grad_norm_", "step"] * 2


@pytest.mark.parametrize("clip, clipped", [(1e-3, True), (1e9, False)])
def test_the_optimizer_sees_the_gradient_of_this_batch_with_at_most_the_largest_norm(clip, clipped):
    model = small_model(dtype=torch.float64)
    x, y = (values.double() for values in next(iter(DataLoader(random_pairs(), 20))))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    train_step(model, optimizer, 2 * x, -y, clip)  # leaves a gradient behind, and all weights
    optimizer.param_groups[0]["lr"] = 1.0
    before, (gradient, loss) = weights(model), gradient_of(model, x, y)
    assert 2e-3 < gradient.norm() < 1e3

    assert train_step(model, optimizer, x, y, clip) == pytest.approx(loss.item(), rel=1e-12)
    step = before - weights(model)
    expected = gradient * clip / gradient.norm() if clipped else gradient
    # torch adds 1e-6 to the norm.
    torch.testing.assert_close(step, expected, rtol=1e-4, atol=1e-12)
    assert step.norm() <= clip


def test_only_the_steps_that_have_targets_count():
    model, x = small_model(), torch.randn(4, 7, 1)
    y = torch.randn(4, 1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    error = torch.mean((model(x)[:, -1:] - y) ** 2).item()
    assert train_step(model, optimizer, x, y, clip=1.0) == pytest.approx(error, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_makes_no_update(bad):
    model, (x, y) = small_model(), next(iter(DataLoader(random_pairs(), 20)))
    optimizer = torch.optim.Adam(model.parameters())
    train_step(model, optimizer, x, y, clip=1.0)
    before = weights(model)
    y[3, 2] = bad
    assert not math.isfinite(train_step(model, optimizer, x, y, clip=1.0))
    assert torch.equal(weights(model), before)
    assert {int(state["step"]) for state in optimizer.state.values()} == {1}


def test_fit_stops_with_the_number_of_the_update_whose_loss_is_not_finite(chosen):
    options = chosen("--batch-size", 7)
    with pytest.raises(FloatingPointError, match=r"the loss is (nan|inf) at update 2\b.*1e\+30"):
        list(fit(small_model(), small_task(), options, 1e30, 0, 3))

    task = small_task()
    task.train.sequences[:] = math.nan
    with pytest.raises(FloatingPointError, match=r"the loss is nan at update 1\b.*--learning-rate"):
        list(fit(small_model(), task, options, 0.01, 0, 3))


def test_the_learning_rate_falls_to_zero_as_a_cosine(chosen, monkeypatch):
    rates, optimizers = [], []

    def noting(model, optimizer, *rest):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizers.append(optimizer)
        return train_step(model, optimizer, *rest)

    monkeypatch.setattr(gru_pytorch, "train_step", noting)
    list(fit(small_model(), small_task(), chosen("--batch-size", 7, "--epochs", 4), 0.02, 0, 3))
    expected = [0.01 * (1 + math.cos(math.pi * k / 12)) for k in range(12)]
    np.testing.assert_allclose(rates, expected, rtol=1e-9)
    assert optimizers[-1].param_groups[0]["lr"] == pytest.approx(0, abs=1e-15)


# --- Forecasts ----------------------------------------------------------------------------------


def test_a_one_step_prediction_sees_the_window_before_it_and_nothing_else():
    model, series, window = small_model(dtype=torch.float64), torch.randn(30, 1).double(), 6
    predictions = one_step(model, series, window)
    assert predictions.shape == (24,)
    for k in (0, 7, 23):
        expected = model(series[None, k : k + window])[0, -1, 0]
        assert predictions[k].item() == pytest.approx(expected.item(), abs=1e-12)
    for t in (3, 12, 29):
        changed = series.clone()
        changed[t] += 1
        moved = (one_step(model, changed, window) - predictions).abs() > 1e-12
        # The prediction at place k is of step window + k, from the steps k .. window + k - 1.
        assert moved.tolist() == [k <= t < window + k for k in range(24)]


def test_a_long_series_is_predicted_in_parts_without_a_gap():
    model, series = small_model(), torch.randn(2500, 1)
    predictions = one_step(model, series, 3)
    assert predictions.shape == (2497,)
    torch.testing.assert_close(predictions[2000:], one_step(model, series[2000:], 3))


def test_the_free_running_forecast_feeds_on_itself():
    """So predicting one step ahead along its own continuation must give that continuation."""
    model, start = small_model(dtype=torch.float64), torch.randn(6, 1).double()
    free = free_running(model, start, 20)
    assert free.shape == (20,)
    continued = torch.cat([start, free[:, None]])
    torch.testing.assert_close(one_step(model, continued, 6), free, rtol=0, atol=1e-12)


# --- The comparison -----------------------------------------------------------------------------


def test_the_comparison_is_of_gru_lstm_of_the_same_size_and_lstm_with_as_many_parameters(chosen):
    gru, lstm, smaller = networks(chosen("--compare", "--hidden-size", 32), features=1)
    assert [side.cell for side in (gru, lstm, smaller)] == ["gru", "lstm", "lstm"]
    assert gru.hidden_size == lstm.hidden_size == 32 > smaller.hidden_size
    assert abs(smaller.parameters - gru.parameters) < 0.04 * gru.parameters
    assert (gru.parameters, lstm.parameters) == (3393, 4513)
    for side in (gru, lstm, smaller):
        assert list(side.runs) == pytest.approx([0.01, 0.03, 0.09])


@pytest.mark.parametrize("task", ["sine", "adding"])
def test_every_network_of_the_comparison_gets_the_same_batches_in_the_same_order(
    task, tmp_path, capsys, monkeypatch
):
    runs = []

    def noting_fit(model, task, options, rate, seed, every):
        runs.append(((model.recurrent.mode, parameter_count(model), rate), seed, []))
        yield from fit(model, task, options, rate, seed, every)

    def noting_step(model, optimizer, x, *rest):
        runs[-1][2].append(x)
        return train_step(model, optimizer, x, *rest)

    monkeypatch.setattr(gru_pytorch, "time_updates", lambda *_: None)
    monkeypatch.setattr(gru_pytorch, "fit", noting_fit)
    monkeypatch.setattr(gru_pytorch, "train_step", noting_step)
    assert main([*SMALL, "--compare", "--task", task, "--plots-dir", str(tmp_path)]) == 0

    seeds = {seed for _, seed, _ in runs}
    assert len(seeds) >= 3
    of_each_seed = {seed: [(key, xs) for key, s, xs in runs if s == seed] for seed in seeds}
    batches = [torch.stack(kept[0][1]) for kept in of_each_seed.values()]
    for kept, expected in zip(of_each_seed.values(), batches):
        keys = {key for key, _ in kept}
        assert len(keys) == len(kept) == 9  # three networks, three rates
        assert {mode for mode, _, _ in keys} == {"GRU", "LSTM"}
        assert all(torch.equal(torch.stack(xs), expected) for _, xs in kept)
    everything = [xs.flatten().sort().values for xs in batches]
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(everything, 2))


def test_every_epoch_has_an_order_of_its_own_and_every_sequence_once(chosen, monkeypatch):
    seen = []

    def noting(model, optimizer, x, *rest):
        seen.append(x[:, 0, 0])
        return train_step(model, optimizer, x, *rest)

    monkeypatch.setattr(gru_pytorch, "train_step", noting)
    task = small_task()
    list(fit(small_model(), task, chosen("--batch-size", 7, "--epochs", 2), 0.01, 0, 3))
    assert [len(x) for x in seen] == [7, 7, 6] * 2
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert not torch.equal(first, second)
    everything = task.train.sequences[:, 0, 0].sort().values
    assert torch.equal(first.sort().values, everything)
    assert torch.equal(second.sort().values, everything)


def test_the_time_of_an_update_is_measured_with_the_networks_taking_turns(chosen, monkeypatch):
    calls = []

    def noting(model, *_):
        fused = torch.backends.mkldnn.enabled
        calls.append((parameter_count(model), fused, torch.get_num_threads()))

    monkeypatch.setattr(gru_pytorch, "train_step", noting)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    options = chosen("--compare", *SMALL)
    sides = networks(options, features=1)
    time_updates(sides, small_task(), options)

    turns = [call for call, _ in itertools.groupby(calls)]
    one_round = list(dict.fromkeys(turns))
    assert len(turns) > len(one_round) and turns == one_round * (len(turns) // len(one_round))
    settings = {call[1:] for call in one_round}
    assert {(True, 1), (False, 1)} <= settings
    sizes = {side.parameters for side in sides}
    assert set(one_round) == {(size, *setting) for size in sizes for setting in settings}
    assert all(len(side.milliseconds) == len(settings) for side in sides)
    assert torch.get_num_threads() == 1 and torch.backends.mkldnn.enabled  # as it was


def records_of(*errors):
    """A Record every tenth update with these validation errors."""
    return [Record(10 * i, 1.0, error, 0.1) for i, error in enumerate(errors, start=1)]


def test_learned_is_the_first_record_below_the_threshold():
    assert first_below(records_of(0.5, 0.2, 0.3, 0.1), 0.25) == 20
    assert first_below(records_of(0.5, 0.2), 0.2) == math.inf  # below, not at


def test_a_spread_is_the_median_and_the_range_of_the_seeds():
    assert spread([30, 10, 80], ".0f") == "30 (10 - 80)"
    assert spread([30, math.inf, math.inf], ".0f") == "never (30 - never)"
    assert spread([0.3, 0.1], ".2g") == "0.2 (0.1 - 0.3)"


def three_runs():
    """Two rates of three seeds: 0.01 ends at the smaller median, 0.03 has the smaller minimum."""
    good = [records_of(0.9, 0.5, 0.2), records_of(0.7, 0.4, 0.1), records_of(0.8, 0.7, 0.6)]
    bad = [records_of(0.5, 0.5, 0.05), records_of(0.5, 0.5, 0.5), records_of(0.5, 0.5, 0.4)]
    return Network("gru", 4, 100, {0.01: good, 0.03: bad, 0.09: []})


def test_the_best_rate_has_the_smallest_final_error_in_the_median_of_the_seeds():
    assert three_runs().best_rate() == 0.01


# --- Figures ------------------------------------------------------------------------------------


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, instead of files."""
    kept = []
    monkeypatch.setattr(gru_pytorch, "save", lambda figure, path: kept.append(figure))
    return kept


def curves(axes):
    """The lines of a diagram by label, without vertical and horizontal ones."""
    return {line.get_label(): line for line in axes.lines if len(line.get_ydata()) > 2}


def heights(axes):
    """Where a diagram has horizontal lines."""
    ends = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 2]
    return [y for y, also in ends if y == also]


def test_the_training_curve_shows_both_errors_and_the_noise_floor_on_a_log_axis(drawn):
    task = dataclasses.replace(small_task(), references={"noise floor": 0.0025, "best": math.nan})
    records = [Record(i, 1 / i, 2 / i, 0.1) for i in (1, 2, 3)]
    plot_training_curve(records, "GRU", task, Path("curve.png"))
    (axes,) = drawn[0].axes
    assert axes.get_yscale() == "log"
    assert list(curves(axes)["training"].get_ydata()) == [1, 1 / 2, 1 / 3]
    assert list(curves(axes)["validation"].get_ydata()) == [2, 1, 2 / 3]
    assert list(curves(axes)["validation"].get_xdata()) == [1, 2, 3]
    assert heights(axes) == [0.0025]


def test_the_comparison_shows_the_median_and_the_range_at_the_best_rate(drawn):
    task = dataclasses.replace(small_task(), references={"always answering 1": 1 / 6})
    plot_comparison([three_runs()], task, Path("figure.png"))
    (axes,) = drawn[0].axes
    (median,) = curves(axes).values()
    assert list(median.get_xdata()) == [10, 20, 30]
    assert list(median.get_ydata()) == [0.8, 0.5, 0.2]
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in band} >= {(10, 0.7), (10, 0.9), (30, 0.1), (30, 0.6)}
    assert axes.get_yscale() == "log"
    assert set(heights(axes)) == {1 / 6, task.threshold}


def test_one_step_and_free_running_forecasts_are_apart_and_in_the_units_of_the_data(drawn):
    task = dataclasses.replace(small_task(), mean=100.0, scale=10.0)
    model, series = small_model(), torch.randn(40, 1)
    plot_forecast(model, series, None, 6, task, Path("forecast.png"))
    upper, lower = drawn[0].axes
    expected = (one_step(model, series, 6), free_running(model, series[:6], 34))
    for axes, forecast in ((upper, expected[0]), (lower, expected[1])):
        assert set(curves(axes)) == {"data", "prediction"}
        line = curves(axes)["prediction"]
        np.testing.assert_allclose(line.get_ydata(), 100 + 10 * forecast.numpy(), rtol=1e-6)
        assert list(line.get_xdata()) == list(range(6, 40))
        np.testing.assert_allclose(
            curves(axes)["data"].get_ydata(), 100 + 10 * series[:, 0].numpy(), rtol=1e-6
        )


# --- The command line ---------------------------------------------------------------------------

SCRIPT = Path(gru_pytorch.__file__)
CURVE, FORECAST = "gru_pytorch_training_curve.png", "gru_pytorch_forecast.png"


def started(*argv, cwd, script=SCRIPT):
    """The script as a process of its own, without a display."""
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}
    # Threads that wait actively for a core which another process has would take most of the time.
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    command = [sys.executable, str(script), *map(str, argv)]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    """Exit status, stdout and stderr."""
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def figures(folder):
    """The names of the files in folder, each of which must be a whole PNG picture."""
    for path in folder.iterdir():
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n"), path
        assert content.endswith(b"IEND\xaeB`\x82"), path
    return {path.name for path in folder.iterdir()}


def numbers(output):
    """What a training run printed, but for the seconds and the folder of the figures."""
    lines = [line for line in output.splitlines() if not line.startswith(("seconds", "figures"))]
    # The last column of an epoch is the time.
    return [line.split()[:-1] if re.match(r" *\d+ of ", line) else line for line in lines]


def summary(output):
    """The numbers by name that a training run ends with."""
    return {k: float(v) for k, v in re.findall(r"^(\S+(?: \S+)*?) +(\d\S*)", output, re.M)}


def rows(output):
    """How many rows the table of a comparison has for each network."""
    names = re.findall(r"^((?:GRU|LSTM) \d+)  ", output, re.M)
    return {name: names.count(name) for name in names}


def one_line(text):
    """True for exactly one line, and not that of a traceback."""
    return text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text


def run(*argv):
    """Status, stdout and stderr of main in this process, on the CPU."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["--device", "cpu", *map(str, argv)])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def one_core(monkeypatch):
    """A comparison here does not time threads, which would wait for other processes."""
    monkeypatch.setattr(os, "cpu_count", lambda: 1)


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """What the script prints if no option is given, and the folder of its figures."""
    plots = tmp_path_factory.mktemp("default")
    status, out, err = run("--plots-dir", plots)
    assert (status, err) == (0, "")
    return out, plots


def test_the_default_run_comes_within_1_35_times_the_best_possible(default_run):
    out, plots = default_run
    table = summary(out)
    assert table["best possible"] < table["validation MSE"] <= 1.35 * 0.00368
    assert figures(plots) == {CURVE, FORECAST}
    assert len(re.findall(r"^ *\d+ of 30 ", out, re.M)) == 30


def test_the_best_possible_mse_lies_between_the_noise_and_persistence_where_it_is_known_to(
    default_run,
):
    table = summary(default_run[0])
    assert table["noise floor"] == 0.0025
    # Over 1,000 waves the standard error is 0.9 %.
    assert table["best possible"] == pytest.approx(0.00368, rel=0.03)
    # A wave moves by up to 2 pi / 30 a step, and two noises differ: 0.0219 + 2 * 0.0025.
    assert table["persistence"] == pytest.approx(0.0269, rel=0.02)


def test_two_processes_with_one_seed_print_the_same_numbers_and_the_figures_lie_beside_the_script(
    tmp_path,
):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir(), elsewhere.mkdir()
    script = here / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())  # a copy, alone: it needs no other file of the project
    small = ("--quick", "--hidden-size", "8", "--seed", "4")
    copy = started(*small, cwd=elsewhere, script=script)
    original = started(*small, "--plots-dir", tmp_path / "new" / "plots", cwd=elsewhere)
    (status, out, err), (other_status, other_out, other_err) = map(finished, (copy, original))
    assert (status, other_status, err, other_err) == (0, 0, "", "")
    assert figures(here / "plots") == figures(tmp_path / "new" / "plots") == {CURVE, FORECAST}
    assert not any(elsewhere.iterdir())
    assert numbers(out) == numbers(other_out)
    assert re.search(r"^ *2 of 2( +\d\S*){3}$", out, re.M)  # the two errors and the seconds
    names = ("validation MSE", "best possible", "noise floor", "persistence", "parameters")
    assert summary(out).keys() >= {*names, "seconds"}


def test_another_seed_prints_other_numbers(tmp_path):
    outputs = [run(*SMALL, "--seed", seed, "--plots-dir", tmp_path)[1] for seed in "112"]
    first, again, other = map(numbers, outputs)
    assert first == again != other


def test_lstm_instead_of_gru(tmp_path):
    status, out, err = run(*SMALL, "--cell", "lstm", "--layers", "2", "--plots-dir", tmp_path)
    assert (status, err) == (0, "")
    assert figures(tmp_path) == {name.replace("gru", "lstm") for name in (CURVE, FORECAST)}
    expected = parameter_count(SequenceModel("lstm", 1, 4, layers=2))
    assert summary(out)["parameters"] == expected


def test_the_comparison_as_a_process_prints_nine_rows_and_draws_a_figure(tmp_path, one_core):
    plots = tmp_path / "plots"
    argv = ("--compare", "--quick", "--hidden-size", "8", "--seq-len", "10")
    process = started(*argv, "--plots-dir", plots, cwd=tmp_path)
    _, out_here, _ = run(*argv, "--plots-dir", tmp_path / "other")
    status, out, err = finished(process)
    assert (status, err) == (0, "")
    assert figures(plots) == {"gru_vs_lstm_sine.png"}
    assert rows(out) == {"GRU 8": 3, "LSTM 8": 3, "LSTM 7": 3}
    assert re.findall(r"\b(\d+) of (\d+)\b", out) == [(str(i), "27") for i in range(1, 28)]
    errors, errors_here = (re.findall(r" of 27.*MSE (\d\S*)", text) for text in (out, out_here))
    assert len(errors) == 27 and errors == errors_here  # the same numbers in both processes


def test_the_comparison_on_the_adding_problem(tmp_path, one_core):
    argv = ("--compare", "--task", "adding", "--quick", "--seq-len", "10", "--hidden-size", "8")
    status, out, err = run(*argv, "--plots-dir", tmp_path)
    assert (status, err) == (0, "")
    assert figures(tmp_path) == {"gru_vs_lstm_adding.png"}
    assert sum(rows(out).values()) == 9
    assert "0.16667" in out


def test_a_series_of_ones_own_is_forecast_in_its_own_units(tmp_path):
    def trained(values, plots):
        path = numbers_file(tmp_path, values)
        status, out, err = run("--quick", "--data", path, "--plots-dir", tmp_path / plots)
        assert (status, err) == (0, "")
        return summary(out)

    values = wave(300)
    table = trained(values, "a")
    larger = trained([1000 * value + 5 for value in values], "b")
    names = {f"gru_pytorch_data_{name}.png" for name in ("training_curve", "forecast")}
    assert figures(tmp_path / "a") == names

    steps = np.diff(values[240 + 30 - 1 :])  # from the last value of the first window on
    assert table["persistence RMSE"] == pytest.approx(np.sqrt(np.mean(steps**2)), rel=1e-4)
    for name, factor in (("RMSE", 1000), ("persistence RMSE", 1000), ("validation MSE", 1e6)):
        assert larger[name] == pytest.approx(factor * table[name], rel=1e-3)


def test_a_column_of_a_csv_file_is_the_same_series(tmp_path):
    values = wave(60)
    lines = numbers_file(tmp_path, values, "lines.txt")
    table = tmp_path / "table.csv"
    cells = "".join(f"day {i},{value!r},x\n" for i, value in enumerate(values))
    table.write_text("day,sold,note\n" + cells)
    small = ("--quick", "--seq-len", "5", "--cell", "lstm", "--plots-dir", tmp_path / "plots")
    outputs = [run(*small, "--data", *argv) for argv in ((lines,), (table, "--column", "sold"))]
    assert [status for status, _, _ in outputs] == [0, 0]
    assert summary(outputs[0][1])["RMSE"] == summary(outputs[1][1])["RMSE"]
    names = {f"lstm_pytorch_data_{name}.png" for name in ("training_curve", "forecast")}
    assert figures(tmp_path / "plots") == names


def test_the_comparison_on_a_series_of_ones_own(tmp_path, one_core):
    path = numbers_file(tmp_path, wave(100))
    argv = ("--compare", "--quick", "--seq-len", "5", "--hidden-size", "4", "--data", path)
    status, out, err = run(*argv, "--plots-dir", tmp_path / "plots")
    assert (status, err) == (0, "")
    assert figures(tmp_path / "plots") == {"gru_vs_lstm_data.png"}
    assert sum(rows(out).values()) == 9


def test_help_names_every_option():
    status, out, err = run("--help")
    assert (status, err) == (0, "")
    names = "cell compare task data column epochs batch-size hidden-size layers seq-len noise"
    names += " learning-rate clip seed device plots-dir quick"
    for name in names.split():
        assert re.search(rf"^ +--{name}\b", out, re.M), name


# --- What the command line refuses --------------------------------------------------------------


@pytest.fixture
def no_training(monkeypatch):
    def begun(*_):
        raise AssertionError("it began")

    for function in ("make_task", "build", "fit"):
        monkeypatch.setattr(gru_pytorch, function, begun)


def refused(*argv):
    """The one line on stderr with which the script ends at once."""
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert one_line(err)
    return err


WHOLE_NUMBERS = {
    "--epochs": 1,
    "--batch-size": 1,
    "--hidden-size": 1,
    "--layers": 1,
    "--seq-len": 2,
    "--seed": 0,
}
WRONG_OPTIONS = [
    (f"{name}={value}", f"{name}: expected a whole number from {low} to ")
    for name, low in WHOLE_NUMBERS.items()
    for value in (low - 1, -3, 2.5, "1e3", "nan", "inf", "many", "", "9" * 5000)
]
WRONG_OPTIONS += [
    (f"{name}={value}", f"{name}: expected a finite number above 0, got {value!r}")
    for name in ("--learning-rate", "--clip")
    for value in ("0", "-1", "nan", "inf", "1e999", "fast", "")
]
WRONG_OPTIONS += [
    (f"--noise={value}", f"--noise: expected a number from 0 to 1000, got {value!r}")
    for value in ("-0.1", "1001", "nan", "inf", "loud", "")
]
WRONG_OPTIONS += [
    ("--cell rnn", "--cell: invalid choice: 'rnn'"),
    ("--task copying", "--task: invalid choice: 'copying'"),
    ("--device tpu", "--device: expected auto or one of those here (cpu"),
    ("--task adding", "--task adding: expected --compare"),
    ("--column sold", "--column: expected --data"),
    ("--task adding --compare --data numbers.txt", "--task adding: expected no --data"),
    ("--clip", "--clip: expected one argument"),
    ("--updates 3", "--updates"),
    ("--hidden 3", "--hidden"),  # no abbreviations, which a later option could change
    ("numbers.txt", "numbers.txt"),
    pytest.param(
        "--device cuda",
        "--device: expected auto or one of those here (cpu",
        marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA"),
    ),
]


@pytest.mark.parametrize("words, message", WRONG_OPTIONS)
def test_a_wrong_option_ends_at_once_with_status_2_and_one_line(
    words, message, tmp_path, no_training
):
    assert message in refused("--plots-dir", tmp_path / "plots", *words.split())
    assert not any(tmp_path.iterdir())  # not even the folder


def test_a_wrong_option_as_a_process_is_one_line_and_status_2(tmp_path):
    status, out, err = finished(started("--hidden-size", "many", cwd=tmp_path))
    assert (status, out) == (2, "")
    assert one_line(err) and "--hidden-size" in err and "'many'" in err
    assert not any(tmp_path.iterdir())


def test_a_plots_dir_that_is_a_file_is_refused(tmp_path, no_training):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert "--plots-dir: expected a folder" in refused("--plots-dir", path)
    assert (tmp_path / "file").read_text() == "mine"


TEN = "".join(f"{i * i}\n" for i in range(10))
WRONG_DATA = {
    "a binary file": (b"\x89PNG\r\n\x1a\n\x00\x00\xff", None, ["expected a readable text file"]),
    "an empty file": (b"", None, ["got 0"]),
    "an empty file for a column": (b"", "sold", ["'sold'"]),
    "text": (b"1\n2\ntwelve\n4\n", None, ["line 3: ", "'twelve'"]),
    "nan": (b"1\nnan\n3\n", None, ["line 2: ", "finite number", "'nan'"]),
    "inf": (b"-inf\n2\n3\n", None, ["line 1: ", "finite number", "'-inf'"]),
    "an empty line": (b"1\n\n3\n", None, ["line 2: ", "''"]),
    "a CSV file without --column": (b"day,sold\n1,2\n", None, ["line 1: ", "--column"]),
    "no such column": (b"day,sold\n1,2\n", "price", ["'price'", "day, sold"]),
    "text in a column": (b"day,sold\n1,2\n2,few\n", "sold", ["line 3: ", "'few'"]),
    "a missing value": (b"day,sold\n1,2\n2,\n3,4\n", "sold", ["line 3: ", "''"]),
    "a missing last value": (b"day,sold\n1,2\n2,\n", "sold", ["line 3: ", "''"]),
    "a short row": (b"day,sold\n1,2\n2\n3,4\n", "sold", ["line 3: "]),
    "a constant series": (b"7.3\n" * 99, None, ["vary", "7.3"]),  # its mean is rounded
    "constant zeros": (b"0\n" * 99, None, ["vary"]),
    "a constant training part": (b"7\n" * 80 + TEN.encode() * 2, None, ["vary", "7"]),
    "a short series": (TEN.encode(), None, ["--seq-len 5", "got 10"]),
}


@pytest.mark.parametrize("content, column, parts", WRONG_DATA.values(), ids=WRONG_DATA.keys())
def test_data_that_will_not_do_ends_at_once_with_status_2_and_one_line(
    content, column, parts, tmp_path, no_training
):
    path = tmp_path / "data"
    path.write_bytes(content)
    choice = () if column is None else ("--column", column)
    plots = ("--plots-dir", tmp_path / "plots")
    err = refused("--data", path, *choice, "--seq-len", "5", *plots)
    assert str(path) in err
    for part in parts:
        assert part in err
    assert list(tmp_path.iterdir()) == [path]  # no folder for figures


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_missing_file_and_a_folder_are_no_data(name, tmp_path, no_training):
    assert "--data" in refused("--data", tmp_path / name, "--plots-dir", tmp_path / "plots")


@pytest.mark.parametrize("seq_len", [2, 10, 30])
def test_a_series_too_short_is_told_the_length_that_would_do(seq_len):
    with pytest.raises(ValueError, match="expected at least") as refusal:
        split_series(torch.arange(9.0), seq_len)
    enough = int(re.search(r"at least (\d+) numbers", str(refusal.value))[1])
    assert len(split_series(torch.arange(float(enough)), seq_len).validation) > seq_len
    with pytest.raises(ValueError, match="expected at least"):
        split_series(torch.arange(enough - 1.0), seq_len)


# --- What can go wrong later --------------------------------------------------------------------


def test_a_learning_rate_far_too_large_ends_the_run_with_status_1_and_one_line(tmp_path):
    status, _, err = run(*SMALL, "--learning-rate", "1e30", "--plots-dir", tmp_path)
    assert status == 1
    assert one_line(err)
    assert re.search(r"at update 2\b.*--learning-rate below 1e\+30", err)
    assert figures(tmp_path) == set()  # no epoch was complete


def test_weights_that_blow_up_in_the_last_update_are_a_failed_run_too(tmp_path):
    one_update = ("--epochs", "1", "--batch-size", "128")
    status, _, err = run(*SMALL, *one_update, "--learning-rate", "1e30", "--plots-dir", tmp_path)
    assert status == 1
    assert one_line(err)


def not_finite_after(updates):
    """train_step, but from then on the loss is NaN."""
    count = itertools.count(1)

    def step(*args):
        return train_step(*args) if next(count) <= updates else math.nan

    return step


def test_a_loss_that_is_no_longer_finite_keeps_the_curve_so_far(tmp_path, monkeypatch):
    monkeypatch.setattr(gru_pytorch, "train_step", not_finite_after(5))  # an epoch has 4
    status, out, err = run(*SMALL, "--plots-dir", tmp_path)
    assert status == 1
    assert one_line(err) and re.search(r"the loss is nan at update 6\b", err)
    assert re.search(r"^ *1 of 2 ", out, re.M)
    assert figures(tmp_path) == {CURVE}


def test_a_loss_that_is_no_longer_finite_keeps_the_complete_runs_of_a_comparison(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(gru_pytorch, "time_updates", lambda *_: None)
    monkeypatch.setattr(gru_pytorch, "train_step", not_finite_after(5 * 8 + 3))
    status, out, err = run("--compare", *SMALL, "--plots-dir", tmp_path)
    assert status == 1
    assert one_line(err) and re.search(r"the loss is nan at update 4\b", err)
    assert sum(rows(out).values()) == 5  # five runs of one row each
    assert figures(tmp_path) == {"gru_vs_lstm_sine.png"}


def interrupted(process, first_line):
    """Send Ctrl-C after the first line of stdout that matches. Status, all of stdout, stderr."""
    seen = ""
    for line in process.stdout:
        seen += line
        if re.match(first_line, line):
            break
    process.send_signal(signal.SIGINT)
    status, rest, err = finished(process)
    return status, seen + rest, err


@pytest.fixture
def default_sigint():
    """A shell may have started pytest with SIGINT ignored, which a child would inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


no_windows = pytest.mark.skipif(
    os.name == "nt", reason="Windows cannot send Ctrl-C to one process alone"
)


@no_windows
def test_ctrl_c_ends_the_run_with_status_130_and_keeps_the_curve(tmp_path, default_sigint):
    endless = ("--epochs", "100000", "--noise", "0", "--seq-len", "6", "--plots-dir", tmp_path)
    status, _, err = interrupted(started(*endless, cwd=tmp_path), r" *1 of 100000 ")
    assert status == 130
    assert one_line(err) and "interrupted" in err and str(tmp_path) in err
    assert figures(tmp_path) == {CURVE}


@no_windows
def test_ctrl_c_in_a_comparison_keeps_the_table_and_the_figure_of_what_is_complete(
    tmp_path, default_sigint
):
    # A batch of one sequence, so that a run takes longer than the signal.
    slow = ("--quick", "--batch-size", "1", "--noise", "0", "--hidden-size", "8")
    process = started("--compare", *slow, "--plots-dir", tmp_path, cwd=tmp_path)
    status, out, err = interrupted(process, r"run +1 of 27")
    assert status == 130
    assert one_line(err) and "interrupted" in err
    assert rows(out) == {"GRU 8": 1}
    assert figures(tmp_path) == {"gru_vs_lstm_sine.png"}


def half_written(path, content):
    """What Path.write_bytes does on a disk that is full."""
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


def no_replace(*_):
    raise OSError(errno.EACCES, "Permission denied")


@pytest.mark.parametrize("mode, name", [((), CURVE), (("--compare",), "gru_vs_lstm_sine.png")])
@pytest.mark.parametrize(
    "owner, function, fault", [(Path, "write_bytes", half_written), (os, "replace", no_replace)]
)
def test_a_figure_is_whole_or_absent(owner, function, fault, mode, name, tmp_path, monkeypatch):
    (tmp_path / name).write_bytes(b"an older figure")
    monkeypatch.setattr(gru_pytorch, "time_updates", lambda *_: None)
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, fault)
        status, _, err = run(*SMALL, *mode, "--plots-dir", tmp_path)
    assert status == 1
    assert one_line(err) and "could not write" in err
    assert [path.name for path in tmp_path.iterdir()] == [name]  # and no .partial beside it
    assert (tmp_path / name).read_bytes() == b"an older figure"


def test_a_lack_of_memory_is_one_line_and_another_fault_is_not_hidden(tmp_path, monkeypatch):
    def fails_with(message):
        def fails(*_):
            raise RuntimeError(message)

        monkeypatch.setattr(gru_pytorch, "build", fails)
        return run(*SMALL, "--plots-dir", tmp_path)

    status, _, err = fails_with("[enforce fail at alloc_cpu.cpp] can't allocate memory")
    assert status == 1
    assert one_line(err) and "memory" in err
    with pytest.raises(RuntimeError, match="shapes"):
        fails_with("shapes do not fit")


# --- With a GPU ---------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
@CELLS
def test_two_runs_on_cuda_give_the_same_numbers(cell, tmp_path):
    quick = ("--quick", "--cell", cell, "--device", "cuda", "--plots-dir", tmp_path)
    (status, out, err), (_, again, _) = run(*quick), run(*quick)
    assert (status, err) == (0, "")
    assert numbers(out) == numbers(again)
    assert "cuda" in out
    assert len(figures(tmp_path)) == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
def test_a_comparison_runs_on_cuda(tmp_path):
    status, out, err = run("--compare", "--quick", "--device", "cuda", "--plots-dir", tmp_path)
    assert (status, err) == (0, "")
    assert sum(rows(out).values()) == 9
