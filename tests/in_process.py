"""Commands of the command line called in this process, for tests in which the process itself is not the point.

Not for `run` and `stage`, which fork, nor for commands that serve until they are stopped.
"""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from typer.testing import CliRunner

from seedling.cli.main import app


def seedling(*arguments: object, cwd: Path | None = None, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """The exit code and the output of `seedling ARGUMENTS`; unexpected exceptions are raised."""
    words = [str(argument) for argument in arguments]
    with contextlib.chdir(cwd or Path.cwd()):
        result = CliRunner().invoke(app, words, input=stdin, prog_name="seedling")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)
