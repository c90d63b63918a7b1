"""Creates the workspace of the digits example, with the params, gates and pipeline of this repository.

    python examples/digits/create_workspace.py digits

git ignores the folder, because the outputs of training depend on the type of processor: a run in the repository itself
would change the dvc.lock that git tracks.
"""

from __future__ import annotations

import shutil
import sys
from importlib.resources import files
from pathlib import Path

from prepare import main as prepare_data

from seedling.files.review_folder import create_review_folder
from seedling.init.create import track
from seedling.versioning.repository import renew_workspace_links

PROJECT = Path(__file__).resolve().parents[2]
SHARED_FILES = ("params.yaml", "gates.yaml", "dvc.yaml", ".gitattributes")


def main(folder: Path) -> None:
    """Write the folder anew: data/, the shared files, and a git and DVC repository."""
    partial_folder = folder.with_name(f".{folder.name}.new")  # renamed at the end: a failure leaves nothing half done
    shutil.rmtree(partial_folder, ignore_errors=True)
    prepare_data(partial_folder / "data")
    for name in SHARED_FILES:
        shutil.copyfile(PROJECT / name, partial_folder / name)
    ignore = files("seedling.init") / "workspace_files" / "gitignore.template"
    (partial_folder / ".gitignore").write_text(ignore.read_text(encoding="utf-8"), encoding="utf-8")
    (partial_folder / "test_evaluations.jsonl").touch()
    create_review_folder(partial_folder / "reviews")
    track(partial_folder)
    partial_folder.replace(folder)
    renew_workspace_links(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
