"""The base model of the sections of params.yaml."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of params.yaml: frozen, no unknown keys."""

    model_config = ConfigDict(allow_inf_nan=False, frozen=True, extra="forbid")
