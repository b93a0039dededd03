"""Finding a thing by the name a user typed, and saying something useful when it is misspelt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from consensus.errors import ConfigError

T = TypeVar("T")


def suggestion(name: str, known: Iterable[str]) -> str:
    """What to type instead of ``name``: the nearest known name if one is near, and all of them.

    Parameters
    ----------
    name
        What was typed.
    known
        What could have been typed.

    Returns
    -------
    str
        The end of an error message.

    Examples
    --------
    >>> suggestion("mnits", ["digits", "mnist"])
    "did you mean 'mnist'? Known: digits, mnist"
    >>> suggestion("imagenet", ["digits", "mnist"])
    'known: digits, mnist'
    """
    names = list(known)
    listing = "nown: " + ", ".join(names)
    near = get_close_matches(name.lower(), names, n=1)
    return f"did you mean {near[0]!r}? K{listing}" if near else f"k{listing}"


def lookup(kind: str, name: str, table: Mapping[str, T]) -> T:
    """``table[name]``, or an error with the nearest name.

    Parameters
    ----------
    kind
        What the table holds, for the message: ``"model"``, ``"data set"``.
    name
        What the user typed.
    table
        Everything that exists under its name.

    Returns
    -------
    T
        The entry.

    Raises
    ------
    ConfigError
        If there is no such name.
    """
    if name not in table:
        raise ConfigError(f"unknown {kind} {name!r}; {suggestion(name, table)}")
    return table[name]
