"""What all settings are made of."""

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A typed value that does not change and has no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)
