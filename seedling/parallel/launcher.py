"""Runs a stage by a launcher, which starts seedling/parallel/launched_process.py in several processes.

    SEEDLING_LAUNCH="accelerate launch --num_processes 4" seedling run     # GPUs
    SEEDLING_LAUNCH="torchrun --nproc_per_node 2" seedling run             # processors

`-m seedling.parallel.launched_process STAGE FOLDER INPUTS` is appended to the launcher's command, which runs in the
workspace's folder. All machines must share this folder; `srun … accelerate launch …` uses several machines.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from seedling.errors import InputError, SeedlingError
from seedling.extras import require
from seedling.import_path import SAFE_PATH
from seedling.parallel.memory_limit import described_limit
from seedling.progress import Progress

LAUNCH = "SEEDLING_LAUNCH"


@dataclass(frozen=True)
class Message:
    """A message of the leading process: progress (what, done, total), an error, or that the stage is complete."""

    progress: tuple[str, int, int | None] | None = None
    error: str | None = None
    done: bool = False


def run_by_launcher(
    launch: str, stage: str, workspace: Path, output: Path, progress: Progress, *, inputs: Path | None = None
) -> None:
    """Runs the stage by the launcher, and reports its progress.

    Raises InputError if the command does not exist, and SeedlingError with the leading process's error if it fails;
    MissingExtra without the extra `launch`.
    """
    require("launch", LAUNCH)
    command = [
        *_program(launch),
        "-m",
        "seedling.parallel.launched_process",
        stage,
        str(output),
        str(inputs or workspace),
    ]
    last = Message()
    # Models use one thread anyway; without the variable, launchers print a long warning.
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | SAFE_PATH
    with subprocess.Popen(  # noqa: S603  (the user's command)
        command, cwd=workspace, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            for line in process.stdout or ():
                message = _message(line)
                if message is None:
                    sys.stderr.write(line)
                elif message.progress is not None:
                    progress(*message.progress)
                else:
                    last = message
                if last.error is not None:
                    break
        except BaseException:
            process.terminate()
            raise
        if last.error is not None:
            process.terminate()  # other processes may wait for the one that failed
    _check_end(last, launch, process.returncode)


def _check_end(last: Message, launch: str, exit_code: int) -> None:
    """Raises SeedlingError if the stage failed or is not complete. last: the last message but progress."""
    if last.error is not None:
        raise SeedlingError(last.error)
    if not last.done and exit_code in {-signal.SIGKILL, 128 + signal.SIGKILL}:
        raise SeedlingError(
            f"'{launch}' was killed, most likely out of memory ({described_limit()}): start fewer processes, close "
            "other programs, or use fewer rows (docs/requirements.md)."
        )
    if not last.done:
        raise SeedlingError(
            f"'{launch}' ended with exit code {exit_code} before the stage was complete: its output is above."
        )


def _program(launch: str) -> list[str]:
    """Splits the launcher's command and resolves its program, first in the folder of this Python interpreter."""
    try:
        words = shlex.split(launch)
    except ValueError as error:
        raise InputError(f"{LAUNCH}: '{launch}' is not a command line ({error}): close its quotes.") from error
    if not words:
        raise InputError(f"{LAUNCH} holds no command: set one, or unset the variable.")
    name, *arguments = words
    path = Path(sys.executable).parent / name
    program = str(path) if path.is_file() else shutil.which(name)
    if program is None:
        raise InputError(f"{LAUNCH}: there is no command '{name}': use its path, or install it.")
    return [str(Path(program).absolute()), *arguments]


def _message(line: str) -> Message | None:
    """Parses a message of the leading process; None for another line. A launcher may have put a prefix before it."""
    try:
        message = json.loads(line[line.index("{") :])
    except ValueError:
        return None
    if not (isinstance(message, dict) and message.keys() & {"progress", "error", "done"}):
        return None
    progress = message.get("progress")
    return Message(None if progress is None else tuple(progress), message.get("error"), "done" in message)
