"""Measure test accuracy with and without generated images, the share of copies, and the share taken for another class.

    PYTHONPATH=. python benchmarks/generating.py --data ../shared/data

The labeled rows are drawn with the seed, the other training rows are the pool, and the synthesize stage makes as many
images as there are labeled rows. The learners are those of a run without an encoder. The metric "told by the rest" is
the share of generated images for which a model of all training rows with their true labels predicts the requested
class. The table shows the same share for real test images.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from augmentation import STEPS, WEIGHT, rows_of
from record import Measurement, write
from scipy.stats import t

from seedling.config.params import SynthesizeParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, payloads, read, read_manifest
from seedling.media import images
from seedling.models.model import single_threaded
from seedling.models.saving import make_features, make_learner
from seedling.models.training import FitContext
from seedling.synthesize import synthesize


def generation(folder: Path, rows: list[tuple[bytes, str | None, int | None]], classes: list[str]) -> None:
    """Write what validate would have written: labeled rows in folds, and the pool."""
    with GenerationWriter(folder, stage="validate", modality="image") as writer:
        seen = set()
        for payload, label, fold in rows:
            row_id = identify(images.content(images.decode(payload)))
            if row_id not in seen:
                source = None if label is None else "human"
                split = "pool" if label is None else "train"
                writer.keep(Row(row_id, split, fold, label, label_source=source, group=row_id, payload=payload))
            seen.add(row_id)
        writer.close(rows_in=len(seen), classes=classes)


def one_seed(
    name: str, labels_per_class: int, side: int, effort: Any, seed: int, data: Path | None, at_most: int
) -> dict[str, float]:
    """Return every number of one draw."""
    _, image_arrays, labels, test = rows_of(name, data)
    classes = sorted(set(labels))
    rng = np.random.default_rng(seed)
    train = np.flatnonzero(~test)
    drawn = np.concatenate([rng.permutation(train[labels[train] == label])[:labels_per_class] for label in classes])
    position_of_row = {int(row): number for number, row in enumerate(drawn)}
    rows = [
        (
            image_arrays[row],
            str(labels[row]) if row in position_of_row else None,
            position_of_row[row] % 5 if row in position_of_row else None,
        )
        for row in map(int, train)
    ]
    config = WorkspaceConfig(modality="image", seed=seed, effort=effort)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        generation(here / "validate", rows, classes)
        began = time.perf_counter()
        params = SynthesizeParams(mixup=0, generate=1.0, generate_side=side)
        synthesize(params, config, collected=here / "validate", validated=here / "validate", output=here / "made")
        numbers: dict[str, float] = {"seconds": time.perf_counter() - began}
        manifest, kept = read_manifest(here / "made"), read(here / "made", ["id", "label"])
        numbers["copies"] = manifest.reasons.get("copy_of_a_parent", 0) / max(1, manifest.rows.rows_in)
        content = dict(payloads([here / "made"], kept["id"]))
        generated = [content[row_id] for row_id in kept["id"]]
    number = {label: class_index for class_index, label in enumerate(classes)}
    labeled_images = [image_arrays[row] for row in drawn]
    targets = np.array([number[str(labels[row])] for row in drawn])
    of_made = np.array([number[label] for label in kept["label"]], dtype=np.int64)
    test_rows = np.flatnonzero(test)[:: max(1, int(test.sum()) // at_most)]
    maker = make_features(None, None, config)
    maker.fit_transform(labeled_images)
    test_inputs, truth = (
        maker.transform([image_arrays[row] for row in test_rows]),
        np.array([number[str(label)] for label in labels[test_rows]]),
    )

    def taught(learner: str, payloads_of: list[Any], labels_of: Any, weights: Any) -> Any:
        model = make_learner(learner, FitContext(len(classes), seed, STEPS))
        model.fit(maker.transform(payloads_of), np.eye(len(classes))[labels_of], weights)
        return model

    with single_threaded():
        model_of_all_rows = taught(
            "logistic_regression",
            [image_arrays[row] for row in train],
            np.array([number[str(label)] for label in labels[train]]),
            np.ones(len(train)),
        )
        numbers["real told"] = float((model_of_all_rows.logits(test_inputs).argmax(axis=1) == truth).mean())
        if generated:
            numbers["told"] = float(
                (model_of_all_rows.logits(maker.transform(generated)).argmax(axis=1) == of_made).mean()
            )
        for learner in ("logistic_regression", "network"):
            for variant, more, of_more in (("without", [], of_made[:0]), ("with", generated, of_made)):
                weights = np.concatenate([np.ones(len(labeled_images)), np.full(len(more), WEIGHT)])
                model = taught(learner, labeled_images + more, np.concatenate([targets, of_more]), weights)
                numbers[f"{learner} {variant}"] = float((model.logits(test_inputs).argmax(axis=1) == truth).mean())
    print(name, labels_per_class, seed, {key: round(value, 3) for key, value in numbers.items()}, flush=True)
    return numbers


def main() -> None:
    """Run all settings over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--settings", nargs="+", default=["digits:20:8", "trashnet:50:32"], help="name:labels per class:side"
    )
    parser.add_argument("--effort", default="normal")
    parser.add_argument("--test-rows", type=int, default=500)
    args = parser.parse_args()
    command = "PYTHONPATH=. python " + " ".join(["benchmarks/generating.py", *sys.argv[1:]])
    table: list[Measurement] = []
    for setting in args.settings:
        name, labels_per_class, side = setting.split(":")
        results = [
            one_seed(name, int(labels_per_class), int(side), args.effort, seed, args.data, args.test_rows)
            for seed in range(args.seeds)
        ]
        where = f"{name}, {labels_per_class} a class, {side} pixels"

        def add(system: str, metric: str, values: list[float], unit: str = "share", where: str = where) -> None:
            mean, half_width = float(np.mean(values)), 0.0
            if len(values) > 1:
                half_width = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
            table.append(
                Measurement(
                    where, system, metric, mean, mean - half_width, mean + half_width, unit, len(values), command
                )
            )

        for learner in ("logistic_regression", "network"):
            before, after = ([result[f"{learner} {variant}"] for result in results] for variant in ("without", "with"))
            add(learner, "accuracy without", before)
            add(learner, "accuracy with", after)
            add(learner, "gain", [b - a for a, b in zip(before, after, strict=True)])
        add("generator", "told by the rest", [result.get("told", 0.0) for result in results])
        add("real test images", "told by the rest", [result["real told"] for result in results])
        add("generator", "copies of a parent", [result["copies"] for result in results])
        add("generator", "time", [result["seconds"] for result in results], "s")
        write("generating", table)


if __name__ == "__main__":
    main()
