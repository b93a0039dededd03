"""Which folders are runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from consensus.errors import ConfigError
from consensus.names import suggestion

CONFIG = "config.toml"
"""The file that every folder of a run has from the start."""

_DEPTH = 3


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """The folders of the runs that ``paths`` name.

    Parameters
    ----------
    paths
        Folders of runs, or folders that hold some, as those of comparisons and demos do.

    Returns
    -------
    list of Path
        Each run once. The runs of a comparison come in order of their start, which is the order in which its rules were given.

    Raises
    ------
    ConfigError
        If one of them is no such folder.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        for folder in _runs_of(path):
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _runs_of(path: Path) -> list[Path]:
    if not path.exists():
        raise ConfigError(f"{path}: there is no such folder; {_near(path)}")
    if not path.is_dir():
        raise ConfigError(f"{path}: a file, expected the folder of a run; give its folder, {path.parent}")
    if (path / CONFIG).is_file():
        return [path]
    below = [file.parent for depth in range(1, _DEPTH + 1) for file in path.glob("*/" * depth + CONFIG)]
    if not below:
        raise ConfigError(
            f"{path}: not the folder of a run: it has no {CONFIG}, nor has any folder below it; "
            "give what `consensus run` or `consensus compare` named at its end, as in runs/NAME-TIMESTAMP"
        )
    # A run's configuration is the first thing that is written of it.
    return sorted(below, key=lambda folder: ((folder / CONFIG).stat().st_mtime, folder))


def _near(path: Path) -> str:
    parent = path.parent
    if not parent.is_dir():
        return f"{parent} is not there either; give the path of a run's folder"
    return suggestion(path.name, sorted(entry.name for entry in parent.iterdir() if entry.is_dir())[:20])
