"""Names with parameters on the command line, as in `--rule static_backup:b=2`: what they change in a run file."""

from __future__ import annotations

from typing import NamedTuple

from consensus.errors import ConfigError


class Option(NamedTuple):
    """An option that takes such names.

    Attributes
    ----------
    flag : str
        Its own name.
    section, selector : str
        The run file's section, and the key of it that a name is the value of.
    example : str
        A name with a parameter.
    file : str
        The key for names of files, which have a dot or a slash; none by default.
    """

    flag: str
    section: str
    selector: str
    example: str
    file: str = ""


RULE = Option("--rule", "rule", "name", "static_backup:b=2")
TOPOLOGY = Option("--topology", "topology", "kind", "random_regular:degree=4", "file")
STRAGGLERS = Option("--stragglers", "stragglers", "model", "transient:seconds=0.02:probability=0.05:factor=10")


class Entrant(NamedTuple):
    """A name with its parameters.

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


def entrants(text: str, option: Option = RULE) -> list[Entrant]:
    """The names in a list.

    Parameters
    ----------
    text : str
        Names with commas between them, each with parameters after colons.
    option : Option
        What they are names of.

    Returns
    -------
    list of Entrant
        In the order given.

    Raises
    ------
    ConfigError
        If a name or a parameter is missing, or one is there twice.

    Examples
    --------
    >>> entrants("full, static_backup:b=2")[1]
    Entrant(label='static_backup:b=2', changes=('rule.name=static_backup', 'rule.b=2'))
    """
    found = [entrant(part.strip(), option) for part in text.split(",") if part.strip()]
    labels = [each.label for each in found]
    twice = {label for label in labels if labels.count(label) > 1}
    if not found or twice:
        seen = f"{', '.join(sorted(twice))} twice" if twice else "none"
        raise ConfigError(
            f"{option.flag} {text!r}: {seen}, expected different names and commas between them; one with parameters is written "
            f"{option.example}"
        )
    return found


def entrant(text: str, option: Option) -> Entrant:
    """One name with its parameters; raises as :func:`entrants` does.

    Examples
    --------
    >>> entrant("persistent:seconds=0.02:ranks=[1,3]:factor=4", STRAGGLERS).changes[2]
    'stragglers.ranks=[1,3]'
    >>> entrant("graphs/mine.edgelist", TOPOLOGY).changes
    ('topology.file=graphs/mine.edgelist',)
    """
    name, *parameters = text.split(":")
    if not name or any(not key or not equals or not value for key, equals, value in (p.partition("=") for p in parameters)):
        raise ConfigError(f"{option.flag} {text!r}: expected NAME or NAME:KEY=VALUE, as in {option.example}")
    selector = option.file if option.file and ("." in name or "/" in name) else option.selector
    keys = (f"{selector}={name}", *parameters)
    return Entrant(text, tuple(f"{option.section}.{key}" for key in keys))
