"""What can go wrong, and what to do about it.

SeedlingError              exit code 2; the message carries the remedy
├── InputError             data, params or arguments that cannot be used as they are
│   └── SourceUnreachable  a site did not answer this time; worth another try
├── MissingGeneration      a stage's input has not been made yet
├── IncompleteGeneration   a folder that is not whole, or whose row counts do not add up
├── WorkspaceBusy          another run is at work in the same workspace
└── GateFailed             exit code 1; a critical expectation said no
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class SeedlingError(Exception):
    """The root of all errors that a user can cause; shown without a traceback."""

    exit_code = 2


class InputError(SeedlingError):
    """Data, params or arguments that cannot be used as they are."""


class SourceUnreachable(InputError):
    """A site did not answer, or not all of it; another try may bring more."""


class MissingGeneration(SeedlingError):
    """A stage's input has not been made yet."""

    def __init__(self, folder: object, stage: str) -> None:
        super().__init__(
            f"Generation '{folder}' is missing: run `seedling stage {stage}`, or `seedling run` for the whole line."
        )


class IncompleteGeneration(SeedlingError):
    """A folder that is not whole, or whose row counts do not add up."""


class WorkspaceBusy(SeedlingError):
    """Another run is at work in the same workspace."""


class GateFailed(SeedlingError):
    """A critical expectation said no; the rows are in quarantine and nothing was recorded. checks: all of the gate, as in gate.json."""

    exit_code = 1

    def __init__(self, message: str, checks: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.checks = list(checks)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its checks, as it comes from another process of Prefect's."""
        return type(self), (str(self), self.checks)


class Diverged(InputError):
    """A training whose loss is no number any more; the learner is left out where there are others."""
