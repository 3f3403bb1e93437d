"""What every objective promises: batches, autograd, and a gradient remembered only while it is right."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from odestop.criteria import SquaredGradientNorm
from odestop.dynamics import GradientFlow
from odestop.objectives import DiagonalQuadratic, Objective

DOUBLE = torch.float64


class WeightedQuartic(Objective):
    """f = power-weighted quartic with a parameter, a buffer and a plain attribute; counts its gradients."""

    def __init__(self) -> None:
        super().__init__(dimension=3, minimum=0.0)
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE))
        self.register_buffer("offset", torch.tensor([0.5, 0.0, -0.5], dtype=DOUBLE))
        self.factor = 1.0
        self.evaluations = [0]

    def value(self, x: Tensor) -> Tensor:
        return self.factor * (self.weight * (x - self.offset) ** 4).sum(-1)

    def _gradient(self, x: Tensor) -> Tensor:
        self.evaluations[0] += 1
        return super()._gradient(x)

    def exact_gradient(self, x: Tensor) -> Tensor:
        return (4 * self.factor * self.weight * (x - self.offset) ** 3).detach()


@pytest.fixture
def objective() -> WeightedQuartic:
    return WeightedQuartic()


@pytest.fixture
def x() -> Tensor:
    return torch.tensor([[1.0, -2.0, 0.3], [0.1, 0.2, 0.9]], dtype=DOUBLE)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 2, 3)])
@pytest.mark.parametrize("grad_mode", [False, True])
def test_autograd_gives_gradient_and_hessian_vector_product_for_any_batch(objective, shape, grad_mode):
    x, v = torch.randn(2, *shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))
    with torch.set_grad_enabled(grad_mode):
        gradient = objective.gradient(x)
        product = objective.hessian_vector_product(x, v)
    torch.testing.assert_close(gradient.detach(), objective.exact_gradient(x))
    torch.testing.assert_close(product.detach(), (12 * objective.weight * (x - objective.offset) ** 2 * v).detach())
    assert objective(x).shape == shape[:-1]


def test_autograd_gradient_is_differentiable_three_times_in_x_and_in_parameters(objective, x):
    x.requires_grad_()
    gradient = objective.gradient(x)
    (second,) = torch.autograd.grad(gradient.sum(), x, create_graph=True)
    (third,) = torch.autograd.grad(second.sum(), x, create_graph=True)
    torch.testing.assert_close(third, 24 * objective.weight * (x - objective.offset))
    (by_weight,) = torch.autograd.grad(gradient[0, 0], objective.weight)
    torch.testing.assert_close(by_weight[0], 4 * (x[0, 0] - 0.5).detach() ** 3)


def test_hessian_vector_product_is_differentiable_in_the_vector(objective, x):
    v = torch.ones_like(x, requires_grad=True)
    (by_v,) = torch.autograd.grad(objective.hessian_vector_product(x, v).sum(), v)
    torch.testing.assert_close(by_v, (12 * objective.weight * (x - objective.offset) ** 2).detach())


def test_autograd_gradient_leaves_no_foreign_leaf_in_the_graph_of_a_tracked_point(objective, x):
    x.requires_grad_()
    pending, leaves = [objective.gradient(x).grad_fn], set()
    while pending:
        node = pending.pop()
        if hasattr(node, "variable"):
            leaves.add(id(node.variable))
        pending += [edge for edge, _ in node.next_functions if edge is not None]
    assert leaves == {id(x), id(objective.weight)}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("grad_mode", [False, True])
def test_autograd_gradient_keeps_forward_mode_tangents(objective, x, grad_mode):
    v = torch.ones_like(x)
    with torch.set_grad_enabled(grad_mode):
        _, tangent = torch.func.jvp(objective.gradient, (x,), (v,))
    torch.testing.assert_close(tangent.detach(), objective.hessian_vector_product(x, v).detach())


def test_hessian_vector_product_of_a_linear_function_is_zero(x):
    linear = Objective.from_function(lambda x: x.sum(-1))
    assert torch.equal(linear.gradient(x).detach(), torch.ones_like(x))
    assert torch.equal(linear.hessian_vector_product(x, x), torch.zeros_like(x))


def test_flow_and_criterion_at_the_same_state_cost_one_gradient(objective, x):
    flow, criterion = GradientFlow(objective), SquaredGradientNorm(objective)
    with torch.no_grad():
        slope = flow(torch.tensor(0.0), x)
        value = criterion(x)
    assert objective.evaluations == [1]
    torch.testing.assert_close(slope, -objective.exact_gradient(x))
    torch.testing.assert_close(value, (objective.exact_gradient(x) ** 2).sum(-1))


def test_an_equal_tensor_that_is_another_object_is_evaluated_again(objective, x):
    with torch.no_grad():
        objective.gradient(x)
        objective.gradient(x.clone())
    assert objective.evaluations == [2]


def test_two_views_of_the_same_entries_cost_one_gradient(objective, x):
    state = torch.cat([x, x + 1.0], dim=-1)
    with torch.no_grad():
        gradient = objective.gradient(state[..., :3])
        assert objective.gradient(state.chunk(2, dim=-1)[0]) is gradient
    assert objective.evaluations == [1]


@pytest.mark.parametrize(
    "other",
    [
        lambda state: state[:, 3:],
        lambda state: state[:, 1:4],
        lambda state: state[:1, :3],
        lambda state: state[[1, 0], :3],
        lambda state: state.view(4, 3)[:2],
        lambda state: state[..., :3].clone(),
        lambda state: state.clone()[..., :3],
    ],
    ids=["other half", "other offset", "other shape", "other rows", "other strides", "copy", "view of a copy"],
)
def test_a_view_of_other_entries_is_evaluated_again(objective, x, other):
    state = torch.cat([x, x + 1.0], dim=-1)
    with torch.no_grad():
        objective.gradient(state[..., :3])
        torch.testing.assert_close(objective.gradient(other(state)), objective.exact_gradient(other(state)))
    assert objective.evaluations == [2]


def test_a_transposed_view_is_another_point(objective):
    square = torch.arange(9, dtype=DOUBLE).reshape(3, 3)
    with torch.no_grad():
        objective.gradient(square.view(3, 3))
        torch.testing.assert_close(objective.gradient(square.mT), objective.exact_gradient(square.mT))


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.mul_(2.0),
        lambda state: state[:, 0].fill_(7.0),
        lambda state: state[..., :3].zero_(),
        lambda state: state.detach().neg_(),
    ],
    ids=["base", "overlapping view", "same view", "detached base"],
)
def test_every_change_through_the_base_makes_the_gradient_of_a_view_new(objective, x, change):
    state = torch.cat([x, x + 1.0], dim=-1)
    with torch.no_grad():
        objective.gradient(state[..., :3])
        change(state)
        torch.testing.assert_close(objective.gradient(state[..., :3]), objective.exact_gradient(state[..., :3]))


def test_a_view_of_a_freed_tensor_is_never_mistaken_for_that_of_a_new_one(objective):
    with torch.no_grad():
        for number in range(20):
            state = torch.full((6,), float(number), dtype=DOUBLE)
            torch.testing.assert_close(objective.gradient(state[:3]), objective.exact_gradient(state[:3]))
            del state


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_views_with_another_tangent_are_not_served_from_memory(objective, x):
    state = torch.cat([x, x + 1.0], dim=-1)

    def gradient(state: Tensor) -> Tensor:
        return objective.gradient(state[..., :3])

    with torch.no_grad():
        gradient(state)
        for scale in (1.0, 2.0):
            _, tangent = torch.func.jvp(gradient, (state,), (torch.full_like(state, scale),))
            product = objective.hessian_vector_product(x, torch.full_like(x, scale))
            torch.testing.assert_close(tangent, product)
            with forward_ad.dual_level():
                dual = forward_ad.make_dual(state, torch.full_like(state, scale))
                torch.testing.assert_close(forward_ad.unpack_dual(gradient(dual)).tangent, product)
        torch.testing.assert_close(gradient(state), objective.exact_gradient(x))


def test_views_under_vmap_are_each_their_own_point():
    objective, state = DiagonalQuadratic([1.0, 4.0], dtype=DOUBLE), torch.arange(8, dtype=DOUBLE).reshape(2, 4)

    def gradients(row: Tensor) -> tuple[Tensor, Tensor]:
        return objective.gradient(row[:2]), objective.gradient(row[2:])

    with torch.no_grad():
        first, second = torch.func.vmap(gradients)(state)
        torch.testing.assert_close(first, state[:, :2] * objective.eigenvalues)
        torch.testing.assert_close(second, state[:, 2:] * objective.eigenvalues)


def test_grad_mode_neither_reads_nor_writes_the_memory(objective, x):
    with torch.no_grad():
        objective.gradient(x)
    assert objective.gradient(x).requires_grad
    assert objective.evaluations == [2]
    y = x.clone()
    objective.gradient(y)
    with torch.no_grad():
        assert not objective.gradient(y).requires_grad
    assert objective.evaluations == [4]


def change_state(objective: WeightedQuartic, x: Tensor) -> None:
    x.mul_(2.0)


def change_view_of_state(objective: WeightedQuartic, x: Tensor) -> None:
    x[0, 1:].fill_(7.0)


def change_parameter(objective: WeightedQuartic, x: Tensor) -> None:
    objective.weight.add_(1.0)


def change_buffer(objective: WeightedQuartic, x: Tensor) -> None:
    objective.offset.zero_()


def replace_buffer(objective: WeightedQuartic, x: Tensor) -> None:
    objective.offset = torch.ones(3, dtype=DOUBLE)


def change_attribute(objective: WeightedQuartic, x: Tensor) -> None:
    objective.factor = 5.0


def load_other_state(objective: WeightedQuartic, x: Tensor) -> None:
    objective.load_state_dict({"weight": torch.full((3,), 9.0), "offset": torch.ones(3)})


def step_optimizer(objective: WeightedQuartic, x: Tensor) -> None:
    objective.weight.grad = torch.ones_like(objective.weight)
    torch.optim.SGD(objective.parameters(), lr=0.5).step()


@pytest.mark.parametrize(
    "change",
    [
        change_state,
        change_view_of_state,
        change_parameter,
        change_buffer,
        replace_buffer,
        change_attribute,
        load_other_state,
        step_optimizer,
    ],
)
def test_every_change_makes_the_gradient_new(objective, x, change):
    with torch.no_grad():
        objective.gradient(x)
        change(objective, x)
        torch.testing.assert_close(objective.gradient(x), objective.exact_gradient(x))


def test_changing_the_returned_gradient_does_not_spoil_the_next(objective, x):
    with torch.no_grad():
        objective.gradient(x).neg_()
        torch.testing.assert_close(objective.gradient(x), objective.exact_gradient(x))


def test_converting_a_parameter_makes_the_gradient_new(x):
    class Scaled(Objective):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1 / 3, dtype=DOUBLE))

        def value(self, x: Tensor) -> Tensor:
            return 0.5 * self.scale * (x * x).sum(-1)

    objective = Scaled()
    with torch.no_grad():
        torch.testing.assert_close(objective.gradient(x), x / 3)
        rounded = float(torch.tensor(1 / 3, dtype=torch.float32))
        torch.testing.assert_close(objective.float().gradient(x), rounded * x, rtol=1e-15, atol=0.0)


def test_functional_call_sees_its_own_parameters(objective, x):
    def gradient(scale: float) -> Tensor:
        weights = {"objective.weight": scale * objective.weight.detach()}
        return torch.func.functional_call(GradientFlow(objective), weights, (torch.tensor(0.0), x))

    with torch.no_grad():
        expected = -objective.exact_gradient(x)
        torch.testing.assert_close(GradientFlow(objective)(torch.tensor(0.0), x), expected)
        for scale in range(2, 6):
            torch.testing.assert_close(gradient(float(scale)), scale * expected)
        torch.testing.assert_close(GradientFlow(objective)(torch.tensor(0.0), x), expected)


def test_a_freed_state_is_never_mistaken_for_a_new_one(objective):
    with torch.no_grad():
        for number in range(20):
            x = torch.full((3,), float(number), dtype=DOUBLE)
            torch.testing.assert_close(objective.gradient(x), objective.exact_gradient(x))
            del x


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_share_no_memory_with_the_original(objective, x, duplicate):
    with torch.no_grad():
        objective.gradient(x)
        twin = duplicate(objective)
        twin.factor = 3.0
        torch.testing.assert_close(twin.gradient(x), 3 * objective.exact_gradient(x))
        torch.testing.assert_close(objective.gradient(x), objective.exact_gradient(x))


def test_memory_is_no_part_of_the_state_dict(objective, x):
    with torch.no_grad():
        objective.gradient(x)
    assert set(objective.state_dict()) == {"weight", "offset"}


def test_inference_mode_gives_the_gradient_after_a_change_in_place():
    objective = DiagonalQuadratic([1.0, 4.0])
    with torch.inference_mode():
        x = torch.ones(2)
        objective.gradient(x)
        x.mul_(2.0)
        assert objective.gradient(x).tolist() == [2.0, 8.0]
    with torch.no_grad():
        assert objective.gradient(x).tolist() == [2.0, 8.0]


def test_a_closure_whose_variables_change_is_never_served_from_memory(x):
    scale = [1.0]
    objective = Objective.from_function(lambda x: scale[0] * (x * x).sum(-1))
    with torch.no_grad():
        torch.testing.assert_close(objective.gradient(x), 2 * x)
        scale[0] = 2.0
        torch.testing.assert_close(objective.gradient(x), 4 * x)


def test_a_module_given_as_function_is_remembered_and_watched(x):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0, dtype=DOUBLE))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * (x * x).sum(-1)

    objective = Objective.from_function(Scaled(), dimension=3, minimum=0.0)
    assert (objective.dimension, objective.minimum) == (3, 0.0)
    with torch.no_grad():
        assert objective.gradient(x) is objective.gradient(x)
        next(objective.parameters()).fill_(2.0)
        torch.testing.assert_close(objective.gradient(x), 4 * x)


def test_a_function_that_forgets_the_batch_is_refused(x):
    objective = Objective.from_function(lambda x: (x * x).sum())
    with pytest.raises(ValueError, match=r"function must return shape \(2,\), got \(\)"):
        objective(x)


def test_something_that_cannot_be_called_is_refused():
    with pytest.raises(Exception, match=r"function"):
        Objective.from_function(3.0)


def test_an_objective_without_value_says_so(x):
    with pytest.raises(NotImplementedError, match=r"Objective must implement value\(x\)"):
        Objective()(x)


def test_unknown_constants_are_none():
    objective = Objective()
    for name in ("dimension", "minimum", "minimizer", "smoothness", "strong_convexity"):
        assert getattr(objective, name) is None


def test_an_analytic_gradient_is_remembered_as_well(x):
    objective = DiagonalQuadratic([1.0, 2.0, 3.0], dtype=DOUBLE)
    with torch.no_grad():
        assert objective.gradient(x) is objective.gradient(x)
    assert objective.gradient(x) is not objective.gradient(x)
