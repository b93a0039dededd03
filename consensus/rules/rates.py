"""Learning rate rules: how long a step an update of k of n gradients makes, in units of the optimizer's learning rate."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from consensus.errors import ConfigError
from consensus.protocol.service import Factor
from consensus.rules.construct import construct


@dataclass(frozen=True)
class Constant:
    """The same step whatever k is.

    Examples
    --------
    >>> Constant()(3, 8)
    1.0
    """

    name: ClassVar[str] = "constant"

    def __call__(self, k: int, n: int) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Proportional:
    """A step in proportion to the gradients in it, k/n: the optimizer's learning rate is that of all n.

    More than n (one has pushed and left) make no longer a step than n.

    Examples
    --------
    >>> Proportional()(3, 8)
    0.375
    """

    name: ClassVar[str] = "proportional"

    def __call__(self, k: int, n: int) -> float:
        """Return k/n, at most 1."""
        return min(k, n) / n


@dataclass(frozen=True)
class Knee:
    """Steps as a range test found them for some k, and between these by interpolation.

    Between two measured k the logarithm of the rate is linear in that of k: the rates that theory knows, constant, in proportion
    to k and to its square root, are straight lines there, so that each is reproduced exactly from any two of its points.
    Outside, the nearest measured rate holds: beyond what has been tried nothing says that a longer step is safe. Both choices are
    ours.

    Parameters
    ----------
    table : mapping of int to float
        Rates by k, in units of the optimizer's learning rate, above 0; keys may be written as text, as in run files.

    Raises
    ------
    ConfigError
        If the table is empty, a k is not a whole number of at least 1, or a rate is not finite and above 0.

    Examples
    --------
    >>> knee = Knee({2: 0.5, 8: 1.0})
    >>> round(knee(4, 8), 6), knee(1, 8), knee(16, 16)
    (0.707107, 0.5, 1.0)
    """

    name: ClassVar[str] = "knee"
    table: Mapping[int, float]

    def __post_init__(self) -> None:
        if not self.table:
            raise ConfigError("knee: the table is empty, expected the rate of one k at least; make a range test")
        rates = dict(sorted((_gradients(k), _rate(k, rate)) for k, rate in self.table.items()))
        object.__setattr__(self, "table", rates)

    def __call__(self, k: int, n: int) -> float:
        """Return the rate measured at k, or interpolated."""
        measured = list(self.table)
        above = bisect_left(measured, k)
        if above == 0 or above == len(measured):
            return self.table[measured[min(above, len(measured) - 1)]]
        low, high = measured[above - 1], measured[above]
        share = math.log(k / low) / math.log(high / low)
        return math.exp((1 - share) * math.log(self.table[low]) + share * math.log(self.table[high]))


def _gradients(k: Any) -> int:
    if isinstance(k, bool) or not (isinstance(k, int) or (isinstance(k, str) and k.isdecimal())) or int(k) < 1:
        raise ConfigError(f"knee: a rate for k = {k!r}, expected a number of gradients, 1 or more")
    return int(k)


def _rate(k: object, rate: Any) -> float:
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate < math.inf:
        raise ConfigError(f"knee: rate {rate!r} for k = {k}, expected a finite number above 0, 1 for the optimizer's own rate")
    return float(rate)


RATES: dict[str, type[Any]] = {rate.name: rate for rate in (Constant, Proportional, Knee)}
"""Learning rate rules by name."""


def build_rate(name: str, **parameters: Any) -> Factor:
    """Return the learning rate rule called ``name``.

    Parameters
    ----------
    name : str
        One of :data:`RATES`.
    **parameters
        Its parameters, as in its class.

    Returns
    -------
    Factor
        ``factor(k, n)``.

    Raises
    ------
    ConfigError
        For an unknown name, an unknown or missing parameter, or a value of the wrong type or range.

    Examples
    --------
    >>> build_rate("knee", table={1: 0.5, 8: 1.0})
    Knee(table={1: 0.5, 8: 1.0})
    """
    return construct("learning rate rule", name, RATES, parameters)  # type: ignore[no-any-return]


def as_factor(rate: Any, workers: int) -> Factor:
    """The learning rate rule that a script means.

    Parameters
    ----------
    rate : str, mapping or callable
        A name of :data:`RATES`; a table as in run files, ``{"name": "knee", "table": {1: 0.5, 8: 1.0}}``; or ``factor(k, n)``.
    workers : int
        How many there are.

    Returns
    -------
    Factor

    Raises
    ------
    ConfigError
        If it is none of these, or gives no finite number, 0 or more.

    Examples
    --------
    >>> as_factor({"name": "knee", "table": {1: 0.5, 8: 1.0}}, workers=8)(1, 8)
    0.5
    """
    wanted = f"expected one of {', '.join(RATES)}, a table as {{'name': 'knee', 'table': {{1: 0.5, 8: 1.0}}}}, or a factor(k, n)"
    if isinstance(rate, str):
        return build_rate(rate)
    if isinstance(rate, Mapping):
        if "name" not in rate:
            raise ConfigError(f"learning_rate = {dict(rate)!r} has no name; {wanted}")
        return build_rate(**rate)
    if not callable(rate) or isinstance(rate, type):
        raise ConfigError(f"learning_rate = {rate!r}; {wanted}")
    try:
        given = [float(rate(k, workers)) for k in (1, workers)]
    except (TypeError, ValueError) as error:
        raise ConfigError(f"learning_rate = {rate!r} cannot be called with (k, n) for a number ({error}); {wanted}") from error
    if not all(0 <= each < math.inf for each in given):
        raise ConfigError(
            f"learning_rate = {rate!r} gives {given} for 1 and {workers} gradients, expected finite numbers, 0 or more"
        )
    return rate  # type: ignore[no-any-return]


def described(factor: Factor) -> str:
    """What a learning rate rule is, in words that are the same at all ranks: a function's repr has its address."""
    if isinstance(factor, partial):
        return f"partial({described(factor.func)}, {factor.args}, {factor.keywords})"
    return getattr(factor, "__qualname__", repr(factor))
