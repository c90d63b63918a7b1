"""reports/data.html: label issues, duplicates and quality of the data, and the same as CSV files.

The page is derived from `generations/scrape` and `generations/validate`, and is rewritten after each run of validate.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from seedling.dataset.generation import payloads, read, read_manifest, read_rejected
from seedling.dataset.spreadsheet import spreadsheet_cell
from seedling.files.ignored_files import count_not_copied
from seedling.files.reading import row_dicts
from seedling.gates.checking import read_checks
from seedling.media.quality_metrics import IMAGE, TEXT
from seedling.records.manifest import Manifest, read_notes
from seedling.records.stage_notes import ScrapeNotes, ValidateNotes
from seedling.report.pages import environment, preview
from seedling.report.sentences import copies_sentence, label_issues_sentence
from seedling.report.suspicious_rows import label_issues, review_links, short_ids, suspicious_rows, with_position
from seedling.workspace import DUPLICATES, LABEL_ISSUES, QUALITY, Workspace

MAX_EXAMPLES = 24  # rows of each kind on the page
HISTOGRAM_BINS = 30
MIN_HISTOGRAM_RANGE = 1e-3  # a smaller range shows only rounding errors
SIDE_PIXELS = 160
MEANING = {
    "dark": "hardly any light",
    "bright": "overexposed, or nearly white",
    "low_contrast": "almost one level of gray",
    "blurred": "no sharp edge",
    "low_information": "few different levels",
    "odd_size": "much smaller than the others",
    "odd_aspect": "much longer than wide, or wider than long",
    "rotated_by_exif": "rotated by its EXIF data; Seedling applies the rotation, other tools may not",
    "location_metadata": "the file contains its location; exported files do not",
    "outlier": "far from all other rows",
    "very_short": "much shorter than the others",
    "very_long": "much longer than the others",
    "few_letters": "mostly digits and signs",
    "mojibake": "decoded in the wrong encoding",
    "markup": "contains HTML tags or entities",
    "personal_data": "looks like an e-mail address, or a telephone, bank account or card number",
    "other_language": "not in the main language of the data",
}
# How other tools write a missing label.
NO_LABEL = frozenset({"nan", "none", "null", "na", "n/a", "<na>", "nil", "undefined", "unknown", "?", "-"})
MIN_SIMILARITY, MIN_ROWS_RATIO, MIN_NAME_LENGTH = 0.85, 5, 4  # of two names that may mean the same class
LEAKS = {  # reason → kind
    "near_duplicate_of_test": "near-duplicates of test rows",
    "near_duplicate_of_validation": "near-duplicates of validation rows",
    "same_group_as_test": "rows of the same group as test rows",
    "same_group_as_validation": "rows of the same group as validation rows",
}
COPIES = ("exact_duplicate", "conflicting_labels", "near_duplicate_of_test", "near_duplicate_of_validation")


def write_data_page(workspace: Path) -> Path:
    """Writes the page, `label_issues.csv`, `duplicates.csv` and `quality.csv`; returns the path of the page."""
    generations, path = Workspace(workspace).generations, Workspace(workspace).data_page
    manifest, collected = read_manifest(generations / "validate"), read_manifest(generations / "scrape")
    notes = read_notes(generations / "validate", ValidateNotes)
    collected_notes = read_notes(generations / "scrape", ScrapeNotes)
    kept, rejected = read(generations / "validate"), read_rejected(generations / "validate")
    issues, copies, flagged = label_issues(kept, rejected), duplicates(kept, rejected), quality_issues(kept)
    path.parent.mkdir(exist_ok=True)
    for name, rows in ((LABEL_ISSUES, issues), (DUPLICATES, copies), (QUALITY, flagged)):
        _write_csv(path.with_name(name), rows)
    copies_summary, leaks = _copies(generations, copies), leaks_by_kind(kept, rejected)
    worst = suspicious_rows(issues)
    page = (
        environment("data.html.jinja")
        .get_template("data.html.jinja")
        .render(
            name=workspace.resolve().name,
            rows=manifest.rows,
            rows_in=collected.rows.rows_in,
            rejected={"scrape": rejections(collected), "validate": rejections(manifest)},
            label_noise=notes.label_issues,
            label_issues_sentence=label_issues_sentence(notes.label_issues),
            worst=_with_content(generations, worst),
            links=review_links(workspace, worst["id"]),
            short_ids=short_ids(worst["id"], [*kept["id"], *rejected["id"]]),
            quality=_quality_cards(generations, flagged, notes.quality),
            usual=notes.usual_quality_codes,
            fixed_camera=notes.fixed_camera,
            copies=copies_summary,
            copies_sentence=copies_sentence(copies_summary, leaks),
            leaks=leaks,
            plots=_histograms(kept),
            classes=_classes(manifest),
            empty=collected_notes.empty_classes,
            files=collected_notes.files,
            not_copied=count_not_copied(workspace),
            checks=read_checks(workspace, "validate", generations / "validate"),
            meaning=MEANING,
        )
    )
    path.write_text(page, encoding="utf-8")
    return path


def rejections(manifest: Manifest) -> dict[str, int]:
    """Number of rejected rows of a stage by reason, the most frequent first."""
    return dict(sorted(manifest.reasons.items(), key=lambda pair: (-pair[1], pair[0])))


def duplicates(kept: pd.DataFrame, rejected: pd.DataFrame) -> pd.DataFrame:
    """Exact duplicates and near-duplicates: id, origin, kind, group, split, label, kept, reason, file, row, text."""
    if "near_group" in kept:  # rows of one `group` of a source are not copies
        kept, rejected = (frame.assign(group=frame["near_group"]) for frame in (kept, rejected))
    kept_rows = kept.assign(reason=None)
    copies = rejected[rejected["reason"].isin(COPIES)]
    grouped = pd.concat([kept, rejected.reindex(columns=kept.columns)], ignore_index=True)
    group_of_id = grouped[grouped["group"].notna()].drop_duplicates("id").set_index("id")["group"]
    group = copies["group"].fillna(copies["id"].map(group_of_id)).fillna(copies["id"])  # that of the original
    both = pd.concat([kept_rows, copies.assign(group=group).reindex(columns=kept_rows.columns)], ignore_index=True)
    several = both[both.groupby("group")["id"].transform("size") > 1] if len(both) else both
    kind = np.where(several.duplicated(["group", "id"], keep=False), "exact", "near")
    rows = several.assign(kind=kind, kept=several["reason"].isna(), reason=several["reason"].fillna(""))
    rows = rows.sort_values(["group", "kept", "id", "origin"], ascending=[True, False, True, True], ignore_index=True)
    return with_position(rows, ["id", "origin", "kind", "group", "split", "label", "kept", "reason"])


def leaks_by_kind(kept: pd.DataFrame, rejected: pd.DataFrame) -> dict[str, int]:
    """Number of rejected rows that would have leaked a held-out row into another split, by kind."""
    held_out = kept[kept["split"].isin(["test", "validation"])].drop_duplicates("id").set_index("id")["split"]
    exact = rejected[rejected["reason"] == "exact_duplicate"]
    copied = exact["id"].map(held_out)
    kinds = copied[copied.notna() & (copied != exact["split"])].map(lambda split: f"exact copies of {split} rows")
    others = rejected["reason"].map(LEAKS).dropna()
    return {str(kind): int(rows) for kind, rows in sorted(pd.concat([kinds, others]).value_counts().items())}


def quality_issues(kept: pd.DataFrame) -> pd.DataFrame:
    """One row per quality flag: id, origin, code, split, label, file, row, text."""
    flagged = kept[[len(codes) > 0 for codes in kept["quality"]]]
    rows = flagged.explode("quality").rename(columns={"quality": "code"}).sort_values(["code", "id"], ignore_index=True)
    return with_position(rows, ["id", "origin", "code", "split", "label"])


def _write_csv(path: Path, frame: pd.DataFrame) -> None:
    cells = frame.map(spreadsheet_cell)
    cells.to_csv(path, index=False, encoding="utf-8", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)


def _with_content(generations: Path, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows with previews of their images or texts."""
    content = dict(payloads([generations / "scrape"], set(rows["id"])))
    return [{**row, **preview(content[row["id"]], SIDE_PIXELS)} for row in row_dicts(rows)]


def _quality_cards(generations: Path, flagged: pd.DataFrame, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """One card per quality flag with some of its rows, the most frequent flag first."""
    return [
        {
            "code": code,
            "rows": rows,
            "examples": _with_content(generations, flagged[flagged["code"] == code].head(MAX_EXAMPLES)),
        }
        for code, rows in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]


def _copies(generations: Path, copies: pd.DataFrame) -> dict[str, Any]:
    """Numbers of groups, rows and conflicting labels, and the first groups with their rows."""
    leaks = copies[copies["reason"].str.startswith("near_duplicate_of")]  # come first
    chosen = list(dict.fromkeys([*leaks["group"], *copies["group"]]))[: MAX_EXAMPLES // 3]
    groups = [_with_content(generations, copies[copies["group"] == group].head(4)) for group in chosen]
    return {
        "groups": int(copies["group"].nunique()),
        "rows": len(copies),
        "conflicts": int((copies["reason"] == "conflicting_labels").sum()),
        "shown": groups,
    }


def _classes(manifest: Manifest) -> list[dict[str, Any]]:
    """Rows by class and split, from the counts of the manifest."""
    splits = ("train", "validation", "test")
    rows_of = {label: dict.fromkeys(splits, 0) for label in manifest.classes}
    for count in manifest.counts:
        if count.label in rows_of and count.split in splits:
            rows_of[count.label][count.split] += count.rows
    totals = {label: sum(of_split.values()) for label, of_split in rows_of.items()}
    return [
        {
            "class": label,
            **of_split,
            "max_rows": max(totals.values(), default=1),
            "similar": intended_class(label, totals),
            "is_no_label": label.casefold() in NO_LABEL,
        }
        for label, of_split in rows_of.items()
    ]


def intended_class(label: str, rows: Mapping[str, int]) -> str | None:
    """The class that this label may be a misspelling of; None if there is none.

    It is spelled nearly alike, differs in more than digits and has many times the rows, or it is the same number
    written differently. rows: number of rows by class.
    """
    letters = re.sub(r"[\d\W_]", "", label)
    for other in sorted(rows, key=lambda name: (-rows[name], name)):
        if label != other and _same_number(label, other):
            return other
        larger = rows[other] >= MIN_ROWS_RATIO * max(1, rows[label])
        differs = letters != re.sub(r"[\d\W_]", "", other) and min(len(label), len(other)) >= MIN_NAME_LENGTH
        if larger and differs and difflib.SequenceMatcher(None, label, other).ratio() >= MIN_SIMILARITY:
            return other
    return None


def _same_number(label: str, other: str) -> bool:
    try:
        return float(label) == float(other)
    except ValueError:
        return False


def _histograms(kept: pd.DataFrame) -> list[dict[str, Any]]:
    """Histograms of the measured columns that vary between rows, from the 1st to the 99th percentile."""
    plots = []
    for name in (*IMAGE, *TEXT, "nearest_labeled", "p_label_error"):
        if name in kept and pd.api.types.is_numeric_dtype(kept[name]) and kept[name].notna().any():
            values = kept[name].dropna().to_numpy(dtype=np.float64)
            low, high = np.quantile(values, [0.01, 0.99])
            if high - low > MIN_HISTOGRAM_RANGE:
                counts, edges = np.histogram(np.clip(values, low, high), bins=HISTOGRAM_BINS, range=(low, high))
                plots.append({"name": name, "bars": _bars(counts), "low": _short(edges[0]), "high": _short(edges[-1])})
    return plots


def _bars(counts: Sequence[int] | np.ndarray) -> list[dict[str, float]]:
    """The bars as rectangles in an SVG drawing of 240 × 80."""
    max_count, width = max(int(max(counts)), 1), 240 / len(counts)
    return [
        {"x": round(index * width, 2), "y": round(80 - 80 * count / max_count, 2), "wide": round(width - 0.6, 2)}
        | {"high": round(80 * count / max_count, 2), "rows": count}
        for index, count in enumerate(int(count) for count in counts)
    ]


def _short(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.2g}"
