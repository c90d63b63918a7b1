"""Fuzzes what reads tables, params.yaml and the logs of decisions with changed and spliced inputs, until FUZZ_SECONDS have passed.

    FUZZ_SECONDS=60 PYTHONPATH=tests python tests/hostile/fuzz_tables.py

Each input must be read, or be refused with a SeedlingError; any other error, or more than MAX_SECONDS, ends it with exit code 1, and the
input is kept. `make fuzz` runs it. FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from hostile.table_corpus import CORPUS

from seedling.config.params import load
from seedling.config.sources import TableSource
from seedling.errors import SeedlingError
from seedling.evaluate import read_decisions
from seedling.records.test_evaluations import merge_lines, read_test_evaluations
from seedling.scrape.table import read_table
from seedling.terminal.printable import printable
from seedling.workspace import TEST_EVALUATIONS

MAX_SECONDS = 10
MAX_BYTES = 200_000
PARAMS = Path(__file__).parents[2] / "params.yaml"
TOKENS = [
    *[b'"', b'""', b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b"\\", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe"],
    *[b"text,label\n", b'{"text": "a"}', b"[", b"]", b"{", b"}", b"\\ud83d", b"-1", b"NaN", b"1e999", b"null", b"PAR1"],
    *[b": ", b"- ", b"&a ", b"*a ", b"<<: ", b"!!python/object ", b"? ", b"${HOME}", b"'", b"#", b"split", b"sep=;\n"],
]
LOG_LINE = {"time": "2026-01-01T00:00:00+00:00", "who": "me", "model": "m", "test": "t", "metrics": ["accuracy"]}
VERDICT = {"round": 0, "decision": "accepted", "accepted_round": 0, "reason": "first", "stop": False, "rows": 3}
Target = Callable[[Path, bytes, random.Random], None]


def read_as_table(folder: Path, content: bytes, generator: random.Random) -> None:
    """All items of a table, each loaded."""
    name = generator.choice(["t.csv", "t.tsv", "t.jsonl", "t.parquet"])
    (folder / name).write_bytes(content)
    encoding = generator.choice(["utf-8"] * 5 + ["latin-1", "utf-16", "cp1252"])
    for item in read_table(TableSource(kind="table", path=name, encoding=encoding), folder, "text", 2**20, fields=True):
        item.origin.encode()
        if item.reason is None:
            str(item.load()).encode()
            str(item.label).encode()


def read_as_params(folder: Path, content: bytes, _: random.Random) -> None:
    """params.yaml."""
    (folder / "params.yaml").write_bytes(content)
    load(folder)


def read_as_log(folder: Path, content: bytes, _: random.Random) -> None:
    """The log of test-set evaluations, read and merged."""
    (folder / TEST_EVALUATIONS).write_bytes(content)
    read_test_evaluations(folder, "t", has_results=True)
    merge_lines([content.decode("utf-8", "replace").splitlines(), [json.dumps(LOG_LINE)]])


def read_as_verdict(folder: Path, content: bytes, _: random.Random) -> None:
    """A round's decision."""
    (folder / "models" / "0").mkdir(parents=True, exist_ok=True)
    (folder / "models" / "0" / "decision.json").write_bytes(content)
    read_decisions(folder / "models")


def targets() -> list[tuple[str, Target, list[bytes]]]:
    """Name, what reads it, and the inputs that are changed."""
    return [
        ("table", read_as_table, [case.content[:MAX_BYTES] for case in CORPUS]),
        ("params", read_as_params, [PARAMS.read_bytes()]),
        ("log", read_as_log, [(json.dumps(LOG_LINE) + "\n").encode() * 3]),
        ("decision", read_as_verdict, [json.dumps(VERDICT).encode()]),
    ]


def changed(content: bytes, others: Sequence[bytes], generator: random.Random) -> bytes:
    """The content with some bytes changed, removed, repeated, replaced by tokens, or by a piece of another input."""
    changed_content = bytearray(content)
    for _ in range(generator.randint(1, 8)):
        offset = generator.randint(0, len(changed_content))
        length = generator.choice([1, 1, 2, 5, 40])
        match generator.randint(0, 5):
            case 0:
                changed_content[offset : offset + 1] = bytes([generator.randrange(256)])
            case 1:
                del changed_content[offset : offset + length]
            case 2:
                changed_content[offset:offset] = generator.choice(TOKENS)
            case 3:
                changed_content[offset:offset] = changed_content[offset : offset + length] * generator.choice(
                    [2, 3, 50]
                )
            case 4:
                other = generator.choice(others)
                start = generator.randint(0, len(other))
                changed_content[offset : offset + length] = other[start : start + generator.randint(1, 60)]
            case _:
                changed_content[offset:offset] = generator.choice(TOKENS) * generator.choice([2, 20, 500])
    return bytes(changed_content[:MAX_BYTES])


class TooSlowError(Exception):
    """An input took more than MAX_SECONDS."""


def _too_slow(_: int, __: FrameType | None) -> None:
    raise TooSlowError


def fuzz(seconds: float, seed: int) -> int:
    """The exit code: 1 where something else than a SeedlingError was raised, or an input took too long."""
    generator, ends = random.Random(seed), time.monotonic() + seconds  # noqa: S311
    counts = dict.fromkeys((name for name, _, _ in targets()), 0)
    signal.signal(signal.SIGALRM, _too_slow)
    logging.disable()  # of each damaged line
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < ends:
            for name, target, inputs in targets():
                content = changed(generator.choice(inputs), inputs, generator)
                state = generator.getstate()
                signal.alarm(MAX_SECONDS)
                try:
                    target(Path(folder), content, generator)
                except SeedlingError as error:
                    printable(str(error)).encode()
                except Exception:  # noqa: BLE001  (whatever it is, it is what is looked for)
                    kept = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-")) / "input"
                    kept.write_bytes(content)
                    traceback.print_exc()
                    print(f"{name}: the input is {kept}; FUZZ_SEED={seed}, state {hash(state)}", file=sys.stderr)
                    return 1
                finally:
                    signal.alarm(0)
                counts[name] += 1
    print(f"fuzz_tables, seed {seed}: " + ", ".join(f"{count:,} of {name}" for name, count in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(
        fuzz(float(os.environ.get("FUZZ_SECONDS", "60")), int(os.environ.get("FUZZ_SEED", time.time_ns() % 2**32)))
    )
