"""Writes fiftyone/: an export of Seedling that FiftyOne's own importer read and its own exporter wrote.

Made with fiftyone 1.22.1, in an environment of its own. The importer and the exporter need no database:

    python tests/exchange_rows.py EXPORTS
    python -m venv SDK && SDK/bin/pip install fiftyone==1.22.1
    SDK/bin/python tests/review/exchange_files/write_fiftyone.py EXPORTS

FiftyOneDataset (samples.json) cannot be exported without FiftyOne's database: its samples are written as the exporter
does, with `Sample.to_mongo_dict`.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import fiftyone
from bson import json_util
from fiftyone.utils.data.exporters import FiftyOneImageClassificationDatasetExporter
from fiftyone.utils.data.importers import FiftyOneImageClassificationDatasetImporter

HERE = Path(__file__).parent


def imported(folder: Path) -> list[tuple[str, Any]]:
    """The paths of the images with their labels, in the order of the rows' origins."""
    with FiftyOneImageClassificationDatasetImporter(dataset_dir=str(folder)) as importer:
        samples = [(path, label) for path, _, label in importer]
    return sorted(samples, key=lambda sample: "~" if sample[1] is None else sample[1]["origin"])


def edit(samples: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """What a person does: relabels two rows, accepts a suggestion, calls one bad, and labels the row without a label."""
    samples[0][1].label = "dog"
    samples[2][1].label = "cat"
    samples[3][1]["answer"] = "bad"
    samples[4][1]["answer"] = "label"
    samples[5] = (samples[5][0], fiftyone.Classification(label="dog"))
    return samples


def write_labels(samples: list[tuple[str, Any]], folder: Path, **options: Any) -> None:
    """Write data/ and labels.json."""
    shutil.rmtree(folder, ignore_errors=True)
    exporter = FiftyOneImageClassificationDatasetExporter(
        export_dir=str(folder), export_media=True, pretty_print=True, **options
    )
    with exporter:
        for path, label in samples:
            exporter.export_sample(path, label)


def write_samples(samples: list[tuple[str, Any]], folder: Path) -> None:
    """Write samples.json of a FiftyOneDataset, with a field of people and a field of a model."""
    folder.mkdir(exist_ok=True)
    documents = []
    for path, label in samples:
        predicted = fiftyone.Classification(label="dog", confidence=0.6)
        document = fiftyone.Sample(filepath=path, ground_truth=label, predictions=predicted).to_mongo_dict()
        documents.append(document | {"filepath": f"data/{Path(path).name}"})
    content = json_util.dumps({"samples": documents}, indent=1)
    (folder / "samples.json").write_text(content + "\n", encoding="utf-8")


def main() -> None:
    """Write the three forms."""
    samples = edit(imported(Path(sys.argv[1]) / "image-fiftyone"))
    write_labels(samples, HERE / "fiftyone", include_confidence=True, include_attributes=True)
    classes = json.loads((Path(sys.argv[1]) / "image-fiftyone" / "labels.json").read_text(encoding="utf-8"))["classes"]
    write_labels(samples, HERE / "fiftyone_plain", classes=classes)
    shutil.rmtree(HERE / "fiftyone_plain" / "data")
    write_samples(samples, HERE / "fiftyone_samples")


if __name__ == "__main__":
    main()
