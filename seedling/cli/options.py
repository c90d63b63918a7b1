"""Options that several commands share, and how commands end on errors."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated

import typer

from seedling.plugins import NO_PLUGINS

_workspace_option: ContextVar[Path] = ContextVar("workspace_option", default=Path())


def _store_workspace(value: Path) -> Path:
    """Stores the option for the log of an unexpected error. Typer no longer has Click's current context."""
    _workspace_option.set(value)
    return value


Workspace = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", callback=_store_workspace, help="Folder of the workspace.", show_default="this folder"
    ),
]
Round = Annotated[int | None, typer.Option("--round", help="Round of the model.", show_default="the accepted one")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the tracebacks of errors.")]


def _switch_off_plugins(value: bool) -> bool:
    """Sets the environment variable, which child processes inherit."""
    if value:
        os.environ[NO_PLUGINS] = "1"
    return value


NoPlugins = Annotated[
    bool,
    typer.Option(
        "--no-plugins",
        callback=_switch_off_plugins,
        help="Load no Python file that params.yaml or gates.yaml names; a stage that needs one fails.",
    ),
]


AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        help="Host name that requests may use for the server, besides localhost and its address. May be repeated."
    ),
]


@contextmanager
def explained(debug: bool) -> Iterator[None]:
    """End the command on any error with one sentence and an exit code.

    Exit code 1: a gate failed; 2: an error that the user can fix; 70: an unexpected error, with its traceback in a log
    file. debug: whether to also print the traceback.
    """
    from seedling.terminal.console import PrintableConsole

    console = PrintableConsole(stderr=True)
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError as error:  # the reader of the output has closed it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  (Python flushes it at the end)
        raise typer.Exit(0) from error
    except KeyboardInterrupt as error:
        from seedling.flows.stopping import announce_stopped, exit_code_of

        announce_stopped()
        raise typer.Exit(exit_code_of(error)) from error
    except Exception as error:
        from seedling.faults import as_seedling_error

        seedling_error = as_seedling_error(
            error, " ".join(["seedling", *sys.argv[1:]]), _workspace_option.get().absolute()
        )
        if debug:
            traceback.print_exception(error)
        console.print(str(seedling_error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(seedling_error.exit_code) from error
