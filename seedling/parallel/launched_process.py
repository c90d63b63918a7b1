"""The program that a launcher starts in every process (seedling/parallel/launcher.py): a stage, shared with the others.

Encoding and folds are divided among the processes; the leading process decides and writes. On machines of one kind, the
bytes are the same as those of a single process.
"""

from __future__ import annotations

import json
import os
import select
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

from seedling.config.params import load
from seedling.faults import explain
from seedling.features.encoder_handle import encoder_of
from seedling.parallel.executor import Process, join
from seedling.parallel.launcher import LAUNCH
from seedling.pipeline import StageContext, find_stage
from seedling.progress import silent
from seedling.workspace import Workspace

ERROR_DELAY_SECONDS = 10
GATHER_TIMEOUT = timedelta(days=7)  # one process may have a much slower fold than another


def main(stage: str, output: Path, inputs: Path) -> None:
    """Runs the stage in the current folder, as one of several processes. inputs: the folder of params.yaml and data/.

    Only the leading process writes to standard output, one JSON object per line: {"progress": [what, done, total]},
    {"error": message} or {"done": true}.
    """
    workspace, state = Path.cwd(), _join_others()
    leads = state.is_main_process
    if leads:
        Thread(target=_exit_without_reader, daemon=True).start()
    with tempfile.TemporaryDirectory() as discarded:
        try:
            params = load(inputs)
            context = StageContext(
                params,
                workspace,
                Workspace(inputs).data,
                output if leads else Path(discarded),
                write_progress if leads else silent,
                encoder_of(params, workspace),
            )
            find_stage(stage).function(context)
        except Exception as error:
            seedling_error = explain(error, stage)
            if seedling_error is None:
                raise
            if not leads:  # the launcher stops all processes when one fails; the leading one may report the same error
                time.sleep(ERROR_DELAY_SECONDS)
                print(seedling_error, file=sys.stderr)
                sys.exit(seedling_error.exit_code)
            write_message("error", str(seedling_error))
            return
    if leads:
        write_message("done", True)
    state.destroy_process_group()


def _join_others() -> Any:
    """Makes this process one of the launcher's. Returns accelerate's state of it."""
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    os.environ.pop(LAUNCH, None)  # this process computes, and must not launch again
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=GATHER_TIMEOUT)

    def gather(value: Any) -> list[Any]:
        return list(gather_object([value])) if state.num_processes > 1 else [value]

    join(
        Process(
            number=state.process_index,
            count=state.num_processes,
            local=state.local_process_index,
            locals=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
            gather=gather,
        )
    )
    return state


def _exit_without_reader() -> None:
    """Ends this process when its standard output has no reader: the run was killed, and another may use the same files.

    The launcher then ends the other processes.
    """
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    while not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll()):
        time.sleep(1)
    os._exit(1)


def write_progress(what: str, done: int, total: int | None) -> None:
    """Sends progress to the process that started the launcher."""
    write_message("progress", [what, done, total])


def write_message(name: str, value: Any) -> None:
    """Writes a JSON object to standard output, on one line."""
    print(json.dumps({name: value}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
