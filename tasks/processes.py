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
import shlex
import shutil
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from tasks.errors import InputError, SeedlingError
from tasks.parallel import Process, join
from tasks.progress import Progress, silent

LAUNCH = "SEEDLING_LAUNCH"
PATIENCE = timedelta(days=7)  # of one process with another, which may have a slower fold


def launched(launch: str, stage: str, workspace: Path, output: Path, progress: Progress) -> None:
    """Runs the stage's work by the launcher, and hears how far it is. Raises InputError where there is no such command,
    SeedlingError with what the leading process said, or where to look, when it failed.
    """
    first, *others = shlex.split(launch)
    beside = Path(sys.executable).parent / first  # where no virtual environment is active
    program = shutil.which(first) or (str(beside) if beside.is_file() else None)
    if program is None:
        raise InputError(f"{LAUNCH}: there is no command '{first}': give its path, or install it.")
    command = [program, *others, "-m", "tasks.processes", stage, str(output)]
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
                    said = told
                    break  # nothing comes after an error or the end
        except BaseException:
            running.terminate()
            raise
        if "error" in said:
            running.terminate()  # the others may wait for the one that failed
    if "error" in said:
        raise SeedlingError(said["error"])
    if running.returncode or "done" not in said:
        raise SeedlingError(
            f"'{launch}' ended with exit code {running.returncode} before the stage was done: what it said stands above."
        )


def _message(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
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
    from tasks.stages import find

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
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            find(stage).work(
                load(workspace), workspace, output if leads else Path(nowhere), telling if leads else silent
            )
        except SeedlingError as error:
            if not leads:  # the launcher stops the others when one fails
                print(error, file=sys.stderr)
                sys.exit(error.exit_code)
            tell("error", str(error))
            return
    if leads:
        tell("done", True)
    state.destroy_process_group()


def telling(what: str, done: int, total: int | None) -> None:
    """Progress, for the process that started the launcher."""
    tell("progress", [what, done, total])


def tell(name: str, value: Any) -> None:
    """A line on standard output."""
    print(json.dumps({name: value}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
