"""A small workspace of texts whose run takes seconds, deployed and changed as a user does it, for tests and benchmarks."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from services import BIN, Service

from seedling.config.params import set_value

WORDS = {"praise": ("good", "lovely", "superb", "fine"), "complaint": ("bad", "awful", "poor", "dreadful")}
NOUNS = ("film", "meal", "room", "book", "song", "trip", "game", "show", "phone", "train")
TABLE = "letters.csv"


def letter(number: int) -> tuple[str, str]:
    """Text and label of the letter with that number; no two are alike."""
    label = ("praise", "complaint")[number % 2]
    word = WORDS[label][number // 2 % 4]
    return f"the {NOUNS[number % 10]} on day {number} of our stay was {word} for all of us", label


def append_letters(table: Path, first: int, count: int) -> None:
    """Adds letters to the table, which is made with its header where it does not exist."""
    is_new = not table.exists()
    with table.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(["text", "label"])
        writer.writerows(letter(number) for number in range(first, first + count))


def texts_of(table: Path) -> list[str]:
    """The texts of the table."""
    with table.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def call(command: Sequence[object], cwd: Path, env: Mapping[str, str] | None = None, seconds: float = 900) -> str:
    """Standard output of the command. Raises AssertionError with all that it wrote where it fails."""
    arguments = [str(part) for part in command]
    done = subprocess.run(
        arguments, cwd=cwd, env=None if env is None else dict(env), capture_output=True, text=True, timeout=seconds
    )
    assert done.returncode == 0, (
        f"{arguments}: exit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout


def make_letters_workspace(folder: Path, count: int, env: Mapping[str, str], remote: str | None = None) -> Path:
    """`seedling init` on a table of `count` letters, with the params that make a run short; pushes to `remote` where it is given."""
    source = folder.parent / f"{folder.name}-source" / TABLE
    source.parent.mkdir()
    append_letters(source, 0, count)
    call([BIN / "seedling", "init", folder, "--texts", source, "--encoder", "none"], folder.parent, env)
    set_value(folder, ["effort"], "quick")
    set_value(folder, ["augment", "augmentations_per_row"], 0)
    set_value(folder, ["synthesize", "mixup"], 0)
    set_value(folder, ["pseudo_label", "rounds"], 0)
    set_value(folder, ["train", "candidates"], ["logistic_regression"])
    if remote is not None:
        set_value(folder, ["remote"], remote)
        set_value(folder, ["push"], True)
    return folder


def deploy(workspace: Path, server: Service, interval_seconds: float | None = None, *, paused: bool = False) -> None:
    """`prefect deploy --all` of the workspace's own prefect.yaml, every so many seconds where they are given."""
    if interval_seconds is not None:
        path = workspace / "prefect.yaml"
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        config["deployments"][0] |= {"schedules": [{"interval": interval_seconds}], "paused": paused}
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    call([sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"], workspace, server.env)
