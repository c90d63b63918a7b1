"""Write the reference of the command line as Markdown, from the Typer application itself."""

from __future__ import annotations

from html import escape
from typing import Any

import typer

from seedling.cli.main import app


def reference() -> str:
    """A list of the commands, and for each its usage, its help, its arguments and its options."""
    commands = {name: command for name, command in typer.main.get_command(app).commands.items() if not command.hidden}
    links = ", ".join(f"[`{name}`](#seedling-{name})" for name in commands)
    return "\n".join([f"The commands are {links}.", "", *(section(*command) for command in commands.items())])


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
