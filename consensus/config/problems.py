"""From pydantic's list of errors to one message a user can act on: the path, the value seen, what was expected."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from consensus.config.schema import RunConfig
from consensus.errors import ConfigError
from consensus.names import suggestion
from consensus.timing import ParameterError

_EXPECTED: Mapping[str, str] = MappingProxyType(
    {
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a finite number",
        "string_type": "a string",
        "bool_type": "true or false",
        "greater_than": "a number above {gt:g}",
        "greater_than_equal": "{ge:g} or more",
        "literal_error": "{expected}",
        "string_pattern_mismatch": "letters, digits, '_', '-' and '.', as it names a folder",
        "model_type": "a table",
        "dict_type": "a table",
    }
)


def explain(error: ValidationError, source: str) -> ConfigError:
    """One error that lists every problem.

    Parameters
    ----------
    error : ValidationError
        Of :class:`~consensus.config.schema.RunConfig`.
    source : str
        Where the values came from: the run file.

    Returns
    -------
    ConfigError
        A line per problem, after a line that counts them.
    """
    lines = [line for details in error.errors() for line in _lines(details)]
    return ConfigError(
        "\n".join([f"{source}: {len(lines)} problem{'s' if len(lines) > 1 else ''}", *(f"  {line}" for line in lines)])
    )


def section(path: Iterable[str | int]) -> type[BaseModel] | None:
    """The model of the table at ``path`` of a run file, or None if there is no such table."""
    model: type[BaseModel] = RunConfig
    for key in path:
        if isinstance(key, int):  # of a list of tables, which are alike
            continue
        fields = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        annotation = fields.get(str(key))
        found = [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not found:
            return None
        model = found[0]
    return model


def keys(model: type[BaseModel]) -> list[str]:
    """The declared keys of a table, as they are written in a run file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _lines(details: ErrorDetails) -> list[str]:
    path = ".".join(str(key) for key in details["loc"])
    context = details.get("ctx", {})
    raised = context.get("error")
    if isinstance(raised, ParameterError):
        return [f"{path}.{problem}" if path else problem for problem in raised.problems]
    if raised is not None:
        return [f"{path}: {line}" for line in str(raised).splitlines()]
    if details["type"] == "missing":
        table = section(details["loc"])
        what = f"a table with {', '.join(keys(table))}" if table else "a value"
        return [f"{path}: missing, expected {what}"]
    seen = f"{path} = {details['input']!r}"
    if details["type"] == "extra_forbidden":
        table = section(details["loc"][:-1])
        return [f"{seen}: unknown key; {suggestion(str(details['loc'][-1]), keys(table) if table else [])}"]
    expected = _expectation(details["type"], details["msg"], context, details["input"])
    table = section(details["loc"]) if details["type"] in ("model_type", "dict_type") else None
    if isinstance(details["input"], str) and table is not None and "name" in table.model_fields:
        expected += f', as in {{ name = "{details["input"]}" }}'
    return [f"{seen}: expected {expected}"]


def _expectation(kind: str, message: str, context: Mapping[str, Any], value: Any) -> str:
    expected = _EXPECTED.get(kind, message).format_map(context)
    if kind == "literal_error" and isinstance(value, str):
        near = suggestion(value, re.findall(r"'([^']*)'", context["expected"])).partition("? ")[0]
        return f"{expected}; {near}?" if near.startswith("did") else expected
    return expected
