"""Making a rule from its name and parameters, and saying what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from consensus.errors import ConfigError
from consensus.names import lookup, suggestion

T = TypeVar("T")


def construct(kind: str, name: str, table: Mapping[str, type[T]], parameters: Mapping[str, Any]) -> T:
    """Return an object of the dataclass that ``table`` has under ``name``.

    Parameters
    ----------
    kind : str
        What the table holds, for messages: ``"rule"``.
    name : str
        One of its names.
    table : mapping of str to type
        Dataclasses whose fields are annotated with int, float, bool, str, None, mappings, literals of these, and their unions.
    parameters : mapping of str to object
        Values of the fields; a field that is left out keeps its default.

    Returns
    -------
    T
        The object.

    Raises
    ------
    ConfigError
        For an unknown name, an unknown parameter, a missing one, or a value of the wrong type or range.
    """
    cls: Any = lookup(kind, name, table)
    kinds = {field.name: str(field.type) for field in fields(cls)}
    types = get_type_hints(cls)
    for key, value in parameters.items():
        if key not in kinds:
            known = suggestion(key, kinds) if kinds else "it takes none: there is nothing to tune"
            raise ConfigError(f"{kind} {name!r} has no parameter {key!r}; {known}")
        if not _fits(value, types[key]):
            raise ConfigError(f"{kind} {name!r}: {key} = {value!r}, expected {_words(value, types[key], kinds[key])}")
    for field in fields(cls):
        if field.name not in parameters and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{kind} {name!r} needs {field.name}, expected {kinds[field.name]}; it has no default")
    return cls(**parameters)  # type: ignore[no-any-return]


def _fits(value: object, annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(annotation))
    if origin is Literal:
        # 1 == True, and a literal says more than its value.
        return any(value == literal and type(value) is type(literal) for literal in get_args(annotation))
    if annotation is None or annotation is NoneType:
        return value is None
    expected = origin or annotation
    # A bool is an int to Python and never meant as one; whole numbers will do where a float is wanted.
    if isinstance(value, bool):
        return expected is bool
    return isinstance(value, (int, float) if expected is float else expected)


def _words(value: object, annotation: Any, written: str) -> str:
    if get_origin(annotation) is Literal:
        literals = get_args(annotation)
        listing = " or ".join(map(repr, literals))
        return f"{listing}; {suggestion(value, literals)}" if isinstance(value, str) else listing
    return written
