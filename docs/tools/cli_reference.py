"""Write the reference of the command line as Markdown, from the Typer application itself."""

from __future__ import annotations

from html import escape
from typing import Any

import typer

from seedling.cli.main import app

INTRODUCTION = """\
# Command line

Every command, as `seedling COMMAND --help` prints it. {commands}

Exit codes: `0` success, `1` a gate failed, `2` invalid input, `70` unexpected error, `130` and `143` stopped by a signal.
"""


def reference() -> str:
    """The page: a list of the commands, and for each its usage, its help, its arguments and its options."""
    commands = {name: command for name, command in typer.main.get_command(app).commands.items() if not command.hidden}
    links = ", ".join(f"[`{name}`](#seedling-{name})" for name in commands)
    sections = [section(name, command) for name, command in commands.items()]
    return "\n".join([INTRODUCTION.format(commands=f"The commands are {links}."), *sections])


def section(name: str, command: Any) -> str:
    """The section of one command."""
    context = command.make_context(f"seedling {name}", [], resilient_parsing=True)
    usage = " ".join([f"seedling {name}", *command.collect_usage_pieces(context)])
    help_text = (command.help or "").replace("\b", "").strip()
    lines = [f"## seedling {name}", "", f"```text\n{usage}\n```", "", help_text, ""]
    records = [
        record
        for parameter in command.params
        if not getattr(parameter, "hidden", False) and (record := parameter.get_help_record(context))
    ]
    if records:
        rows = [f"| {code(option)} | {cell(text)} |" for option, text in records]
        lines += ["| argument or option | |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def code(text: str) -> str:
    """The text as code in a cell of a table."""
    return f"<code>{cell(text)}</code>"


def cell(text: str) -> str:
    """The text without characters that Markdown would take for markup or the end of a cell."""
    escaped = escape(" ".join(text.split()), quote=False)
    for character in "|*_[]":
        escaped = escaped.replace(character, f"&#{ord(character)};")
    return escaped
