"""``--set a.b=value``: changes to a run file's table from the command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from consensus.config.problems import keys, section
from consensus.config.section import OpenSection
from consensus.errors import ConfigError

Table = dict[str, Any]


def override(table: Table, settings: Iterable[str]) -> Table:
    """Apply settings in the order given.

    The value is read as TOML (``true``, ``3``, ``[1, 2]``, ``{ dirichlet = 0.3 }``), and as a plain string if it is none.
    An empty value removes the key, so that its default applies. Setting a section's selector (``rule.name``,
    ``topology.kind``, ``stragglers.model``, ``optimizer.name``) to another value removes the parameters that the section has by
    then: they belong to what was named before. Settings that come later add the new ones'.

    Parameters
    ----------
    table : dict
        As read from the run file; left as it is.
    settings : iterable of str
        ``KEY.PATH=VALUE`` each.

    Returns
    -------
    dict
        The changed copy.

    Raises
    ------
    ConfigError
        If a setting has no ``=`` or an empty key.

    Examples
    --------
    >>> override({"rule": {"name": "static_backup", "b": 2}}, ["rule.name=full", "data.batch=64"])
    {'rule': {'name': 'full'}, 'data': {'batch': 64}}
    """
    changed = deepcopy(table)
    for setting in settings:
        path, equals, text = setting.partition("=")
        steps = [step.strip() for step in path.split(".")]
        if not equals or not all(steps):
            raise ConfigError(f"--set {setting!r}: expected KEY.PATH=VALUE, for example --set rule.name=full")
        _set(changed, steps, text.strip())
    return changed


def _set(table: Table, steps: list[str], text: str) -> None:
    *parents, key = steps
    inner = table
    for step in parents:
        # A value in the way (partition = "iid") gives way to the table; whether one may stand there is the schema's affair.
        if not isinstance(inner.get(step), dict):
            inner[step] = {}
        inner = inner[step]
    if not text:
        inner.pop(key, None)
        return
    value = _value(text)
    _drop_parameters(inner, parents, key, value)
    inner[key] = value


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # More keys: the text went over several lines. Dates: no key takes one, and a run may well be named 2024-01-01.
    simple = isinstance(parsed["value"], str | bool | int | float | list | dict)
    return parsed["value"] if len(parsed) == 1 and simple else text


def _drop_parameters(inner: Table, parents: list[str], key: str, value: Any) -> None:
    model = section(parents)
    if model is None or not issubclass(model, OpenSection) or key not in model.selectors:
        return
    # Of several selectors (a graph's family, a graph's file) one holds at a time.
    rivals = [name for name in model.selectors if name != key]
    if value != inner.get(key, model.model_fields[key].default) or any(name in inner for name in rivals):
        for name in [name for name in inner if name not in keys(model) or name in rivals]:
            del inner[name]
