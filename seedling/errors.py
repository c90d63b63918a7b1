"""The exceptions that Seedling raises; their messages include the remedy.

SeedlingError              exit code 2; the root of all errors below
├── InputError             data, params or arguments are not usable
│   ├── MissingColumn      a table lacks a required column
│   ├── MissingExtra       a package of an optional feature is not installed
│   ├── SourceUnreachable  a site did not respond; another attempt may succeed
│   └── Diverged           the training loss of a model is not finite
├── MissingGeneration      the input of a stage does not exist yet
├── IncompleteGeneration   a folder is incomplete, or its row counts do not add up
├── DamagedFile            a file is truncated, or its content does not match its name
├── WorkspaceBusy          another run is active in the same workspace
├── UnexpectedError        exit code 70; an unknown error, its traceback is in a log file
└── GateFailed             exit code 1; a critical expectation failed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seedling.records.gate import Check


class SeedlingError(Exception):
    """The root of all errors that a user can cause; the command line prints it without a traceback."""

    exit_code = 2


class InputError(SeedlingError):
    """Data, params or arguments are not usable."""


class MissingColumn(InputError):
    """A table lacks a required column."""


class MissingExtra(InputError):
    """A package of an optional feature is not installed; the message has the command that installs it."""


class SourceUnreachable(InputError):
    """A site did not respond, or only in part; another attempt may succeed."""


class MissingGeneration(SeedlingError):
    """The input of a stage does not exist yet."""

    def __init__(self, folder: object, stage: str) -> None:
        super().__init__(
            f"Generation '{folder}' is missing: run `seedling stage {stage}`, or `seedling run` for the whole pipeline."
        )


class IncompleteGeneration(SeedlingError):
    """A folder is incomplete, or its row counts do not add up."""


class DamagedFile(SeedlingError):
    """A file is truncated, or its content does not match its name. cause: the error of the reader, or its message."""

    def __init__(self, path: object, cause: BaseException | str, remedy: str) -> None:
        lines = str(cause).strip().splitlines() or [""]
        reason = f"{type(cause).__name__}: {lines[0]}" if isinstance(cause, BaseException) else lines[0]
        super().__init__(f"{path} is damaged ({reason.rstrip('.: ')}): {remedy}.")
        self.path = path
        self._arguments: tuple[object, ...] = (path, reason, remedy)

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickling, since the error may be raised in another process."""
        return type(self), self._arguments


class LaterFile(DamagedFile):
    """A file is of a later version of Seedling, as `reason` says."""

    def __init__(self, path: object, reason: str) -> None:
        SeedlingError.__init__(self, f"{path} cannot be read ({reason}): upgrade Seedling.")
        self.path, self._arguments = path, (path, reason)


class UnexpectedError(SeedlingError):
    """An unknown error, most likely a bug in Seedling; the message names the log file with its traceback."""

    exit_code = 70  # EX_SOFTWARE of sysexits.h; never 1, which means that a gate failed


class WorkspaceBusy(SeedlingError):
    """Another run is active in the same workspace."""


class GateFailed(SeedlingError):
    """A critical expectation failed; the rows are in quarantine and the stage is not recorded.

    checks: all checks of the gate, as in gate.json.
    """

    exit_code = 1

    def __init__(self, message: str, checks: Sequence[Check] = ()) -> None:
        super().__init__(message)
        self.checks = list(checks)

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickling with the checks, since the error may be raised in another Prefect process."""
        return type(self), (str(self), self.checks)


class Diverged(InputError):
    """The training loss of a model is not finite; the learner is skipped if other learners remain."""
