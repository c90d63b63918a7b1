"""The rows whose label is most likely wrong: as a list, as a table, and with links to the reviewer's page."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import pandas as pd

from seedling.dataset.schema import REVIEW_SOURCE
from seedling.media.personal_data import as_shown
from seedling.review.address import running_reviewer_url

MIN_LISTED = 10  # rows that are always listed, whatever the threshold of label issues
MAX_LISTED = 24
MIN_ID_DIGITS = 8  # fewer may soon be those of another row, too
MAX_TEXT_CHARACTERS = 1_000  # in the tables
REVIEW_REASON = "review:"  # start of the reasons for which reviewers reject rows
ROW_COLUMNS = (
    *("id", "origin", "label", "label_source", "text"),
    *("original_label", "suggested_label", "p_label_error", "is_label_issue"),
)


def label_issues(kept: pd.DataFrame, rejected: pd.DataFrame) -> pd.DataFrame:
    """The rows with a p_label_error, the highest first, without those that a person has confirmed or rejected.

    Columns: id, origin, original_label, suggested_label, p_label_error, rank, is_label_issue and done, the repair; then
    file, row and, for texts, text.
    """
    both = pd.concat([kept, rejected.reindex(columns=[*kept.columns, "reason"])], ignore_index=True)
    is_reviewed = both["label_source"].eq(REVIEW_SOURCE) | both["reason"].astype(str).str.startswith(REVIEW_REASON)
    rows = both[both["p_label_error"].notna() & ~is_reviewed]
    original_label = rows["original_label"].where(rows["original_label"].notna(), rows["label"])
    done = np.select(
        [
            rows["reason"].eq("label_issue"),
            rows["label_source"].eq("repaired"),
            rows["original_label"].notna(),
        ],
        ["dropped", "relabeled", "weighted down"],
        default="",
    )
    ranked = rows.assign(
        original_label=original_label, done=done, p_label_error=rows["p_label_error"].astype(float).round(4)
    )
    ranked = ranked.sort_values(["p_label_error", "id"], ascending=[False, True], ignore_index=True)
    ranked["rank"] = np.arange(1, len(ranked) + 1)
    columns = ["id", "origin", "original_label", "suggested_label", "p_label_error", "rank", "is_label_issue", "done"]
    return with_position(ranked, columns)


def suspicious_rows(issues: pd.DataFrame) -> pd.DataFrame:
    """The flagged rows, and others with the highest p_label_error until there are MIN_LISTED; at most MAX_LISTED.

    issues: from `label_issues`.
    """
    is_flagged = issues["is_label_issue"].eq(True).astype(bool)
    ordered = pd.concat([issues[is_flagged], issues[~is_flagged]])
    return ordered.head(min(MAX_LISTED, max(MIN_LISTED, int(is_flagged.sum()))))


def with_position(rows: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """These columns, then the file and the row in it, or the address, and a text's beginning.

    The origin of a row of a table is `file#row`, with the number of the row or its id in the table.
    """
    positions = [_position(origin) for origin in rows["origin"]]
    result = rows[columns].assign(file=[file for file, _ in positions], row=[row for _, row in positions])
    if "text" in rows:
        texts = rows["text"].fillna("").astype(str)
        result["text"] = [as_shown(text[:MAX_TEXT_CHARACTERS]) for text in texts]
    return result


def _position(origin: object) -> tuple[str, str]:
    """The file and the row in it, or the address and ""."""
    if not isinstance(origin, str):
        return "", ""
    file, separator, row = origin.rpartition("#")
    return (file, row) if separator and "://" not in origin else (origin, "")


def review_links(workspace: Path, row_ids: Iterable[str]) -> dict[str, str]:
    """The reviewer's page of each row, by its id; {} if no review server is running.

    The links have no token, because others may read the pages: a browser that was opened by `seedling review` has it.
    """
    url = running_reviewer_url(workspace)
    if url is None:
        return {}
    address = urlsplit(url)
    return {row_id: urlunsplit((address.scheme, address.netloc, f"/item/{row_id}", "", "")) for row_id in row_ids}


def short_ids(row_ids: Iterable[str], all_ids: Iterable[str]) -> dict[str, str]:
    """The first digits of each id that name it among all ids, at least MIN_ID_DIGITS."""
    ordered = sorted(set(all_ids))
    shortened = {}
    for row_id in row_ids:
        position = bisect_left(ordered, row_id)
        neighbors = [other for other in ordered[max(0, position - 1) : position + 2] if other != row_id]
        prefixes = (row_id[:digits] for digits in range(MIN_ID_DIGITS, len(row_id)))
        unique = (prefix for prefix in prefixes if not any(other.startswith(prefix) for other in neighbors))
        shortened[row_id] = next(unique, row_id)
    return shortened
