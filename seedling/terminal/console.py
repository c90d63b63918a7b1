"""The console for all output on the terminal; text from data is printed literally and cannot control the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from seedling.terminal.printable import printable


class PrintableConsole(Console):
    """Rich's console without escape sequences in text.

    Markup and emoji codes are off, so that `[old]` in a path is printed literally.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments with invisible characters escaped; Rich's own control codes are separate segments."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(printable(segment.text, keep="\n\t"), segment.style)
