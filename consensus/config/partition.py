"""``data.partition``: a name, or a table with one key."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_serializer, model_validator

from consensus.config.section import Above, Count, Section
from consensus.data.partition import ByClass as ByClassScheme
from consensus.data.partition import Dirichlet as DirichletScheme
from consensus.data.partition import Iid as IidScheme
from consensus.data.partition import Scheme
from consensus.errors import ConfigError


class ByClass(Section):
    """Every rank sees a few classes only: exactly so many, or what one piece of the samples sorted by class holds."""

    classes_per_rank: Count | None = None


class Partition(Section):
    """How training samples are dealt to the ranks: ``"iid"``, or a table with one key.

    In Python the scheme is the field that is not None; none of them is iid.
    """

    dirichlet: Above | None = None
    by_class: ByClass | None = Field(default=None, alias="by-class")

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        named: dict[str, dict[str, Any]] = {"iid": {}, "by-class": {"by-class": {}}}
        if isinstance(value, str):
            if value not in named:
                expected = "expected 'iid', 'by-class', { dirichlet = 0.3 } or { by-class = { classes_per_rank = 2 } }"
                raise ConfigError(f"{value!r} is not a partition; {expected}")
            return named[value]
        return value

    @model_validator(mode="after")
    def _is_one(self) -> Partition:
        if self.dirichlet is not None and self.by_class is not None:
            raise ConfigError("both dirichlet and by-class, expected one of them")
        return self

    @model_serializer
    def _to_table(self) -> Any:
        if self.dirichlet is not None:
            return {"dirichlet": self.dirichlet}
        if self.by_class is None:
            return "iid"
        return {"by-class": self.by_class.model_dump(exclude_none=True)}

    def build(self) -> Scheme:
        """The scheme object that deals the samples."""
        if self.dirichlet is not None:
            return DirichletScheme(self.dirichlet)
        return IidScheme() if self.by_class is None else ByClassScheme(self.by_class.classes_per_rank)
