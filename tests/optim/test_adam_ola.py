"""AdamOLA: Algorithm 2 by hand, by the package's Definition 3, and as an optimizer of torch."""

import copy
import io
import math
import warnings

import pytest
import torch
from torch import nn

from odestop.discrete import AdamW, discrete_stopping_time
from odestop.objectives import LogisticRegression, Quadratic
from odestop.optim import AdamOLA

FOREACH = pytest.mark.parametrize("foreach", [False, True])


def half_square(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * (x * x).sum()


def advance(optimizer, x, function=half_square):
    """One step with the gradient and loss at x; returns the loss."""
    optimizer.zero_grad()
    loss = function(x)
    loss.backward()
    optimizer.step(loss=loss)
    return loss.item()


def signed(x0: float, lr: float, eta: float, **options) -> tuple[torch.Tensor, AdamOLA]:
    """A number whose Adam direction is the sign of the gradient."""
    x = torch.tensor([x0], dtype=torch.float64, requires_grad=True)
    return x, AdamOLA([x], lr=lr, betas=(0.0, 0.0), eps=0.0, adaptation_rate=eta, **options)


def problem(dtype=torch.float64):
    """Features and labels of a small classification, and a small network for it."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(40, 5, generator=generator, dtype=dtype)
    labels = (inputs.sum(1) > 0).long()
    network = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=dtype))
    return network, lambda: nn.functional.cross_entropy(network(inputs), labels)


def closure_of(optimizer, loss_function, calls=None):
    def closure():
        optimizer.zero_grad()
        loss = loss_function()
        loss.backward()
        if calls is not None:
            calls.append(loss.item())
        return loss

    return closure


def test_step_sizes_by_hand():
    x, optimizer = signed(1.0, 0.25, eta=0.07)
    rates, places = [], []
    for _ in range(5):
        places.append(x.item())
        advance(optimizer, x)
        rates.append(optimizer.param_groups[0]["lr"])
    # f: 1/2 -> 9/32 on the first step, and S = (3/4) / (9/32 - 1/2) = -24/7.
    second = 0.25 + 0.07 * 24 / 7
    x2 = 0.75 - second
    third = second - 0.07 * x2 / (0.5 * x2**2 - 9 / 32)
    # The third step goes past the minimum and up: no update.  The fourth comes back to where f was before: none either.
    assert rates == pytest.approx([0.25, second, third, third, third], rel=1e-14)
    assert places == pytest.approx([1.0, 0.75, x2, x2 - third, x2], rel=1e-13)
    group = optimizer.param_groups[0]
    assert (group["updates"], group["reference_loss"]) == (2, pytest.approx(0.5 * x2**2))


@pytest.mark.parametrize(("lr", "direction"), [(0.5, 1), (1.5, -1)])
def test_sign_rule(lr, direction):
    # From 1 to 1/2 the step was too short; to -1/2 it went past the minimum.
    x, optimizer = signed(1.0, lr, eta=0.01)
    advance(optimizer, x)
    slope = x.item()  # ∇f(x_1) d_0
    advance(optimizer, x)
    assert math.copysign(1, slope) == direction
    assert math.copysign(1, optimizer.param_groups[0]["lr"] - lr) == direction
    assert optimizer.param_groups[0]["sensitivity"] == pytest.approx(slope / (0.125 - 0.5))


@FOREACH
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_adaptation_it_is_torchs_adam_bit_for_bit(foreach, weight_decay, dtype):
    runs = []
    for adaptive in (True, False):
        network, loss_function = problem(dtype)
        if adaptive:
            options = {"adaptation_rate": 0.0, "weight_decay": weight_decay}
            optimizer = AdamOLA(network.parameters(), 0.05, (0.8, 0.9), 1e-7, foreach=foreach, **options)
        elif weight_decay:
            optimizer = torch.optim.AdamW(network.parameters(), 0.05, (0.8, 0.9), 1e-7, weight_decay, foreach=foreach)
        else:
            optimizer = torch.optim.Adam(network.parameters(), 0.05, (0.8, 0.9), 1e-7, foreach=foreach)
        for _ in range(20):
            optimizer.step(closure_of(optimizer, loss_function))
        runs.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    assert torch.equal(*runs)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("steps", [1, 6])
def test_sensitivity_is_definition_3_truncated_to_one_step(weight_decay, steps):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    objective = LogisticRegression(features, (features[:, 0] > 0).long(), regularization=0.1)
    x0 = torch.randn(4, generator=generator, dtype=torch.float64)
    x = x0.clone().requires_grad_()
    optimizer = AdamOLA([x], lr=0.1, weight_decay=weight_decay, adaptation_rate=1e-30)
    values = [advance(optimizer, x, objective) for _ in range(steps + 1)]
    assert values == sorted(values, reverse=True)

    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    step_map = AdamW(objective, rate, weight_decay=weight_decay)
    solution = discrete_stopping_time(step_map, x0, objective, values[-1] * (1 + 1e-9), backward_steps=1)
    assert solution.steps.item() == steps
    (expected,) = torch.autograd.grad(solution.steps, rate)
    assert optimizer.param_groups[0]["sensitivity"] == pytest.approx(expected.item(), rel=1e-9)


@FOREACH
def test_each_group_has_its_own_partial_derivative(foreach):
    """Against finite differences of the loss after the step in the rate of each group."""
    rates = (0.03, 0.2)

    def run(first_rate: float, second_rate: float, steps: int) -> tuple[float, AdamOLA]:
        network, loss_function = problem()
        groups = [{"params": network[0].parameters(), "lr": first_rate}, {"params": network[2].parameters()}]
        optimizer = AdamOLA(groups, lr=second_rate, adaptation_rate=1e-30, foreach=foreach)
        for _ in range(steps):
            optimizer.step(closure_of(optimizer, loss_function))
        return loss_function().item(), optimizer

    before, _ = run(*rates, steps=0)
    after, _ = run(*rates, steps=1)
    _, optimizer = run(*rates, steps=2)
    for index, group in enumerate(optimizer.param_groups):
        change = [1e-6 * (i == index) for i in range(2)]
        up, down = (
            run(*[rate + sign * delta for rate, delta in zip(rates, change, strict=True)], steps=1)[0]
            for sign in (1, -1)
        )
        expected = -(up - down) / 2e-6 / (after - before)
        assert group["sensitivity"] == pytest.approx(expected, rel=1e-6)
        assert group["lr"] == rates[index]


def test_one_and_two_gradients_per_iteration_give_the_same_iterates():
    runs = []
    for reevaluate in (False, True):
        network, loss_function = problem()
        optimizer = AdamOLA(network.parameters(), lr=0.03, adaptation_rate=1e-4, reevaluate=reevaluate)
        calls: list[float] = []
        iterates = []
        for _ in range(25):
            optimizer.step(closure_of(optimizer, loss_function, calls))
            iterates.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
        assert len(calls) == (50 if reevaluate else 25)
        assert optimizer.param_groups[0]["updates"] > 10
        runs.append(torch.stack(iterates))
    assert torch.equal(*runs)


def test_two_gradients_compare_losses_on_the_same_minibatch():
    """The batch changes the loss by a constant: only a comparison within one batch sees the step."""
    x, optimizer = signed(1.0, 0.25, eta=0.01, reevaluate=True)
    for offset in (0.0, -5.0):

        def closure(offset=offset):
            optimizer.zero_grad()
            loss = half_square(x) + offset
            loss.backward()
            return loss

        before, place = closure().item(), x.item()
        optimizer.step(closure)
        expected = x.item() / (half_square(x).item() + offset - before)
        assert optimizer.param_groups[0]["sensitivity"] == pytest.approx(expected)
        assert x.item() < place


def test_losses_that_rise_or_stay_change_nothing():
    x, optimizer = signed(1.0, 0.25, eta=0.07)
    for loss, updates in [(3.0, 0), (3.0, 0), (4.0, 0), (3.5, 0), (2.0, 1), (2.0, 1)]:
        optimizer.zero_grad()
        half_square(x).backward()
        place = x.item()
        optimizer.step(loss=loss)
        assert optimizer.param_groups[0]["updates"] == updates
        assert x.item() != place  # Adam steps all the same


def test_the_descent_tolerance_grows_with_the_number_of_updates():
    # f_ref - f must exceed 0, then 0.5, then 1.
    x, optimizer = signed(100.0, 1e-9, eta=1e-30, descent_tolerance=0.5)
    history = []
    for loss in (10.0, 9.9, 9.5, 9.3, 8.4, 7.5, 7.2):
        x.grad = x.detach().clone()
        optimizer.step(loss=loss)
        history.append((optimizer.param_groups[0]["updates"], optimizer.param_groups[0]["reference_loss"]))
    assert history[1:] == [(1, 9.9), (1, 9.9), (2, 9.3), (2, 9.3), (3, 7.5), (3, 7.5)]


def test_whatever_the_losses_do_an_update_follows_a_fall():
    """The condition of Algorithm 2 alone, written down here, implies a negative denominator."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        losses = torch.randn(30, generator=generator, dtype=torch.float64).tolist()
        x, optimizer = signed(100.0, 1e-9, eta=1e-30, descent_tolerance=0.2)
        reference, updates = losses[0], 0
        for k, loss in enumerate(losses):
            x.grad = x.detach().clone()
            optimizer.step(loss=loss)
            if k > 0 and reference - loss > 0.2 * updates:
                assert loss < losses[k - 1]
                reference, updates = loss, updates + 1
            assert optimizer.param_groups[0]["updates"] == updates


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_passed_over(bad):
    x, optimizer = signed(10.0, 0.25, eta=0.07)
    rates = []
    for loss in (bad, 3.0, bad, 2.0, 1.0):
        x.grad = x.detach().clone()
        optimizer.step(loss=loss)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[:4] == [0.25] * 4
    assert rates[4] > 0.25
    assert optimizer.param_groups[0]["reference_loss"] == 1.0


def test_a_gradient_that_is_not_finite_leaves_the_rate_alone():
    x, optimizer = signed(1.0, 0.25, eta=0.07)
    advance(optimizer, x)
    x.grad = torch.tensor([math.nan], dtype=torch.float64)
    optimizer.step(loss=0.1)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert optimizer.param_groups[0]["updates"] == 0


def test_a_rate_is_not_driven_to_zero_or_below():
    # From 1 to -1/2: S = 4/3, and 1.5 - 2 · 4/3 < 0.
    x, optimizer = signed(1.0, 1.5, eta=2.0)
    advance(optimizer, x)
    with pytest.warns(RuntimeWarning, match="zero or below"):
        advance(optimizer, x)
    assert optimizer.param_groups[0]["lr"] == 1.5
    assert optimizer.param_groups[0]["updates"] == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"log_rate": True}, 1.5 * math.exp(-2.0 * 1.5 * 4 / 3)),
        ({"max_relative_change": 0.25}, 1.5 / 1.25),
        ({"max_relative_change": 0.25, "log_rate": True}, 1.5 / 1.25),
    ],
)
def test_safeguards_keep_the_rate_positive(options, expected):
    x, optimizer = signed(1.0, 1.5, eta=2.0, **options)
    advance(optimizer, x)
    advance(optimizer, x)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, rel=1e-12)


def test_a_rise_of_the_rate_is_bounded_too():
    x, optimizer = signed(1.0, 0.25, eta=1e9, max_relative_change=0.25, log_rate=True)
    advance(optimizer, x)
    advance(optimizer, x)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.3125)


def test_an_overflowing_update_is_left_out():
    x, optimizer = signed(1.0, 0.25, eta=1e308, log_rate=True)
    optimizer.param_groups[0]["lr"] = 1e10
    advance(optimizer, x)
    x.grad = torch.tensor([1e300], dtype=torch.float64)
    optimizer.step(loss=0.1)
    assert optimizer.param_groups[0]["lr"] == 1e10


def test_frozen_parameters_are_not_part_of_the_sum():
    moving, frozen, paused = (torch.tensor([1.0], dtype=torch.float64, requires_grad=True) for _ in range(3))
    optimizer = AdamOLA([moving, frozen, paused], lr=0.25, betas=(0.0, 0.0), eps=0.0, adaptation_rate=1e-30)

    def step(loss: float, **gradients: float) -> None:
        for name, parameter in {"moving": moving, "paused": paused}.items():
            parameter.grad = torch.full_like(parameter, gradients[name]) if name in gradients else None
        optimizer.step(loss=loss)

    step(5.0, moving=1.0, paused=1.0)
    assert (moving.item(), frozen.item(), paused.item()) == (0.75, 1.0, 0.75)
    step(4.0, moving=2.0)  # paused moved before, but its slope is not known now
    assert optimizer.param_groups[0]["sensitivity"] == pytest.approx(2.0 / -1.0)
    step(3.0, moving=3.0, paused=7.0)  # paused has a gradient again, but it has not moved
    assert optimizer.param_groups[0]["sensitivity"] == pytest.approx(3.0 / -1.0)
    step(2.0, moving=4.0, paused=7.0)
    assert optimizer.param_groups[0]["sensitivity"] == pytest.approx(11.0 / -1.0)
    assert frozen.item() == 1.0
    assert frozen not in optimizer.state
    updates = optimizer.param_groups[0]["updates"]
    optimizer.zero_grad()
    optimizer.step(loss=1.0)  # nothing moves, and nothing fails
    assert optimizer.param_groups[0]["updates"] == updates == 3


def ola_problem():
    network, loss_function = problem()
    options = {"weight_decay": 0.01, "adaptation_rate": 1e-4, "descent_tolerance": 1e-4}
    return network, loss_function, AdamOLA(network.parameters(), lr=0.03, **options)


def test_a_saved_optimizer_goes_on_bit_for_bit():
    network, loss_function, optimizer = ola_problem()
    for _ in range(8):
        optimizer.step(closure_of(optimizer, loss_function))
    resumed, function, other = ola_problem()
    resumed.load_state_dict(network.state_dict())
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for own, call in ((optimizer, loss_function), (other, function)):
        for _ in range(8):
            own.step(closure_of(own, call))
        assert own.param_groups[0]["updates"] > 8
    for a, b in zip(network.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert optimizer.param_groups[0]["lr"] == other.param_groups[0]["lr"] != 0.03


def test_a_copied_optimizer_keeps_everything():
    _, loss_function, optimizer = ola_problem()
    for _ in range(4):
        optimizer.step(closure_of(optimizer, loss_function))
    other = copy.deepcopy(optimizer)
    for key, value in optimizer.defaults.items():
        assert repr(other.defaults[key]) == repr(value)
    for key, value in optimizer.param_groups[0].items():
        assert key == "params" or other.param_groups[0][key] == value
    assert other.param_groups[0]["updates"] == 3


def test_a_run_of_torchs_adam_can_be_continued():
    network, loss_function = problem()
    adam = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(5):
        adam.step(closure_of(adam, loss_function))
    optimizer = AdamOLA(network.parameters(), lr=0.7, adaptation_rate=1e-4)
    optimizer.load_state_dict(adam.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.03
    for _ in range(5):
        optimizer.step(closure_of(optimizer, loss_function))
    assert optimizer.param_groups[0]["updates"] > 0
    assert float(next(iter(optimizer.state.values()))["step"]) == 10


def test_schedulers_and_hooks_see_an_ordinary_optimizer():
    x, optimizer = signed(1.0, 0.25, eta=1e-30)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    seen = []
    optimizer.register_step_post_hook(lambda *arguments: seen.append(optimizer.param_groups[0]["lr"]))
    for _ in range(3):
        advance(optimizer, x)
        scheduler.step()
    assert seen == [0.25, 0.125, 0.0625]
    assert x.item() == 1 - 0.25 - 0.125 - 0.0625


def test_weight_decay_uses_the_rate_of_the_step_that_was_taken():
    """A scheduler that changes the rate in between does not change the sensitivity of the step before."""
    sensitivities = []
    for factor in (1.0, 0.5):
        x, optimizer = signed(1.0, 0.25, eta=1e-30, weight_decay=0.5)
        advance(optimizer, x)
        optimizer.param_groups[0]["lr"] *= factor
        advance(optimizer, x)
        sensitivities.append(optimizer.param_groups[0]["sensitivity"])
    after = 1 - 0.25 * (1 + 0.5)
    assert sensitivities == pytest.approx([after * (1 + 0.5) / (0.5 * after**2 - 0.5)] * 2)


def test_a_rate_that_erases_the_position_gives_no_update():
    # With lr · weight_decay = 1 the place before the step cannot be told any more.
    x, optimizer = signed(1.0, 0.5, eta=0.01, weight_decay=2.0)
    advance(optimizer, x)
    advance(optimizer, x)
    assert optimizer.param_groups[0]["updates"] == 0


def test_groups_added_later_adapt_from_then_on():
    x, optimizer = signed(1.0, 0.25, eta=0.01)
    advance(optimizer, x)
    y = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimizer.add_param_group({"params": [y], "lr": 0.125, "adaptation_rate": 0.5})
    for _ in range(2):
        optimizer.zero_grad()
        loss = half_square(x) + half_square(y)
        loss.backward()
        optimizer.step(loss=loss)
    # x takes its first loss with y's in it for a rise.
    assert [group["updates"] for group in optimizer.param_groups] == [0, 1]
    assert optimizer.param_groups[1]["lr"] > 0.125


def test_under_the_gradient_scaler():
    """A step whose gradients overflowed is left out; the others are those of a run without scaling."""
    runs = []
    for enabled in (False, True):
        network, loss_function = problem(torch.float32)
        optimizer = AdamOLA(network.parameters(), lr=0.03, adaptation_rate=1e-4)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=enabled)
        history = []
        for k in range(7 if enabled else 6):
            optimizer.zero_grad()
            loss = loss_function()
            scaler.scale(loss).backward()
            if k == 3 and enabled:
                network[0].weight.grad[0, 0] = math.inf
            scaler.step(optimizer, loss=loss)
            scaler.update()
            if not (k == 3 and enabled):
                history.append([loss.item(), optimizer.param_groups[0]["lr"]])
        runs.append(torch.tensor(history))
    torch.testing.assert_close(*runs)
    assert len(runs[0][:, 1].unique()) == 6


def test_step_needs_exactly_one_loss():
    x, optimizer = signed(1.0, 0.25, eta=0.01)
    with pytest.raises(ValueError, match="got neither"):
        optimizer.step()
    with pytest.raises(ValueError, match="got both"):
        optimizer.step(lambda: 1.0, loss=1.0)
    with pytest.raises(ValueError, match=r"one element, got shape \(2,\)"):
        optimizer.step(loss=torch.ones(2))
    _, optimizer = signed(1.0, 0.25, eta=0.01, reevaluate=True)
    with pytest.raises(ValueError, match="closure with reevaluate=True"):
        optimizer.step(loss=1.0)
    assert x.item() == 1.0


def test_sparse_and_complex_are_refused():
    embedding = nn.Embedding(3, 2, sparse=True)
    optimizer = AdamOLA(embedding.parameters(), adaptation_rate=0.0)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse gradients are not supported"):
        optimizer.step(loss=1.0)
    with pytest.raises(ValueError, match=r"real floating-point tensors, got one of dtype torch\.complex64"):
        AdamOLA([torch.zeros(2, dtype=torch.complex64, requires_grad=True)], adaptation_rate=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr must be a non-negative finite number, got -1.0"),
        ({"betas": (0.9, 1.0)}, r"betas must be two numbers .* got \(0.9, 1.0\)"),
        ({"eps": math.nan}, "eps must be"),
        ({"weight_decay": -0.1}, "weight_decay must be"),
        ({"adaptation_rate": -1.0}, "adaptation_rate must be"),
        ({"descent_tolerance": math.inf}, "descent_tolerance must be"),
        ({"max_relative_change": 0.0}, "max_relative_change must be a positive"),
    ],
)
def test_options_out_of_range_are_refused_per_group(options, message):
    x, y = (torch.zeros(1, requires_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match=message):
        AdamOLA([x], **{"adaptation_rate": 0.1, **options})
    optimizer = AdamOLA([x], adaptation_rate=0.1)
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [y], **options})
    assert len(optimizer.param_groups) == 1


def test_it_tunes_a_rate_that_is_too_small():
    quadratic = Quadratic.with_condition_number(10, 20.0, seed=0, dtype=torch.float64)
    losses = []
    for eta in (0.0, 1e-4):
        x = torch.ones(10, dtype=torch.float64, requires_grad=True)
        optimizer = AdamOLA([x], lr=1e-3, adaptation_rate=eta, max_relative_change=0.5)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            losses.append([advance(optimizer, x, quadratic) for _ in range(100)][-1])
    assert losses[1] < 0.01 * losses[0]
