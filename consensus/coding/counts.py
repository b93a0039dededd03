"""Whole numbers that callers of the package pass in."""

from __future__ import annotations

from numbers import Integral

from consensus.errors import ConfigError


def check_count(name: str, value: object, least: int) -> None:
    """Refuse what is not a whole number or is too small; NumPy's integers will do, a bool will not.

    Parameters
    ----------
    name : str
        The argument's, for the message.
    value : object
        What came.
    least : int
        The smallest number that makes sense.

    Raises
    ------
    ConfigError
        If it is not a whole number of at least ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ConfigError(f"{name} = {value!r}: expected a whole number, {least} or more")
