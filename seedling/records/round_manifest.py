"""models/<round>/manifest.json: the rows that a round was trained on."""

from __future__ import annotations

from pydantic import Field

from seedling.records.record import Record, RecordPart


class RoundRowsRecord(RecordPart):
    """The number of rows of a round by kind.

    collected, augment, synthesize, pool: by stage that made them; pseudo_labeled: rows of the pool with a pseudo-label
    in the final model; never_held_out: labeled rows without a fold, which every fold model saw.
    """

    collected: int
    augment: int
    synthesize: int
    pool: int
    pseudo_labeled: int
    never_held_out: int


class RoundManifestRecord(Record):
    """The manifest of a round. It is written last, so a folder with a manifest is complete.

    skipped: why the round was not trained, then without rows; trained_on: digest of the rows.
    """

    stage: str
    skipped: str | None = Field(default=None, exclude_if=lambda reason: reason is None)
    rows: RoundRowsRecord | None = Field(default=None, exclude_if=lambda rows: rows is None)
    trained_on: str | None = Field(default=None, exclude_if=lambda digest: digest is None)

    @property
    def pseudo_labeled(self) -> int:
        """Number of pool rows with a pseudo-label that the final model was trained on."""
        return self.rows.pseudo_labeled if self.rows else 0
