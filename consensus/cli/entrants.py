"""What `consensus compare --rule` names: rules with their parameters, as changes to a run file."""

from __future__ import annotations

from typing import NamedTuple

from consensus.errors import ConfigError


class Entrant(NamedTuple):
    """A rule to compare.

    Attributes
    ----------
    label : str
        As it was typed: ``static_backup:b=2``.
    changes : tuple of str
        To the run file, as ``--set`` takes them.
    """

    label: str
    changes: tuple[str, ...]

    @property
    def slug(self) -> str:
        """The label as part of a file's name."""
        return "".join(letter if letter.isalnum() or letter in "_." else "-" for letter in self.label)


def entrants(text: str) -> list[Entrant]:
    """The rules in a list.

    Parameters
    ----------
    text : str
        Names with commas between them, each with parameters after colons.

    Returns
    -------
    list of Entrant
        In the order given; all others are compared with the first.

    Raises
    ------
    ConfigError
        If a name or a parameter is missing, or one rule is there twice.

    Examples
    --------
    >>> entrants("full, static_backup:b=2")[1]
    Entrant(label='static_backup:b=2', changes=('rule.name=static_backup', 'rule.b=2'))
    """
    found = [_entrant(part.strip()) for part in text.split(",") if part.strip()]
    labels = [entrant.label for entrant in found]
    twice = {label for label in labels if labels.count(label) > 1}
    if not found or twice:
        seen = f"{', '.join(sorted(twice))} twice" if twice else "none"
        raise ConfigError(f"--rule {text!r}: {seen}, expected different rules and commas, as in full,static_backup:b=2,dtur")
    return found


def _entrant(text: str) -> Entrant:
    name, *parameters = text.split(":")
    if not name or any(not key or not equals or not value for key, equals, value in (p.partition("=") for p in parameters)):
        raise ConfigError(f"--rule {text!r}: expected NAME or NAME:KEY=VALUE, as in static_backup:b=2")
    return Entrant(text, (f"rule.name={name}", *(f"rule.{parameter}" for parameter in parameters)))
