"""Writes label_studio_*.json: exports of Seedling, annotated and written by Label Studio's own SDK.

Made with label-studio-sdk 2.1.2, in an environment of its own:

    python tests/exchange_rows.py EXPORTS
    python -m venv SDK && SDK/bin/pip install label-studio-sdk==2.1.2
    SDK/bin/python tests/review/exchange_files/write_label_studio.py EXPORTS
"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.objects import AnnotationValue, PredictionValue, TaskValue
from label_studio_sdk.types import Annotation

HERE = Path(__file__).parent
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def regions(interface: LabelInterface, **values: str) -> list[dict[str, Any]]:
    """Regions that the SDK makes of values by control."""
    created = interface.create_regions({name: [value] if name == "note" else value for name, value in values.items()})
    return [region._dict() for region in created]


class Annotator:
    """Makes annotations as Label Studio exports them, one a minute."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, person: int, result: list[dict[str, Any]], *, cancelled: bool = False) -> dict[str, Any]:
        """An annotation of a person."""
        self.number += 1
        moment = START + timedelta(minutes=self.number)
        annotation = Annotation(
            id=100 + self.number,
            completed_by=person,
            result=result,
            was_cancelled=cancelled,
            created_at=moment,
            updated_at=moment,
            lead_time=1.5,
            ground_truth=False,
        )
        return json.loads(annotation.json())


def export_of_server(tasks: list[dict[str, Any]], interface: LabelInterface) -> list[dict[str, Any]]:
    """The tasks with annotations in the form of `label_studio_sdk.types.Annotation`."""
    annotate = Annotator()
    first, second, third, fourth, fifth, sixth = tasks
    first["annotations"] = [annotate(7, regions(interface, label="cat"))]
    second["annotations"] = [annotate(7, second["annotations"][0]["result"])]  # unchanged
    third["annotations"] = [
        annotate(7, regions(interface, label="dog")),
        annotate(8, regions(interface, label="dog")),
        annotate(7, regions(interface, label="cat")),
    ]
    changed = fourth["annotations"][0]["result"][0] | {"from_name": "label", "value": {"choices": ["dog"]}}
    fourth["annotations"] = [annotate(8, [changed])]
    fifth["annotations"] = [annotate(7, [], cancelled=True)]
    sixth["annotations"] = [annotate(7, regions(interface, answer="none_of_these", note="a car"))]
    return [{"id": number} | task for number, task in enumerate(tasks, start=1)]


def task_values(tasks: list[dict[str, Any]], interface: LabelInterface) -> list[dict[str, Any]]:
    """Two tasks as `TaskValue`s that the SDK's interface has validated, without Seedling's ids."""
    values = []
    for task, label in zip(tasks[4:], ("dog", "cat"), strict=True):
        data = {name: value for name, value in task["data"].items() if name != "seedling_id"}
        value = TaskValue(
            data=data,
            annotations=[AnnotationValue(completed_by=9, result=regions(interface, label=label), lead_time=2.0)],
            predictions=[PredictionValue(**prediction) for prediction in task.get("predictions", [])],
        )
        dumped = value.model_dump()
        assert all(interface.validate_annotation(annotation) for annotation in dumped["annotations"]), dumped
        values.append(dumped)
    return values


def main() -> None:
    """Write two files per modality."""
    for modality in ("image", "text"):
        folder = Path(sys.argv[1]) / f"{modality}-label_studio"
        interface = LabelInterface((folder / "label_config.xml").read_text(encoding="utf-8"))
        interface.validate()
        tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
        assert all(
            interface.validate_prediction(prediction) for task in tasks for prediction in task.get("predictions", [])
        )
        for name, written in (
            ("values", task_values(tasks, interface)),
            ("export", export_of_server(tasks, interface)),
        ):
            path = HERE / f"label_studio_{name}_{modality}.json"
            path.write_text(json.dumps(written, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
