"""reports/data.html: what validate found in the data, as a page that a person likes to read, and the same as lists for other tools.

A view of `generations/scrape` and `generations/validate`, made again whenever validate has run.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seedling.dataset.generation import payloads, read, read_manifest, read_rejected
from seedling.dataset.spreadsheet import spreadsheet_cell
from seedling.files.ignored_files import count_not_copied
from seedling.gates.checking import read_checks
from seedling.media.quality_metrics import IMAGE, TEXT
from seedling.report.pages import environment, shown

WORST = 24  # rows of each kind on the page
BINS = 30
SMALLEST_SPAN = 1e-3  # of a number: below, a histogram would show nothing but rounding
SIDE = 160  # pixels of an image on the page
MEANING = {
    "dark": "hardly any light",
    "bright": "overexposed, or nearly white",
    "low_contrast": "almost one level of gray",
    "blurred": "no sharp edge",
    "low_information": "few different levels",
    "odd_size": "much smaller than the others",
    "odd_aspect": "much longer than wide, or wider than long",
    "rotated_by_exif": "stored turned; Seedling turns it back, other tools may not",
    "location_metadata": "the file says where it was taken; exported files do not",
    "outlier": "far from all other rows",
    "very_short": "much shorter than the others",
    "very_long": "much longer than the others",
    "few_letters": "mostly digits and signs",
    "mojibake": "decoded in the wrong encoding",
    "markup": "tags or entities left in",
    "personal_data": "a pattern of a mail address, telephone, bank account or card number",
    "other_language": "not in the collection's main language",
}
# As other tools write that there is no label.
NO_LABEL = frozenset({"nan", "none", "null", "na", "n/a", "<na>", "nil", "undefined", "unknown", "?", "-"})
ALIKE, FEWER, SHORTEST_NAME = 0.85, 5, 4  # of the names of two classes that may be meant to be one
LEAKS = {  # reason → kind
    "near_duplicate_of_test": "near-duplicates of test rows",
    "near_duplicate_of_validation": "near-duplicates of validation rows",
    "same_group_as_test": "rows of the same group as test rows",
    "same_group_as_validation": "rows of the same group as validation rows",
}
COPIES = ("exact_duplicate", "conflicting_labels", "near_duplicate_of_test", "near_duplicate_of_validation")


def write_data_page(workspace: Path) -> Path:
    """Writes the page and `label_issues.csv`, `duplicates.csv`, `quality.csv` beside it; gives the page's path."""
    generations, reports = workspace / "generations", workspace / "reports"
    manifest, collected = read_manifest(generations / "validate"), read_manifest(generations / "scrape")
    kept, rejected = read(generations / "validate"), read_rejected(generations / "validate")
    reports.mkdir(exist_ok=True)
    doubtful, copies, sick = label_issues(kept, rejected), duplicates(kept, rejected), quality_issues(kept)
    _write_csv(reports / "label_issues.csv", doubtful)
    _write_csv(reports / "duplicates.csv", copies)
    _write_csv(reports / "quality.csv", sick)
    page = (
        environment("data.html.jinja")
        .get_template("data.html.jinja")
        .render(
            name=workspace.resolve().name,
            rows=manifest["rows"],
            rows_in=collected["rows"]["in"],
            rejected={
                stage: rejections(of_stage) for stage, of_stage in (("scrape", collected), ("validate", manifest))
            },
            doubt=manifest["notes"].get("doubt", {}),
            worst=_with_content(generations, doubtful[doubtful["is_label_issue"].eq(True).astype(bool)].head(WORST)),
            quality=_cards(generations, sick, manifest["notes"].get("quality", {})),
            usual=manifest["notes"].get("usual_here", {}),
            fixed_camera=manifest["notes"].get("fixed_camera", 0),
            copies=_copies(generations, copies),
            leaks=leaks_by_kind(kept, rejected),
            plots=_histograms(kept),
            classes=_classes(manifest),
            empty=collected["notes"].get("empty_classes", []),
            files=collected["notes"].get("files", {}),
            not_copied=count_not_copied(workspace),
            checks=read_checks(workspace, "validate", generations / "validate"),
            meaning=MEANING,
        )
    )
    path = reports / "data.html"
    path.write_text(page, encoding="utf-8")
    return path


def rejections(manifest: Mapping[str, Any]) -> dict[str, int]:
    """Reason → rejected rows of a stage, the most frequent first."""
    return dict(sorted(manifest["reasons"].items(), key=lambda pair: (-pair[1], pair[0])))


def label_issues(kept: pd.DataFrame, rejected: pd.DataFrame) -> pd.DataFrame:
    """Each judged row, the most doubtful first: id, origin, original_label, suggested_label, p_label_error, rank, is_label_issue, and what was done."""
    both = pd.concat([kept, rejected.reindex(columns=[*kept.columns, "reason"])], ignore_index=True)
    judged = both[both["p_label_error"].notna()]
    given = judged["original_label"].where(judged["original_label"].notna(), judged["label"])
    done = np.select(
        [
            judged["reason"].eq("label_issue"),
            judged["label_source"].eq("repaired"),
            judged["original_label"].notna(),
        ],
        ["dropped", "relabeled", "weighted down"],
        default="",
    )
    told = judged.assign(original_label=given, done=done, p_label_error=judged["p_label_error"].round(4))
    told = told.sort_values(["p_label_error", "id"], ascending=[False, True], ignore_index=True)
    told["rank"] = np.arange(1, len(told) + 1)
    return told[
        ["id", "origin", "original_label", "suggested_label", "p_label_error", "rank", "is_label_issue", "done"]
    ]


def duplicates(kept: pd.DataFrame, rejected: pd.DataFrame) -> pd.DataFrame:
    """Rows that share their content or nearly so: id, origin, kind, group, split, label, kept."""
    if "near_group" in kept:  # a group of the sources' own is no copy
        kept, rejected = (one.assign(group=one["near_group"]) for one in (kept, rejected))
    known = kept.assign(reason=None)
    copies = rejected[rejected["reason"].isin(COPIES)]
    grouped = pd.concat([kept, rejected.reindex(columns=kept.columns)], ignore_index=True)
    of_id = grouped[grouped["group"].notna()].drop_duplicates("id").set_index("id")["group"]
    group = (
        copies["group"].fillna(copies["id"].map(of_id)).fillna(copies["id"])
    )  # a copy has the group of what it copies
    both = pd.concat([known, copies.assign(group=group).reindex(columns=known.columns)], ignore_index=True)
    several = both[both.groupby("group")["id"].transform("size") > 1] if len(both) else both
    kind = np.where(several.duplicated(["group", "id"], keep=False), "exact", "near")
    told = several.assign(kind=kind, kept=several["reason"].isna(), reason=several["reason"].fillna(""))
    told = told.sort_values(["group", "kept", "id", "origin"], ascending=[True, False, True, True], ignore_index=True)
    return told[["id", "origin", "kind", "group", "split", "label", "kept", "reason"]]


def leaks_by_kind(kept: pd.DataFrame, rejected: pd.DataFrame) -> dict[str, int]:
    """The rejected rows that would have brought a held-out row's content to another split, by kind, in words."""
    held_out = kept[kept["split"].isin(["test", "validation"])].drop_duplicates("id").set_index("id")["split"]
    exact = rejected[rejected["reason"] == "exact_duplicate"]
    copied = exact["id"].map(held_out)
    kinds = copied[copied.notna() & (copied != exact["split"])].map(lambda split: f"exact copies of {split} rows")
    others = rejected["reason"].map(LEAKS).dropna()
    return {str(kind): int(rows) for kind, rows in sorted(pd.concat([kinds, others]).value_counts().items())}


def quality_issues(kept: pd.DataFrame) -> pd.DataFrame:
    """A line a row and code: id, origin, code, split, label, and the value that gave the code where there is one."""
    sick = kept[[len(codes) > 0 for codes in kept["quality"]]]
    lines = sick.explode("quality").rename(columns={"quality": "code"})
    told = lines.sort_values(["code", "id"], ignore_index=True)
    return told[["id", "origin", "code", "split", "label"]]


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    told = frame.map(spreadsheet_cell)
    told.to_csv(path, index=False, encoding="utf-8", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)


def _with_content(generations: Path, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows with their images or texts as a page shows them."""
    content = dict(payloads([generations / "scrape"], set(rows["id"])))
    return [{**row, **shown(content[row["id"]], SIDE)} for row in rows.to_dict("records")]


def _cards(generations: Path, sick: pd.DataFrame, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """One card a code, the commonest first, with some of its rows."""
    return [
        {"code": code, "rows": rows, "examples": _with_content(generations, sick[sick["code"] == code].head(WORST))}
        for code, rows in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    ]


def _copies(generations: Path, copies: pd.DataFrame) -> dict[str, Any]:
    """How many there are of each kind, and the first groups with their rows."""
    leaks = copies[copies["reason"].str.startswith("near_duplicate_of")]  # shown first
    chosen = list(dict.fromkeys([*leaks["group"], *copies["group"]]))[: WORST // 3]
    groups = [_with_content(generations, copies[copies["group"] == group].head(4)) for group in chosen]
    return {
        "groups": int(copies["group"].nunique()),
        "rows": len(copies),
        "conflicts": int((copies["reason"] == "conflicting_labels").sum()),
        "shown": groups,
    }


def _classes(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each class's rows by split, from the manifest's counts."""
    splits = ("train", "validation", "test")
    found = {label: dict.fromkeys(splits, 0) for label in manifest["classes"]}
    for one in manifest["counts"]:
        if one["label"] in found and one["split"] in splits:
            found[one["label"]][one["split"]] += one["rows"]
    whole = {label: sum(of_split.values()) for label, of_split in found.items()}
    most = max(whole.values(), default=1)
    return [
        {"class": label, **of_split, "most": most, "like": misspelt(label, whole), "none": label.casefold() in NO_LABEL}
        for label, of_split in found.items()
    ]


def misspelt(label: str, rows: Mapping[str, int]) -> str | None:
    """The class that this one's name may be a typing error for: spelt nearly alike, but for more than digits, and with many times the rows; or the
    same number written otherwise. rows: of each class.
    """
    letters = re.sub(r"[\d\W_]", "", label)
    for other in sorted(rows, key=lambda one: (-rows[one], one)):
        if label != other and _same_number(label, other):
            return other
        larger = rows[other] >= FEWER * max(1, rows[label])
        differs = letters != re.sub(r"[\d\W_]", "", other) and min(len(label), len(other)) >= SHORTEST_NAME
        if larger and differs and difflib.SequenceMatcher(None, label, other).ratio() >= ALIKE:
            return other
    return None


def _same_number(label: str, other: str) -> bool:
    try:
        return float(label) == float(other)
    except ValueError:
        return False


def _histograms(kept: pd.DataFrame) -> list[dict[str, Any]]:
    """A histogram of each number that was measured, where it differs between rows, from its 1st to its 99th percentile."""
    plots = []
    for name in (*IMAGE, *TEXT, "nearest_labeled", "p_label_error"):
        if name in kept and pd.api.types.is_numeric_dtype(kept[name]) and kept[name].notna().any():
            values = kept[name].dropna().to_numpy(dtype=np.float64)
            low, high = np.quantile(values, [0.01, 0.99])
            if high - low > SMALLEST_SPAN:
                counts, edges = np.histogram(np.clip(values, low, high), bins=BINS, range=(low, high))
                plots.append({"name": name, "bars": _bars(counts), "low": _short(edges[0]), "high": _short(edges[-1])})
    return plots


def _bars(counts: Sequence[int] | np.ndarray) -> list[dict[str, float]]:
    """Rectangles of a 240 × 80 drawing."""
    most, wide = max(int(max(counts)), 1), 240 / len(counts)
    return [
        {"x": round(place * wide, 2), "y": round(80 - 80 * int(count) / most, 2), "wide": round(wide - 0.6, 2)}
        | {"high": round(80 * int(count) / most, 2), "rows": int(count)}
        for place, count in enumerate(_ints(counts))
    ]


def _ints(counts: Iterable[Any]) -> list[int]:
    return [int(one) for one in counts]


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.2g}"
