"""Entries from Python files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from odestop.registry import CRITERIA, DYNAMICS, OBJECTIVES, find_entry, source_digest

CONTENT = '''
from typing import Annotated
import torch
from torch import nn
from odestop.objectives import Objective
from odestop.registry import Range

class Flow(nn.Module):
    """dx/dt = -w x.

    More.
    """
    def __init__(self, dimension, width: Annotated[int, Range("m", 1, 9, "width")] = 3, factor=0.5, label="a"):
        super().__init__()
        self.weight = nn.Parameter(factor * torch.rand(dimension, width).sum(-1))
    def forward(self, t, x):
        return -self.weight * x

class Seeded(nn.Module):
    def __init__(self, seed=7):
        super().__init__()
        self.seed = seed

class Bowl(Objective):
    """f(x) = x⁴."""
    def __init__(self):
        super().__init__(dimension=2, minimum=0.0)
    def value(self, x):
        return (x**4).sum(-1)

class Needy(nn.Module):
    def __init__(self, what):
        super().__init__()

def number(objective):
    return 3
'''


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "folder with spaces" / "mine.py"
    path.parent.mkdir()
    path.write_text(CONTENT)
    return path


def test_arguments_with_numbers_become_parameters(path: Path) -> None:
    entry = find_entry(DYNAMICS, f"{path}:Flow")
    assert entry.summary == "dx/dt = -w x"
    assert [parameter.name for parameter in entry.parameters] == ["width", "factor", "seed"]
    assert (entry.parameter("width").symbol, entry.parameter("width").high) == ("m", 9)
    assert entry.parameter("factor").default == 0.5
    assert [parameter.name for parameter in find_entry(DYNAMICS, f"{path}:Seeded").parameters] == ["seed"]


def test_the_module_has_the_precision_and_the_seed_asked_for(path: Path) -> None:
    entry, objective = find_entry(DYNAMICS, f"{path}:Flow"), OBJECTIVES["quadratic"].build(dimension=4)
    state = torch.random.get_rng_state()
    first, again = (entry.build(objective=objective, dtype=torch.float64, seed=3, width=2) for _ in range(2))
    other = entry.build(objective=objective, dtype=torch.float64, seed=4, width=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert first.weight.dtype == torch.float64
    assert first.weight.shape == (4,)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_objectives_may_come_from_files_too(path: Path) -> None:
    entry = find_entry(OBJECTIVES, f"{path}:Bowl")
    bowl = entry.build(dtype=torch.float64)
    assert bowl(torch.tensor([1.0, 2.0])).item() == 17.0
    assert entry.start(2).tolist() == [1.0, 1.0]


def test_a_changed_file_is_read_again(path: Path) -> None:
    before = source_digest((f"{path}:Flow", "quadratic"))
    assert find_entry(DYNAMICS, f"{path}:Flow").parameter("factor").default == 0.5
    path.write_text(CONTENT.replace("factor=0.5", "factor=0.25"))
    assert find_entry(DYNAMICS, f"{path}:Flow").parameter("factor").default == 0.25
    assert source_digest((f"{path}:Flow", "quadratic")) != before
    assert source_digest(("heavy-ball", "quadratic")) == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nothing", "dynamics must name a class in .*mine.py, got 'Nothing', which it does not have"),
        ("Needy", "dynamics must have a default for its argument what, got none"),
        ("CONTENT", "which it does not have"),
    ],
)
def test_what_a_file_does_not_have_is_said(name: str, message: str, path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        find_entry(DYNAMICS, f"{path}:{name}")


def test_what_is_no_module_is_refused(path: Path) -> None:
    with pytest.raises(ValueError, match="number must make an instance of Module, got int"):
        find_entry(DYNAMICS, f"{path}:number").build(objective=None)
    with pytest.raises(ValueError, match="Seeded must make an instance of Objective, got Seeded"):
        find_entry(OBJECTIVES, f"{path}:Seeded").build()


def test_files_that_do_not_run_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import torch\n1 / 0\n")
    with pytest.raises(ValueError, match=r"broken\.py could not be run: ZeroDivisionError"):
        find_entry(DYNAMICS, f"{broken}:Flow")
    with pytest.raises(ValueError, match="criterion must be in a file that can be read"):
        find_entry(CRITERIA, f"{tmp_path}/missing.py:J")
    with pytest.raises(ValueError, match="dynamics must be one of"):
        find_entry(DYNAMICS, "something:else")
