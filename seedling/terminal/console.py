"""The console that all output for people goes through: what strangers named is shown as it is written, and cannot act on the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from seedling.terminal.printable import printable


class PrintableConsole(Console):
    """Rich's console without its markup and emoji codes, so that `[old]` in a path stays, and without escape sequences in texts."""

    def __init__(self, *, stderr: bool = False, **more: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, **more)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments, with what is not seen written out; rich's own control codes are segments of their own."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, keep="\n\t"), segment.style)
