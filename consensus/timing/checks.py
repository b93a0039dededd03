"""What a parameter may be, stated once beside its type and checked when a model is made."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Annotated, Any, TypeAlias, get_type_hints

from consensus.errors import ConfigError


class ParameterError(ConfigError):
    """Parameters that a model cannot have.

    Parameters
    ----------
    owner : str
        The model that refused them.
    problems : iterable of str
        One line each, beginning with the parameter's name, so that a caller who knows a longer path can put it in front.
    """

    def __init__(self, owner: str, problems: Iterable[str]) -> None:
        self.owner = owner
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{owner}: {problem}" for problem in self.problems))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.owner, self.problems)


@dataclass(frozen=True)
class Domain:
    """The numbers a parameter may take, and how to say so.

    Parameters
    ----------
    low, high : float
        Inclusive bounds; NaN is outside every domain, infinity outside those whose ``high`` is the largest finite float.
    wording : str
        What the user should have written.
    """

    low: float
    high: float
    wording: str

    def __contains__(self, value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, Real):
            return False
        return self.low <= float(value) <= self.high


_TINY = math.ulp(0.0)
_FINITE = math.nextafter(math.inf, 0.0)

SECONDS = Domain(0.0, _FINITE, "a finite number of seconds, 0 or more")
FACTOR = Domain(1.0, _FINITE, "a finite factor, 1 (not slower) or more")

Duration: TypeAlias = Annotated[float, SECONDS]
Slowdown: TypeAlias = Annotated[float, FACTOR]
Probability: TypeAlias = Annotated[float, Domain(0.0, 1.0, "a probability, from 0 to 1")]
Positive: TypeAlias = Annotated[float, Domain(_TINY, _FINITE, "a finite number above 0")]
Sojourn: TypeAlias = Annotated[float, Domain(1.0, _FINITE, "a mean number of steps, 1 or more")]
Bandwidth: TypeAlias = Annotated[float, Domain(_TINY, math.inf, "bytes per second above 0 (inf: transfers cost nothing)")]


def settle(model: object) -> list[str]:
    """Check the annotated numbers of a frozen dataclass and store them as floats.

    Returns
    -------
    list of str
        One line per parameter outside its domain; empty if all is well.
    """
    problems = []
    for name, annotation in get_type_hints(type(model), include_extras=True).items():
        for domain in getattr(annotation, "__metadata__", ()):
            value = getattr(model, name)
            if value in domain:
                object.__setattr__(model, name, float(value))
            else:
                problems.append(f"{name} = {value!r}: expected {domain.wording}")
    return problems
