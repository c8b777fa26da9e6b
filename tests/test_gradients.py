"""The gradients of back-propagation through time, checked in two ways that share no code with it:
by central differences, and by PyTorch's autograd of the same equations. The check itself is then
checked with gradients that are broken on purpose.

Every function here that works out gradients returns them by name: the eleven weights, the inputs
x_1 .. x_T, and h0. The objective is L = sum(dy * y), so that dL/dy is dy.
"""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gru_from_scratch import GRU

SIZES = [(1, 4, 1), (3, 5, 2), (2, 1, 2), (4, 3, 1)]  # (input_size, hidden_size, output_size)


class Case(NamedTuple):
    """A network and one set of arguments for its forward and backward pass."""

    model: GRU
    inputs: list  # T arrays (input_size, B)
    h0: np.ndarray  # (hidden_size, B)
    dy: np.ndarray  # (output_size, B)


def random_case(T, B, sizes):
    """Everything random and nothing zero: with h0 = 0 or b = 0 a wrong gradient can look right."""
    rng = np.random.default_rng([T, B, *sizes])
    input_size, hidden_size, output_size = sizes
    model = GRU(input_size, hidden_size, output_size)
    model.theta[:] = rng.uniform(-1, 1, model.theta.size)
    # z is then about 1/T, so that h0 and the first inputs still count after T steps. With z about
    # 1/2 their gradients would be near 2^-T, which differences cannot tell from rounding.
    model.parameters["b_z"][:] -= math.log(T)
    inputs = [rng.standard_normal((input_size, B)) for _ in range(T)]
    h0 = rng.standard_normal((hidden_size, B))
    return Case(model, inputs, h0, rng.standard_normal((output_size, B)))


def by_name(weights, inputs, h0):
    """One dictionary of all that has a gradient, or of their gradients."""
    return dict(weights) | {f"x_{t}": x_t for t, x_t in enumerate(inputs, 1)} | {"h0": h0}


# --- Four ways to the same gradients ------------------------------------------------------------


def gradients_by_hand(case):
    """The ones under test: back-propagation through time in gru_from_scratch.py."""
    model, inputs, h0, dy = case
    _, cache = model.forward(inputs, h0)
    gradient, d_inputs, d_h0 = model.backward(dy, cache)
    return by_name(model.named(gradient), d_inputs, d_h0)


def gradients_by_differences(case, step=1e-3):
    """Central differences for every single number a, from L at a +- step and at a +- 2 step:

        dL/da = (8 (L(a + step) - L(a - step)) - (L(a + 2 step) - L(a - 2 step))) / (12 step)

    The second pair cancels the error of order step^2. What is left is of order step^4 = 1e-12, and
    rounding, 1e-16 / step = 1e-13: little enough to see gradients of 1e-5 to seven digits.
    """
    model, inputs, h0, dy = case

    def objective():
        y, _ = model.forward(inputs, h0)
        return np.sum(dy * y)

    gradients = {}
    for name, array in by_name(model.parameters, inputs, h0).items():
        gradients[name] = np.empty_like(array)
        for entry in np.ndindex(array.shape):
            value = array[entry]
            L = {}
            for steps in (-2, -1, 1, 2):
                array[entry] = value + steps * step
                L[steps] = objective()
            array[entry] = value
            gradients[name][entry] = (8 * (L[1] - L[-1]) - (L[2] - L[-2])) / (12 * step)
    return gradients


def states_by_torch(p, inputs, h0):
    """Equations (1)-(4) as they stand, in torch: the states h_0 .. h_T. p: name -> weight."""
    h = [h0]
    for x_t in inputs:
        h_prev = h[-1]
        z = torch.sigmoid(p["W_z"] @ x_t + p["U_z"] @ h_prev + p["b_z"])
        r = torch.sigmoid(p["W_r"] @ x_t + p["U_r"] @ h_prev + p["b_r"])
        h_tilde = torch.tanh(p["W_h"] @ x_t + p["U_h"] @ (r * h_prev) + p["b_h"])
        h.append((1 - z) * h_prev + z * h_tilde)
    return h


def output_by_torch(p, inputs, h0):
    """Equations (1)-(5): y."""
    return p["W_y"] @ states_by_torch(p, inputs, h0)[-1] + p["b_y"]


def leaf(array):
    """A copy as a tensor that autograd works out a gradient for."""
    return torch.tensor(array, requires_grad=True)


def gradients_by_torch(case):
    """Automatic differentiation of the same equations."""
    weights = {name: leaf(array) for name, array in case.model.parameters.items()}
    inputs, h0 = [leaf(x_t) for x_t in case.inputs], leaf(case.h0)
    output_by_torch(weights, inputs, h0).backward(torch.tensor(case.dy))
    return {name: t.grad.numpy() for name, t in by_name(weights, inputs, h0).items()}


def gradients_restated(case, mistake=None):
    """The backward pass once more, step by step and matrix by matrix, with a mistake if wanted."""
    model, inputs, h0, dy = case
    p, T = model.parameters, len(inputs)
    _, cache = model.forward(inputs, h0)
    d = {name: np.zeros_like(array) for name, array in p.items()}
    d_inputs = [np.zeros_like(x_t) for x_t in inputs]

    d["W_y"] += dy @ cache.h[T].T
    d["b_y"] += dy.sum(axis=1, keepdims=True)
    dh = p["W_y"].T @ dy
    for t in reversed(range(T)):
        x_t, h_prev = inputs[t], cache.h[t]
        z, r, h_tilde = cache.z[t], cache.r[t], cache.h_tilde[t]

        delta_h = dh * z * (1 - h_tilde**2)
        d_rh = p["U_h"].T @ delta_h
        delta_r = d_rh * h_prev * r * (1 - r)
        delta_z = dh * (h_tilde - h_prev) * z * (1 - z)
        if mistake == "no z(1-z)":
            delta_z = dh * (h_tilde - h_prev)
        if mistake == "no path through r":
            delta_r = np.zeros_like(delta_r)

        for gate, delta in (("z", delta_z), ("r", delta_r), ("h", delta_h)):
            d[f"W_{gate}"] += delta @ x_t.T
            d[f"b_{gate}"] += delta.sum(axis=1, keepdims=True)
            d_inputs[t] += p[f"W_{gate}"].T @ delta
        d["U_z"] += delta_z @ h_prev.T
        d["U_r"] += delta_r @ h_prev.T
        d["U_h"] += delta_h @ (r * h_prev).T

        dh = (1 - z) * dh + r * d_rh + p["U_z"].T @ delta_z + p["U_r"].T @ delta_r
        if mistake == "only the last step":
            dh = np.zeros_like(dh)  # nothing is passed on to the steps before
    return by_name(d, d_inputs, dh)


# --- The check ----------------------------------------------------------------------------------


def wrong(gradients, reference, tolerance):
    """Name and error of each gradient that is off by more than tolerance, as a share of the largest
    entry of its tensor. A gradient that is not finite, or that is missing, is wrong too."""
    assert gradients.keys() == reference.keys()
    errors = {}
    for name, expected in reference.items():
        assert gradients[name].shape == expected.shape
        assert np.abs(expected).max() > 0
        errors[name] = np.abs(gradients[name] - expected).max() / np.abs(expected).max()
    return {name: error for name, error in errors.items() if not error <= tolerance}


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize("T", [1, 2, 7, 30])
def test_every_gradient_equals_its_central_difference(T, B, sizes):
    case = random_case(T, B, sizes)
    assert not wrong(gradients_by_hand(case), gradients_by_differences(case), 1e-7)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    T=st.integers(1, 30),
    B=st.integers(1, 5),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 4)),
)
def test_every_gradient_equals_that_of_autograd_for_random_shapes(T, B, sizes):
    case = random_case(T, B, sizes)
    assert not wrong(gradients_by_hand(case), gradients_by_torch(case), 1e-10)


# --- The check is checked -----------------------------------------------------------------------

# The weights in which each mistake must show. It must not show in W_y and b_y, which stand after
# the recurrence.
MISTAKES = {
    "only the last step": {f"{kind}_{gate}" for kind in "WUb" for gate in "zrh"},
    "no z(1-z)": {"W_z", "U_z", "b_z"},
    "no path through r": {"W_r", "U_r", "b_r"},
}


@pytest.mark.parametrize("T, B, sizes", [(1, 1, (1, 4, 1)), (7, 3, (3, 5, 2))])
def test_the_restated_backward_pass_without_a_mistake_passes_the_check(T, B, sizes):
    case = random_case(T, B, sizes)
    assert not wrong(gradients_restated(case), gradients_by_differences(case), 1e-7)


@pytest.mark.parametrize("mistake, where", MISTAKES.items())
@pytest.mark.parametrize("T", [2, 7, 30])
def test_the_check_catches_each_mistake(T, mistake, where):
    case = random_case(T, 1, (1, 4, 1))
    caught = wrong(gradients_restated(case, mistake), gradients_by_differences(case), 1e-7)
    assert where <= caught.keys()
    assert not {"W_y", "b_y"} & caught.keys()


def test_the_check_catches_a_gradient_that_is_nan():
    case = random_case(2, 1, (1, 4, 1))
    gradients = gradients_restated(case)
    gradients["U_r"][0, 0] = np.nan
    assert wrong(gradients, gradients_by_differences(case), 1e-7).keys() == {"U_r"}


def test_a_check_at_one_step_would_miss_that_only_the_last_step_is_differentiated():
    """Why the check above has T > 1: with one step, the last one is all there is."""
    case = random_case(1, 1, (1, 4, 1))
    broken = gradients_restated(case, "only the last step")
    caught = wrong(broken, gradients_by_differences(case), 1e-7)
    assert caught.keys() == {"h0"}  # and h0 is rarely given, and its gradient hardly ever checked


def test_a_check_from_a_zero_state_would_miss_a_wrong_path_through_r():
    """Why the check above has a random h0: at the first step r only multiplies h0."""
    case = random_case(1, 1, (1, 4, 1))
    case.h0[:] = 0
    broken = gradients_restated(case, "no path through r")
    right = gradients_restated(case)
    assert all(np.array_equal(broken[name], right[name]) for name in right)
