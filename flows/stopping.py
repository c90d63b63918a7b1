"""Stopping by a signal: `seedling run`, `stage`, `schedule` and a scheduled run end in time and leave no process behind.

SIGINT (Ctrl-C), SIGTERM and SIGHUP first unwind the main thread as an exception, so that files are left whole. What cannot be
unwound, such as a thread that trains, is cut off when the grace period is over: Prefect is told, child processes are killed.
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
PREFECT_SECONDS = 1.0  # for telling Prefect's server; a process that is stopped does not wait longer for it
PARENT_POLL_SECONDS = 0.5
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOPPED = "Stopped. What was finished is kept: the same command goes on from there."

_announced = threading.Event()
_flow_run_ids: list[UUID] = []


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised in the main thread; `exit_code` is the shell's for that signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.exit_code = 128 + signal_number


def exit_code_of(error: KeyboardInterrupt) -> int:
    """The exit code after a signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    return error.exit_code if isinstance(error, Stopped) else 128 + signal.SIGINT


@contextmanager
def stops_in_time(grace_seconds: float = GRACE_SECONDS, *, keep_handlers: bool = False) -> Iterator[None]:
    """Within the block, a signal ends this process and all its descendants after at most the grace period.

    A second signal ends them at once. Once a signal has arrived, this holds beyond the block, until the process has ended.

    Args:
        grace_seconds: For the main thread to unwind.
        keep_handlers: Leaves what SIGTERM and SIGHUP do to the main thread as it is: in a process that Prefect started.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # The wakeup descriptor is written by C code, so the watching thread learns of a signal also while the main thread
    # is in a long call of a library and cannot run a Python handler.
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
        arrived.set()  # the watching thread may not have got so far
        raise
    finally:
        if not arrived.is_set():
            signal.set_wakeup_fd(previous_descriptor)
            for replaced, handler in previous_handlers.items():
                signal.signal(replaced, handler)
            os.close(writable)  # ends the thread


def ends_with_parent() -> None:
    """Stops this process, with its descendants, when the process that started it has ended."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_POLL_SECONDS)
        stop_now(signal.SIGTERM)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def remember_flow_run(flow: Any, flow_run: Any, state: Any) -> None:
    """A hook for Prefect's `on_running`: the run whose state is set when this process is cut off."""
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
    """Tells Prefect, kills all descendants but Prefect's server, which ends by itself, and ends this process."""
    if _flow_run_ids:
        teller = threading.Thread(target=_tell_prefect, args=(signal_number,), daemon=True)
        teller.start()
        teller.join(PREFECT_SECONDS)
    kill_descendants()
    announce_stopped()
    os._exit(128 + signal_number)


def kill_descendants() -> None:
    """Kills all processes that descend from this one, but Prefect's server."""
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
    if second is None:  # no second signal, or the block has ended: the process has the rest of its time
        time.sleep(max(0.0, deadline - time.monotonic()))
    stop_now(signal_number)


def _next_signal(readable: int, deadline: float | None) -> int | None:
    """The number of the next signal of SIGNALS; None at the deadline, or once the other end of the pipe is closed."""
    while True:
        seconds_left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([readable], [], [], seconds_left)[0]:
            return None
        received = os.read(readable, 1)
        if not received:
            return None
        if received[0] in SIGNALS:
            return received[0]


def _tell_prefect(signal_number: int) -> None:
    """Ends the flow runs of this process: as Cancelled where a person stopped them, else as Crashed."""
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled, Crashed

    name = signal.Signals(signal_number).name
    with suppress(Exception), get_client(sync_client=True) as client:
        states = {run_id: client.read_flow_run(run_id).state for run_id in _flow_run_ids}
        cancelled = signal_number == signal.SIGINT or any(state and state.is_cancelling() for state in states.values())
        for run_id, state in states.items():
            if state is None or not (state.is_final() or state.is_cancelling()):
                ended = Cancelled if cancelled else Crashed
                client.set_flow_run_state(run_id, ended(message=f"Stopped by {name}."), force=True)
