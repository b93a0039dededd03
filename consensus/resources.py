"""Where the run files and the graphs that come with the package are found.

They live beside the package in a checkout (``launch/``, ``topologies/``), where they are edited, and inside it in a wheel
(``consensus/_files/``). The checkout wins, so that an edited file is the one that runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from consensus.errors import ConfigError
from consensus.names import lookup, suggestion

_PACKAGE = Path(__file__).resolve().parent

_SUFFIXES = {"launch": ".toml", "topologies": ".edgelist"}


def find(kind: str, name: str) -> Path:
    """Return the file that a user means by ``name``.

    Parameters
    ----------
    kind : str
        The folder to look in, ``"launch"`` or ``"topologies"``.
    name : str
        A path to a file, or the name of one that comes with the package, with or without its extension.

    Returns
    -------
    Path
        The path as given if a file is there; else the one in the checkout; else the one in the installed package.

    Raises
    ------
    ConfigError
        If there is no such file; the message lists the names there are and the nearest.

    Examples
    --------
    >>> find("launch", "digts")
    Traceback (most recent call last):
        ...
    consensus.errors.ConfigError: no file and no launch name 'digts'...
    """
    suffix = _suffix(kind)
    given = Path(name).expanduser()
    if given.is_file():
        return given
    # Names are looked up in the listing, never joined to a folder: '../secret' is not a name.
    shipped = _listing(kind)
    stem = name.removesuffix(suffix)
    if stem in shipped:
        return shipped[stem]
    raise ConfigError(f"no file and no {kind} name {name!r}; {_hint(Path(name).name.removesuffix(suffix), sorted(shipped))}")


def names(kind: str) -> list[str]:
    """Return the names that :func:`find` knows.

    Parameters
    ----------
    kind : str
        The folder to look in, ``"launch"`` or ``"topologies"``.

    Returns
    -------
    list of str
        File names without extension, sorted.

    Raises
    ------
    ConfigError
        If there is no such kind.
    """
    return sorted(_listing(kind))


def shipped(kind: str, file: str) -> Path:
    """Return a file that comes with the package, whatever its extension; the checkout's before the installed one.

    Parameters
    ----------
    kind : str
        The folder it is in, ``"launch"`` or ``"topologies"``.
    file : str
        Its name with extension.

    Raises
    ------
    ConfigError
        If it did not come with this installation.
    """
    places = [folder / file for folder in _folders(kind)]
    for place in places:
        if place.is_file():
            return place
    looked = " or ".join(map(str, places))
    raise ConfigError(f"{file} did not come with this installation, expected it at {looked}; install the package again")


def _suffix(kind: str) -> str:
    return lookup("kind of file", kind, _SUFFIXES)


def _listing(kind: str) -> dict[str, Path]:
    suffix = _suffix(kind)
    listing: dict[str, Path] = {}
    for folder in _folders(kind):
        for path in sorted(folder.glob(f"*{suffix}")):
            listing.setdefault(path.stem, path)
    return listing


def _folders(kind: str) -> Iterator[Path]:
    checkout = _PACKAGE.parent
    # Beside an installed package there is no pyproject.toml; a stranger's 'launch' in site-packages is not ours.
    if (checkout / "pyproject.toml").is_file():
        yield checkout / kind
    yield _PACKAGE / "_files" / kind


def _hint(name: str, known: list[str]) -> str:
    return f"give a path, or a name: {suggestion(name, known)}" if known else "none came with this installation; give a path"
