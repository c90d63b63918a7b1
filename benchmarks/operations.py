"""How fast operations are: one core, OpenCV on one thread, medians; ratios are of one run.

PYTHONPATH=. python benchmarks/operations.py
Our transforms beside albumentations' nearest ones and beside the bare OpenCV calls that they need; a policy of six operations beside the same six in
albumentations' Compose; the stage's loop (decode, six operations, encode) beside decoding and encoding alone; texts beside nlpaug, where it is installed;
templates; and the whole augment stage on 100,000 children, with its peak memory. The codec alone decodes the parent anew for each of the same children,
which noise makes larger than it, and encodes them.
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
from record import Found, write

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

SIX = [
    {"flip_left_right": {"p": 0.5}},
    {"rotate": 0.3},
    {"brightness_contrast": 0.3},
    {"blur": 0.3},
    {"gamma": 0.3},
    {"gaussian_noise": 0.2},
]
SIDES = (32, 96, 224, 512)
FAMILIES = (1, 2, 5)  # children of an image, which is decoded once: the numbers that an effort chooses
SENTENCE = "please could you tell me where my new card is and how long it takes until it comes to the house by post"
CHILDREN_OF_TEXT = 5
IMAGES = WorkspaceConfig(modality="image")


def milliseconds(*ways: Callable[[], object], rounds: int) -> list[list[float]]:
    """Each way's times, in turn, so that a busy moment of the machine meets all."""
    for one in ways:
        one()
    found: list[list[float]] = [[] for _ in ways]
    for _ in range(rounds):
        for place, one in enumerate(ways):
            began = time.perf_counter()
            one()
            found[place].append(1e3 * (time.perf_counter() - began))
    return found


def photograph(side: int, seed: int = 0) -> np.ndarray:
    """Smooth shapes with a little noise, as a photograph has them."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 255, (8, 8, 3)).astype(np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 3, coarse.shape), 0, 255).astype(np.uint8)


class Table:
    """What was found, line by line."""

    def __init__(self, command: str) -> None:
        self.found: list[Found] = []
        self._command = command

    def add(self, setting: str, system: str, metric: str, values: list[float], unit: str) -> None:
        """A median with the middle half."""
        low, high = (float(one) for one in np.quantile(values, [0.25, 0.75]))
        self.found.append(
            Found(setting, system, metric, statistics.median(values), low, high, unit, len(values), self._command)
        )

    def pair(self, setting: str, ours: list[float], theirs: list[float], peer: str) -> None:
        """Both times, and their ratio, neighbor by neighbor."""
        self.add(setting, "seedling", "time", ours, "ms")
        self.add(setting, peer, "time", theirs, "ms")
        self.add(setting, f"seedling / {peer}", "ratio", [a / b for a, b in zip(ours, theirs, strict=True)], "ratio")


def of_transforms(table: Table, rounds: int) -> None:
    """Single operations."""
    for side in (224, 512):
        _transforms_of(table, side, rounds)


def _transforms_of(table: Table, side: int, rounds: int) -> None:
    """At one size."""
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

    turn = np.array([[1, 0, 0, 0], [0, 0.8, -0.6, 100], [0, 0.6, 0.8, -50]])
    mixed = np.empty_like(image)
    for name, peer, ours, theirs in (
        ("glare", "RandomSunFlare", lambda: add_spots(image, [spot]), lambda: flare(image=image)),
        ("photon noise", "ShotNoise", lambda: photon_noise(image, 200.0, rng), lambda: shot(image=image)),
        ("color rotation", "bare OpenCV", lambda: rotate_colors(image, 37), lambda: there_and_back(lambda lab: cv2.transform(lab, turn))),
        ("opening of the luminosity", "bare OpenCV", lambda: change_luminosity(image, "opening", 5), lambda: there_and_back(opened)),
        ("channel order", "bare OpenCV", lambda: reorder_channels(image, (2, 0, 1)), lambda: cv2.mixChannels([image], [mixed], [2, 0, 0, 1, 1, 2])),
    ):  # fmt: skip
        table.pair(f"{name}, {side} pixels", *milliseconds(ours, theirs, rounds=rounds), peer)


def of_policies(table: Table, rounds: int) -> None:
    """Six operations, and with them the codec."""
    for side in SIDES:
        _policy_of(table, side, rounds)


def of_albumentations(name: str, arguments: Mapping[str, Any]) -> Any:
    """The nearest transform that albumentations itself has."""
    given = {key: tuple(one) if isinstance(one, list) else one for key, one in arguments.items()}
    return getattr(A, {"GaussianNoise": "GaussNoise"}.get(name, name))(**given)


def _policy_of(table: Table, side: int, rounds: int) -> None:
    """At one size."""
    steps = steps_of(SIX, IMAGES, {})
    image, many = photograph(side), max(20, rounds * 200 // side)
    ours = PolicyTransform([{one.name: dict(one.arguments)} for one in steps])
    whole = A.Compose([of_albumentations(one.name, one.arguments) for one in steps])
    seed = iter(range(10**9))

    def by_compose() -> Any:
        whole.set_random_seed(next(seed))
        return whole(image=image)

    table.pair(
        f"six operations, {side} pixels",
        *milliseconds(lambda: ours(image, next(seed)), by_compose, rounds=many),
        "albumentations' Compose",
    )
    children = [ours(image, number) for number in range(50)]
    for family in FAMILIES:
        _family_of(table, image, children, family, many)


def _family_of(table: Table, image: np.ndarray, children: list[np.ndarray], family: int, rounds: int) -> None:
    """So many children of an image, with the codec; children: what the codec alone encodes."""
    maker = maker_of(steps_of(SIX, IMAGES, {}), IMAGES, Resources.of(None))
    encoded, turn, seed = images.encode(image), cycle(children), iter(range(10**9))

    def whole() -> None:
        parent = maker.read(encoded)
        for _ in range(family):
            maker.make(parent, next(seed))

    def codec() -> None:
        for _ in range(family):
            images.decode(encoded)
            images.encode(next(turn))

    ours, alone = milliseconds(whole, codec, rounds=rounds)
    setting = f"decode, six operations, encode, {len(image)} pixels, {family} of an image"
    table.add(setting, "seedling", "rate", [1e3 * family / one for one in ours], "images/s")
    ratios = [other / one for one, other in zip(ours, alone, strict=True)]
    table.add(setting, "seedling / the codec alone", "rate", ratios, "ratio")


def of_texts(table: Table) -> None:
    """Children a second, five of each sentence, as the stage makes them."""
    words = SENTENCE.split()
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, int(rng.integers(6, 18)))) for _ in range(2_000)]
    context = Context({word: ["other", "another"] for word in words if len(word) > 3}, words)
    for name in WORD_OPERATIONS:
        peer, ours, theirs = _by_nlpaug(name), [], []
        for turn in range(7):
            began = time.perf_counter()
            for number, text in enumerate(texts):
                for child in range(CHILDREN_OF_TEXT):
                    change(text, name, 0.15, (turn * len(texts) + number) * CHILDREN_OF_TEXT + child, context)
            ours.append(CHILDREN_OF_TEXT * len(texts) / (time.perf_counter() - began))
            if peer is not None:
                began = time.perf_counter()
                for text in texts[:200]:
                    peer.augment(text, n=CHILDREN_OF_TEXT)
                theirs.append(CHILDREN_OF_TEXT * 200 / (time.perf_counter() - began))
        table.add(f"texts: {name}", "seedling", "rate", ours, "sentences/s")
        if theirs:
            table.add(f"texts: {name}", "nlpaug", "rate", theirs, "sentences/s")
            ratios = [own / other for own, other in zip(ours, theirs, strict=True)]
            table.add(f"texts: {name}", "seedling / nlpaug", "rate", ratios, "ratio")


def of_templates(table: Table) -> None:
    """Sentences a second."""
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
        many = sum(1 for _ in sample_sentences([template], 200_000, np.random.default_rng(seed)))
        rates.append(many / (time.perf_counter() - began))
    table.add("templates: 200,000 of 3,001,500 sentences", "seedling", "rate", rates, "sentences/s")


def _by_nlpaug(name: str) -> Any:
    try:
        import nlpaug.augmenter.char as char
        import nlpaug.augmenter.word as word
    except ImportError:
        return None
    ways = {
        "swap": lambda: word.RandomWordAug(action="swap"),
        "delete": lambda: word.RandomWordAug(action="delete"),
        "typo": char.KeyboardAug,
        "misread": char.OcrAug,
    }
    return ways[name]() if name in ways else None


def of_stage(table: Table, children: int) -> None:
    """The whole stage in a process of its own: rate and peak memory with a tenth of the children and with all, and on one core alone."""
    for many, cores in ((children // 10, 2), (children, 2), (children // 10, 1)):
        command = [sys.executable, __file__, "--stage", str(many)]
        if cores == 1:
            command = ["taskset", "-c", "0", *command]
        seconds, peak, other = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-3:]
        setting = f"the stage, {many:,} children of 96 pixels, {cores} core{'s' if cores > 1 else ''}"
        table.add(setting, "seedling", "rate", [many / float(seconds)], "images/s")
        table.add(setting, "seedling", "peak memory, first process", [float(peak)], "MiB")
        if cores > 1:
            table.add(setting, "seedling", "peak memory, another process", [float(other)], "MiB")


def stage(children: int) -> None:
    """Prints the seconds and the peak memory of this process and of the largest other one, in MiB."""
    with tempfile.TemporaryDirectory() as place:
        here = Path(place) / "validate"
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
        params = AugmentParams(augmentations_per_row=children // 1_000, policy=SIX)
        others: list[int] = [0]
        ended = threading.Event()
        watcher = threading.Thread(target=_watch_others, args=(others, ended))
        watcher.start()
        augment(params, IMAGES, collected=here, validated=here, output=Path(place) / "out")
        seconds = time.perf_counter() - began
        ended.set()
        watcher.join()
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, max(others) / 2**20)


def _watch_others(found: list[int], ended: threading.Event) -> None:
    """The largest other process's memory, five times a second."""
    while not ended.wait(0.2):
        for one in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                found.append(one.memory_info().rss)


def main() -> None:
    """Runs all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--children", type=int, default=100_000, help="of the whole stage; 0: leave it out")
    parser.add_argument("--stage", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--name", default="operations")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.stage:
        stage(args.stage)
        return
    table = Table("PYTHONPATH=. python " + " ".join(["benchmarks/operations.py", *sys.argv[1:]]))
    assert {next(iter(one)) for one in SIX} <= {*OPERATIONS}  # noqa: S101
    of_transforms(table, args.rounds)
    of_policies(table, args.rounds)
    of_texts(table)
    of_templates(table)
    if args.children:
        of_stage(table, args.children)
    write(args.name, table.found)


if __name__ == "__main__":
    main()
