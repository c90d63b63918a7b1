"""Sentences for the person who runs a command: what was worked around, and what to do about it. They go to standard error, each once."""

from __future__ import annotations

import io
import logging
import sys

from seedling.terminal.printable import printable

_stated: set[str] = set()
logger = logging.getLogger("seedling")


class _StandardError(logging.Handler):
    """Writes to whatever standard error is just now: a live table redirects it while it is drawn."""

    def emit(self, record: logging.LogRecord) -> None:
        # What is redirected into memory, as around each call of DVC, nobody would read.
        stream = sys.__stderr__ if isinstance(sys.stderr, io.StringIO) else sys.stderr
        try:
            if stream is not None:
                stream.write(f"{self.format(record)}\n")
        except (OSError, ValueError):  # a closed standard error must not stop the work
            return


def state_once(sentence: str) -> None:
    """Logs the sentence as a warning of the logger `seedling`, the first time that this process has it to say."""
    if sentence in _stated:
        return
    _stated.add(sentence)
    if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
        logger.addHandler(_StandardError())
    logger.warning("%s", printable(sentence, keep="\n\t"))
