"""What the line costs, stage by stage, from a cold start: seconds, and a further round against all that the first needs.

    python benchmarks/cost.py --data FOLDER --backbone FOLDER [--sets trashnet:10 banking77_oos:5 sms_spam:10] [--draws 3]

FOLDER is as in few_labels.py, whose draws these are. One line at a time, in a process of its own with no features kept
from before; nothing else should run beside it. The first round is all from scrape to train@0, the encoding of every row among it.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from few_labels import draw, line_on, parser_of
from record import Found, mean_with_interval, write

SETS = ("trashnet:10", "banking77_oos:5", "sms_spam:10")
FIRST = ("scrape", "validate", "augment", "synthesize", "train@0")
SECOND = ("pseudo_label@1", "train@1")


def seconds_of(job: tuple[pd.DataFrame, str, str, int]) -> dict[str, float]:
    """Each stage's seconds on one draw."""
    frame, encoder, effort, seed = job
    with tempfile.TemporaryDirectory() as folder:
        found, _ = line_on(frame, encoder, effort, seed, Path(folder))
    return {name.removeprefix("seconds "): value for name, value in found.items() if name.startswith("seconds ")}


def main() -> None:
    """Runs the draws and writes results/cost.csv."""
    given = parser_of(str(__doc__), SETS, draws=3).parse_args()
    command = f"python benchmarks/cost.py --data DATA --backbone BACKBONE --draws {given.draws} --effort {given.effort}"
    found: list[Found] = []
    for setting in given.sets:
        name, _, many = setting.partition(":")
        frame = pd.read_parquet(given.data / name / "data.parquet")
        frame = frame[frame["split"].isin(["train", "test"])].reset_index(drop=True)
        encoder = "all-MiniLM-L6-v2" if "text" in frame else given.backbone
        results = []
        for seed in range(given.draws):
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                job = (draw(frame, int(many), seed), encoder, given.effort, seed)
                results.append(alone.submit(seconds_of, job).result())
        found += lines(f"{name}, {many} a class, {len(frame):,} rows", results, command)
        write("cost", found)


def lines(setting: str, results: list[dict[str, float]], command: str) -> list[Found]:
    """The table's lines of one setting."""
    first, second = ([sum(one[name] for name in stages) for one in results] for stages in (FIRST, SECOND))
    told = {f"{name}": [one[name] for one in results] for name in (*FIRST, *SECOND, "evaluate")}
    told |= {"round 0, all from scrape to train@0": first, "round 1, pseudo_label@1 and train@1": second}
    rows = [(what, "time", values, "s") for what, values in told.items()]
    rows.append(("round 1", "over round 0", [two / one for one, two in zip(first, second, strict=True)], "ratio"))
    return [
        Found(setting, what, metric, *mean_with_interval(values), unit, len(values), command)
        for what, metric, values, unit in rows
    ]


if __name__ == "__main__":
    main()
