"""What a launcher starts in every process (seedling/parallel/launcher.py): the stage's work, shared with the others.

Encoding and folds are shared out; the process that leads makes the choice and writes. The bytes are those of one process, on
machines of one kind.
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

SECONDS_TO_TELL = 10
PATIENCE = timedelta(days=7)  # of one process with another, which may have a slower fold


def main(stage: str, output: Path, inputs: Path) -> None:
    """What the launcher runs in every process, in the workspace's folder. inputs: the folder of params.yaml and data/.

    Standard output is the leading process's alone, a JSON object a line: {"progress": [what, done, total]},
    {"error": why} or {"done": true}.
    """
    import torch
    from accelerate import PartialState
    from accelerate.utils import gather_object

    os.environ.pop(LAUNCH, None)  # here the work is done, not launched once more
    state, workspace = PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE), Path.cwd()

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
    leads = state.is_main_process
    if leads:
        Thread(target=_leave_with_the_reader, daemon=True).start()
    with tempfile.TemporaryDirectory() as nowhere:
        try:
            params = load(inputs)
            context = StageContext(
                params,
                workspace,
                inputs / "data",
                output if leads else Path(nowhere),
                telling if leads else silent,
                encoder_of(params, workspace),
            )
            find_stage(stage).function(context)
        except Exception as error:
            why = explain(error, stage)
            if why is None:
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
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
