"""What a catalogue of objectives, dynamics or criteria is: entries by name, with parameters and ranges worth exploring.

An entry is registered by a builder: a class, or a small function that calls one.  Its parameters are the
arguments annotated with a `Range`; names and defaults come from the signature and the summary comes from the
docstring of the class, so that nothing is written down twice.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar, get_args

import torch
from torch import Tensor, nn

from odestop._validation import check_choice
from odestop.objectives import CompositeObjective, Objective

Built = TypeVar("Built", bound=nn.Module)
BuilderType = TypeVar("BuilderType", bound=Callable[..., nn.Module])

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Range:
    """What the annotation of a parameter says, as in ``Annotated[float, Range("λ", 0.0, 1.0, "penalty")]``.

    Parameters
    ----------
    symbol
        How formulas write the parameter.
    low, high
        Ends of the range worth exploring; values outside it may well be valid.
    description
        What it is, in a few words.
    """

    symbol: str
    low: float | int
    high: float | int
    description: str


@dataclass(frozen=True)
class Parameter:
    """A numeric parameter of an entry.

    Attributes
    ----------
    name
        Keyword of the builder.
    symbol
        How formulas write it.
    default
        Value if none is given; None where it follows from the rest of the problem.
    low, high
        Ends of the range worth exploring; values outside it may well be valid.
    description
        What it is, in a few words.
    is_differentiable
        Whether it may be a tensor, so that stopping times have a derivative in it.
    """

    name: str
    symbol: str
    default: float | int | None
    low: float | int
    high: float | int
    description: str
    is_differentiable: bool = False

    @property
    def is_integer(self) -> bool:
        """Whether only whole numbers make sense."""
        return isinstance(self.default, int)

    def parse(self, text: str) -> float | int:
        """Read a value written as a decimal number.

        Raises
        ------
        ValueError
            If the text is anything else, or not whole where the parameter is an integer.

        Examples
        --------
        >>> from odestop.registry import OBJECTIVES
        >>> OBJECTIVES["quadratic"].parameter("dimension").parse("1e3")
        1000
        """
        number = parse_number(self.name, text)
        if not self.is_integer:
            return number
        if not number.is_integer():
            raise ValueError(f"{self.name} must be a whole number, got {text!r}")
        return int(number)


@dataclass(frozen=True)
class Entry(Generic[Built]):
    """One objective, dynamics or criterion that is known by name.

    Attributes
    ----------
    name
        Lower case, words joined by hyphens.
    builder
        Makes the module; called by `build`.
    summary
        First line of the class's docstring.
    parameters
        Numeric parameters of the builder.
    objective_kinds
        Kinds of objectives that a dynamics or a criterion is for.  One without a gradient, a `CompositeObjective`, is
        among them only if its kind is.
    """

    name: str
    builder: Callable[..., Built]
    summary: str
    parameters: tuple[Parameter, ...]
    objective_kinds: tuple[type[Objective], ...] = (Objective, CompositeObjective)

    def build(
        self,
        *,
        objective: Objective | None = None,
        dtype: torch.dtype | None = None,
        **parameters: float | int | Tensor | None,
    ) -> Built:
        """Make the module.

        Parameters
        ----------
        objective
            f, for a dynamics or a criterion.
        dtype
            Of the state that the module is for.
        **parameters
            Values of `parameters`; the others take their defaults.  Hyperparameters of a dynamics may be
            tensors that require a gradient.

        Raises
        ------
        ValueError
            If a parameter is not one of this entry, or the class refuses its value, or the entry is not for
            objectives of this kind.

        Examples
        --------
        >>> from odestop.registry import CRITERIA, OBJECTIVES
        >>> quadratic = OBJECTIVES["quadratic"].build(dimension=3, condition_number=100.0)
        >>> quadratic.eigenvalues
        tensor([0.0100, 0.1000, 1.0000])
        >>> CRITERIA["objective-gap"].build(objective=quadratic)(torch.zeros(3))
        tensor(0.)
        """
        for name in parameters:
            self.parameter(name)
        if objective is not None and not self.accepts(objective):
            wanted = f"be a {self.special_objectives}" if self.special_objectives else "have a gradient"
            raise ValueError(f"objective must {wanted} for {self.name}, got {type(objective).__name__}")
        accepted = inspect.signature(self.builder).parameters
        context = {"objective": objective, "dtype": dtype}
        return self.builder(**{key: context[key] for key in context if key in accepted}, **parameters)

    @property
    def special_objectives(self) -> str:
        """The kinds of objectives that the entry is for, in words; empty if it is for any with a gradient."""
        if Objective in self.objective_kinds:
            return ""
        return " or ".join(kind.__name__ for kind in self.objective_kinds)

    def accepts(self, objective: Objective) -> bool:
        """Return whether a dynamics or a criterion is for objectives of this kind."""
        kinds = self.objective_kinds
        if isinstance(objective, CompositeObjective):
            kinds = tuple(kind for kind in kinds if issubclass(kind, CompositeObjective))
        return isinstance(objective, kinds)

    def parameter(self, name: str) -> Parameter:
        """Return the parameter of this name; a ValueError tells the names there are."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        accepted = ", ".join(parameter.name for parameter in self.parameters) or "no parameters"
        raise ValueError(f"{name} is not a parameter of {self.name}, which has {accepted}")


@dataclass(frozen=True)
class ObjectiveEntry(Entry[Objective]):
    """An objective that is known by name.

    Attributes
    ----------
    start
        Customary initial point, shape (d,), from d.
    """

    start: Callable[[int], Tensor] = torch.ones


EntryType = TypeVar("EntryType", bound=Entry)


class Catalogue(dict[str, EntryType]):
    """Entries by name, in the order they were registered; an unknown name is a ValueError.

    Parameters
    ----------
    kind
        What the entries are; used in error messages.
    entry_type
        Their class.

    Examples
    --------
    >>> from odestop.registry import CRITERIA
    >>> list(CRITERIA)
    ['objective-gap', 'squared-gradient-norm', 'squared-gradient-mapping']
    >>> CRITERIA["squared-gradient-norm"].summary
    'J(x) = ‖∇f(x)‖²'
    """

    def __init__(self, kind: str, entry_type: type[EntryType]) -> None:
        super().__init__()
        self.kind = kind
        self.entry_type = entry_type

    def __missing__(self, name: str) -> EntryType:
        check_choice(self.kind, name, tuple(self))
        raise KeyError(name)

    def register(self, name: str, *documented: object, **extra: Any) -> Callable[[BuilderType], BuilderType]:
        """Return a decorator that adds a builder under ``name``.

        Parameters
        ----------
        name
            A new name.
        *documented
            Where the summary comes from; the builder itself by default.
        **extra
            Further attributes of the entry.

        Raises
        ------
        ValueError
            If the name is taken.
        """
        if name in self:
            raise ValueError(f"name must be new, got {name!r}, which is a known {self.kind}")

        def add(builder: BuilderType) -> BuilderType:
            summary = ". ".join(summary_of(source) for source in documented or (builder,))
            self[name] = self.entry_type(
                name, builder, summary, parameters_of(builder), objective_kinds_of(builder), **extra
            )
            return builder

        return add


def parse_number(name: str, text: str) -> float:
    """Read a finite number in decimal notation, and nothing else.

    Parameters
    ----------
    name
        What the number is; used in the error message.
    text
        Such as ``"100"``, ``"-0.5"`` or ``"1e-3"``.

    Raises
    ------
    ValueError
        If the text is not such a number.

    Examples
    --------
    >>> parse_number("rate", "1e-3")
    0.001
    """
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(f"{name} must be a finite number such as 100 or 1e-3, got {text!r}")
    return float(text)


def summary_of(source: object) -> str:
    """First line of a docstring, without its full stop."""
    return (inspect.getdoc(source) or "").partition("\n")[0].removesuffix(".")


def parameters_of(builder: Callable) -> tuple[Parameter, ...]:
    """Read the arguments that are annotated with a `Range`."""
    return tuple(
        Parameter(
            argument.name,
            mark.symbol,
            argument.default,
            mark.low,
            mark.high,
            mark.description,
            is_differentiable=Tensor in get_args(argument.annotation.__origin__),
        )
        for argument in inspect.signature(builder, eval_str=True).parameters.values()
        for mark in getattr(argument.annotation, "__metadata__", ())
        if isinstance(mark, Range)
    )


def objective_kinds_of(builder: Callable) -> tuple[type[Objective], ...]:
    """Read which kinds of objectives the builder's argument ``objective`` is annotated with; none if it has none."""
    argument = inspect.signature(builder, eval_str=True).parameters.get("objective")
    return () if argument is None else get_args(argument.annotation) or (argument.annotation,)


Seed = Annotated[int, Range("seed", 0, 100, "seed of the random draw")]
