"""What the estimators of waiting times ask of their numbers of workers and samples."""

from __future__ import annotations

from consensus.errors import ConfigError


def one_or_more(what: str, **numbers: int) -> None:
    """Refuse a count below 1.

    Parameters
    ----------
    what : str
        Whose numbers they are, for the message.
    **numbers : int
        The counts by name.

    Raises
    ------
    ConfigError
        Naming the first that is too small.
    """
    for name, number in numbers.items():
        if number < 1:
            raise ConfigError(f"{what}: {name} = {number}, expected a whole number, 1 or more")
