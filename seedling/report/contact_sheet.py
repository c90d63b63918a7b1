"""Contact sheets: parents beside what was made from them, each with its recipe; in the report, and as a page of their own.

A view of the generations, made again whenever it is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from seedling.dataset.generation import MANIFEST, payloads, read, read_manifest, read_rejected
from seedling.errors import InputError
from seedling.files.own_folders import check_own_folders
from seedling.report.pages import environment, shown
from seedling.stats.randomness import derived_seed

STAGES = ("augment", "synthesize")
SIDE = 128  # pixels of an image
LEAST_TOLD = 0.005  # of a mixture's shares: less is 0 %


def write_contact_sheet(workspace: Path, stage: str, families: int, children: int) -> Path:
    """Writes reports/contact_sheet_<stage>.html; gives its path. Raises InputError where the stage made nothing."""
    found = sheet(workspace / "generations", stage, families, children)
    if found["rejected"] and not found["families"]:
        told = ", ".join(f"{reason} {many:,}" for reason, many in found["rejected"].items())
        raise InputError(
            f"The stage '{stage}' kept none of the rows that it made ({told}): generations/{stage}/rejected.parquet holds them."
        )
    if not found["families"]:
        raise InputError(
            f"The stage '{stage}' has made no rows here: `seedling run` does, where params.yaml asks for some."
        )
    page = environment("contact_sheet.html.jinja").get_template("contact_sheet.html.jinja")
    check_own_folders(workspace)
    path = workspace / "reports" / f"contact_sheet_{stage}.html"
    path.parent.mkdir(exist_ok=True)
    path.write_text(page.render(name=workspace.resolve().name, stage=stage, sheet=found), encoding="utf-8")
    return path


def sheet(generations: Path, stage: str, families: int = 6, children: int = 5) -> dict[str, Any]:
    """{"families", "rows", "rejected"}: so many families of each class in turn, by an order of their names; a family is {"parent_ids", "children"}, each
    a row as `shown` has it, with label and, of children, the recipe in words and the reason of one that was rejected.

    Rows without parents, as templates fill them, are families by their template.
    """
    if not (generations / stage / MANIFEST).is_file():
        return {"families": [], "rows": 0, "rejected": {}}
    manifest = read_manifest(generations / stage)
    columns = ["id", "label", "label_probs", "parent_ids", "recipe"]
    kept = read(generations / stage, columns).assign(reason=None)
    rejected = read_rejected(generations / stage, [*columns, "reason"])
    frame = pd.concat([kept, rejected], ignore_index=True).drop_duplicates("id")
    frame["family"] = [
        "\x1f".join(parents) if parents is not None and len(parents) else str(json.loads(recipe or "{}").get("text"))
        for parents, recipe in zip(frame["parent_ids"], frame["recipe"], strict=True)
    ]
    first = frame[frame["reason"].isna()].drop_duplicates("family")
    first = first.assign(order=[derived_seed(0, "contact sheet", one) for one in first["family"]]).sort_values("order")
    first["turn"] = first.groupby("label").cumcount()
    chosen = first.sort_values(["turn", "label", "order"])["family"].head(families).tolist()
    told = frame[frame["family"].isin(chosen)].groupby("family", sort=False).head(children)
    parents = {one for names in told["parent_ids"] if names is not None for one in names}
    content: dict[str, Any] = dict(payloads([generations / "scrape"], parents)) if parents else {}
    content |= _payloads(generations / stage, set(told["id"]))
    labels = (
        dict(read(generations / "validate", ["id", "label"], ids=parents).itertuples(index=False)) if parents else {}
    )
    return {
        "families": [
            dict(_family(one, told[told["family"] == one], content, labels, manifest["classes"])) for one in chosen
        ],
        "rows": manifest["rows"]["kept"],
        "rejected": manifest["reasons"],
    }


def _payloads(folder: Path, wanted: set[str]) -> dict[str, Any]:
    """Of kept rows and of rejected ones."""
    column = "text" if read_manifest(folder)["modality"] == "text" else "image"
    dropped = read_rejected(folder, ["id", column])
    dropped = dropped[dropped["id"].isin(wanted)].drop_duplicates("id")
    found = {
        row: one["bytes"] if column == "image" else one for row, one in zip(dropped["id"], dropped[column], strict=True)
    }
    there = set(read(folder, ["id"], ids=wanted)["id"])
    return found | dict(payloads([folder], there))


def _family(
    name: str, rows: pd.DataFrame, content: Mapping[str, Any], labels: Mapping[str, str], classes: list[str]
) -> Iterator[tuple[str, Any]]:
    parents = [] if rows["parent_ids"].iloc[0] is None else list(rows["parent_ids"].iloc[0])
    yield "template", None if parents else name
    yield (
        "parent_ids",
        [{"label": labels.get(one) or "no label", **shown(content[one], SIDE)} for one in parents if one in content],
    )
    yield (
        "children",
        [
            {
                "label": row["label"],
                "shares": _shares(row["label_probs"], classes),
                "recipe": in_words(row["recipe"]),
                "reason": row["reason"],
                **shown(content[row["id"]], SIDE),
            }
            for row in rows.to_dict("records")
            if row["id"] in content
        ],
    )


def _shares(probabilities: Any, classes: list[str]) -> str:
    if probabilities is None or not hasattr(probabilities, "__len__"):
        return ""
    found = sorted(
        ((float(one), name) for one, name in zip(probabilities, classes, strict=True) if one >= LEAST_TOLD),
        reverse=True,
    )
    return " + ".join(f"{share:.0%} {name}" for share, name in found)


def in_words(recipe: str | None) -> str:
    """A recipe as a caption: which operations, and how much of what."""
    if not recipe:
        return ""
    told = json.loads(recipe)
    operation = told.pop("operation")
    if operation == "transforms":
        return ", ".join(_spaced(one) for one in told["applied"]) or "no step's turn"
    if operation in {"mixup", "cutmix"}:
        return str(operation)
    if operation in {"cut_and_paste", "background"}:
        return f"{operation}, {told['blend']}".replace("_", " ") if "blend" in told else str(operation)
    if operation == "translate":
        return f"translate, {told['share']:.0%} of the way"
    if operation in {"fgsm", "deepfool"}:
        return f"{operation}, {'at most ' if operation == 'deepfool' else ''}{told['levels']:g} levels"
    if operation in {"template", "generated"}:
        return str(operation)
    if operation == "own":
        return str(told["name"])
    return (
        f"{operation}, {told['share']:.0%} of the words" if "share" in told and operation != "case" else str(operation)
    )


def _spaced(name: str) -> str:
    """RandomBrightnessContrast → random brightness contrast."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower().replace("_", " ")
