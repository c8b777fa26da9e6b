"""The gradients of L = sum(dy * y), for the eleven weights, x_1 .. x_T and h_0 .. h_T, checked in
three ways that share no code with the script: central differences, PyTorch's autograd of the same
equations, and nn.GRU where the two cells agree. Then the check is checked with a broken source."""

import math
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import gru_from_scratch
from gru_from_scratch import GRU

RECURRENT = {f"{kind}_{gate}" for kind in "WUb" for gate in "zrh"}
WEIGHTS = RECURRENT | {"W_y", "b_y"}
# A network, and arguments for its forward and backward pass: (T, F, B), (H, B) and (O, B).
Case = namedtuple("Case", "model inputs h0 dy")
up_to = partial(st.integers, 1)  # from 1


def random_case(T, B, sizes, cell=GRU):
    """Everything random and nothing zero: with h0 = 0 or b = 0 a wrong gradient can look right."""
    rng = np.random.default_rng([T, B, *sizes])
    (F, H, O), model = sizes, cell(*sizes)
    for weight in model.parameters.values():
        weight[:] = rng.uniform(-1, 1, weight.shape)
    # z is then about 1/T, so that h0 and the first inputs still count after T steps. With z about
    # 1/2 their gradients would be near 2^-T, which differences cannot tell from rounding.
    model.parameters["b_z"] -= math.log(T)
    return Case(model, *map(rng.standard_normal, ((T, F, B), (H, B), (O, B))))


def by_name(weights, inputs, states):
    """One dictionary of all that has a gradient, or of their gradients."""
    x = {f"x_{t}": x_t for t, x_t in enumerate(inputs, 1)}
    return dict(weights) | x | {f"h_{t}": h_t for t, h_t in enumerate(states)}


# --- Four ways to the same gradients ------------------------------------------------------------


def gradients_by_hand(case):
    """The ones under test: back-propagation through time in gru_from_scratch.py."""
    model, inputs, h0, dy = case
    _, steps = model.forward(inputs, h0)
    return by_name(*model.backward(dy, steps))


def gradients_by_differences(case, step=1e-3):
    """Central differences for every number a that L is a function of, from L at a +- step and at
    a +- 2 step:

        dL/da = (8 (L(a + step) - L(a - step)) - (L(a + 2 step) - L(a - 2 step))) / (12 step)

    The second pair cancels the error of order step^2; step^4 is left, and rounding, 1e-16 / step.
    """
    model, inputs, h0, dy = case

    def objective():
        y, _ = model.forward(inputs, h0)
        return np.sum(dy * y)

    gradients = {}
    for name, array in by_name(model.parameters, inputs, [h0]).items():
        gradients[name] = np.empty_like(array)
        for entry in np.ndindex(array.shape):
            value, L = array[entry], {}
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


def by_nn_gru(case):
    """y by an nn.GRU with the weights of the model, and its gradients. Its gates come in the order
    r, z, n; its z is our 1 - z, which is sigma of the negated argument."""
    p, (H, _) = case.model.parameters, case.h0.shape
    gru = torch.nn.GRU(case.inputs.shape[1], H, dtype=torch.float64)
    theirs = {"W": gru.weight_ih_l0, "U": gru.weight_hh_l0, "b": gru.bias_ih_l0}
    with torch.no_grad():
        gru.bias_hh_l0.zero_()
        for kind, weight in theirs.items():
            blocks = np.concatenate([p[f"{kind}_r"], -p[f"{kind}_z"], p[f"{kind}_h"]])
            weight.copy_(torch.tensor(blocks.reshape(weight.shape)))
    x, h0 = leaf(case.inputs), leaf(case.h0)
    _, h_T = gru(x.transpose(1, 2), h0.T[None].contiguous())
    y = torch.tensor(p["W_y"]) @ h_T[0].T + torch.tensor(p["b_y"])
    y.backward(torch.tensor(case.dy))
    d = by_name({}, x.grad.numpy(), [h0.grad.numpy()])
    for kind, weight in theirs.items():
        d_r, d_z, d_h = weight.grad.numpy().reshape(3, H, -1)
        d |= {f"{kind}_r": d_r, f"{kind}_z": -d_z, f"{kind}_h": d_h}
    return y.detach().numpy(), d


# --- The check ----------------------------------------------------------------------------------


def wrong(gradients, reference, tolerance):
    """The names of those off by more than this share of the largest entry of the reference."""
    names = set()
    for name, expected in reference.items():
        largest = np.abs(expected).max()
        assert gradients[name].shape == expected.shape and largest > 0
        if not np.abs(gradients[name] - expected).max() <= tolerance * largest:  # as nan is not
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
@given(up_to(30), up_to(5), st.tuples(up_to(5), up_to(8), up_to(4)))
def test_every_gradient_and_dh_at_every_step_equal_those_of_autograd(T, B, sizes):
    case = random_case(T, B, sizes)
    gradients, reference = gradients_by_hand(case), gradients_by_torch(case)
    assert gradients.keys() == reference.keys()
    assert not wrong(gradients, reference, 1e-10)


@pytest.mark.parametrize("H", [1, 5])
def test_the_cell_is_nn_gru_exactly_where_U_h_is_diagonal(H):
    """It resets before the product, U_h @ (r * h), and nn.GRU after it, r * (U_h @ h). With one
    unit or a diagonal U_h that is the same, and so are all gradients but those off the diagonal.
    """
    case = random_case(12, 4, (2, H, 3))
    y, _ = case.model.forward(case.inputs, case.h0)
    assert (np.abs(y - by_nn_gru(case)[0]).max() > 0.05) == (H > 1)
    case.model.parameters["U_h"] *= np.eye(H)
    y, _ = case.model.forward(case.inputs, case.h0)
    y_by_nn_gru, reference = by_nn_gru(case)
    np.testing.assert_allclose(y, y_by_nn_gru, rtol=0, atol=1e-12)
    gradients = gradients_by_hand(case)
    for d in (gradients, reference):
        d["U_h"] = d["U_h"] * np.eye(H)
    assert not wrong(gradients, reference, 1e-12)


# --- The check is checked -----------------------------------------------------------------------


MISTAKES = {  # a snippet, what replaces it, and the weights whose gradients must then be wrong
    "only the last step": (
        "            dh = dh_prev\n",
        "            dh = 0 * dh_prev\n",
        RECURRENT,
    ),
    "z for 1 - z in (4c)": (" dh_prev = dh * (1 - z)  ", " dh_prev = dh * z  ", RECURRENT),
    "no path through r, (2b)": ('dh_prev += p["U_r"].T @ da_r', "", RECURRENT),
    "no slope of sigma in (1a)": ("da_z = dz * z * (1 - z)", "da_z = dz", RECURRENT),
    "rh for h_{t-1} in (2e)": ('["U_r"] += da_r @ h_prev.T', '["U_r"] += da_r @ rh.T', {"U_r"}),
    "h_{t-1} for rh in (3g)": ('["U_h"] += da_h @ rh.T', '["U_h"] += da_h @ h_prev.T', {"U_h"}),
    "a bias of one sequence": ('["b_h"] += da_h', '["b_h"] += da_h[:, :1]', {"b_h"}),
    "nan": ('d["W_h"] += da_h', 'd["W_h"] += np.nan * da_h', {"W_h"}),
}


def broken(mistake):
    """The GRU of gru_from_scratch.py with one snippet of the source replaced."""
    snippet, replacement, _ = MISTAKES[mistake]
    source = Path(gru_from_scratch.__file__).read_text(encoding="utf-8")
    assert source.count(snippet) == 1, f"the source has no longer one {snippet!r}: adapt MISTAKES"
    namespace = {"__name__": "broken"}
    exec(source.replace(snippet, replacement), namespace)
    return namespace["GRU"]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_check_catches_each_mistake_in_the_source(mistake):
    case = random_case(7, 3, (3, 5, 2), broken(mistake))
    caught = wrong(gradients_by_hand(case), gradients_by_differences(case), 1e-7)
    assert caught & WEIGHTS == MISTAKES[mistake][2]
