"""Losses of modules as functions of their flattened parameters, and the small neural network."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from odestop import continuous_stopping_time
from odestop.dynamics import GradientFlow
from odestop.objectives import LeastSquares, ModuleObjective, Objective, bundled_data, multilayer_perceptron

DOUBLE = torch.float64
INPUTS = torch.randn(6, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(6, 1, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, inputs):
        return self.second(self.first(inputs).tanh())[:, :1]


class LastOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(1, 2, batch_first=True)

    def forward(self, inputs):
        return self.recurrent(inputs.unsqueeze(-1))[0][:, -1, :1]


MODULES = {
    "linear": lambda: nn.Linear(3, 1),
    "normalised": lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 1)),
    "convolution": lambda: nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(4, 1)),
    "tied": Tied,
}
UNBATCHED = {"recurrent": LastOutput, "parametrised": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 1))}


@pytest.fixture(params=[*MODULES, *UNBATCHED])
def module(request) -> nn.Module:
    return {**MODULES, **UNBATCHED}[request.param]().double()


@pytest.fixture
def objective(module) -> ModuleObjective:
    return Objective.from_module(module, INPUTS, TARGETS, functional.mse_loss)


def test_value_and_gradient_are_those_of_the_module_itself(module, objective):
    loss = functional.mse_loss(module(INPUTS), TARGETS)
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    x = objective.initial_point()
    assert objective.dimension == len(x) == sum(parameter.numel() for parameter in module.parameters())
    torch.testing.assert_close(objective(x), loss.detach())
    torch.testing.assert_close(objective.gradient(x), torch.cat([part.flatten() for part in gradients]))


def test_parameters_find_their_way_back_into_the_module(module, objective):
    x = objective.initial_point() + 0.1
    module.load_state_dict(objective.parameters_from(x), strict=False)
    torch.testing.assert_close(functional.mse_loss(module(INPUTS), TARGETS), objective(x))
    torch.testing.assert_close(objective.predictions(x, 2 * INPUTS), module(2 * INPUTS).detach())


@pytest.mark.parametrize("name", MODULES)
def test_a_batch_of_points_is_each_point_alone(name):
    objective = Objective.from_module(MODULES[name]().double(), INPUTS, TARGETS, functional.mse_loss)
    x = objective.initial_point() + 0.1 * torch.randn(2, 3, objective.dimension, dtype=DOUBLE)
    assert {value.shape[:2] for value in objective.parameters_from(x).values()} == {(2, 3)}
    for method in (objective, objective.gradient, lambda x: objective.hessian_vector_product(x, x)):
        torch.testing.assert_close(method(x)[1, 2], method(x[1, 2]))


def test_a_linear_layer_is_least_squares():
    objective = Objective.from_module(nn.Linear(3, 1, bias=False), INPUTS, TARGETS, functional.mse_loss)
    least_squares, x = LeastSquares(INPUTS, TARGETS.flatten()), torch.randn(4, 3, dtype=DOUBLE)
    torch.testing.assert_close(objective(x), 2 * least_squares(x))
    torch.testing.assert_close(objective.gradient(x), 2 * least_squares.gradient(x))


def test_the_penalty_is_that_of_all_parameters():
    module = nn.Linear(3, 1).double()
    plain, penalised = (
        Objective.from_module(module, INPUTS, TARGETS, functional.mse_loss, regularization) for regularization in (0, 3)
    )
    x = torch.randn(5, 4, dtype=DOUBLE)
    torch.testing.assert_close(penalised(x), plain(x) + 1.5 * x.square().sum(-1))


def test_frozen_parameters_keep_their_values():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)).double()
    module[0].requires_grad_(False)
    objective = Objective.from_module(module, INPUTS, TARGETS, functional.mse_loss)
    assert objective.dimension == 5
    assert set(objective.parameters_from(objective.initial_point())) == {"1.weight", "1.bias"}
    torch.testing.assert_close(objective(torch.zeros(5, dtype=DOUBLE)), TARGETS.square().mean())


def test_the_module_is_copied_in_evaluation_mode_and_left_alone():
    module = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1)).double()
    before = copy.deepcopy(module.state_dict())
    objective = Objective.from_module(module, INPUTS, TARGETS, functional.mse_loss)
    x = objective.initial_point().expand(2, -1)
    values = objective(x)
    torch.testing.assert_close(values[0], functional.mse_loss(copy.deepcopy(module).eval()(INPUTS), TARGETS).detach())
    assert values[0] == values[1]
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    nn.init.zeros_(module[0].weight)
    assert torch.equal(objective(x), values)


def test_the_parameters_are_none_of_a_flow_down_the_loss():
    objective = Objective.from_module(nn.Linear(3, 1).double(), INPUTS, TARGETS, functional.mse_loss)
    assert list(GradientFlow(objective).parameters()) == []
    x0 = objective.initial_point().requires_grad_()
    threshold = 0.9 * float(objective(x0).detach())
    time = continuous_stopping_time(GradientFlow(objective), x0, objective, threshold).time
    (slope,) = torch.autograd.grad(time, x0)
    assert bool(torch.isfinite(slope).all())
    assert float(slope.norm()) > 0


def test_conversion_carries_the_frozen_values_along():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    module[0].requires_grad_(False)
    objective = Objective.from_module(module, INPUTS.float(), TARGETS.float(), functional.mse_loss).double()
    assert objective(objective.initial_point()).dtype == objective.gradient(objective.initial_point()).dtype == DOUBLE


def test_the_initial_point_is_a_copy():
    objective = multilayer_perceptron(INPUTS, torch.arange(6) % 2)
    objective.initial_point().zero_()
    assert float(objective.initial_point().norm()) > 0


def test_gradients_are_remembered_unless_the_loss_may_change():
    scale = [1.0]

    def changing(predictions, targets):
        return scale[0] * functional.mse_loss(predictions, targets)

    x = torch.ones(4, dtype=DOUBLE)
    with torch.no_grad():
        for loss in (functional.mse_loss, nn.MSELoss()):
            objective = Objective.from_module(nn.Linear(3, 1), INPUTS, TARGETS, loss)
            assert objective.gradient(x) is objective.gradient(x)
        objective = Objective.from_module(nn.Linear(3, 1), INPUTS, TARGETS, changing)
        before = objective.gradient(x)
        scale[0] = 2.0
        torch.testing.assert_close(objective.gradient(x), 2 * before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module": nn.Tanh()}, "module must have a parameter that requires a gradient"),
        ({"targets": TARGETS[:2]}, r"inputs and targets must have the same number .* got shapes \(6, 3\) and \(2, 1\)"),
        ({"targets": torch.tensor(1.0)}, "inputs and targets must have the same number n >= 1 of rows"),
        ({"inputs": INPUTS[:0], "targets": TARGETS[:0]}, "inputs and targets must have the same number n >= 1 of rows"),
        ({"regularization": -1}, "regularization must be a non-negative finite number, got -1"),
    ],
)
def test_unusable_arguments_are_refused(arguments, message):
    defaults = {"module": nn.Linear(3, 1), "inputs": INPUTS, "targets": TARGETS, "loss": functional.mse_loss}
    with pytest.raises(ValueError, match=message):
        Objective.from_module(**{**defaults, **arguments})


def test_a_loss_that_cannot_be_called_is_refused():
    with pytest.raises(Exception, match="loss"):
        Objective.from_module(nn.Linear(3, 1), INPUTS, TARGETS, 3.0)


def test_a_loss_that_forgets_the_mean_is_refused():
    objective = Objective.from_module(nn.Linear(3, 1), INPUTS, TARGETS, nn.MSELoss(reduction="none"))
    with pytest.raises(ValueError, match=r"loss must return shape \(\), got \(6, 1\)"):
        objective(torch.zeros(4, dtype=DOUBLE))


def test_the_perceptron_equals_numpy():
    labels = torch.tensor([0, 2, 1, 2, 0, 1])
    objective = multilayer_perceptron(INPUTS, labels, hidden=2, regularization=0.4, seed=3)
    x = objective.initial_point()
    W, b, V, c = (value.numpy() for value in objective.parameters_from(x).values())
    value = 0.2 * float(x @ x)
    for row, label in zip(INPUTS.numpy(), labels, strict=True):
        exponentials = np.exp(V @ np.tanh(W @ row + b) + c)
        value -= np.log(exponentials[label] / exponentials.sum()) / 6
    assert float(objective(x)) == pytest.approx(value, rel=1e-12)


def test_the_seed_decides_the_perceptron_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (multilayer_perceptron(INPUTS, torch.arange(6) % 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(first.initial_point(), again.initial_point())
    assert not torch.equal(first.initial_point(), other.initial_point())


def test_the_perceptron_learns_the_digits():
    """To more than nine of ten, by thirty steps on minibatches."""
    pytest.importorskip("sklearn")
    images, labels = bundled_data("digits", intercept=False)
    objective = multilayer_perceptron(images, labels, hidden=16)
    x, generator = objective.initial_point().requires_grad_(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(30):
        rows = torch.randint(len(labels), (64,), generator=generator)
        x.grad = objective.minibatch(rows).gradient(x.detach()).detach()
        optimizer.step()
    accuracy = (objective.predictions(x.detach()).argmax(-1) == labels).float().mean()
    assert float(accuracy) > 0.9


@pytest.mark.parametrize(
    ("features", "labels", "hidden", "message"),
    [
        (INPUTS[0], torch.tensor([0]), 2, "features must be real floating-point numbers"),
        (INPUTS, torch.zeros(6), 2, r"labels must be integers from 0 on of shape \(n,\), got torch.float32"),
        (INPUTS, torch.full((6,), -1), 2, r"labels must be integers from 0 on"),
        (INPUTS, torch.arange(6), 0, "hidden must be an integer of at least 1, got 0"),
        (INPUTS, torch.arange(5), 2, "inputs and targets must have the same number"),
    ],
)
def test_an_impossible_perceptron_is_refused(features, labels, hidden, message):
    with pytest.raises(ValueError, match=message):
        multilayer_perceptron(features, labels, hidden)
