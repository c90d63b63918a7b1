"""Stops by a signal: `seedling run`, `stage`, `schedule` and a scheduled run end in time and leave no processes.

SIGINT (Ctrl-C), SIGTERM and SIGHUP first unwind the main thread with an exception, so that files stay complete. After
the grace period, code that cannot be unwound, such as a thread that trains, is ended: the flow run gets its final
state, child processes are killed, and this process exits.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn
from uuid import UUID

GRACE_SECONDS = 3.0
SCHEDULE_GRACE_SECONDS = 15.0  # a schedule first ends its run, which has a grace period of its own
PREFECT_TIMEOUT_SECONDS = 1.0  # for setting the state of the flow runs
PARENT_POLL_SECONDS = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED = "Stopped. Finished stages are kept: run the same command again to continue."

_announced = threading.Event()
_flow_run_ids: list[UUID] = []


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised in the main thread. `exit_code` is the shell's code for the signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.exit_code = 128 + signal_number


def exit_code_of(error: KeyboardInterrupt) -> int:
    """The exit code after a signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return error.exit_code if isinstance(error, Stopped) else 128 + signal.SIGINT


@contextmanager
def stops_in_time(grace_seconds: float = GRACE_SECONDS, *, keep_handlers: bool = False) -> Iterator[None]:
    """Within the block, a signal ends this process and all its descendants after at most the grace period.

    A second signal ends them immediately. After a signal, the time limit also applies after the block.

    Args:
        grace_seconds: the time for the main thread to unwind.
        keep_handlers: whether to keep the handlers of SIGTERM and SIGHUP, for a process that Prefect started.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # C code writes to the wakeup descriptor, so the watching thread receives a signal even while the main thread is in
    # a long library call and cannot run a Python handler.
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    previous_descriptor = signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    previous_handlers: dict[int, Any] = {}
    replaced_signals = () if keep_handlers else (signal.SIGTERM, signal.SIGHUP)
    for number in replaced_signals:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            previous_handlers[number] = signal.signal(number, _raise_stopped)
    arrived = threading.Event()
    threading.Thread(target=_watch, args=(readable, grace_seconds, arrived), name="stopping", daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        arrived.set()  # the watching thread may not have set it yet
        raise
    finally:
        if not arrived.is_set():
            signal.set_wakeup_fd(previous_descriptor)
            for replaced, handler in previous_handlers.items():
                signal.signal(replaced, handler)
            os.close(writable)  # ends the thread


def ends_with_parent() -> None:
    """Stops this process and its descendants when its parent process has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        stop_now(signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def remember_flow_run(flow: Any, flow_run: Any, state: Any) -> None:
    """A hook for Prefect's `on_running`: stores the run, whose state is set if this process is stopped."""
    _flow_run_ids.append(flow_run.id)


def announce_stopped() -> None:
    """Prints that the command was stopped, once."""
    if not _announced.is_set():
        _announced.set()
        with suppress(OSError, ValueError):
            show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
            sys.stderr.write(f"{show_cursor}{STOPPED}\n")
            sys.stderr.flush()


def stop_now(signal_number: int) -> NoReturn:
    """Sets the state of the flow runs, kills all descendants except Prefect's server, and ends this process.

    Prefect's server ends by itself.
    """
    if _flow_run_ids:
        thread = threading.Thread(target=_set_final_states, args=(signal_number,), daemon=True)
        thread.start()
        thread.join(PREFECT_TIMEOUT_SECONDS)
    kill_descendants()
    announce_stopped()
    os._exit(128 + signal_number)


def kill_descendants() -> None:
    """Kills all descendants of this process except Prefect's server."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "seedling.flows.server_process" not in child.cmdline():
                child.kill()


def _raise_stopped(signal_number: int, frame: FrameType | None) -> NoReturn:
    raise Stopped(signal_number)


def _watch(readable: int, grace_seconds: float, arrived: threading.Event) -> None:
    signal_number = _next_signal(readable, None)
    if signal_number is None:
        os.close(readable)
        return
    arrived.set()
    deadline = time.monotonic() + grace_seconds
    second = _next_signal(readable, deadline)
    if second is None:  # no second signal, or the block has ended: wait for the rest of the grace period
        time.sleep(max(0.0, deadline - time.monotonic()))
    stop_now(signal_number)


def _next_signal(readable: int, deadline: float | None) -> int | None:
    """Returns the next signal of SIGNALS; None at the deadline, or if the other end of the pipe is closed."""
    while True:
        seconds_left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([readable], [], [], seconds_left)[0]:
            return None
        received = os.read(readable, 1)
        if not received:
            return None
        if received[0] in SIGNALS:
            return received[0]


def _set_final_states(signal_number: int) -> None:
    """Ends the flow runs of this process: as Cancelled if a user stopped them, else as Crashed."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled, Crashed

    name = signal.Signals(signal_number).name
    with suppress(Exception), get_client(sync_client=True) as client:
        states = {run_id: client.read_flow_run(run_id).state for run_id in _flow_run_ids}
        is_cancelled = signal_number == signal.SIGINT or any(
            state and state.is_cancelling() for state in states.values()
        )
        for run_id, state in states.items():
            if state is None or not (state.is_final() or state.is_cancelling()):
                final_state = Cancelled if is_cancelled else Crashed
                client.set_flow_run_state(run_id, final_state(message=f"Stopped by {name}."), force=True)
