"""What an operator can set, each as an environment variable LAUNCHPAD_<NAME>."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, Field

REPOSITORY = Path(__file__).parents[3]  # LlamaFlow's own, which is registered as a pipeline at start
PREFIX = "LAUNCHPAD_"


class Settings(BaseModel):
    """Where the launchpad keeps its things, and its limits."""

    data: Path = Path("launchpad-data")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    pipeline: Path = REPOSITORY
    nextflow: str = "nextflow"
    # what may be read and written besides a user's own files, separated by colons; administrators may use any path
    roots: str = ""
    max_running: int = Field(2, ge=1)
    max_queued: int = Field(100, ge=0)
    max_body: int = Field(1_000_000, ge=1000)  # bytes of a request
    max_upload: int = Field(200_000_000, ge=1000)  # bytes of a dataset
    requests_per_minute: int = Field(1200, ge=1)  # of one token
    grace: float = Field(20, ge=0)  # seconds between asking a run to end and killing it

    def model_post_init(self, _: object) -> None:
        self.data = self.data.resolve()

    @property
    def database(self) -> Path:
        return self.data / "launchpad.sqlite"

    @property
    def allowed_roots(self) -> list[Path]:
        return [Path(root).resolve() for root in self.roots.split(":") if root]


def from_environment() -> Settings:
    """Raises pydantic.ValidationError."""
    given = {name: os.environ[PREFIX + name.upper()] for name in Settings.model_fields if PREFIX + name.upper() in os.environ}
    return Settings.model_validate(given)
