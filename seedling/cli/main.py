"""The command line: `seedling run | init | status | stage | compare | ablate | why | predict | export | serve | schedule`.

Heavy imports happen inside the commands, so that `seedling --help` answers at once.
"""

from __future__ import annotations

import atexit
import codecs
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

import seedling  # noqa: F401  (sets what must be set before the libraries are imported)
from seedling.cli.killed_run import announced_if_killed
from seedling.errors import InputError
from seedling.parallel.launcher import LAUNCH
from seedling.plugins import NO_PLUGINS
from seedling.terminal.output_encoding import replace_unwritable
from seedling.terminal.printable import printable

KEYBOARD_INTERRUPT = 130  # exit code

app = typer.Typer(
    name="seedling",
    help="Grows a trustworthy image or text classifier out of too little, or badly labelled, data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Effort(StrEnum):
    """The one dial."""

    quick = "quick"
    normal = "normal"
    thorough = "thorough"


class AnswerFormat(StrEnum):
    """Of a file of answers."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


class DatasetForm(StrEnum):
    """Of an exported dataset."""

    folders = "folders"
    table = "table"
    huggingface = "huggingface"


Workspace = Annotated[Path, typer.Option("--workspace", "-w", help="The workspace.", show_default="this folder")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")]


def _switch_off_plugins(value: bool) -> bool:
    """Sets the environment variable that child processes keep to, too."""
    if value:
        os.environ[NO_PLUGINS] = "1"
    return value


NoPlugins = Annotated[
    bool,
    typer.Option(
        "--no-plugins",
        callback=_switch_off_plugins,
        help="Load no Python file that params.yaml or gates.yaml names; needing one is an error.",
    ),
]


AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        help="Host name by which requests may address the server, beside loopback names and its own address; may be given several times."
    ),
]


def version(wanted: bool) -> None:
    """Prints the version and leaves."""
    if wanted:
        from importlib.metadata import version as installed

        print(f"seedling {installed('seedling')}")
        raise typer.Exit


@app.callback()
def options(
    shown: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Grows a trustworthy image or text classifier out of too little, or badly labelled, data."""


@contextmanager
def explained(debug: bool) -> Iterator[None]:
    """Ends the command with a sentence for whatever goes wrong, and an exit code: 1 a gate failed, 2 what a person can
    change, 70 an error that nobody foresaw, whose traceback is in a log file. debug: the traceback is shown, too.
    """
    from seedling.terminal.console import PrintableConsole

    console = PrintableConsole(stderr=True)
    try:
        yield
    except typer.Exit:
        raise
    except BrokenPipeError as error:  # who read the output has enough
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  (Python flushes it at the end)
        raise typer.Exit(0) from error
    except KeyboardInterrupt as error:
        from seedling.flows.stopping import announce_stopped, exit_code_of

        announce_stopped()
        raise typer.Exit(exit_code_of(error)) from error
    except Exception as error:
        from seedling.faults import as_seedling_error

        known = as_seedling_error(error, " ".join(["seedling", *sys.argv[1:]]), _workspace_named())
        if debug:
            traceback.print_exception(error)
        console.print(str(known), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(known.exit_code) from error


def _workspace_named() -> Path:
    """The workspace that the command was called with, for its log file."""
    import click

    context = click.get_current_context(silent=True)
    named = context.params.get("workspace") if context is not None else None
    return Path(named or Path()).absolute()


@app.command()
def run(
    effort: Annotated[Effort | None, typer.Option(help="How much to try; written into params.yaml.")] = None,
    as_of: Annotated[str | None, typer.Option(help="A new word makes the scrape stage go to its sites again.")] = None,
    visit: Annotated[
        bool, typer.Option("--visit", help="Visit the sources on the web for new rows, as a scheduled run does.")
    ] = False,
    launch: Annotated[
        str | None,
        typer.Option(
            envvar=LAUNCH, help="Train over several processes that this starts: 'accelerate launch --num_processes 4'."
        ),
    ] = None,
    no_plugins: NoPlugins = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Brings the whole line up to date: dataset, model and report."""
    from seedling.flows.stopping import stops_in_time

    with explained(debug), announced_if_killed(workspace.absolute()), stops_in_time():
        from seedling.cli.running import run_line

        if launch is not None:
            os.environ[LAUNCH] = launch

        run_line(workspace.resolve(), None if effort is None else effort.value, as_of, visit=visit)


def _pair(said: str) -> tuple[str, str]:
    name, equals, value = said.partition("=")
    if not (name and equals and value):
        raise InputError(f"--column {said}: say which column is what, as in --column text=message.")
    return name, value


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The new workspace.")],
    images: Annotated[Path | None, typer.Option(help="A folder of pictures, or a table with an image column.")] = None,
    texts: Annotated[
        Path | None, typer.Option(help="A CSV, TSV, JSONL or Parquet file with a text column, or a folder.")
    ] = None,
    collect: Annotated[
        Literal["images", "texts"] | None,
        typer.Option(help="No data yet: its sources are described in params.yaml, as docs/collecting.md shows."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="A pretrained encoder: a folder that transformers saved, a model of the Hugging Face Hub, or none.",
            show_default="all-MiniLM-L6-v2 for texts, where seedling[minilm] is installed",
        ),
    ] = None,
    pack: Annotated[
        bool | None,
        typer.Option(
            "--pack/--loose",
            help="Keep a folder's files in data/packed/*.parquet, or as they are.",
            show_default="packed from 10,000 files on",
        ),
    ] = None,
    by_source: Annotated[
        bool | None,
        typer.Option(
            "--by-source/--by-class",
            help="The folder's top folders are sources, with class folders in each; or they are the classes.",
            show_default="what their names say",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Of a table: text=message or label=category, where its columns have names of their own."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a table.", show_default="utf-8")] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(help="The character between the cells of a table; tab for a tab.", show_default="found out"),
    ] = None,
    no_label: Annotated[
        list[str] | None,
        typer.Option(help="A value of the label column that stands for no label; empty: every value is a class."),
    ] = None,
    with_code: Annotated[
        bool,
        typer.Option("--with-code", help="Copy scripts and programs of the folder, too; they are left out otherwise."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Makes a workspace, an ordinary git and DVC repository, of a folder, a table, or of what is to be collected."""
    with explained(debug):
        from seedling.init.create import make_workspace, told_left_out
        from seedling.progress import terminal

        source = images or texts
        if sum(one is not None for one in (images, texts, collect)) != 1:
            raise InputError(
                "Name the data: either --images PATH or --texts PATH; or, where all is to be collected, --collect images or texts."
            )
        of_data = (by_source, column, encoding, delimiter, no_label)
        if collect is not None and any(option is not None for option in of_data):
            raise InputError(
                "--by-source, --column, --encoding, --delimiter and --no-label are of data that is there: leave them out beside --collect."
            )
        left_out: list[tuple[str, str]] = []
        preview_lines: list[str] = []
        modality: Literal["image", "text"] = "image" if images is not None or collect == "images" else "text"
        with terminal("init") as progress:
            made = make_workspace(
                folder,
                source,
                modality,
                encoder=encoder,
                pack=pack,
                by_source=by_source,
                columns=dict(_pair(one) for one in column or ()),
                encoding=encoding,
                delimiter="\t" if delimiter in {"tab", "\\t"} else delimiter,
                no_label=no_label or None,
                with_code=with_code,
                left_out=left_out,
                preview_lines=preview_lines,
                progress=progress,
            )
        for sentence in [*told_left_out(left_out), *preview_lines]:
            print(printable(sentence))
        packed = sorted((made / "data" / "packed").glob("*.parquet")) if pack is not False else []
        if packed and pack is None:
            print(
                f"The files of {source} lie packed in {len(packed)} Parquet files (--loose would keep them as they are)."
            )
        then = ", describe a source in params.yaml (docs/collecting.md), and" if collect else " &&"
        print(printable(f"{made} is ready. Next: cd {made}{then} seedling run"))


@app.command()
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for a monitor.")] = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Shows what each stage holds, what is running, and the last result; works during a run.

    Exit code: 0 up to date, 1 the last gate failed, 2 error, 3 work to do, 4 a run is at work.
    """
    with explained(debug):
        from seedling.status import show_status

        code = show_status(workspace.resolve(), as_json=as_json)
    raise typer.Exit(code)


@app.command()
def clean(
    keep: Annotated[int, typer.Option(min=0, help="How many of the last runs are kept, with their experiments.")] = 20,
    days: Annotated[
        float, typer.Option(min=0, help="Quarantined rows, feature caches and Prefect flow runs older than this go.")
    ] = 30.0,
    megabytes: Annotated[float, typer.Option(min=0, help="The feature caches may have.")] = 1000.0,
    all_commits: Annotated[
        bool, typer.Option("--all-commits", help="Keep what any commit needs, not only the tips of branches, and tags.")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Remove it; without this, only show what would go.")] = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Removes old runs and what no kept run needs; shows what it would free unless --apply is given."""
    with explained(debug):
        from seedling.cleaning import Keep, show_plan
        from seedling.cleaning import clean as work

        limits = Keep(
            runs=keep,
            quarantine_days=days,
            feature_days=days,
            feature_megabytes=megabytes,
            flow_run_days=days,
            all_commits=all_commits,
        )
        show_plan(work(workspace.resolve(), limits, apply=apply), applied=apply)


@app.command()
def resolve(
    data: Annotated[
        Literal["ours", "theirs"] | None,
        typer.Option(help="Take one side's data as a whole.", show_default="the files of both sides"),
    ] = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Resolves git's conflicts in dvc.lock, data.dvc and test_evaluations.jsonl after a merge."""
    with explained(debug):
        from seedling.versioning.merging import resolve as work

        changes = work(workspace.resolve(), data)
        for change in changes:
            print(printable(change))
        print("Next: git commit && seedling run" if changes else "There is no conflict to resolve.")


@app.command()
def stage(
    name: Annotated[
        str, typer.Argument(help="scrape, validate, augment, synthesize, train@R, pseudo_label@R or evaluate.")
    ],
    force: Annotated[bool, typer.Option("--force", help="Run it even if nothing changed.")] = False,
    no_plugins: NoPlugins = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Brings one stage up to date, and records it."""
    from seedling.flows.stopping import stops_in_time

    with explained(debug), announced_if_killed(workspace.absolute()), stops_in_time():
        from seedling.cli.running import run_one

        run_one(workspace.resolve(), name, force=force)


@app.command()
def compare(
    old: Annotated[
        str, typer.Argument(help="A run, a DVC experiment or a git revision; `workspace` for what lies here.")
    ],
    new: Annotated[str, typer.Argument(help="Likewise.")] = "workspace",
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Rows by stage and metrics of two runs, with the paired difference and its interval; also as HTML."""
    with explained(debug):
        from seedling.comparison import show_comparison

        show_comparison(workspace.resolve(), old, new)


@app.command()
def ablate(
    minutes: Annotated[float, typer.Option(min=0, help="At most; what was run is kept for the next time.")] = 30.0,
    no_plugins: NoPlugins = False,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """What each step bought: the line run without it, step by step, judged on the same cross-validated rows."""
    with explained(debug):
        from seedling.ablation import ablate as work

        work(workspace.resolve(), minutes)


@app.command()
def why(
    row: Annotated[str, typer.Argument(metavar="ID", help="A row's id, or its first digits, or a part of its origin.")],
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """A row's whole story: origin, labels, parents and children, reasons, and which models learned from it."""
    with explained(debug):
        from seedling.row_story import show_story

        show_story(workspace.resolve(), row)


@app.command()
def predict(
    paths: Annotated[
        list[str],
        typer.Argument(help="Pictures, texts, folders, tables (CSV, TSV, JSONL, Parquet); - is standard input."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A .csv, .jsonl or .parquet file.", show_default="the terminal"),
    ] = None,
    form: Annotated[
        AnswerFormat | None,
        typer.Option("--format", help="Of the answers.", show_default="by the file's name, else csv"),
    ] = None,
    column: Annotated[
        str | None, typer.Option(help="A table's column of texts or pictures.", show_default="text or image")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Every class's probability too.")] = False,
    number: Annotated[int | None, typer.Option("--round", help="Whose model.", show_default="the accepted one")] = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """What the model says of new pictures or texts, how sure it is, and where it had better abstain."""
    with explained(debug):
        from seedling.prediction import Format
        from seedling.prediction import predict as work

        form_of = None if form is None else Format(form.value)
        work(
            workspace.resolve(),
            paths,
            output=output,
            form=form_of,
            column=column,
            probabilities=probabilities,
            number=number,
        )


@app.command()
def show(
    stage: Annotated[Literal["augment", "synthesize"], typer.Argument(help="Whose rows: augment or synthesize.")],
    families: Annotated[int, typer.Option(min=1, max=500, help="Parents that are shown.")] = 24,
    children: Annotated[int, typer.Option(min=1, max=100, help="Of each.")] = 6,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """A contact sheet: parents beside what was made of them, with each one's recipe."""
    with explained(debug):
        from seedling.config.params import load
        from seedling.media.personal_data import personal_data_shown
        from seedling.report.contact_sheet import write_contact_sheet
        from seedling.versioning.ledger import open_ledger

        with personal_data_shown(load(workspace).reports.show_personal_data):
            path = write_contact_sheet(workspace.resolve(), stage, families, children)
        print(f"The contact sheet: {path.as_uri()}")
        if stage in open_ledger(workspace.resolve()).states():
            print(f"Its inputs have changed since: `seedling stage {stage}` makes the rows anew.")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="Where to, a new folder.")],
    form: Annotated[
        DatasetForm | None,
        typer.Option("--as", help="Of the dataset.", show_default="folders of pictures, a table of texts"),
    ] = None,
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="May be said again.", show_default="train, validation, test")
    ] = None,
    made: Annotated[
        list[str] | None,
        typer.Option("--with", help="Rows of augment, synthesize or pseudo_label too; may be said again."),
    ] = None,
    licence: Annotated[str, typer.Option(help="Of the whole, for its card.")] = "unknown",
    keep_metadata: Annotated[
        bool,
        typer.Option("--keep-metadata", help="Image files as they came, with place, author and camera in them."),
    ] = False,
    model: Annotated[
        bool, typer.Option("--model", help="The model instead, as ONNX with its preprocessing; needs seedling\\[onnx].")
    ] = False,
    number: Annotated[int | None, typer.Option("--round", help="Whose model.", show_default="the accepted one")] = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """The dataset as folders of pictures, as tables, or as the Hugging Face Hub has them; or the model as ONNX; with a card."""
    with explained(debug):
        if model:
            if form or splits or made or keep_metadata:
                raise InputError(
                    "--as, --split, --with and --keep-metadata are of datasets: leave them out beside --model."
                )
            from seedling.export.model import export_model

            export_model(workspace.resolve(), folder, number=number, licence=licence)
            return
        if number is not None:
            raise InputError("--round is of models: add --model, or leave it out.")
        from seedling.export.dataset import Form
        from seedling.export.dataset import export as work

        work(
            workspace.resolve(),
            folder,
            form=None if form is None else Form(form.value),
            splits=splits or ["train", "validation", "test"],
            made=made or [],
            licence=licence,
            keep_metadata=keep_metadata,
        )


@app.command()
def serve(
    cron: Annotated[str | None, typer.Option(hidden=True)] = None,
    host: Annotated[str, typer.Option(help="Where it listens; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    megabytes: Annotated[float, typer.Option(min=0.001, help="A request may have.")] = 8.0,
    rate: Annotated[float, typer.Option(min=0.1, help="Requests a second of one client.")] = 50.0,
    connections: Annotated[
        int, typer.Option(min=2, max=10_000, help="Open connections of one client; twice as many in all.")
    ] = 128,
    allow_host: AllowHost = None,
    token_env: Annotated[
        str | None,
        typer.Option(
            help="Environment variable with the token that requests must send: Authorization: Bearer TOKEN.",
            show_default="SEEDLING_API_TOKEN, where it is set",
        ),
    ] = None,
    number: Annotated[int | None, typer.Option("--round", help="Whose model.", show_default="the accepted one")] = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Serves the model over HTTP: POST /predict, GET /health, /metrics, /openapi.json; until stopped."""
    with explained(debug):
        if cron is not None:
            raise InputError(
                "`seedling serve` serves the model over HTTP. Scheduled runs are: seedling schedule --cron '...'"
            )
        from seedling.models.predictor import Predictor
        from seedling.serving.api import TOKEN_VARIABLE, Limits, reserved, serve_api
        from seedling.serving.http_clients import AllowedHosts, checked_hosts, is_loopback
        from seedling.serving.http_guard import token_from

        hosts = AllowedHosts(host, checked_hosts(allow_host or ()))
        token = token_from(dict(os.environ), token_env, TOKEN_VARIABLE)
        place = reserved(host, port)
        predictor = Predictor.of(workspace.resolve(), number)
        print(
            f"Round {predictor.round} answers at http://{host}:{port}/predict; /openapi.json describes it. Ctrl-C ends it."
        )
        if token is None and not is_loopback(host):
            print(f"Everyone who reaches {host}:{port} may use the model: --token-env demands a token.")
        serve_api(predictor, place, Limits(megabytes=megabytes, a_second=rate, connections=connections), hosts, token)


app.command("api", hidden=True, help="Same as `serve`, its earlier name was `api`.")(serve)


@app.command(name="serve-reports")
def serve_reports(
    workspaces: Annotated[
        list[Path] | None,
        typer.Option(
            "--workspace", "-w", help="The workspace; may be given several times.", show_default="this folder"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 is every address of the machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 is any free one.")] = 4300,
    base_url: Annotated[
        str | None,
        typer.Option(
            help="Address that links begin with, where a proxy stands before the server.", show_default="host and port"
        ),
    ] = None,
    allow_host: AllowHost = None,
    debug: Debug = False,
) -> None:
    """Serves the pages of workspaces over HTTP, for the links in Prefect's UI, until stopped."""
    with explained(debug):
        from seedling.serving.http_clients import checked_hosts
        from seedling.serving.report_server import serve_reports as work

        work(workspaces or [Path()], host, port, base_url, checked_hosts(allow_host or ()))


@app.command()
def schedule(
    cron: Annotated[str, typer.Option(help='When to run, as in crontab: "0 6 * * *" is every day at six.')],
    timezone: Annotated[str, typer.Option(help="IANA name of the time zone that --cron is in.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="The deployment's name.", show_default="the workspace's")] = None,
    reports_host: Annotated[str, typer.Option(help="Address at which the pages are served.")] = "127.0.0.1",
    reports_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Their port; a free one where it is taken.")
    ] = 4300,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Runs this workspace by a schedule, as a Prefect deployment, until stopped."""
    from seedling.flows.stopping import SCHEDULE_GRACE_SECONDS, stops_in_time

    with explained(debug), stops_in_time(SCHEDULE_GRACE_SECONDS):
        from seedling.flows.scheduling import schedule_workspace

        schedule_workspace(
            workspace.resolve(), cron, timezone, name, reports_host=reports_host, reports_port=reports_port
        )


def _open_closed_streams() -> None:
    """Opens the standard streams that the caller closed (`>&-`) on nothing: else the next file that is opened would take
    their place, and receive what is printed.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor, this one
            setattr(sys, name, os.fdopen(descriptor, "r" if descriptor == 0 else "w", encoding="utf-8", closefd=False))


def main() -> None:
    """The console script. Ends the process as soon as what was registered for its end is done."""
    if codecs.lookup(sys.getfilesystemencoding()).name != "utf-8":  # DVC and JSON files need paths in UTF-8
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606  (this very command once more)
    _open_closed_streams()
    replace_unwritable(sys.stdout, sys.stderr)
    code: object = 70  # of an error that goes through, in our own code for the command line; 1 means that a gate failed

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else int(code is not None))

    atexit.register(leave)  # first in, last out: without it, two seconds go into taking torch's modules down one by one
    try:
        app(sys.argv[1:], prog_name="seedling")
    except SystemExit as end:
        code = end.code
        if code == KEYBOARD_INTERRUPT:  # Typer's, for a Ctrl-C before the command began to work
            from seedling.flows.stopping import announce_stopped

            announce_stopped()
        raise


if __name__ == "__main__":
    main()
