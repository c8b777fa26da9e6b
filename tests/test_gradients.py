"""The gradients of back-propagation through time, checked in two ways that share no code with it:
by central differences, and by PyTorch's autograd of the same equations. The check itself is then
checked with the script's own source, broken on purpose.

Gradients go by the names of what they belong to: the eleven weights, the inputs x_1 .. x_T, and the
states h_0 .. h_T. The objective is L = sum(dy * y), so that dL/dy is dy.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_from_scratch
from gru_from_scratch import GRU

RECURRENT = {f"{kind}_{gate}" for kind in "WUb" for gate in "zrh"}
WEIGHTS = RECURRENT | {"W_y", "b_y"}


class Case(NamedTuple):
    """A network and one set of arguments for its forward and backward pass."""

    model: GRU
    inputs: np.ndarray  # (T, F, B)
    h0: np.ndarray  # (H, B)
    dy: np.ndarray  # (O, B)


def random_case(T, B, sizes, cell=GRU):
    """Everything random and nothing zero: with h0 = 0 or b = 0 a wrong gradient can look right."""
    rng = np.random.default_rng([T, B, *sizes])
    F, H, O = sizes
    model = cell(F, H, O)
    model.theta[:] = rng.uniform(-1, 1, model.theta.size)
    # z is then about 1/T, so that h0 and the first inputs still count after T steps. With z about
    # 1/2 their gradients would be near 2^-T, which differences cannot tell from rounding.
    model.parameters["b_z"][:] -= math.log(T)
    shapes = (T, F, B), (H, B), (O, B)
    return Case(model, *(rng.standard_normal(shape) for shape in shapes))


def by_name(weights, inputs, states):
    """One dictionary of all that has a gradient, or of their gradients."""
    x = {f"x_{t}": x_t for t, x_t in enumerate(inputs, 1)}
    return dict(weights) | x | {f"h_{t}": h_t for t, h_t in enumerate(states)}


# --- Three ways to the same gradients -----------------------------------------------------------


def gradients_by_hand(case):
    """The ones under test: back-propagation through time in gru_from_scratch.py."""
    model, inputs, h0, dy = case
    _, cache = model.forward(inputs, h0)
    gradient, dx, dh = model.backward(dy, cache)
    return by_name(model.named(gradient), dx, dh)


def gradients_by_differences(case, step=1e-3):
    """Central differences for every number a that L is a function of, from L at a +- step and at
    a +- 2 step:

        dL/da = (8 (L(a + step) - L(a - step)) - (L(a + 2 step) - L(a - 2 step))) / (12 step)

    The second pair cancels the error of order step^2. What is left is of order step^4 = 1e-12, and
    rounding, 1e-16 / step = 1e-13: little enough to see gradients of 1e-5 to seven digits.
    """
    model, inputs, h0, dy = case

    def objective():
        y, _ = model.forward(inputs, h0)
        return np.sum(dy * y)

    gradients = {}
    for name, array in by_name(model.parameters, inputs, [h0]).items():
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


def leaf(array):
    """A copy as a tensor that autograd works out a gradient for."""
    return torch.tensor(array, requires_grad=True)


def gradients_by_torch(case):
    """Automatic differentiation of equations (1)-(5)."""
    p = {name: leaf(array) for name, array in case.model.parameters.items()}
    inputs = [leaf(x_t) for x_t in case.inputs]
    h = states_by_torch(p, inputs, leaf(case.h0))
    for h_t in h:
        h_t.retain_grad()
    (p["W_y"] @ h[-1] + p["b_y"]).backward(torch.tensor(case.dy))
    return {name: tensor.grad.numpy() for name, tensor in by_name(p, inputs, h).items()}


# --- The check ----------------------------------------------------------------------------------


def wrong(gradients, reference, tolerance):
    """The names of those in reference that are off by more than tolerance, as a share of the
    largest entry of their tensor."""
    names = set()
    for name, expected in reference.items():
        assert gradients[name].shape == expected.shape
        largest = np.abs(expected).max()
        assert largest > 0
        error = np.abs(gradients[name] - expected).max() / largest
        if not error <= tolerance:  # as nan is not
            names.add(name)
    return names


@pytest.mark.parametrize("sizes", [(1, 4, 1), (3, 5, 2), (2, 1, 2)])  # F, H, O
@pytest.mark.parametrize("T, B", [(1, 1), (1, 3), (2, 1), (7, 3), (30, 1)])
def test_every_gradient_equals_its_central_difference(T, B, sizes):
    case = random_case(T, B, sizes)
    reference = gradients_by_differences(case)
    assert reference.keys() > WEIGHTS
    assert not wrong(gradients_by_hand(case), reference, 1e-7)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    T=st.integers(1, 30),
    B=st.integers(1, 5),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 4)),
)
def test_every_gradient_and_dh_at_every_step_equal_those_of_autograd(T, B, sizes):
    case = random_case(T, B, sizes)
    gradients, reference = gradients_by_hand(case), gradients_by_torch(case)
    assert gradients.keys() == reference.keys()
    assert not wrong(gradients, reference, 1e-10)


# --- The check is checked -----------------------------------------------------------------------


def broken(snippet, replacement):
    """The GRU of gru_from_scratch.py with one snippet of the source replaced."""
    source = Path(gru_from_scratch.__file__).read_text(encoding="utf-8")
    assert source.count(snippet) == 1
    namespace = {"__name__": "broken"}
    exec(source.replace(snippet, replacement), namespace)
    return namespace["GRU"]


PASSED_BACK = "dh[t - 1] = dh[t] * (1 - z[t]) + drh * r[t] + U_z.T @ da_z[t] + U_r.T @ da_r[t]"
MISTAKES = {  # snippet, replacement, and the weights whose gradients must then be wrong
    "only the last step": (PASSED_BACK, "pass", RECURRENT),
    "z for 1 - z in (14)": ("dh[t] * (1 - z[t]) + drh", "dh[t] * z[t] + drh", RECURRENT),
    "no path through r in (14)": (" + U_r.T @ da_r[t]", "", RECURRENT),
    "no slope_z": ("slope_r, slope_h = z * (1 - z)", "slope_r, slope_h = 1 + 0 * z", RECURRENT),
    "h_prev a step late": ("h_prev = np.concatenate([h[:1], h[:-1]])", "h_prev = h", RECURRENT),
    "h_t for h_{t-1} in (17)": ("(da_r, h_prev)", "(da_r, h)", {"U_r"}),
    "nan": ('"W_h": sum_over_steps(da_h, x)', '"W_h": np.nan * p["W_h"]', {"W_h"}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_check_catches_each_mistake_in_the_source(mistake):
    snippet, replacement, where = MISTAKES[mistake]
    case = random_case(7, 3, (3, 5, 2), broken(snippet, replacement))
    caught = wrong(gradients_by_hand(case), gradients_by_differences(case), 1e-7)
    assert caught & WEIGHTS == where


def test_one_step_from_a_zero_state_would_show_no_mistake_in_what_is_passed_back():
    """Why the check has T > 1 and a random h0."""
    right = random_case(1, 3, (3, 5, 2))
    right.h0[:] = 0
    for mistake in ("only the last step", "z for 1 - z in (14)", "no path through r in (14)"):
        snippet, replacement, _ = MISTAKES[mistake]
        case = random_case(1, 3, (3, 5, 2), broken(snippet, replacement))
        case.h0[:] = 0
        gradients, expected = gradients_by_hand(case), gradients_by_hand(right)
        for name in (*WEIGHTS, "x_1"):
            np.testing.assert_array_equal(gradients[name], expected[name])
