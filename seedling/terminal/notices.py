"""Notices for the user of a command, such as a workaround and its remedy; each is printed once to standard error."""

from __future__ import annotations

import io
import logging
import sys

from seedling.terminal.printable import printable

_stated: set[str] = set()
logger = logging.getLogger("seedling")


class _StandardError(logging.Handler):
    """Writes to the current standard error, since a live table redirects it temporarily."""

    def emit(self, record: logging.LogRecord) -> None:
        # Calls of DVC redirect standard error into memory, where the notice would be lost.
        stream = sys.__stderr__ if isinstance(sys.stderr, io.StringIO) else sys.stderr
        try:
            if stream is not None:
                stream.write(f"{self.format(record)}\n")
        except (OSError, ValueError):  # a closed standard error must not stop the work
            return


def state_once(sentence: str) -> None:
    """Log the sentence as a warning of the logger `seedling`, once per process."""
    if sentence in _stated:
        return
    _stated.add(sentence)
    if not any(isinstance(handler, _StandardError) for handler in logger.handlers):
        logger.addHandler(_StandardError())
    logger.warning("%s", printable(sentence, keep="\n\t"))
