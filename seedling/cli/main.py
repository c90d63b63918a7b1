"""The command line: one file of this package per command.

Heavy imports happen inside the commands, so that `seedling --help` answers at once.
"""

from __future__ import annotations

import atexit
import codecs
import os
import sys
from typing import Annotated

import typer

import seedling
from seedling.cli.ablate import ablate
from seedling.cli.boxes import boxes
from seedling.cli.clean import clean
from seedling.cli.compare import compare
from seedling.cli.export import export
from seedling.cli.init import init
from seedling.cli.migrate import migrate
from seedling.cli.predict import predict
from seedling.cli.resolve import resolve
from seedling.cli.review import review
from seedling.cli.run import run
from seedling.cli.schedule import schedule
from seedling.cli.serve import serve
from seedling.cli.serve_reports import serve_reports
from seedling.cli.show import show
from seedling.cli.stage import stage
from seedling.cli.status import status
from seedling.cli.why import why
from seedling.terminal.output_encoding import replace_unwritable

DISTRIBUTION = "seedling-ml"
KEYBOARD_INTERRUPT = 130  # exit code
COMMANDS = (
    run,
    init,
    status,
    clean,
    migrate,
    resolve,
    review,
    stage,
    compare,
    ablate,
    why,
    predict,
    show,
    export,
    serve,
    serve_reports,
    schedule,
    boxes,
)

app = typer.Typer(
    name="seedling",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    app.command(_command.__name__.replace("_", "-"))(_command)
app.command("api", hidden=True, help="Same as `serve`, its earlier name was `api`.")(serve)


def _print_version(is_given: bool) -> None:
    if is_given:
        from importlib.metadata import version

        print(f"seedling {version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback(help=seedling.__doc__)
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """The options of the command line itself."""


def _open_closed_streams() -> None:
    """Opens the standard streams that the caller closed (`>&-`) on the null device.

    Otherwise the next file that is opened would get their descriptors, and receive the output.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, this one
            setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8", closefd=False))


def main() -> None:
    """Runs the console script. Ends the process right after the exit handlers."""
    if codecs.lookup(sys.getfilesystemencoding()).name != "utf-8":  # DVC and JSON files need paths in UTF-8
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  (the same command again)
    _open_closed_streams()
    replace_unwritable(sys.stdout, sys.stderr)
    code: object = 70  # of an unexpected error in the command line's code; 1 means that a gate failed

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))

    atexit.register(leave)  # runs last; without it, unloading torch's modules takes two seconds
    try:
        app(sys.argv[1:], prog_name="seedling")
    except SystemExit as end:
        code = end.code
        if code == KEYBOARD_INTERRUPT:  # from Typer, for Ctrl-C before the command has started
            from seedling.flows.stopping import announce_stopped

            announce_stopped()
        raise


if __name__ == "__main__":
    main()
