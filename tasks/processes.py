"""One training over several processes, on one machine or many, by whatever starts the same module in each of them.

    SEEDLING_LAUNCH="accelerate launch --num_processes 4" seedling run     # GPUs
    SEEDLING_LAUNCH="torchrun --nproc_per_node 2" seedling run             # processors

`-m tasks.processes STAGE FOLDER` is put behind the launcher's words, and it is called in the workspace's folder, which all
machines must see; with `srun … accelerate launch …` one command reaches many of them. Encoding and folds are shared out; the
process that leads makes the choice and writes. The bytes are those of one process, on machines of one kind.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

from tasks.errors import InputError, SeedlingError
from tasks.parallel import Process, join
from tasks.progress import Progress, silent

LAUNCH = "SEEDLING_LAUNCH"
SECONDS_TO_TELL = 10
PATIENCE = timedelta(days=7)  # of one process with another, which may have a slower fold


def launched(launch: str, stage: str, workspace: Path, output: Path, progress: Progress) -> None:
    """Runs the stage's work by the launcher, and hears how far it is. Raises InputError where there is no such command,
    SeedlingError with what the leading process said, or where to look, when it failed.
    """
    command = [*_program(launch), "-m", "tasks.processes", stage, str(output)]
    said: dict[str, Any] = {}
    with subprocess.Popen(command, cwd=workspace, stdout=subprocess.PIPE, text=True) as running:  # noqa: S603  (the user's own words)
        try:
            for line in running.stdout or ():
                told = _message(line)
                if told is None:
                    sys.stderr.write(line)
                elif "progress" in told:
                    progress(*told["progress"])
                else:
                    said |= told
                if "error" in said:
                    break
        except BaseException:
            running.terminate()
            raise
        if "error" in said:
            running.terminate()  # the others may wait for the one that failed
    if "error" in said:
        raise SeedlingError(said["error"])
    if "done" not in said:
        raise SeedlingError(
            f"'{launch}' ended with exit code {running.returncode} before the stage was done: what it said stands above."
        )


def _program(launch: str) -> list[str]:
    """The launcher's words, the first one a path: that of our own environment before any other's of that name."""
    try:
        first, *others = shlex.split(launch)
    except ValueError as error:
        raise InputError(f"{LAUNCH}: '{launch}' is no command line: {error}.") from error
    beside = Path(sys.executable).parent / first
    program = str(beside) if beside.is_file() else shutil.which(first)
    if program is None:
        raise InputError(f"{LAUNCH}: there is no command '{first}': give its path, or install it.")
    return [str(Path(program).absolute()), *others]


def _message(line: str) -> dict[str, Any] | None:
    """What the leading process tells in a line, which a launcher may have put a prefix to."""
    try:
        found = json.loads(line[line.index("{") :])
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.keys() & {"progress", "error", "done"} else None


def main(stage: str, output: Path) -> None:
    """What the launcher runs in every process, in the workspace's folder.

    Standard output is the leading process's alone, a JSON object a line: {"progress": [what, done, total]},
    {"error": why} or {"done": true}.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    from tasks.params import load
    from tasks.stages import explained, find

    os.environ.pop(LAUNCH, None)  # here the work is done, not launched once more
    state, workspace = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE), Path.cwd()

    def gather(mine: Any) -> list[Any]:
        return list(gather_object([mine])) if state.num_processes > 1 else [mine]

    join(
        Process(
            number=state.process_index,
            count=state.num_processes,
            local=state.local_process_index,
            locals=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
            gather=gather,
        )
    )
    leads = state.is_main_process
    if leads:
        Thread(target=_leave_with_the_reader, daemon=True).start()
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            find(stage).work(
                load(workspace), workspace, output if leads else Path(nowhere), telling if leads else silent
            )
        except (SeedlingError, OSError) as error:
            why = explained(error, stage) if isinstance(error, OSError) else error
            if not isinstance(why, SeedlingError):
                raise
            if not leads:  # the launcher stops the others when one fails, and the first may have to say the same
                time.sleep(SECONDS_TO_TELL)
                print(why, file=sys.stderr)
                sys.exit(why.exit_code)
            tell("error", str(why))
            return
    if leads:
        tell("done", True)
    state.destroy_process_group()


def _leave_with_the_reader() -> None:
    """Ends this process, and by the launcher all others, when nobody reads its standard output any more: the run that
    started it was killed, and another may soon work on the same files.
    """
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)
    while not any(event & (select.POLLERR | select.POLLHUP) for _, event in watched.poll()):
        time.sleep(1)
    os._exit(1)


def telling(what: str, done: int, total: int | None) -> None:
    """Progress, for the process that started the launcher."""
    tell("progress", [what, done, total])


def tell(name: str, value: Any) -> None:
    """A line on standard output."""
    print(json.dumps({name: value}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
