"""The base of all JSON records: frozen pydantic models, checked when they are read, with a version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from seedling.files.reading import LaterVersion, reading
from seedling.files.writing import write_json


class RecordPart(BaseModel):
    """A part of a record: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Record(RecordPart):
    """The content of one JSON file. VERSION rises with each change that an earlier reader would misread."""

    VERSION: ClassVar[int] = 1

    version: int = Field(default=1)

    @classmethod
    def parse(cls, content: str | bytes) -> Self:
        """Return the record. Raises ValueError that names the first invalid key, and LaterVersion."""
        return cls.of_json(json.loads(content))

    @classmethod
    def of_json(cls, value: object) -> Self:
        """Return the record of a parsed file. Raises ValueError as `parse` does."""
        version = value.get("version", 1) if isinstance(value, dict) else 1
        if isinstance(version, int) and version > cls.VERSION:
            raise LaterVersion(f"version {version} is of a later Seedling; this one reads up to version {cls.VERSION}")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'the file'}: {first['msg']}") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the file. Raises DamagedFile if it is not such a record, and FileNotFoundError."""
        with reading(path):
            return cls.parse(path.read_bytes())

    def write(self, path: Path) -> None:
        """Write canonical JSON; equal records give equal bytes."""
        write_json(path, self.as_json())

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return self.model_dump(mode="json", by_alias=True)
