"""gru_from_scratch.py, apart from its gradients: the cell beside nn.GRU, learning beside PyTorch,
the data, what the API refuses, and the demo from the command line."""

import copy
import errno
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
from test_gradients import leaf, output_by_torch, states_by_torch

import gru_from_scratch
from gru_from_scratch import (
    GRU,
    PERIOD,
    Adam,
    History,
    best_possible_mse,
    clip_by_norm,
    free_running,
    gradient_norms,
    main,
    moving_mean,
    one_step,
    parse_options,
    sigmoid,
    sine_waves,
    train,
    train_step,
    with_z_held,
)

WEIGHTS = [f"{kind}_{gate}" for kind in "WUb" for gate in "zrh"] + ["W_y", "b_y"]


def network(input_size=2, hidden_size=5, output_size=3, T=7, B=4, dtype=np.float64):
    """A network with random weights, and random inputs, h0 and dy."""
    rng = np.random.default_rng(7)
    model = GRU(input_size, hidden_size, output_size, dtype=dtype)
    model.theta[:] = rng.uniform(-1, 1, model.theta.size)
    inputs = rng.standard_normal((T, input_size, B)).astype(dtype)
    h0 = rng.standard_normal((hidden_size, B)).astype(dtype)
    return model, inputs, h0, rng.standard_normal((output_size, B)).astype(dtype)


def passes(model, inputs, h0, dy):
    """One forward and one backward pass: y, gradient, d_inputs, d_h0."""
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


def torch_gru(model):
    """An nn.GRU with the weights of model: gates in the order r, z, n, and z replaced by 1 - z,
    which is sigma of the negated argument. Its second biases are zero."""
    p = model.parameters
    gru = torch.nn.GRU(model.input_size, model.hidden_size, dtype=torch.float64)
    stacked = {
        "weight_ih_l0": [p["W_r"], -p["W_z"], p["W_h"]],
        "weight_hh_l0": [p["U_r"], -p["U_z"], p["U_h"]],
        "bias_ih_l0": [p["b_r"][:, 0], -p["b_z"][:, 0], p["b_h"][:, 0]],
        "bias_hh_l0": [np.zeros(3 * model.hidden_size)],
    }
    with torch.no_grad():
        for name, blocks in stacked.items():
            getattr(gru, name).copy_(torch.tensor(np.concatenate(blocks)))
    return gru


def states_of_torch_gru(gru, inputs, h0):
    """The states h_1 .. h_T of nn.GRU as (T, H, B), and the leaves that inputs and h0 became."""
    inputs, h0 = leaf(inputs), leaf(h0)
    states, _ = gru(inputs.transpose(1, 2), h0.T[None].contiguous())  # (T, B, H)
    return states.transpose(1, 2), inputs, h0


def test_with_one_hidden_unit_the_cell_and_nn_gru_have_the_same_states_and_gradients():
    model, inputs, h0, dy = network(input_size=3, hidden_size=1, T=12)
    _, cache = model.forward(inputs, h0)
    gradient, d_inputs, d_h0 = model.backward(dy, cache)
    d = model.named(gradient)

    gru = torch_gru(model)
    states, torch_inputs, torch_h0 = states_of_torch_gru(gru, inputs, h0)
    y = torch.tensor(model.parameters["W_y"]) @ states[-1] + torch.tensor(model.parameters["b_y"])
    y.backward(torch.tensor(dy))

    assert_close(cache.h[1:], states, 1e-12)
    assert_close(d_inputs, torch_inputs.grad, 1e-12)
    assert_close(d_h0, torch_h0.grad, 1e-12)
    for kind, theirs in (("W", gru.weight_ih_l0), ("U", gru.weight_hh_l0), ("b", gru.bias_ih_l0)):
        d_r, d_z, d_n = theirs.grad.reshape(3, 1, -1)
        assert_close(d[f"{kind}_r"], d_r, 1e-12)
        assert_close(d[f"{kind}_z"], -d_z, 1e-12)
        assert_close(d[f"{kind}_h"], d_n, 1e-12)


def test_with_more_hidden_units_the_cell_and_nn_gru_differ():
    """The cell resets before the product, U_h @ (r * h); nn.GRU after it, r * (U_h @ h). With one
    unit that is the same product of three numbers. With more, U_h mixes units whose r differ."""
    model, inputs, h0, _ = network()
    _, cache = model.forward(inputs, h0)
    states, _, _ = states_of_torch_gru(torch_gru(model), inputs, h0)
    assert np.abs(cache.h[1:] - states.detach().numpy()).max() > 0.05


def test_with_a_diagonal_U_h_the_cell_and_nn_gru_have_the_same_states_and_gradients():
    """A diagonal U_h mixes no units, so it does not matter whether r comes before or after it."""
    model, inputs, h0, dy = network()
    U_h = model.parameters["U_h"]
    U_h[:] = np.diag(np.diag(U_h))
    _, cache = model.forward(inputs, h0)
    _, d_inputs, d_h0 = model.backward(dy, cache)

    states, torch_inputs, torch_h0 = states_of_torch_gru(torch_gru(model), inputs, h0)
    (torch.tensor(model.parameters["W_y"]) @ states[-1]).backward(torch.tensor(dy))
    assert_close(cache.h[1:], states, 1e-12)
    assert_close(d_inputs, torch_inputs.grad, 1e-12)
    assert_close(d_h0, torch_h0.grad, 1e-12)


# --- Forward and backward -----------------------------------------------------------------------


def test_a_batch_equals_its_sequences_one_by_one():
    model, inputs, h0, dy = network(B=4)
    y, gradient, d_inputs, d_h0 = passes(model, inputs, h0, dy)
    total = np.zeros_like(gradient)
    for b in range(4):
        one = slice(b, b + 1)
        y_b, gradient_b, d_inputs_b, d_h0_b = passes(
            model, inputs[:, :, one], h0[:, one], dy[:, one]
        )
        assert_close(y_b, y[:, one], 1e-13)
        assert_close(d_inputs_b, d_inputs[:, :, one], 1e-13)
        assert_close(d_h0_b, d_h0[:, one], 1e-13)
        total += gradient_b
    assert_close(total, gradient, 1e-13)


def test_a_list_of_steps_and_one_array_give_the_same_bits():
    model, inputs, h0, dy = network()
    as_array = passes(model, inputs, h0, dy)
    assert_same(passes(model, list(inputs), h0, dy), as_array)
    assert_same(passes(model, inputs.tolist(), h0.tolist(), dy.tolist()), as_array)


def test_h0_is_zero_unless_given():
    model, inputs, h0, _ = network()
    y, _ = model.forward(inputs)
    assert_same([y], [model.forward(inputs, np.zeros_like(h0))[0]])
    assert not np.array_equal(y, model.forward(inputs, h0)[0])


def test_a_second_backward_pass_on_one_cache_gives_the_same_bits():
    model, inputs, h0, dy = network()
    _, cache = model.forward(inputs, h0)
    first = model.backward(dy, cache)
    kept = copy.deepcopy(first)
    assert_same(model.backward(dy, cache), kept)
    assert_same(first, kept)  # and the second pass left the first one's result alone


def test_two_caches_do_not_disturb_each_other():
    model, inputs, h0, dy = network()
    alone = passes(model, inputs, h0, dy)[1:]
    _, first = model.forward(inputs, h0)
    _, second = model.forward(2 * inputs, -h0)
    model.backward(dy, second)
    assert_same(model.backward(dy, first), alone)


def test_what_happens_to_the_inputs_after_the_forward_pass_does_not_matter():
    model, inputs, h0, dy = network()
    expected = passes(model, inputs, h0, dy)[1:]
    _, cache = model.forward(inputs, h0)
    inputs[:], h0[:] = 0, 0
    assert_same(model.backward(dy, cache), expected)


def test_float32_stays_float32_and_is_as_near_to_float64_as_its_digits_allow():
    model, inputs, h0, dy = network(dtype=np.float32)
    single = passes(model, inputs, h0, dy)
    double_model = GRU(2, 5, 3)
    double_model.theta[:] = model.theta
    double = passes(double_model, inputs, h0, dy)
    for a, b in zip(single, double):
        assert a.dtype == np.float32 and b.dtype == np.float64
        assert_close(a, b, 1e-5)

    optimizer = Adam(model.theta)
    train_step(model, optimizer, inputs, dy, max_norm=1.0)
    assert model.theta.dtype == optimizer.m.dtype == optimizer.v.dtype == np.float32


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoid_of_plus_and_minus_1000_is_exactly_1_and_0_without_a_warning(dtype):
    s = sigmoid(np.array([-1000, 0, 1000], dtype))
    assert s.dtype == dtype
    assert s.tolist() == [0.0, 0.5, 1.0]


def test_sigmoid_is_the_logistic_function_and_leaves_its_argument_alone():
    a = np.linspace(-30, 30, 601)
    before = a.copy()
    assert_close(sigmoid(a), 1 / (1 + np.exp(-a)), 4e-16)
    assert_same([a], [before])


@pytest.mark.filterwarnings("error")
def test_gates_that_are_fully_open_or_closed_are_exact():
    model, inputs, h0, _ = network()
    for bias, state in ((-1000, lambda cache: h0), (1000, lambda cache: cache.h_tilde[-1])):
        model.parameters["b_z"][:] = bias
        _, cache = model.forward(inputs, h0)
        assert np.all(cache.z == (bias > 0))
        assert_same([cache.h[-1]], [state(cache)])


def test_gradient_norms_are_those_of_autograd_and_begin_with_d_h0():
    model, inputs, _, _ = network(output_size=1)
    norms = gradient_norms(model, inputs)

    p = {name: torch.tensor(array) for name, array in model.parameters.items()}
    h = states_by_torch(p, torch.tensor(inputs), leaf(np.zeros((5, 4))))
    for h_t in h:
        h_t.retain_grad()
    (p["W_y"] @ h[-1]).sum().backward()
    expected = np.array([np.linalg.norm(h_t.grad.numpy(), axis=0) for h_t in h])
    assert_close(norms, expected / expected[-1], 1e-12)

    y, cache = model.forward(inputs)
    _, _, d_h0 = model.backward(np.ones_like(y), cache)
    at_the_end = np.linalg.norm(model.parameters["W_y"])
    assert_close(norms[0], np.linalg.norm(d_h0, axis=0) / at_the_end, 1e-12)


# --- The weights --------------------------------------------------------------------------------


def test_the_parameters_are_views_that_fill_theta_once():
    model, *_ = network()
    p = model.parameters
    assert list(p) == WEIGHTS
    model.theta[:] = np.arange(model.theta.size)
    assert sorted(np.concatenate([w.ravel() for w in p.values()])) == model.theta.tolist()
    for name, weight in p.items():
        weight[:] = 1000
        assert np.count_nonzero(model.theta == 1000) == weight.size, name
        model.theta[:] = 0


def test_named_gives_views_into_any_vector():
    model, *_ = network()
    vector = np.zeros_like(model.theta)
    model.named(vector)["U_r"][:] = 1
    assert vector.sum() == 25
    vector[:] = 2
    assert all(np.all(part == 2) for part in model.named(vector).values())
    assert {name: part.shape for name, part in model.named(vector).items()} == {
        name: weight.shape for name, weight in model.parameters.items()
    }


def test_a_deep_copy_is_a_whole_network_of_its_own():
    model, inputs, h0, _ = network()
    y, _ = model.forward(inputs, h0)
    twin = copy.deepcopy(model)
    twin.parameters["W_y"][:] = 0
    assert np.all(twin.forward(inputs, h0)[0] == twin.parameters["b_y"])
    assert_same([model.forward(inputs, h0)[0]], [y])


def test_the_weights_are_drawn_from_the_range_that_nn_gru_uses():
    theta = GRU(3, 64, 2).theta
    assert 0.98 / 8 < np.abs(theta).max() <= 1 / 8
    assert abs(theta.mean()) < 0.005


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    def weights_after_training(seed):
        model, rng = GRU(1, 6, 1, seed), np.random.default_rng(seed)
        untrained, optimizer = model.theta.copy(), Adam(model.theta)
        for _ in range(20):
            wave = sine_waves(rng, 2, 10, 0.05)
            train_step(model, optimizer, wave[:-1], wave[-1], max_norm=1.0)
        return untrained, model.theta

    first, again, other = map(weights_after_training, (0, 0, 1))
    assert_same(first, again)
    assert not any(np.any(a == b) for a, b in zip(first, other))


# --- Learning -----------------------------------------------------------------------------------


# A large epsilon shows where it stands: beside the root of v_hat, and not under it.
@pytest.mark.parametrize("beta1, beta2, epsilon", [(0.9, 0.999, 1e-8), (0.8, 0.9, 0.1)])
def test_adam_takes_the_same_steps_as_torch(beta1, beta2, epsilon):
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(50)
    torch_theta = leaf(theta)
    optimizer = Adam(theta, 1e-2, beta1, beta2, epsilon)
    torch_optimizer = torch.optim.Adam([torch_theta], 1e-2, (beta1, beta2), epsilon)
    for step in range(200):
        rate = 1e-2 / (1 + step)  # a rate that changes between the steps
        optimizer.learning_rate = torch_optimizer.param_groups[0]["lr"] = rate
        gradient = rng.standard_normal(50) * np.logspace(-6, 2, 50)
        torch_theta.grad = torch.tensor(gradient)
        optimizer.step(gradient)
        torch_optimizer.step()
        assert_close(theta, torch_theta, 1e-14)


def test_adam_has_the_defaults_of_the_paper_apart_from_the_rate():
    theta = np.zeros(1)
    adam = Adam(theta)
    assert (adam.learning_rate, adam.beta1, adam.beta2, adam.epsilon) == (1e-2, 0.9, 0.999, 1e-8)
    assert adam.theta is theta


@pytest.mark.parametrize("size", [1e-3, 0.5, 3.0, 1e4])
def test_clipping_scales_like_torch_apart_from_the_1e_6_that_torch_adds_to_the_norm(size):
    max_norm = 0.7
    gradient = size * np.random.default_rng(0).standard_normal(40)
    before, norm = gradient.copy(), np.linalg.norm(gradient)
    torch_theta = leaf(gradient)
    torch_theta.grad = torch.tensor(gradient)
    torch_norm = torch.nn.utils.clip_grad_norm_(torch_theta, max_norm).item()

    assert clip_by_norm(gradient, max_norm) == pytest.approx(norm, rel=1e-14)
    assert torch_norm == pytest.approx(norm, rel=1e-14)
    if norm <= max_norm:
        assert_same([gradient], [before])
    else:
        assert np.linalg.norm(gradient) == pytest.approx(max_norm, rel=1e-14)
        assert_close(gradient * norm / (norm + 1e-6), torch_theta.grad, 1e-14)


def test_a_run_of_200_updates_ends_at_the_same_weights_as_in_torch():
    """Forward, BPTT, clipping and Adam against autograd and torch.optim.Adam. clip_grad_norm_ would
    add 1e-6 to the norm, so the torch side clips by hand with the plain formula max_norm / norm."""
    max_norm, updates, rng = 0.3, 200, np.random.default_rng(0)
    model = GRU(1, 8, 1)
    optimizer = Adam(model.theta, learning_rate=1e-2)
    weights = {name: leaf(array) for name, array in model.parameters.items()}
    torch_optimizer = torch.optim.Adam(weights.values(), lr=1e-2)
    h0 = torch.zeros(8, 3, dtype=torch.float64)
    clipped, start = 0, model.theta.copy()
    for _ in range(updates):
        wave = sine_waves(rng, 3, 13, 0.05)
        loss = train_step(model, optimizer, wave[:-1], wave[-1], max_norm)

        wave = torch.tensor(wave)
        torch_loss = torch.mean((output_by_torch(weights, wave[:-1], h0) - wave[-1]) ** 2)
        torch_optimizer.zero_grad()
        torch_loss.backward()
        norm = torch.sqrt(sum((w.grad**2).sum() for w in weights.values()))
        if norm > max_norm:
            clipped += 1
            for w in weights.values():
                w.grad *= max_norm / norm
        torch_optimizer.step()
        assert loss == pytest.approx(torch_loss.item(), rel=1e-9)

    assert 20 < clipped < updates - 20  # both with clipping and without it
    assert np.abs(model.theta - start).max() > 0.1
    for name, weight in model.parameters.items():
        assert np.abs(weight - weights[name].detach().numpy()).max() <= 1e-9, name


def test_train_step_returns_the_mean_squared_error_before_the_update():
    model, inputs, _, target = network()
    optimizer = Adam(model.theta)
    for _ in range(3):
        y, _ = model.forward(inputs)
        before = np.mean((y - target) ** 2)
        assert train_step(model, optimizer, inputs, target, 1.0) == pytest.approx(before, rel=1e-14)
    y, _ = model.forward(inputs)
    assert np.mean((y - target) ** 2) < before


def test_train_step_does_not_update_on_a_loss_that_is_not_finite():
    model, inputs, _, target = network()
    optimizer = Adam(model.theta)
    model.parameters["W_y"][:] = 1e200
    theta = model.theta.copy()
    with np.errstate(over="ignore"):
        assert train_step(model, optimizer, inputs, target, 1.0) == math.inf
    assert_same([model.theta], [theta])
    assert optimizer.t == 0 and not optimizer.m.any()


@pytest.mark.parametrize("seed", range(5))
def test_the_default_run_comes_within_1_6_times_the_best_possible(seed, tmp_path):
    options = parse_options(["--seed", str(seed), "--plots-dir", str(tmp_path)])
    train_seed, held_out_seed, _ = np.random.SeedSequence(seed).spawn(3)
    held_out = sine_waves(np.random.default_rng(held_out_seed), 2000, 31, 0.05)
    history = History()
    train(GRU(1, 32, 1, seed), options, np.random.default_rng(train_seed), held_out, history)
    assert len(history.losses) == history.held_out[-1][0] == 6000
    assert history.held_out[-1][1] <= 1.6 * 0.00251


# --- The data and what is shown of a trained network --------------------------------------------


angle = 2 * np.pi * np.arange(40) / PERIOD
SINE_AND_COSINE = np.stack([np.sin(angle), np.cos(angle)], axis=1)  # (40, 2)


def test_the_same_seed_without_noise_gives_the_same_waves_without_noise():
    noisy, clean = (sine_waves(np.random.default_rng(3), 500, 40, n) for n in (0.05, 0.0))
    assert noisy.shape == clean.shape == (40, 1, 500)
    assert np.std(noisy - clean) == pytest.approx(0.05, rel=0.02)


def test_the_waves_are_sines_of_amplitude_1_and_every_phase():
    waves = sine_waves(np.random.default_rng(3), 1000, 40, 0.0)[:, 0]
    parts, residual, *_ = np.linalg.lstsq(SINE_AND_COSINE[:40], waves, rcond=None)
    assert residual.max() < 1e-25
    np.testing.assert_allclose(np.linalg.norm(parts, axis=0), 1)
    phase = np.arctan2(parts[1], parts[0])
    counts, _ = np.histogram(phase, bins=8, range=(-np.pi, np.pi))
    assert counts.min() > 80  # of 125 on average


def test_the_best_possible_mse_is_the_noise_and_what_the_unknown_phase_adds():
    """Of T = 30 noisy steps the phase can be told to a variance of 2 sigma^2 / T, which puts the
    prediction off by sigma^2 / T on average: 0.0025 (1 + 1/30) in all."""
    noise, T, count = 0.05, 30, 4000
    waves, clean = (sine_waves(np.random.default_rng(5), count, T + 1, n) for n in (noise, 0.0))
    best = best_possible_mse(waves, noise)
    # The squared error of one wave has a standard deviation of sqrt(2) times its mean.
    assert best == pytest.approx(0.00251, abs=3 * math.sqrt(2 / count) * 0.0025)
    # It can't foresee the noise of the last step itself, of which this sample has so much:
    assert best > np.mean((waves[-1] - clean[-1]) ** 2)

    # Against a last step without noise, what is left is the error from the unknown phase alone.
    phase_error = best_possible_mse(np.concatenate([waves[:-1], clean[-1:]]), noise)
    assert phase_error == pytest.approx(noise**2 / T, rel=0.1)
    # A least-squares fit, which does not know that the amplitude is 1, does worse.
    basis = SINE_AND_COSINE[: T + 1]
    fit, *_ = np.linalg.lstsq(basis[:-1], waves[:-1, 0], rcond=None)
    assert phase_error < 0.7 * np.mean((basis[-1] @ fit - clean[-1, 0]) ** 2)


def test_the_best_possible_prediction_is_the_posterior_mean():
    """Bayes' rule written out, phase by phase, where the noise leaves much in doubt."""
    noise, T, count = 0.7, 6, 30
    waves = sine_waves(np.random.default_rng(5), count, T + 1, noise)[:, 0]
    t = np.arange(T + 1)
    weighted, weights = np.zeros(count), np.zeros(count)
    for phase in np.linspace(0, 2 * np.pi, 720, endpoint=False):
        candidate = np.sin(2 * np.pi * t / PERIOD + phase)
        error = waves[:T] - candidate[:T, None]
        likelihood = np.exp(-0.5 * (error / noise) ** 2).prod(axis=0)  # of each step, N(0, noise^2)
        weighted += likelihood * candidate[T]
        weights += likelihood
    expected = np.mean((waves[T] - weighted / weights) ** 2)
    assert best_possible_mse(waves[:, None, :], noise) == pytest.approx(expected, rel=1e-9)


def test_the_best_possible_mse_is_nan_where_its_grid_is_too_coarse():
    waves = sine_waves(np.random.default_rng(0), 3, 31, 0.001)
    assert math.isnan(best_possible_mse(waves, 0.001))


def test_the_free_running_forecast_feeds_on_itself():
    model, wave, _, _ = network(1, 5, 1, T=20, B=1)
    start = wave[:8]
    forecast = free_running(model, start, 6)
    seen = [*start]
    for step in range(6):
        y, _ = model.forward(seen[step : step + 8])
        assert forecast[step] == y.item()
        seen.append(y)


def test_a_one_step_prediction_sees_the_window_before_it_and_nothing_else():
    model, wave, _, _ = network(1, 5, 1, T=20, B=1)
    window = 8
    prediction = one_step(model, wave, window)
    assert prediction.shape == (20 - window,)
    for t in range(window, 20):
        y, _ = model.forward(wave[t - window : t])
        assert prediction[t - window] == pytest.approx(y.item(), rel=1e-12)

    changed = wave.copy()
    changed[12:] += 1
    after = one_step(model, changed, window)
    assert_close(after[: 12 - window + 1], prediction[: 12 - window + 1], 1e-14)
    assert np.all(after[12 - window + 1 :] != prediction[12 - window + 1 :])


@pytest.mark.parametrize("b_z, z", [(1000.0, 1.0), (math.log(0.05 / 0.95), 0.05)])
def test_z_held_at_a_value_has_it_in_every_unit_at_every_step(b_z, z):
    model, inputs, h0, _ = network()
    theta = model.theta.copy()
    held = with_z_held(model, b_z)
    _, cache = held.forward(inputs, h0)
    np.testing.assert_allclose(cache.z, z, rtol=1e-14)
    _, untouched = model.forward(inputs, h0)
    assert_same([cache.r[0], cache.h_tilde[0]], [untouched.r[0], untouched.h_tilde[0]])
    assert_same([model.theta], [theta])


def test_the_moving_mean_is_that_of_the_last_100_values_or_of_all_if_there_are_fewer():
    values = np.arange(250.0)
    updates, means = moving_mean(values)
    assert (updates[0], updates[-1]) == (100, 250)
    np.testing.assert_allclose(means, [values[n - 100 : n].mean() for n in updates])
    updates, means = moving_mean([1.0, 5.0])
    assert (updates.tolist(), means.tolist()) == ([2], [3.0])


# --- What the API refuses -----------------------------------------------------------------------


def fed(name, value):
    """A call that gives the API this value for the argument of this name."""
    model, inputs, h0, _ = network(input_size=2, hidden_size=5, output_size=3, T=7, B=4)
    _, cache = model.forward(inputs, h0)
    calls = {
        "inputs": lambda: model.forward(value),
        "h0": lambda: model.forward(inputs, value),
        "dy": lambda: model.backward(value, cache),
        "target": lambda: train_step(model, Adam(model.theta), inputs, value, 1.0),
        "vector": lambda: model.named(value),
        "gradient": lambda: Adam(model.theta).step(value),
    }
    return calls[name]()


def with_one(bad, *shape):
    """Zeros with one bad entry."""
    array = np.zeros(shape)
    array[(-1,) * len(shape)] = bad
    return array


STEPS = r"inputs: expected finite numbers of shape \(T, 2, B\), got "
STATE = r"h0: expected finite numbers of shape \(5, 4\), got "
OUTPUT = r"expected finite numbers of shape \(3, 4\), got "
BAD_ARRAYS = [
    ("inputs", np.zeros((7, 3, 4)), STEPS + r"shape \(7, 3, 4\)"),
    ("inputs", np.zeros((7, 2)), STEPS + r"shape \(7, 2\)"),
    ("inputs", np.zeros((7, 2, 4, 1)), STEPS + r"shape \(7, 2, 4, 1\)"),
    ("inputs", np.zeros((7, 2, 0)), STEPS + r"shape \(7, 2, 0\)"),
    ("inputs", [], STEPS + r"shape \(0,\)"),
    ("inputs", np.zeros((0, 2, 4)), STEPS + r"shape \(0, 2, 4\)"),
    ("inputs", [np.zeros((2, 4)), np.zeros((2, 3))], STEPS + ".*inhomogeneous"),
    ("inputs", "a wave", STEPS + ".*'a wave'"),
    ("inputs", [[["one", "two"]]], STEPS + ".*'one'"),
    ("inputs", None, STEPS),
    ("inputs", {"x": 1}, STEPS + ".*dict"),
    ("inputs", with_one(np.nan, 7, 2, 4), STEPS + "nan or inf"),
    ("inputs", with_one(-np.inf, 7, 2, 4), STEPS + "nan or inf"),
    ("h0", np.zeros((4, 5)), STATE + r"shape \(4, 5\)"),
    ("h0", np.zeros(5), STATE + r"shape \(5,\)"),
    ("h0", np.zeros((5, 1)), STATE + r"shape \(5, 1\)"),  # which would broadcast
    ("h0", "zero", STATE + ".*'zero'"),
    ("h0", with_one(np.inf, 5, 4), STATE + "nan or inf"),
    ("dy", np.zeros((3, 1)), "dy: " + OUTPUT + r"shape \(3, 1\)"),
    ("dy", np.zeros((4, 3)), "dy: " + OUTPUT + r"shape \(4, 3\)"),
    ("dy", 1.0, "dy: " + OUTPUT + r"shape \(\)"),
    ("dy", with_one(np.nan, 3, 4), "dy: " + OUTPUT + "nan or inf"),
    ("target", np.zeros(4), "target: " + OUTPUT + r"shape \(4,\)"),
    ("target", np.zeros((1, 4)), "target: " + OUTPUT + r"shape \(1, 4\)"),
    ("target", with_one(np.nan, 3, 4), "target: " + OUTPUT + "nan or inf"),
    ("vector", np.zeros(7), r"vector: expected shape \(138,\), got \(7,\)"),
    ("vector", np.zeros((138, 1)), r"vector: expected shape \(138,\), got \(138, 1\)"),
    (
        "gradient",
        np.zeros(7),
        r"gradient: expected finite numbers of shape \(138,\), got shape \(7,\)",
    ),
    (
        "gradient",
        0.5,
        r"gradient: expected finite numbers of shape \(138,\), got shape \(\)",
    ),  # which would broadcast
]


@pytest.mark.parametrize("name, value, message", BAD_ARRAYS)
def test_a_bad_array_is_refused_with_what_was_expected_and_what_came(name, value, message):
    with pytest.raises(ValueError, match=message):
        fed(name, value)


@pytest.mark.parametrize("name", ["input_size", "hidden_size", "output_size"])
@pytest.mark.parametrize("size", [0, -3, 2.0, 2.5, "4", None])
def test_a_size_that_is_not_a_whole_number_above_zero_is_refused(name, size):
    sizes = {"input_size": 1, "hidden_size": 2, "output_size": 1} | {name: size}
    message = f"{name}: expected a whole number of at least 1, got {size!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        GRU(**sizes)


@pytest.mark.parametrize("dtype", [int, np.int32, np.float16, complex, bool])
def test_a_dtype_other_than_float32_and_float64_is_refused(dtype):
    with pytest.raises(ValueError, match=f"float32 or float64, got {np.dtype(dtype)}"):
        GRU(1, 2, 1, dtype=dtype)


# --- The demo -----------------------------------------------------------------------------------

SCRIPT = Path(gru_from_scratch.__file__)
FIGURES = {f"gru_numpy_{n}.png" for n in ("training_curve", "forecast", "gates", "gradient_flow")}
RATES = "gru_numpy_learning_rates.png"
CURVE = "gru_numpy_training_curve.png"
SMALL = ("--updates", "40", "--hidden-size", "4", "--seq-len", "6")


def started(*argv, cwd, script=SCRIPT):
    """The demo as a process of its own, without a display."""
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "MPLBACKEND")}
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
    """Everything that the demo printed but the seconds and the folder of the figures."""
    lines = [line for line in output.splitlines() if not line.startswith(("seconds", "figures"))]
    # The last column of a progress line is the time.
    return [re.sub(r"^( *\d+ .*?) +\S+$", r"\1", line) for line in lines]


def one_line(text):
    """True for exactly one line, and not that of a traceback."""
    return text.count("\n") == 1 and text.endswith("\n") and "Traceback" not in text


def test_a_quick_run_as_a_process_prints_its_table_and_draws_four_whole_figures(tmp_path):
    plots = tmp_path / "new" / "plots"
    status, out, err = finished(started("--quick", "--plots-dir", plots, cwd=tmp_path))
    assert (status, err) == (0, "")
    assert figures(plots) == FIGURES
    assert re.search(r"^ *300 +\d\.\d{5} +\d\.\d{5} +\d+\.\d$", out, re.M)  # update, MSEs, seconds
    table = dict(re.findall(r"^(\S+(?: \S+)*)  +(\d+(?:\.\d+)?)\b", out, re.M))
    assert float(table["held-out MSE"]) < 0.1
    assert 0.0023 < float(table["best possible"]) < 0.0029
    assert float(table["noise floor"]) == 0.0025
    # The wave moves by up to 2 pi / 30 a step, and two noises differ: 0.0219 + 2 * 0.0025.
    assert float(table["persistence"]) == pytest.approx(0.0269, abs=0.001)
    assert table["parameters"] == "3297"
    assert 0 < float(table["seconds"]) < 60
    assert str(Path("new", "plots", "gru_numpy_*.png")) in out


def test_the_script_runs_from_any_folder_and_puts_its_figures_beside_itself(tmp_path):
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir(), elsewhere.mkdir()
    script = here / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())  # a copy, alone: it needs no other file of the project
    status, _, err = finished(started(*SMALL, cwd=elsewhere, script=script))
    assert (status, err) == (0, "")
    assert figures(here / "plots") == FIGURES
    assert not any(elsewhere.iterdir())


def test_two_runs_with_one_seed_give_the_same_numbers_and_figures_and_another_seed_others(
    tmp_path, capsys
):
    def result(seed):
        assert main([*SMALL, "--seed", seed, "--plots-dir", str(tmp_path)]) == 0
        pictures = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        return numbers(capsys.readouterr().out), pictures

    (first, pictures), (again, same_pictures), (other, _) = map(result, "112")
    assert first == again
    assert pictures == same_pictures
    assert first[3] != other[3]  # the first progress line
    of_the_data = ("best possible", "persistence")  # which do not depend on the weights
    assert not [line for line in first if line in other and line.startswith(of_the_data)]


@pytest.mark.parametrize("seq_len", ["1", "2"])
def test_the_smallest_run_works(seq_len, tmp_path):
    smallest = ["--updates", "1", "--hidden-size", "1", "--seq-len", seq_len, "--noise", "0"]
    assert main([*smallest, "--plots-dir", str(tmp_path)]) == 0
    assert figures(tmp_path) == FIGURES


def test_rates_compares_three_learning_rates_in_one_figure(tmp_path, capsys):
    assert main(["--rates", "--quick", *SMALL, "--plots-dir", str(tmp_path)]) == 0
    assert figures(tmp_path) == {RATES}
    out = capsys.readouterr().out
    assert re.findall("learning rate (.*)", out) == ["1e-05", "0.001", "0.1"]


def test_quick_means_at_most_300_updates(tmp_path):
    plots = ["--plots-dir", str(tmp_path)]
    assert parse_options(["--quick", *plots]).updates == 300
    assert parse_options(["--quick", "--updates", "7", *plots]).updates == 7


def test_help_shows_every_option_with_its_default(capsys):
    assert main(["--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    defaults = {"updates": 6000, "hidden-size": 32, "seq-len": 30, "noise": 0.05, "seed": 0}
    defaults |= {"learning-rate": 0.001, "clip": 1.0, "quick": False, "rates": False}
    for option, default in defaults.items():
        assert re.search(rf"--{option} [^-]*\(default: {re.escape(str(default))}\)", out), option
    assert "--plots-dir" in out


def no_training(*_):
    raise AssertionError("training began")


WHOLE, ABOVE_0 = "expected a whole number from", "expected a finite number above 0"
WRONG_OPTIONS = [
    (("--updates", "0"), f"--updates: {WHOLE} 1 to 1000000000, got '0'"),
    (("--updates", "1e3"), f"--updates: {WHOLE} 1"),
    (("--updates", "9" * 5000), f"--updates: {WHOLE} 1"),
    (("--hidden-size", "0"), f"--hidden-size: {WHOLE} 1"),
    (("--hidden-size", "-4"), f"--hidden-size: {WHOLE} 1 to 4096, got '-4'"),
    (("--hidden-size", "2.5"), f"--hidden-size: {WHOLE} 1"),
    (("--seq-len", "0"), f"--seq-len: {WHOLE} 1"),
    (("--seq-len", "ten"), f"--seq-len: {WHOLE} 1 to 1000, got 'ten'"),
    (("--seed", "-1"), f"--seed: {WHOLE} 0"),
    (("--noise", "-0.1"), "--noise: expected a number from 0 to 1000, got '-0.1'"),
    (("--noise", "nan"), "--noise: expected a number from 0"),
    (("--noise", "inf"), "--noise: expected a number from 0"),
    (("--noise", "loud"), "--noise: expected a number from 0"),
    (("--learning-rate", "0"), f"--learning-rate: {ABOVE_0}, got '0'"),
    (("--learning-rate", "-1"), f"--learning-rate: {ABOVE_0}"),
    (("--learning-rate", "nan"), f"--learning-rate: {ABOVE_0}"),
    (("--learning-rate", "inf"), f"--learning-rate: {ABOVE_0}"),
    (("--learning-rate", "fast"), f"--learning-rate: {ABOVE_0}"),
    (("--clip", "0"), f"--clip: {ABOVE_0}"),
    (("--clip", "nan"), f"--clip: {ABOVE_0}"),
    (("--clip",), "--clip: expected one argument"),
    (("--epochs", "3"), "--epochs"),
    (("--hidden", "3"), "--hidden"),  # no abbreviations, which a later option could change
    (("waves.csv",), "waves.csv"),
]


@pytest.mark.parametrize("argv, message", WRONG_OPTIONS)
def test_a_wrong_option_ends_at_once_with_status_2_and_one_line(
    argv, message, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(gru_from_scratch, "train", no_training)
    assert main(["--plots-dir", str(tmp_path / "plots"), *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert one_line(err) and message in err
    assert not any(tmp_path.iterdir())  # not even the folder


def test_a_wrong_option_as_a_process_is_one_line_and_status_2(tmp_path):
    status, out, err = finished(started("--hidden-size", "many", cwd=tmp_path))
    assert (status, out) == (2, "")
    assert one_line(err) and "whole number" in err and "'many'" in err
    assert not any(tmp_path.iterdir())


def test_a_plots_dir_that_is_a_file_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gru_from_scratch, "train", no_training)
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(["--plots-dir", str(path)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert one_line(err) and "--plots-dir: expected a folder that can be written to" in err
    assert (tmp_path / "file").read_text() == "mine"


def test_a_plots_dir_that_cannot_be_written_to_is_refused(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")  # also for root, who may do all

    monkeypatch.setattr(gru_from_scratch, "train", no_training)
    monkeypatch.setattr(gru_from_scratch.tempfile, "TemporaryFile", refuse)
    assert main(["--plots-dir", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert one_line(err) and "can be written to, got [Errno 13] Permission denied" in err


@pytest.mark.parametrize("rates, figure", [((), CURVE), (("--rates",), RATES)])
def test_a_loss_that_is_not_finite_ends_the_run_with_status_1_and_keeps_the_curve(
    rates, figure, tmp_path, capsys
):
    wild = ["--learning-rate", "1e300", "--plots-dir", str(tmp_path)]
    assert main([*SMALL, *rates, *wild]) == 1
    err = capsys.readouterr().err
    assert one_line(err)
    assert re.search(r"the loss is (inf|nan) at update 2: try a --learning-rate below 1e\+", err)
    assert figures(tmp_path) == {figure}


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot send Ctrl-C to one process alone")
def test_ctrl_c_ends_the_run_with_status_130_and_keeps_the_curve(tmp_path):
    # A shell may have started pytest with SIGINT ignored, which the child would inherit.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = started("--updates", "20000", "--plots-dir", tmp_path, cwd=tmp_path)
    signal.signal(signal.SIGINT, before)
    for line in process.stdout:
        if re.match(r" *1000 ", line):  # the first progress line
            break
    process.send_signal(signal.SIGINT)
    status, _, err = finished(process)
    assert status == 130
    assert one_line(err) and "interrupted" in err and str(tmp_path) in err
    assert figures(tmp_path) == {CURVE}


def half_written(path, content):
    """What Path.write_bytes does on a disk that is full."""
    with open(path, "wb") as file:
        file.write(content[: len(content) // 2])
    raise OSError(errno.ENOSPC, "No space left on device")


def no_replace(*_):
    raise OSError(errno.EACCES, "Permission denied")


FAULTS = [(Path, "write_bytes", half_written), (os, "replace", no_replace)]


@pytest.mark.parametrize("owner, function, fault", FAULTS)
def test_a_figure_is_whole_or_absent(owner, function, fault, tmp_path, capsys, monkeypatch):
    (tmp_path / CURVE).write_bytes(b"an older figure")
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, fault)
        assert main([*SMALL, "--plots-dir", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert one_line(err) and "could not write: [Errno" in err
    assert {path.name for path in tmp_path.iterdir()} == {CURVE}  # and no .partial beside it
    assert (tmp_path / CURVE).read_bytes() == b"an older figure"


def test_a_last_update_that_spoils_the_weights_ends_the_run_with_status_1(tmp_path, capsys):
    for rate in ("1e300", "1e308"):
        assert (
            main([*SMALL, "--updates", "1", "--learning-rate", rate, "--plots-dir", str(tmp_path)])
            == 1
        )
        assert one_line(capsys.readouterr().err)


@pytest.mark.parametrize("rates", [(), ("--rates",)])
def test_ctrl_c_before_the_first_update_is_one_line_that_promises_no_curve(
    rates, tmp_path, capsys, monkeypatch
):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(gru_from_scratch, "train_step", interrupt)
    assert main([*SMALL, *rates, "--plots-dir", str(tmp_path)]) == 130
    err = capsys.readouterr().err
    assert one_line(err) and "curve" not in err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_adam_refuses_a_gradient_that_is_not_finite(bad):
    theta = np.zeros(3)
    with pytest.raises(ValueError, match="gradient: expected finite"):
        Adam(theta).step(np.array([0.0, bad, 0.0]))
    assert not theta.any()


@pytest.mark.parametrize("value", [[[["1"], ["2"]]], [[[10**400], [1]]], [[[1j], [0]]]])
def test_numbers_as_text_too_large_or_complex_are_refused(value):
    with pytest.raises(ValueError, match="inputs: expected finite numbers"):
        GRU(2, 3, 1).forward(value)
