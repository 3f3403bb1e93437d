"""The networks against torch's own LSTM cells and the formulas of their papers, coordinate by coordinate."""

import math

import pytest
import torch
from torch import nn

from odestop.l2o import L2ODM, NETWORKS, RNNprop
from odestop.l2o.lstm import CoordinatewiseLSTM, _Cell
from odestop.objectives import DiagonalQuadratic
from tests.l2o.networks import NETWORK_CLASSES, descending

pytestmark = pytest.mark.usefixtures("annotations_unchecked")


def torch_cells(lstm):
    """torch's cells with the same weights; their gates come in the order i, f, u, o."""
    cells = []
    for weight in lstm.weights:
        hidden = lstm.hidden
        i, f, o, u = weight.detach().split(hidden)
        reordered = torch.cat([i, f, u, o])
        cell = nn.LSTMCell(weight.shape[1] - hidden - 1, hidden, dtype=weight.dtype)
        with torch.no_grad():
            cell.weight_ih.copy_(reordered[:, : -hidden - 1])
            cell.weight_hh.copy_(reordered[:, -hidden - 1 : -1])
            cell.bias_ih.copy_(reordered[:, -1])
            cell.bias_hh.zero_()
        cells.append(cell)
    return cells


def test_the_fused_cells_are_torchs_lstm():
    generator = torch.Generator().manual_seed(0)
    lstm = CoordinatewiseLSTM(3, 4, 2, generator, dtype=torch.float64)
    cells = torch_cells(lstm)
    signals = [torch.randn(2, 5, 3, 6, generator=generator, dtype=torch.float64) for _ in range(3)]
    memory = tuple(torch.zeros(2, 5, 4, 6, dtype=torch.float64) for _ in range(4))
    states = [(torch.zeros(60, 4, dtype=torch.float64),) * 2] * 2
    for signal in signals:
        output, memory = lstm(signal, memory)
        expected = signal.movedim(-2, -1).reshape(60, 3)
        for layer, cell in enumerate(cells):
            states[layer] = cell(expected, states[layer])
            expected = states[layer][0]
    by_coordinate = output.movedim(-2, -1).reshape(60, 4)
    torch.testing.assert_close(by_coordinate, expected, rtol=1e-13, atol=1e-14)
    by_coordinate.square().sum().backward()
    expected.square().sum().backward()
    for weight, cell in zip(lstm.weights, cells, strict=True):
        i, f, u, o = torch.cat([cell.weight_ih.grad, cell.weight_hh.grad, cell.bias_ih.grad[:, None]], 1).split(4)
        torch.testing.assert_close(weight.grad, torch.cat([i, f, o, u]), rtol=1e-12, atol=1e-13)


def test_the_written_out_derivative_agrees_with_finite_differences():
    generator = torch.Generator().manual_seed(0)
    shapes = (12, 6), (2, 2, 4), (2, 3, 4), (2, 3, 4)
    arguments = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(_Cell.apply, arguments)


def test_l2o_dm_sees_logarithm_and_sign():
    network = L2ODM(hidden=3, preprocessing=2.0, output_scale=0.5, dtype=torch.float64)
    derivatives = [-3.0, -math.exp(-2), -0.01, 0.0, 0.05, 1.0]

    def features(g):
        return [math.log(abs(g)) / 2, math.copysign(1, g)] if abs(g) >= math.exp(-2) else [-1.0, math.exp(2) * g]

    memory = tuple(torch.zeros(3, 6, dtype=torch.float64) for _ in range(4))
    signal = torch.tensor([features(g) for g in derivatives], dtype=torch.float64).T
    output, expected_memory = network.lstm(signal, memory)
    expected = 0.5 * (network.readout[0, :-1] @ output + network.readout[0, -1])
    move, following = network.update(0, torch.tensor(derivatives, dtype=torch.float64), memory)
    torch.testing.assert_close(move, expected, rtol=1e-13, atol=1e-14)
    for part, expected_part in zip(following, expected_memory, strict=True):
        torch.testing.assert_close(part, expected_part, rtol=1e-13, atol=1e-14)


def test_l2o_dm_has_finite_derivatives_at_zero():
    network = L2ODM(hidden=3, dtype=torch.float64)
    gradient = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    move, _ = network.update(0, gradient, tuple(torch.zeros(3, 2, dtype=torch.float64) for _ in range(4)))
    (slope,) = torch.autograd.grad(move.sum(), gradient)
    assert torch.isfinite(slope).all()


def test_rnnprop_sees_what_adam_computes():
    """Its features are m̂/√v̂ and g/√v̂, read off torch's Adam on the same gradients."""
    network = RNNprop(hidden=3, beta1=0.8, beta2=0.9, eps=0.0, output_scale=0.3, dtype=torch.float64)
    gradients = torch.randn(4, 6, dtype=torch.float64)
    x = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([x], lr=1.0, betas=(0.8, 0.9), eps=0.0)
    memory = tuple(torch.zeros(rows, 6, dtype=torch.float64) for rows in network.memory_rows)
    cells = memory[2:]
    for k, gradient in enumerate(gradients):
        before = x.detach().clone()
        x.grad = gradient.clone()
        adam.step()
        root = (adam.state[x]["exp_avg_sq"] / (1 - 0.9 ** (k + 1))).sqrt()
        features = torch.stack([gradient / root, before - x.detach()])
        hidden = nn.functional.elu(network.input_layer[:, :2] @ features + network.input_layer[:, 2:])
        output, cells = network.lstm(hidden, cells)
        expected = -0.3 * torch.tanh(network.readout[0, :-1] @ output + network.readout[0, -1])
        move, memory = network.update(k, gradient, memory)
        torch.testing.assert_close(move, expected, rtol=1e-11, atol=1e-13)


def test_rnnprop_does_not_see_the_scale_of_the_objective():
    small, large = (DiagonalQuadratic([scale, 4 * scale]) for scale in (1e-3, 1e3))
    network = RNNprop(hidden=4, eps=0.0, dtype=torch.float64)
    x0 = torch.tensor([1.0, -2.0], dtype=torch.float64)
    paths = [list(network.optimizer(f.double()).iterates(x0, 6)) for f in (small, large)]
    torch.testing.assert_close(paths[0][-1], paths[1][-1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("network_class", NETWORK_CLASSES)
def test_coordinates_and_problems_do_not_see_each_other(network_class):
    network = network_class(hidden=4, dtype=torch.float64)
    curvatures, x0 = torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64), torch.randn(2, 5, 3, dtype=torch.float64)
    *_, together = network.optimizer(DiagonalQuadratic(curvatures)).iterates(x0, 4)
    for i in range(3):
        *_, alone = network.optimizer(DiagonalQuadratic(curvatures[i : i + 1])).iterates(x0[1, 2, i : i + 1], 4)
        torch.testing.assert_close(together[1, 2, i : i + 1], alone, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("network_class", NETWORK_CLASSES)
def test_weights_are_the_same_in_every_dtype(network_class):
    double, single = (network_class(hidden=4, seed=3, dtype=dtype) for dtype in (torch.float64, torch.float32))
    for one, other in zip(double.parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(one.float(), other, rtol=0, atol=0)
    other_seed = network_class(hidden=4, seed=4, dtype=torch.float64)
    assert not torch.equal(next(double.parameters()), next(other_seed.parameters()))


def test_the_networks_of_the_paper_have_two_layers_of_width_30():
    for network_class in NETWORKS.values():
        network = network_class()
        assert [weight.shape[0] for weight in network.lstm.weights] == [120, 120]
    assert sum(p.numel() for p in L2ODM().parameters()) == 120 * (2 + 30 + 1) + 120 * (60 + 1) + 31


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: L2ODM(hidden=0), "hidden must be"),
        (lambda: L2ODM(preprocessing=0.0), "preprocessing must be"),
        (lambda: RNNprop(beta1=1.0), "beta1 must be"),
        (lambda: RNNprop(output_scale=-1.0), "output_scale must be"),
        (lambda: RNNprop(layers=0), "layers must be"),
        (lambda: RNNprop().optimizer(lambda x: x.sum(-1)), "objective must be"),
    ],
)
def test_what_cannot_be_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("network_class", NETWORK_CLASSES)
def test_the_helper_network_descends(network_class):
    f = DiagonalQuadratic([1.0, 4.0]).double()
    *_, x = descending(network_class).optimizer(f).iterates(torch.ones(2, dtype=torch.float64), 20)
    assert f(x) < 0.7 * f(torch.ones(2, dtype=torch.float64))
