"""Measure the seconds of each stage from a cold start, and of one more round relative to the first round.

    python benchmarks/cost.py --data FOLDER --backbone FOLDER [--sets trashnet:10 banking77_oos:5] [--draws 3]

FOLDER and the draws are those of few_labels.py. One pipeline runs at a time, in its own process and without cached
features. Nothing else should run at the same time. The first round includes all stages from scrape to train@0 and the
encoding of every row.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from few_labels import draw, parser_of, run_pipeline
from record import Measurement, mean_with_interval, write

SETS = ("trashnet:10", "banking77_oos:5", "sms_spam:10")
FIRST = ("scrape", "validate", "augment", "synthesize", "train@0")
SECOND = ("pseudo_label@1", "train@1")


def seconds_of(job: tuple[pd.DataFrame, str, str, int]) -> dict[str, float]:
    """Return the seconds of each stage on one draw."""
    frame, encoder, effort, seed = job
    with tempfile.TemporaryDirectory() as folder:
        results, _ = run_pipeline(frame, encoder, effort, seed, Path(folder))
    return {name.removeprefix("seconds "): value for name, value in results.items() if name.startswith("seconds ")}


def main() -> None:
    """Run the draws and write results/cost.csv."""
    arguments = parser_of(str(__doc__), SETS, draws=3).parse_args()
    command = (
        f"python benchmarks/cost.py --data DATA --backbone BACKBONE --draws {arguments.draws} "
        f"--effort {arguments.effort}"
    )
    measurements: list[Measurement] = []
    for setting in arguments.sets:
        name, _, labels_per_class = setting.partition(":")
        frame = pd.read_parquet(arguments.data / name / "data.parquet")
        frame = frame[frame["split"].isin(["train", "test"])].reset_index(drop=True)
        encoder = "all-MiniLM-L6-v2" if "text" in frame else arguments.backbone
        results = []
        for seed in range(arguments.draws):
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                job = (draw(frame, int(labels_per_class), seed), encoder, arguments.effort, seed)
                results.append(alone.submit(seconds_of, job).result())
        measurements += lines(f"{name}, {labels_per_class} a class, {len(frame):,} rows", results, command)
        write("cost", measurements)


def lines(setting: str, results: list[dict[str, float]], command: str) -> list[Measurement]:
    """Return the table rows of one setting."""
    first, second = ([sum(result[name] for name in stages) for result in results] for stages in (FIRST, SECOND))
    seconds = {f"{name}": [result[name] for result in results] for name in (*FIRST, *SECOND, "evaluate")}
    seconds |= {"round 0, all from scrape to train@0": first, "round 1, pseudo_label@1 and train@1": second}
    rows = [(what, "time", values, "s") for what, values in seconds.items()]
    rows.append(
        (
            "round 1",
            "over round 0",
            [second_round / first_round for first_round, second_round in zip(first, second, strict=True)],
            "ratio",
        )
    )
    return [
        Measurement(setting, what, metric, *mean_with_interval(values), unit, len(values), command)
        for what, metric, values, unit in rows
    ]


if __name__ == "__main__":
    main()
