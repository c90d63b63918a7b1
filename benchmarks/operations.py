"""Measure the speed of augmentation operations: one core, OpenCV with one thread, medians; each ratio is of one run.

    PYTHONPATH=. python benchmarks/operations.py

Compared pairs: Seedling's transforms with albumentations' closest ones and with the bare OpenCV calls that they need;
a policy of six operations with the same six in albumentations' Compose; the stage's loop (decode, six operations,
encode) with decoding and encoding alone; texts with nlpaug, if it is installed. Templates and the complete augment
stage on 100,000 augmented rows are measured alone, the latter with peak memory. The codec alone decodes the parent
for each of the same augmented rows, which noise makes larger than the parent, and encodes them.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import psutil
from record import Measurement, write

from seedling.augment import augment
from seedling.augment.catalog import OPERATIONS
from seedling.augment.color import change_luminosity, reorder_channels, rotate_colors
from seedling.augment.image_policy import PolicyTransform
from seedling.augment.light import Spot, add_spots
from seedling.augment.makers import Resources, maker_of, steps_of
from seedling.augment.noise import photon_noise
from seedling.augment.sentences import OPERATIONS as WORD_OPERATIONS
from seedling.augment.sentences import Context, change
from seedling.config.params import AugmentParams, Template, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify
from seedling.media import images
from seedling.synthesize.templates import sample_sentences

SIX_OPERATIONS: list[str | dict[str, Any]] = [
    {"flip_left_right": {"p": 0.5}},
    {"rotate": 0.3},
    {"brightness_contrast": 0.3},
    {"blur": 0.3},
    {"gamma": 0.3},
    {"gaussian_noise": 0.2},
]
SIDES = (32, 96, 224, 512)
ROWS_PER_PARENT = (1, 2, 5)  # augmented rows per image, which is decoded once: the values that `effort` sets
SENTENCE = "please could you tell me where my new card is and how long it takes until it comes to the house by post"
ROWS_PER_TEXT = 5
IMAGES = WorkspaceConfig(modality="image")


def milliseconds(*calls: Callable[[], object], rounds: int) -> list[list[float]]:
    """Return the times of each call, measured in turn, so that a busy moment of the machine affects all."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for index, call in enumerate(calls):
            began = time.perf_counter()
            call()
            times[index].append(1e3 * (time.perf_counter() - began))
    return times


def photograph(side: int, seed: int = 0) -> np.ndarray:
    """Return smooth shapes with a little noise, similar to a photograph."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 3, coarse.shape), 0, 255).astype(np.uint8)


class Table:
    """The rows of the results table."""

    def __init__(self, command: str) -> None:
        self.measurements: list[Measurement] = []
        self._command = command

    def add(self, setting: str, system: str, metric: str, values: list[float], unit: str) -> None:
        """Add a median with the middle half of the values."""
        low, high = (float(quantile) for quantile in np.quantile(values, [0.25, 0.75]))
        self.measurements.append(
            Measurement(setting, system, metric, statistics.median(values), low, high, unit, len(values), self._command)
        )

    def pair(self, setting: str, ours: list[float], theirs: list[float], peer: str) -> None:
        """Add both times and their ratio, pair by pair."""
        self.add(setting, "seedling", "time", ours, "ms")
        self.add(setting, peer, "time", theirs, "ms")
        self.add(setting, f"seedling / {peer}", "ratio", [a / b for a, b in zip(ours, theirs, strict=True)], "ratio")


def of_transforms(table: Table, rounds: int) -> None:
    """Measure single operations."""
    for side in (224, 512):
        _transforms_of(table, side, rounds)


def _transforms_of(table: Table, side: int, rounds: int) -> None:
    """Measure the single operations at one size."""
    rng = np.random.default_rng(0)
    image = photograph(side)
    spot = Spot(side / 2, side / 2, 0.15 * side, 0.1 * side, 30, 0.7, 0.2, (5, 9))
    flare, shot = A.RandomSunFlare(p=1), A.ShotNoise(p=1)
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))

    def there_and_back(between: Callable[[np.ndarray], np.ndarray], image: np.ndarray = image) -> np.ndarray:
        return cv2.cvtColor(between(cv2.cvtColor(image, cv2.COLOR_RGB2LAB)), cv2.COLOR_LAB2RGB)

    def opened(lab: np.ndarray, ellipse: np.ndarray = ellipse) -> np.ndarray:
        cv2.insertChannel(cv2.morphologyEx(cv2.extractChannel(lab, 0), cv2.MORPH_OPEN, ellipse), lab, 0)
        return lab

    rotation = np.array([[1, 0, 0, 0], [0, 0.8, -0.6, 100], [0, 0.6, 0.8, -50]])
    mixed = np.empty_like(image)
    for name, peer, ours, theirs in (
        ("glare", "RandomSunFlare", lambda: add_spots(image, [spot]), lambda: flare(image=image)),
        ("photon noise", "ShotNoise", lambda: photon_noise(image, 200.0, rng), lambda: shot(image=image)),
        (
            "color rotation",
            "bare OpenCV",
            lambda: rotate_colors(image, 37),
            lambda: there_and_back(lambda lab: cv2.transform(lab, rotation)),
        ),
        (
            "opening of the luminosity",
            "bare OpenCV",
            lambda: change_luminosity(image, "opening", 5),
            lambda: there_and_back(opened),
        ),
        (
            "channel order",
            "bare OpenCV",
            lambda: reorder_channels(image, (2, 0, 1)),
            lambda: cv2.mixChannels([image], [mixed], [2, 0, 0, 1, 1, 2]),
        ),
    ):
        our_times, their_times = milliseconds(ours, theirs, rounds=rounds)
        table.pair(f"{name}, {side} pixels", our_times, their_times, peer)


def of_policies(table: Table, rounds: int) -> None:
    """Measure six operations, alone and with the codec."""
    for side in SIDES:
        _policy_of(table, side, rounds)


def of_albumentations(name: str, arguments: Mapping[str, Any]) -> Any:
    """Return the closest transform of albumentations."""
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    return getattr(A, {"GaussianNoise": "GaussNoise"}.get(name, name))(**options)


def _policy_of(table: Table, side: int, rounds: int) -> None:
    """Measure six operations at one size."""
    steps = steps_of(SIX_OPERATIONS, IMAGES, {})
    image, n_rounds = photograph(side), max(20, rounds * 200 // side)
    ours = PolicyTransform([{step.name: dict(step.arguments)} for step in steps])
    compose = A.Compose([of_albumentations(step.name, step.arguments) for step in steps])
    seed = iter(range(10**9))

    def by_compose() -> Any:
        compose.set_random_seed(next(seed))
        return compose(image=image)

    our_times, their_times = milliseconds(lambda: ours(image, next(seed)), by_compose, rounds=n_rounds)
    table.pair(f"six operations, {side} pixels", our_times, their_times, "albumentations' Compose")
    augmented = [ours(image, number) for number in range(50)]
    for rows_per_parent in ROWS_PER_PARENT:
        _measure_rows_per_parent(table, image, augmented, rows_per_parent, n_rounds)


def _measure_rows_per_parent(
    table: Table, image: np.ndarray, augmented: list[np.ndarray], rows_per_parent: int, rounds: int
) -> None:
    """Measure the augmented rows of one image with the codec; the codec alone encodes the images `augmented`."""
    maker = maker_of(steps_of(SIX_OPERATIONS, IMAGES, {}), IMAGES, Resources.of(None))
    encoded, augmented_cycle, seed = images.encode(image), cycle(augmented), iter(range(10**9))

    def whole() -> None:
        parent = maker.read(encoded)
        for _ in range(rows_per_parent):
            maker.make(parent, next(seed))

    def codec() -> None:
        for _ in range(rows_per_parent):
            images.decode(encoded)
            images.encode(next(augmented_cycle))

    ours, codec_times = milliseconds(whole, codec, rounds=rounds)
    setting = f"decode, six operations, encode, {len(image)} pixels, {rows_per_parent} of an image"
    table.add(setting, "seedling", "rate", [1e3 * rows_per_parent / elapsed for elapsed in ours], "images/s")
    ratios = [other / elapsed for elapsed, other in zip(ours, codec_times, strict=True)]
    table.add(setting, "seedling / the codec alone", "rate", ratios, "ratio")


def of_texts(table: Table) -> None:
    """Measure augmented sentences per second, five of each sentence, as the stage makes them."""
    words = SENTENCE.split()
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, int(rng.integers(6, 18)))) for _ in range(2_000)]
    context = Context({word: ["other", "another"] for word in words if len(word) > 3}, words)
    for name in WORD_OPERATIONS:
        peer, ours, theirs = _by_nlpaug(name), [], []
        for repeat in range(7):
            began = time.perf_counter()
            for number, text in enumerate(texts):
                for child in range(ROWS_PER_TEXT):
                    change(text, name, 0.15, (repeat * len(texts) + number) * ROWS_PER_TEXT + child, context)
            ours.append(ROWS_PER_TEXT * len(texts) / (time.perf_counter() - began))
            if peer is not None:
                began = time.perf_counter()
                for text in texts[:200]:
                    peer.augment(text, n=ROWS_PER_TEXT)
                theirs.append(ROWS_PER_TEXT * 200 / (time.perf_counter() - began))
        table.add(f"texts: {name}", "seedling", "rate", ours, "sentences/s")
        if theirs:
            table.add(f"texts: {name}", "nlpaug", "rate", theirs, "sentences/s")
            ratios = [our_rate / other for our_rate, other in zip(ours, theirs, strict=True)]
            table.add(f"texts: {name}", "seedling / nlpaug", "rate", ratios, "ratio")


def of_templates(table: Table) -> None:
    """Measure sentences per second."""
    template = Template.model_validate(
        {
            "label": "x",
            "text": "Find me a {cuisine} restaurant[ within {number:1-1000} {unit}] of {place}",
            "slots": {
                "cuisine": ["italian", "thai", "indian"],
                "unit": ["miles", "km"],
                "place": [f"city {n}" for n in range(500)],
            },
        }
    )
    rates = []
    for seed in range(5):
        began = time.perf_counter()
        n_sentences = sum(1 for _ in sample_sentences([template], 200_000, np.random.default_rng(seed)))
        rates.append(n_sentences / (time.perf_counter() - began))
    table.add("templates: 200,000 of 3,001,500 sentences", "seedling", "rate", rates, "sentences/s")


def _by_nlpaug(name: str) -> Any:
    try:
        import nlpaug.augmenter.char as char
        import nlpaug.augmenter.word as word
    except ImportError:
        return None
    augmenters = {
        "swap": lambda: word.RandomWordAug(action="swap"),
        "delete": lambda: word.RandomWordAug(action="delete"),
        "typo": char.KeyboardAug,
        "misread": char.OcrAug,
    }
    return augmenters[name]() if name in augmenters else None


def of_stage(table: Table, n_augmented: int) -> None:
    """Measure rate and peak memory of the stage in a separate process with 10 % and all of the rows, and one core."""
    for n_rows, cores in ((n_augmented // 10, 2), (n_augmented, 2), (n_augmented // 10, 1)):
        command = [sys.executable, __file__, "--stage", str(n_rows)]
        if cores == 1:
            command = ["taskset", "-c", "0", *command]
        seconds, peak, other = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-3:]
        setting = f"the stage, {n_rows:,} augmented rows of 96 pixels, {cores} core{'s' if cores > 1 else ''}"
        table.add(setting, "seedling", "rate", [n_rows / float(seconds)], "images/s")
        table.add(setting, "seedling", "peak memory, first process", [float(peak)], "MiB")
        if cores > 1:
            table.add(setting, "seedling", "peak memory, another process", [float(other)], "MiB")


def stage(n_augmented: int) -> None:
    """Print the seconds and the peak memory of this process and of the largest other one, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder) / "validate"
        with GenerationWriter(here, stage="validate", modality="image") as writer:
            for number in range(1_000):
                encoded = images.encode(photograph(96, number))
                row_id = identify(encoded)
                row = Row(
                    row_id, "train", number % 5, "ab"[number % 2], label_source="human", group=row_id, payload=encoded
                )
                writer.keep(row)
            writer.close(rows_in=1_000, classes=["a", "b"])
        began = time.perf_counter()
        params = AugmentParams(augmentations_per_row=n_augmented // 1_000, policy=SIX_OPERATIONS)
        others: list[int] = [0]
        ended = threading.Event()
        watcher = threading.Thread(target=_watch_others, args=(others, ended))
        watcher.start()
        augment(params, IMAGES, collected=here, validated=here, output=Path(folder) / "out")
        seconds = time.perf_counter() - began
        ended.set()
        watcher.join()
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, max(others) / 2**20)


def _watch_others(memory_bytes: list[int], ended: threading.Event) -> None:
    """Record the memory of the child processes, five times per second."""
    while not ended.wait(0.2):
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                memory_bytes.append(process.memory_info().rss)


def main() -> None:
    """Run all measurements and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument(
        "--augmented-rows", type=int, default=100_000, help="augmented rows of the complete stage; 0: omit it"
    )
    parser.add_argument("--stage", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--name", default="operations")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.stage:
        stage(args.stage)
        return
    table = Table("PYTHONPATH=. python " + " ".join(["benchmarks/operations.py", *sys.argv[1:]]))
    assert {next(iter(operation)) for operation in SIX_OPERATIONS} <= {*OPERATIONS}  # noqa: S101
    of_transforms(table, args.rounds)
    of_policies(table, args.rounds)
    of_texts(table)
    of_templates(table)
    if args.augmented_rows:
        of_stage(table, args.augmented_rows)
    write(args.name, table.measurements)


if __name__ == "__main__":
    main()
