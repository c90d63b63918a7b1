"""Compare two versions of Seedling on the same draws of digits: test accuracy, and processor seconds of a whole run.

    python benchmarks/first_minute.py --before FOLDER [--draws 10] [--first-draw 0] [--labels 5] [--workers 2]

FOLDER is a checkout of the version before a change; the version after it is this checkout. Each draw runs both, each in
a process of its own, with the defaults of `seedling init` and without Prefect. The seconds are user and system time of
the process and its children, which depend less on other processes of the machine than elapsed time does.
Settings are chosen on draws from 100 on (`--first-draw 100`) and confirmed on draws that no choice has used.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from record import Measurement, mean_with_interval, write

PROJECT = Path(__file__).resolve().parents[1]


def measure_here(draw_number: int, labels_per_class: int) -> dict[str, float]:
    """Run this process's Seedling on one draw; return accuracies and processor seconds."""
    from digits import seedling

    accuracies = seedling(draw_number, labels_per_class, "normal")
    usages = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return {"accepted": accuracies["accepted"], "round 0": accuracies["round 0"], "seconds": seconds}


def import_from(checkout: str) -> None:
    """Take benchmarks/digits.py from a checkout, and raise SystemExit if Seedling does not come from there, too."""
    sys.path.insert(0, f"{checkout}/benchmarks")
    import seedling

    if not Path(str(seedling.__file__)).is_relative_to(checkout):
        raise SystemExit(f"{seedling.__file__} was imported instead of the version in {checkout}.")


def measure(checkout: Path, draw_number: int, labels_per_class: int) -> dict[str, float]:
    """Run a checkout's Seedling, with that checkout's benchmarks/digits.py, on one draw in a new process."""
    code = (
        "import json, sys; checkout, project, *numbers = sys.argv[1:]; sys.path.insert(0, project + '/benchmarks'); "
        "import first_minute; first_minute.import_from(checkout); "
        "print(json.dumps(first_minute.measure_here(*map(int, numbers))))"
    )
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    # -P: otherwise a `seedling` in the current folder would come before that of the checkout.
    command = [sys.executable, "-P", "-c", code, str(checkout), str(PROJECT), str(draw_number), str(labels_per_class)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"Draw {draw_number} of {checkout} failed:\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    print(f"draw {draw_number} {checkout.name}: {result}", file=sys.stderr)
    return result


def table(
    before: Sequence[dict[str, float]], after: Sequence[dict[str, float]], labels_per_class: int, command: str
) -> list[Measurement]:
    """Return the rows of the table: both versions, and their paired difference or ratio."""
    rows: list[Measurement] = []

    def add(system: str, metric: str, values: list[float], unit: str) -> None:
        setting = f"digits, {labels_per_class} a class"
        rows.append(Measurement(setting, system, metric, *mean_with_interval(values), unit, len(values), command))

    for key, metric in (("accepted", "test accuracy"), ("round 0", "test accuracy of round 0")):
        add("before", metric, [result[key] for result in before], "share")
        add("after", metric, [result[key] for result in after], "share")
        differences = [new[key] - old[key] for old, new in zip(before, after, strict=True)]
        add("after", f"{metric}, minus before, paired", differences, "points of share")
    add("before", "processor seconds", [result["seconds"] for result in before], "s")
    add("after", "processor seconds", [result["seconds"] for result in after], "s")
    ratios = [new["seconds"] / old["seconds"] for old, new in zip(before, after, strict=True)]
    add("after", "processor seconds, ratio to before, paired", ratios, "ratio")
    return rows


def main() -> None:
    """Run the draws and write results/first_minute.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="checkout of the version before the change")
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--first-draw", type=int, default=0)
    parser.add_argument("--labels", type=int, default=5, help="labels per class")
    parser.add_argument("--workers", type=int, default=1, help="runs at the same time")
    arguments = parser.parse_args()
    draws = range(arguments.first_draw, arguments.first_draw + arguments.draws)
    jobs = [(folder, number) for number in draws for folder in (arguments.before.resolve(), PROJECT)]
    with ThreadPoolExecutor(arguments.workers) as threads:
        results = list(threads.map(lambda job: measure(job[0], job[1], arguments.labels), jobs))
    command = (
        f"python benchmarks/first_minute.py --before FOLDER --draws {arguments.draws} "
        f"--first-draw {arguments.first_draw} --labels {arguments.labels}"
    )
    write("first_minute", table(results[0::2], results[1::2], arguments.labels, command))


if __name__ == "__main__":
    main()
