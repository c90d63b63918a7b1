"""A stage's work given to a launcher, which starts seedling/parallel/launched_process.py in as many processes as it is told.

    SEEDLING_LAUNCH="accelerate launch --num_processes 4" seedling run     # GPUs
    SEEDLING_LAUNCH="torchrun --nproc_per_node 2" seedling run             # processors

`-m seedling.parallel.launched_process STAGE FOLDER INPUTS` is put behind the launcher's words, and it is called in the workspace's folder, which all
machines must see; with `srun … accelerate launch …` one command reaches many of them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from seedling.errors import InputError, SeedlingError
from seedling.import_path import SAFE_PATH
from seedling.parallel.memory_limit import described_limit
from seedling.progress import Progress

LAUNCH = "SEEDLING_LAUNCH"


def launched(
    launch: str, stage: str, workspace: Path, output: Path, progress: Progress, *, inputs: Path | None = None
) -> None:
    """Runs the stage's work by the launcher, and hears how far it is. Raises InputError where there is no such command,
    SeedlingError with what the leading process said, or where to look, when it failed.
    """
    command = [
        *_program(launch),
        "-m",
        "seedling.parallel.launched_process",
        stage,
        str(output),
        str(inputs or workspace),
    ]
    result: dict[str, Any] = {}
    environment = (
        {"OMP_NUM_THREADS": "1"} | os.environ | SAFE_PATH
    )  # as a model has anyway, and launchers speak of it at length
    with subprocess.Popen(  # noqa: S603  (the user's own words)
        command, cwd=workspace, env=environment, stdout=subprocess.PIPE, text=True
    ) as running:
        try:
            for line in running.stdout or ():
                message = _message(line)
                if message is None:
                    sys.stderr.write(line)
                elif "progress" in message:
                    progress(*message["progress"])
                else:
                    result |= message
                if "error" in result:
                    break
        except BaseException:
            running.terminate()
            raise
        if "error" in result:
            running.terminate()  # the others may wait for the one that failed
    if "error" in result:
        raise SeedlingError(result["error"])
    if "done" not in result and running.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}:
        raise SeedlingError(
            f"'{launch}' was killed, most likely out of memory ({described_limit()}): start fewer processes, close other programs, "
            "or take fewer rows (docs/requirements.md)."
        )
    if "done" not in result:
        raise SeedlingError(
            f"'{launch}' ended with exit code {running.returncode} before the stage was done: what it said stands above."
        )


def _program(launch: str) -> list[str]:
    """The launcher's words, the first one a path: that of our own environment before any other's of that name."""
    try:
        words = shlex.split(launch)
    except ValueError as error:
        raise InputError(f"{LAUNCH}: '{launch}' is no command line ({error}): close its quotes.") from error
    if not words:
        raise InputError(f"{LAUNCH} holds no command: name one, or leave it empty.")
    first, *others = words
    beside = Path(sys.executable).parent / first
    program = str(beside) if beside.is_file() else shutil.which(first)
    if program is None:
        raise InputError(f"{LAUNCH}: there is no command '{first}': give its path, or install it.")
    return [str(Path(program).absolute()), *others]


def _message(line: str) -> dict[str, Any] | None:
    """What the leading process tells in a line, which a launcher may have put a prefix to."""
    try:
        message = json.loads(line[line.index("{") :])
    except ValueError:
        return None
    return message if isinstance(message, dict) and message.keys() & {"progress", "error", "done"} else None
