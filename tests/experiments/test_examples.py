"""The examples in the docstrings of experiments and figures."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["experiments.grid", "experiments.hartley_quadratic"])
def test_the_examples_of_a_module_are_right(name: str) -> None:
    failed, attempted = doctest.testmod(import_module(name), extraglobs={"torch": import_module("torch")})
    assert attempted > 0
    assert failed == 0
