"""Label Studio's JSON tasks: `tasks.json`, `label_config.xml`, and the images in `images/`.

Format: https://labelstud.io/guide/task_format and https://labelstud.io/guide/export. The model's suggestion is a
prediction of the task. Decisions of reviewers are annotations whose region ids begin with `seedling-`, so that they are
recognized when they come back unchanged.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from seedling.errors import InputError
from seedling.review.exchange.csv_table import read_content
from seedling.review.exchange.exported_rows import NUMBER_FIELDS, TEXT_FIELDS, ExportedRow
from seedling.review.exchange.external_rows import (
    ANSWER_WORDS,
    ExternalAnswer,
    ExternalRow,
    image_files,
    milliseconds_of,
    row_ids_in,
)
from seedling.review.exchange.importing import name_of_person
from seedling.review.records import Answer, AnswerKind

TASKS_FILE, CONFIG_FILE, GUIDE_FILE, IMAGE_FOLDER = "tasks.json", "label_config.xml", "README.md", "images"
REGION = "seedling-"
LOCAL_FILES = "/data/local-files/?d="  # under which Label Studio serves files of its own machine
LABEL_CONTROL, ANSWER_CONTROL, NOTE_CONTROL = "label", "answer", "note"
ANSWER_CHOICES = ("none_of_these", "bad", "duplicate", "unsure", "flag")
NOT_DATA = ("id", "label", "exported_label", "answer", "note", "reviewer")  # fields that a task has in another way
PRESENT_LABEL = "present_label"  # not `label`, the name of the control, which would hide it in other exports
MAX_LEAD_SECONDS = 10**7  # a longer time is not that of a person
SEVERAL, UNSUPPORTED, NOT_READ = "several_labels", "not_a_classification", "not_in_the_file"
GUIDE = """# Rows of Seedling for Label Studio

1. Only for images: start Label Studio with permission to serve these files, where ROOT is the folder above this one:

       export LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=ROOT
       label-studio start

   Then add this folder in the project's settings as a source of local files ("Cloud Storage", "Local files").
2. Paste `label_config.xml` into the project's labeling interface.
3. Import `tasks.json`, label, and export as JSON (not JSON-MIN).

Keep this folder's name: the tasks name their images by it.
"""


def write(rows: Iterable[ExportedRow], folder: Path, classes: Sequence[str], modality: str, name: str) -> None:
    """Write the tasks, one after the other. name: of the finished folder, for the addresses of images."""
    (folder / CONFIG_FILE).write_text(label_config(classes, modality), encoding="utf-8")
    (folder / GUIDE_FILE).write_text(GUIDE, encoding="utf-8")
    if modality == "image":
        (folder / IMAGE_FOLDER).mkdir()
    with (folder / TASKS_FILE).open("w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(rows):
            file.write(",\n" if number else "\n")
            json.dump(_task(row, folder, name), file, ensure_ascii=False)
        file.write("\n]\n")


def _task(row: ExportedRow, folder: Path, name: str) -> dict[str, Any]:
    fields = row.fields()
    data: dict[str, Any] = {key: fields[key] for key in (*TEXT_FIELDS, *NUMBER_FIELDS) if key not in NOT_DATA}
    if isinstance(row.content, str):
        modality: str = "text"
        data["text"] = row.content
    else:
        modality = "image"
        path = row.write_image(folder / IMAGE_FOLDER).relative_to(folder).as_posix()
        data["image"] = f"{LOCAL_FILES}{name}/{path}"
    data |= {"seedling_id": row.id, PRESENT_LABEL: row.label, "answers": row.answer_values()}
    annotations = [_annotation(answer, modality) for answer in row.answers]
    task: dict[str, Any] = {"data": data, "annotations": [annotation for annotation in annotations if annotation]}
    if row.suggestion is not None:
        region = _region("suggestion", LABEL_CONTROL, row.suggestion, modality)
        score = row.suggestion_probability
        task["predictions"] = [{"model_version": "seedling", "score": score, "result": [region]}]
    return task


def _annotation(answer: Answer, modality: str) -> dict[str, Any] | None:
    """The annotation of an answer; None for answers that Label Studio has no annotation for."""
    if answer.answer == "label":
        region = _region(f"{REGION}{answer.id}", LABEL_CONTROL, answer.label or "", modality)
    elif answer.answer in ANSWER_CHOICES:
        region = _region(f"{REGION}{answer.id}", ANSWER_CONTROL, answer.answer, modality)
    else:
        return None
    return {"result": [region], "was_cancelled": False, "ground_truth": False, "lead_time": answer.milliseconds / 1_000}


def _region(region_id: str, control: str, choice: str, modality: str) -> dict[str, Any]:
    return {
        "id": region_id,
        "from_name": control,
        "to_name": modality,
        "type": "choices",
        "value": {"choices": [choice]},
    }


def label_config(classes: Sequence[str], modality: str) -> str:
    """The labeling interface: the classes, and the answers that are not classes."""
    shows = '<Text name="text" value="$text"/>' if modality == "text" else '<Image name="image" value="$image"/>'

    def choices(control: str, values: Sequence[str]) -> str:
        members = "".join(f"\n    <Choice value={quoteattr(value)}/>" for value in values)
        return f'  <Choices name="{control}" toName="{modality}" choice="single">{members}\n  </Choices>'

    return "\n".join(
        [
            "<View>",
            f"  {shows}",
            choices(LABEL_CONTROL, classes),
            choices(ANSWER_CONTROL, ANSWER_CHOICES),
            f'  <TextArea name="{NOTE_CONTROL}" toName="{modality}" placeholder="Note" maxSubmissions="1"/>',
            "</View>\n",
        ]
    )


def read(path: Path) -> Iterator[ExternalRow]:
    """Yield the tasks of a JSON export. Raises InputError if the file is damaged or in another format."""
    file = path / TASKS_FILE if path.is_dir() else path
    for number, task in enumerate(tasks_of(file), start=1):
        yield _external_row(task, f"task {task.get('id') or number}", file.parent)


def tasks_of(file: Path) -> list[dict[str, Any]]:
    """The tasks of a file: a list, or one task. Raises InputError."""
    try:
        content = json.loads(read_content(file))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{file} is not complete JSON ({str(error)[:200]}): export the project again, as JSON."
        ) from error
    tasks = content if isinstance(content, list) else [content]
    for number, task in enumerate(tasks, start=1):
        if isinstance(task, dict) and isinstance(task.get("data"), dict):
            continue
        is_minimal = isinstance(task, dict) and {"annotator", "annotation_id"} & set(task)
        cause = "it is Label Studio's format JSON-MIN" if is_minimal else f"item {number} has no object `data`"
        raise InputError(f"{file} is not a file of Label Studio's JSON tasks ({cause}): export the project as JSON.")
    return tasks


def _external_row(task: Mapping[str, Any], position: str, folder: Path) -> ExternalRow:
    data: Mapping[str, Any] = task["data"]
    predictions = [prediction for prediction in _dicts(task.get("predictions")) if _dicts(prediction.get("result"))]
    unusable: Counter[str] = Counter()
    exported = _exported(data)
    answers = []
    annotations = task.get("annotations") or task.get("completions")
    for annotation in annotations if isinstance(annotations, list) else ():
        if not isinstance(annotation, dict):  # some exports have only the ids of annotations
            unusable[NOT_READ] += 1
        elif not _is_unchanged(annotation, exported):
            external = _answer(annotation, data, unusable)
            answers += [] if external is None else [external]
    suggestions = [label for prediction in predictions for label in _choices(prediction)[1]]
    return ExternalRow(
        position=position,
        row_ids=row_ids_in(*map(data.get, ("seedling_id", "image", "img", "url")), task.get("file_upload")),
        contents=partial(_contents, data, folder),
        answers=tuple(answers),
        predictions=len(predictions),
        unusable=unusable,
        suggestion=suggestions[0] if suggestions else None,
    )


def _contents(data: Mapping[str, Any], folder: Path) -> Iterator[bytes | str]:
    for value in data.values():
        if isinstance(value, str):
            yield from image_files(value, folder)
            yield value


def _exported(data: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The answers that Seedling exported with the task: id → (answer, label)."""
    return {
        str(answer.get("id")): (str(answer.get("answer")), str(answer.get("label") or ""))
        for answer in _dicts(data.get("answers"))
    }


def _is_unchanged(annotation: Mapping[str, Any], exported: Mapping[str, tuple[str, str]]) -> bool:
    """Whether the annotation is an answer that Seedling exported, and nobody has changed it."""
    if annotation.get("was_cancelled"):
        return False
    kinds, labels = _choices(annotation)
    for region in _dicts(annotation.get("result")):
        region_id = str(region.get("id", ""))
        if region_id.startswith(REGION) and (answer := exported.get(region_id.removeprefix(REGION))):
            kind, label = answer
            return (labels, kinds) == (([label], []) if kind == "label" else ([], [kind]))
    return False


def _answer(annotation: Mapping[str, Any], data: Mapping[str, Any], unusable: Counter[str]) -> ExternalAnswer | None:
    """The answer of an annotation; None if it has none, which is counted in `unusable` unless it is empty."""
    if annotation.get("was_cancelled"):
        return _complete(ExternalAnswer("skip"), annotation)
    kinds, labels = _choices(annotation)
    kinds = [kind for kind in kinds if kind != "label"]
    if len(kinds) > 1 or (not kinds and len(labels) > 1):
        unusable[SEVERAL] += 1
    elif kinds == ["reject"]:
        asked_label = next(
            (value for value in map(data.get, (PRESENT_LABEL, "suggestion")) if isinstance(value, str)), None
        )
        if asked_label:
            return _complete(ExternalAnswer("reject", asked_label=asked_label), annotation)
        unusable[UNSUPPORTED] += 1
    elif kinds:
        return _complete(ExternalAnswer(kinds[0]), annotation)
    elif labels:
        return _complete(ExternalAnswer("label", labels[0]), annotation)
    elif _dicts(annotation.get("result")):
        unusable[UNSUPPORTED] += 1
    return None


def _complete(external: ExternalAnswer, annotation: Mapping[str, Any]) -> ExternalAnswer:
    """The answer with its reviewer, times and note."""
    changed = str(annotation.get("updated_at") or annotation.get("created_at") or "")
    seconds = annotation.get("lead_time")
    has_time = isinstance(seconds, int | float) and 0 <= seconds < MAX_LEAD_SECONDS
    return replace(
        external,
        reviewer=_person(annotation),
        annotation_id=f"{annotation.get('id') or annotation.get('unique_id') or ''} {changed}",
        answered_at=milliseconds_of(changed),
        milliseconds=round(float(seconds or 0) * 1_000) if has_time else 0,
        note=_note(annotation),
    )


def _person(annotation: Mapping[str, Any]) -> str | None:
    """The reviewer's name of an annotation: of the e-mail address, else of the user name or number."""
    person = annotation.get("completed_by")
    if isinstance(person, dict):
        person = person.get("email") or person.get("username") or person.get("id")
    if isinstance(person, int) and not isinstance(person, bool):
        return f"label-studio-{person}"
    return name_of_person(person)


def _choices(annotation: Mapping[str, Any]) -> tuple[list[AnswerKind], list[str]]:
    """The answers of an annotation that are not classes, and its classes."""
    kinds: dict[AnswerKind, None] = {}
    labels: dict[str, None] = {}
    for region in _dicts(annotation.get("result")):
        value = region.get("value")
        choices: list[Any] = []
        if isinstance(value, dict) and region.get("type") in ("choices", "taxonomy"):
            members = value.get(region["type"])
            choices = members if isinstance(members, list) else []
        for member in choices:
            choice = str(member[-1] if isinstance(member, list) and member else member)
            kind = ANSWER_WORDS.get(choice.casefold()) if region.get("from_name") == ANSWER_CONTROL else None
            if kind is not None:
                kinds[kind] = None
            elif choice.strip():
                labels[choice] = None
    return list(kinds), list(labels)


def _note(annotation: Mapping[str, Any]) -> str | None:
    texts: list[str] = []
    for region in _dicts(annotation.get("result")):
        value = region.get("value")
        if region.get("type") == "textarea" and isinstance(value, dict):
            text = value.get("text")
            texts += [str(part) for part in text] if isinstance(text, list) else [str(text or "")]
    return "\n".join(filter(None, texts)) or None


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [member for member in value if isinstance(member, dict)] if isinstance(value, list) else []
