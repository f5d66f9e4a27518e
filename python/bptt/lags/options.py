"""The keywords of `lag_gradients` and of what measures lags in training, each of them once.

A function that hands its keywords on takes them as ``**options: Unpack[...]`` of one of these
dictionaries. Their defaults are those of the function that they are handed on to.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypedDict, TypeVar

from ..checks import Array
from ..initial import Seed
from ..losses import At
from ..sequence_options import Flags, Integers
from ..states import GivenState

__all__ = ["Loss", "Options", "Plan", "Training", "expect_options", "shows"]

Function = TypeVar("Function", bound=Callable[..., Any])


class Loss(TypedDict, total=False):
    """What the gradient is of."""

    dy: Array | None
    loss: str | None
    at: At
    reduction: str
    state: GivenState | None


class Sequences(TypedDict, total=False):
    """What the sequences are, as `forward` has it."""

    lengths: Integers | None
    batch_sizes: Integers | None
    reset: Flags | None
    reverse: bool
    batch_first: bool


class Training(Loss, Sequences, total=False):
    """What a step of training is about, beside its arrays."""


class Options(Training, total=False):
    """All that `lag_gradients` hands on to a `Question`."""

    backend: str
    max_lag: int | None
    lags: Iterable[int] | None
    route: str | None
    sample: int | None
    rng: Seed


class Plan(TypedDict, total=False):
    """What a `Probe` takes beside ``every``: what measurements may cost, and on what they are."""

    budget: float
    sample: int | None
    backend: str
    rng: Seed
    clock: Callable[[], float]


def expect_options(of: str, given: Iterable[str], known: type) -> None:
    """Raise TypeError if `given` names what is no key of the dictionary `known`."""
    unknown = sorted(set(given) - set(known.__annotations__))
    if unknown:
        raise TypeError(f"{of}: unknown options: {', '.join(unknown)}")


def shows(known: type, of: Callable[..., Any]) -> Callable[[Function], Function]:
    """Let `help` show the keys of `known`, with their defaults in `of`, in place of ``**``."""

    def shown(function: Function) -> Function:
        own, handed_on = inspect.signature(function), inspect.signature(of).parameters
        more = [
            handed_on[name].replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name in known.__annotations__
        ]
        parameters = [*list(own.parameters.values())[:-1], *more]
        function.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return shown
