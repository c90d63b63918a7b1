"""Contact sheets: parent rows beside the rows made from them, with the recipe of each.

They are part of the report, and of separate pages that `seedling show` writes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from seedling.dataset.generation import payloads, read, read_manifest, read_rejected, rejected_payloads
from seedling.errors import InputError
from seedling.files.own_folders import check_own_folders
from seedling.report.pages import environment, preview
from seedling.stats.randomness import derived_seed
from seedling.workspace import MANIFEST, Workspace

STAGES = ("augment", "synthesize")
SIDE_PIXELS = 128
MIN_SHARE = 0.005  # of a class in a mixed label; less is rounded to 0 %


def write_contact_sheet(workspace: Path, stage: str, parents: int, rows_per_parent: int) -> Path:
    """Writes reports/contact_sheet_<stage>.html and returns its path. Raises InputError if the stage made no rows."""
    contents = sheet(Workspace(workspace).generations, stage, parents, rows_per_parent)
    if contents["rejected"] and not contents["groups"]:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in contents["rejected"].items())
        raise InputError(
            f"The stage '{stage}' kept none of the rows that it made ({reasons}): generations/{stage}/rejected.parquet "
            "contains them."
        )
    if not contents["groups"]:
        raise InputError(
            f"The stage '{stage}' has made no rows yet: `seedling run` does, if params.yaml asks for some."
        )
    page = environment("contact_sheet.html.jinja").get_template("contact_sheet.html.jinja")
    check_own_folders(workspace)
    path = Workspace(workspace).contact_sheet(stage)
    path.parent.mkdir(exist_ok=True)
    path.write_text(page.render(name=workspace.resolve().name, stage=stage, sheet=contents), encoding="utf-8")
    return path


def sheet(generations: Path, stage: str, parents: int = 6, rows_per_parent: int = 5) -> dict[str, Any]:
    """The contents of a contact sheet: {"groups", "rows", "rejected"}.

    A group is {"template", "parents", "rows"}: previews of the parents and of the rows made from them, with label,
    recipe and the reason of rejected rows. Groups alternate between the classes. Rows without parents are grouped by
    their template.
    """
    if not (generations / stage / MANIFEST).is_file():
        return {"groups": [], "rows": 0, "rejected": {}}
    manifest = read_manifest(generations / stage)
    columns = ["id", "label", "label_probs", "parent_ids", "recipe"]
    kept = read(generations / stage, columns).assign(reason=None)
    rejected = read_rejected(generations / stage, [*columns, "reason"])
    frame = pd.concat([kept, rejected], ignore_index=True).drop_duplicates("id")
    frame["group"] = [
        "\x1f".join(parent_ids)
        if parent_ids is not None and len(parent_ids)
        else str(json.loads(recipe or "{}").get("text"))
        for parent_ids, recipe in zip(frame["parent_ids"], frame["recipe"], strict=True)
    ]
    chosen = _choose_groups(frame, parents)
    rows = frame[frame["group"].isin(chosen)].groupby("group", sort=False).head(rows_per_parent)
    ids = {parent_id for parent_ids in rows["parent_ids"] if parent_ids is not None for parent_id in parent_ids}
    content: dict[str, Any] = dict(payloads([generations / "scrape"], ids)) if ids else {}
    content |= _payloads(generations / stage, set(rows["id"]))
    labels: dict[str, str] = {}
    if ids:
        labeled = read(generations / "validate", ["id", "label"], ids=ids)
        labels = dict(zip(labeled["id"], labeled["label"], strict=True))
    return {
        "groups": [
            _group(name, rows[rows["group"] == name], content, labels, list(manifest.classes)) for name in chosen
        ],
        "rows": manifest.rows.kept,
        "rejected": manifest.reasons,
    }


def _choose_groups(frame: pd.DataFrame, count: int) -> list[str]:
    """Names of groups with a kept row: one of each class, then a second one of each class, in random order."""
    first = frame[frame["reason"].isna()].drop_duplicates("group")
    order = [derived_seed(0, "contact sheet", name) for name in first["group"]]
    first = first.assign(order=order).sort_values("order")
    first["turn"] = first.groupby("label").cumcount()
    names: list[str] = first.sort_values(["turn", "label", "order"])["group"].head(count).tolist()
    return names


def _payloads(folder: Path, ids: set[str]) -> dict[str, Any]:
    """The images or texts of kept and of rejected rows, by id."""
    kept = set(read(folder, ["id"], ids=ids)["id"])
    return dict(rejected_payloads(folder, ids)) | dict(payloads([folder], kept))


def _group(
    name: str, rows: pd.DataFrame, content: Mapping[str, Any], labels: Mapping[str, str], classes: list[str]
) -> dict[str, Any]:
    parent_ids = [] if rows["parent_ids"].iloc[0] is None else list(rows["parent_ids"].iloc[0])
    return {
        "template": None if parent_ids else name,
        "parents": [
            {"label": labels.get(parent_id) or "no label", **preview(content[parent_id], SIDE_PIXELS)}
            for parent_id in parent_ids
            if parent_id in content
        ],
        "rows": [
            {
                "label": row["label"],
                "shares": _shares(row["label_probs"], classes),
                "recipe": in_words(row["recipe"]),
                "reason": row["reason"],
                **preview(content[row["id"]], SIDE_PIXELS),
            }
            for row in rows.to_dict("records")
            if row["id"] in content
        ],
    }


def _shares(probabilities: Any, classes: list[str]) -> str:
    if probabilities is None or not hasattr(probabilities, "__len__"):
        return ""
    shares = sorted(
        (
            (float(probability), name)
            for probability, name in zip(probabilities, classes, strict=True)
            if probability >= MIN_SHARE
        ),
        reverse=True,
    )
    return " + ".join(f"{share:.0%} {name}" for share, name in shares)


def in_words(recipe: str | None) -> str:
    """A recipe as a caption: the operations and their strength."""
    if not recipe:
        return ""
    params = json.loads(recipe)
    operation = params.pop("operation")
    if operation == "transforms":
        return ", ".join(_spaced(name) for name in params["applied"]) or "no operation"
    if operation in {"cut_and_paste", "background"}:
        return f"{operation}, {params['blend']}".replace("_", " ") if "blend" in params else str(operation)
    if operation == "translate":
        return f"translate, {params['share']:.0%} of the way"
    if operation in {"fgsm", "deepfool"}:
        return f"{operation}, {'at most ' if operation == 'deepfool' else ''}{params['levels']:g} levels"
    if operation == "own":
        return str(params["name"])
    has_word_share = "share" in params and operation not in {"case", "mixup", "cutmix", "template", "generated"}
    return f"{operation}, {params['share']:.0%} of the words" if has_word_share else str(operation)


def _spaced(name: str) -> str:
    """RandomBrightnessContrast → random brightness contrast."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower().replace("_", " ")
