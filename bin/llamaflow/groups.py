"""What the groups of parameters, and the rows of sheets, have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def hidden(default: Any, description: str, **bounds: Any) -> Any:
    """A field that launch forms show only on demand."""
    return Field(default, description=description, json_schema_extra={"hidden": True}, **bounds)


class Group(BaseModel):
    """Base of all groups: frozen, and an unknown name is an error."""

    # --release_version 1.0 reaches us as a number; infinity is no JSON and would not reach the steps
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _has_a_value(cls, value: Any, info: ValidationInfo) -> Any:
        """A name alone on the command line (--lora_r) arrives as true, which would pass for the number 1."""
        if value is True and info.field_name and cls.model_fields[info.field_name].annotation is not bool:
            raise ValueError("a value is missing after the name")
        return value
