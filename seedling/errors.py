"""What can go wrong, and what to do about it.

SeedlingError              exit code 2; the message carries the remedy
├── InputError             data, params or arguments that cannot be used as they are
│   ├── MissingColumn      a table lacks a column that it is read by
│   └── SourceUnreachable  a site did not answer this time; worth another try
├── MissingGeneration      a stage's input has not been made yet
├── IncompleteGeneration   a folder that is not whole, or whose row counts do not add up
├── DamagedFile            a file that was cut, or is not what its name says
├── WorkspaceBusy          another run is at work in the same workspace
├── UnexpectedError        exit code 70; nothing that we foresaw, its traceback is in a log file
└── GateFailed             exit code 1; a critical expectation failed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class SeedlingError(Exception):
    """The root of all errors that a user can cause; shown without a traceback."""

    exit_code = 2


class InputError(SeedlingError):
    """Data, params or arguments that cannot be used as they are."""


class MissingColumn(InputError):
    """A table lacks a column that it is read by."""


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


class DamagedFile(SeedlingError):
    """A file that was cut, or is not what its name says."""

    def __init__(self, path: object, why: BaseException | str, remedy: str) -> None:
        lines = str(why).strip().splitlines() or [""]
        what = f"{type(why).__name__}: {lines[0]}" if isinstance(why, BaseException) else lines[0]
        super().__init__(f"{path} is damaged ({what.rstrip('.: ')}): {remedy}.")
        self.path, self._arguments = path, (path, what, remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its arguments, as it comes from another process."""
        return type(self), self._arguments


class UnexpectedError(SeedlingError):
    """Nothing that was foreseen: most likely an error in Seedling. Its traceback is in a log file that the message names."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h; never 1, which means that a gate failed


class WorkspaceBusy(SeedlingError):
    """Another run is at work in the same workspace."""


class GateFailed(SeedlingError):
    """A critical expectation failed; the rows are in quarantine and nothing was recorded. checks: all of the gate, as in gate.json."""

    exit_code = 1

    def __init__(self, message: str, checks: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.checks = list(checks)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its checks, as it comes from another process of Prefect's."""
        return type(self), (str(self), self.checks)


class Diverged(InputError):
    """A training whose loss is no number any more; the learner is left out where there are others."""
