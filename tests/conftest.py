"""What every test starts from: the same random numbers, one thread, torch's own default dtype."""

import random
from collections.abc import Callable, Iterator

import hypothesis
import jaxtyping
import numpy as np
import pytest
import torch

torch.set_num_threads(1)

# Examples are the same in every run, and a slow machine is not a failure.
hypothesis.settings.register_profile("odestop", deadline=None, derandomize=True)
hypothesis.settings.load_profile("odestop")


@pytest.fixture(autouse=True)
def reproducible() -> Iterator[None]:
    """Seed every generator before the test; fail a test that leaves another default dtype behind."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - third-party code may use numpy's global generator
    torch.manual_seed(0)
    default_dtype = torch.get_default_dtype()
    yield
    left_behind = torch.get_default_dtype()
    torch.set_default_dtype(default_dtype)
    assert left_behind == default_dtype, f"the test changed the default dtype to {left_behind}"


@pytest.fixture(scope="module")
def annotations_unchecked() -> Iterator[None]:
    """Call the package as a user does, without checking every argument and result against its annotation.

    The checks multiply the time of a long solve by four.  It is for modules that compare numbers and call nothing that
    other modules do not call with the checks on.
    """
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Callable]:
    """Return the graphs that `torch.compile` was given, by a backend that is fast to compile."""
    # The compiler takes seconds to import, and few tests need it.
    from torch._dynamo.backends.registry import lookup_backend

    graphs: list[Callable] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        graphs.append(graph)
        return lookup_backend("aot_eager")(graph, inputs)

    torch.compiler.reset()
    monkeypatch.setattr("odestop._compilation.BACKEND", backend)
    return graphs


@pytest.fixture
def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every compilation fail, as on a machine without a C++ compiler."""

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        raise RuntimeError("no working C++ compiler")

    torch.compiler.reset()
    monkeypatch.setattr("odestop._compilation.BACKEND", backend)
