"""Creates reviews/, which git keeps only with a file in it, and which DVC requires as an input of validate."""

from __future__ import annotations

from pathlib import Path

EXPLANATION_FILE = "README.md"
EXPLANATION = """\
`seedling review` writes the answers of reviewers here: one file per reviewer, to which lines are only ever added.
Commit the files with git. The next `seedling run` uses them.
"""


def create_review_folder(folder: Path) -> bool:
    """Create the folder with its explanation if it is missing. Returns whether it was missing."""
    path = folder / EXPLANATION_FILE
    if path.is_file():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(EXPLANATION, encoding="utf-8")
    return True
