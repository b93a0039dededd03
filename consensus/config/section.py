"""What all sections of a run file have in common."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
"""A whole number, 1 or more."""

Index = Annotated[int, Field(ge=0)]
"""A whole number, 0 or more."""

Above = Annotated[float, Field(gt=0)]
"""A finite number above 0."""


class Section(BaseModel):
    """A closed table: every key is declared here, values have the type that TOML gave them, nothing changes afterwards."""

    # strict: '8' is not 8. Whoever quotes a number by mistake should hear of it, not have it guessed.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class OpenSection(Section):
    """A table whose further keys are parameters of the thing that one of its keys, a selector, names."""

    model_config = ConfigDict(extra="allow")

    selectors: ClassVar[tuple[str, ...]] = ("name",)

    @property
    def parameters(self) -> dict[str, Any]:
        """The further keys."""
        return dict(self.model_extra or {})
