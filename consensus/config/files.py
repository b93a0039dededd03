"""Run files to configurations and back."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import tomli_w
from pydantic import ValidationError

from consensus import resources
from consensus.config.overrides import Table, override
from consensus.config.problems import explain
from consensus.config.schema import RunConfig
from consensus.errors import ConfigError


def load(
    path_or_name: str | PathLike[str], overrides: Iterable[str] = (), data_dir: str | PathLike[str] | None = None
) -> RunConfig:
    """Read a run file.

    Paths in it are relative to the working directory, and absolute in the result.

    Parameters
    ----------
    path_or_name : str or path
        A TOML file, or the name of one that comes with the package.
    overrides : iterable of str
        ``KEY.PATH=VALUE`` each, see :func:`consensus.config.overrides.override`.
    data_dir : str or path, optional
        Takes the place of ``data.dir``.

    Returns
    -------
    RunConfig
        Checked.

    Raises
    ------
    ConfigError
        If there is no such file, it is no TOML, or what it says cannot be run; all problems of a file are listed.

    Examples
    --------
    >>> load("digits", ["rule.name=full"]).rule.name
    'full'
    """
    path = resources.find("launch", str(path_or_name))
    table = override(_parse(_read(path), str(path)), overrides)
    if data_dir is not None and isinstance(table.setdefault("data", {}), dict):
        table["data"]["dir"] = str(data_dir)
    return _with_absolute_paths(_validate(table, str(path)))


def loads(text: str, source: str = "run file") -> RunConfig:
    """The configuration that a TOML text says, as :func:`dumps` wrote it."""
    return _validate(_parse(text, source), source)


def dumps(config: RunConfig) -> str:
    """The configuration as TOML, defaults spelled out; what is None has no key."""
    return tomli_w.dumps(config.model_dump(by_alias=True, exclude_none=True))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start}), expected a TOML file") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}, expected a readable TOML file") from error


def _parse(text: str, source: str) -> Table:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, line, column = _position(str(error), text)
        raise ConfigError(f'{source}:{line}:{column}: {what}, expected TOML (strings are quoted: name = "dtur")') from error


def _position(message: str, text: str) -> tuple[str, int, int]:
    found = re.fullmatch(r"(.*) \(at line (\d+), column (\d+)\)", message, re.DOTALL)
    if found:
        return found[1], int(found[2]), int(found[3])
    lines = text.split("\n")
    return message.removesuffix(" (at end of document)"), len(lines), len(lines[-1]) + 1


def _validate(table: Table, source: str) -> RunConfig:
    try:
        return RunConfig.model_validate(table)
    except ValidationError as error:
        raise explain(error, source) from None


def _with_absolute_paths(config: RunConfig) -> RunConfig:
    topology = config.topology
    # A file that is not there is the name of a graph that comes with the package.
    file = _absolute(topology.file) if topology.file and Path(topology.file).expanduser().exists() else topology.file
    return config.model_copy(
        update={
            "run": config.run.model_copy(update={"out": _absolute(config.run.out)}),
            "data": config.data.model_copy(update={"dir": _absolute(config.data.dir) if config.data.dir else None}),
            "topology": topology.model_copy(update={"file": file}),
        }
    )


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
