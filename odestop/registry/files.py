"""Entries from Python files of the user's own: ``my_file.py:MyFlow`` where a name of the registry can stand."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from odestop.objectives import Objective
from odestop.registry.catalogue import Catalogue, EntryType, Parameter, parameters_of, summary_of

_CONTEXT = ("objective", "dimension", "dtype")


def find_entry(catalogue: Catalogue[EntryType], name: str) -> EntryType:
    """Return the entry of a name, or one made from a class in a Python file.

    The file is run as ``import`` would run it, so that a name must come from whoever runs the program.

    Parameters
    ----------
    catalogue
        Where names are looked up.
    name
        A name in the catalogue, or ``path/to/file.py:Name`` for a class, or a function that returns a module.  It is
        called with those of ``objective``, ``dimension`` and ``dtype`` that it has arguments for.  Its arguments with
        a `Range`, or with a number as default, become parameters of the entry, and so does ``seed``: PyTorch's
        generator is seeded with it, and the module is brought to the precision of the state.

    Raises
    ------
    ValueError
        If the name is unknown; if the file cannot be read or run, or has no such class; if an argument has no value;
        or, when it is built, if what comes out is no `torch.nn.Module`, or no `Objective` where that is wanted.

    Examples
    --------
    >>> from odestop.registry import CRITERIA
    >>> find_entry(CRITERIA, "objective-gap").summary
    'J(x) = f(x) - f*'
    """
    path, colon, class_name = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        return catalogue[name]
    made = getattr(_load(_read(catalogue.kind, path), path), class_name, None)
    if not callable(made):
        raise ValueError(f"{catalogue.kind} must name a class in {path}, got {class_name!r}, which it does not have")
    return catalogue.entry_type(
        name, _builder(catalogue.kind, name, made), summary_of(made), _parameters(catalogue.kind, name, made)
    )


def source_digest(names: tuple[str, ...]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of the files among names; empty if there are none."""
    files = [path for path, colon, _ in (name.rpartition(":") for name in names) if colon and path.endswith(".py")]
    contents = b"\0".join(_read("file", path) for path in files)
    return hashlib.sha256(contents).hexdigest()[:16] if files else ""


def _read(kind: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{kind} must be in a file that can be read, got {path}: {error.strerror}") from error


@lru_cache
def _load(content: bytes, path: str) -> ModuleType:
    """Run a file; its content is an argument so that a changed file is run again."""
    name = f"odestop_user_{hashlib.sha256(path.encode() + content).hexdigest()[:16]}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses and type hints look their module up by name.
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{path} could not be run: {type(error).__name__}: {error}") from error
    return module


def _parameters(kind: str, name: str, made: Callable[..., Any]) -> tuple[Parameter, ...]:
    try:
        described = parameters_of(made)
    except NameError:
        # Annotations that only a type checker can evaluate.
        described = ()
    known = {parameter.name for parameter in described}
    plain = []
    for argument in inspect.signature(made).parameters.values():
        if argument.name in (*_CONTEXT, *known) or argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD):
            continue
        default = argument.default
        if isinstance(default, float | int) and not isinstance(default, bool):
            plain.append(Parameter(argument.name, argument.name, default, -math.inf, math.inf, ""))
        elif default is argument.empty:
            raise ValueError(f"{kind} must have a default for its argument {argument.name}, got none in {name}")
    parameters = (*described, *plain)
    if any(parameter.name == "seed" for parameter in parameters):
        return parameters
    return *parameters, Parameter("seed", "seed", 0, 0, 100, "seed of PyTorch's generator")


def _builder(kind: str, name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    accepted = inspect.signature(made).parameters

    def build(
        objective: Objective | None = None, dtype: torch.dtype | None = None, seed: int = 0, **parameters: Any
    ) -> nn.Module:
        context = {
            "objective": objective,
            "dimension": None if objective is None else objective.dimension,
            "dtype": dtype,
            "seed": seed,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = made(**{key: value for key, value in context.items() if key in accepted}, **parameters)
        wanted = Objective if kind == "objective" else nn.Module
        if not isinstance(module, wanted):
            raise ValueError(f"{name} must make an instance of {wanted.__name__}, got {type(module).__name__}")
        return module if dtype is None else module.to(dtype)

    return build
