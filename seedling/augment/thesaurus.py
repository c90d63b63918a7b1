"""A user's thesaurus: a table of words and their synonyms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from seedling.errors import InputError

WORD, SYNONYMS = ("word", "lemma"), ("synonyms", "synonym")
MIN_WORD_LETTERS = 4  # most shorter words are function words, or have many senses
MAX_SYNONYMS_PER_WORD = 5


def read_thesaurus(path: Path) -> dict[str, list[str]]:
    """Return word in lower case → single-word synonyms, of the first sense if the table has a column `sense`.

    path: CSV, TSV, JSONL or Parquet with the columns word (or lemma) and synonyms: a list, or words separated by commas
    or semicolons. Raises InputError for another file, or if it has no usable word.
    """
    if not path.is_file():
        raise InputError(
            f"params.yaml: augment.thesaurus: {path} does not exist: put the file into data/, and give its path there."
        )
    try:
        table = _read_table(path)
    except (ValueError, OSError) as error:
        raise InputError(f"params.yaml: augment.thesaurus: {path} cannot be read: {error}") from error
    word_column, synonym_column = (
        next((name for name in names if name in table.columns), None) for names in (WORD, SYNONYMS)
    )
    if word_column is None or synonym_column is None:
        raise InputError(
            f"params.yaml: augment.thesaurus: {path} has the columns {', '.join(map(str, table.columns))}: it needs "
            "`word` and `synonyms`."
        )
    if "sense" in table.columns:
        table = table[table["sense"] == 1]
    thesaurus: dict[str, list[str]] = {}
    for word, cell in zip(table[word_column].astype(str).str.lower(), table[synonym_column], strict=True):
        if len(word) < MIN_WORD_LETTERS or not word.isalpha():
            continue
        synonyms = thesaurus.setdefault(word, [])
        new = [synonym for synonym in _listed(cell) if synonym.isalpha() and synonym not in {word, *synonyms}]
        synonyms += new[: MAX_SYNONYMS_PER_WORD - len(synonyms)]
    thesaurus = {word: synonyms for word, synonyms in thesaurus.items() if synonyms}
    if not thesaurus:
        raise InputError(
            f"params.yaml: augment.thesaurus: {path} has no word of {MIN_WORD_LETTERS} letters or more with a "
            "single-word synonym."
        )
    return thesaurus


def _read_table(path: Path) -> pd.DataFrame:
    match path.suffix.lower():
        case ".parquet":
            return pd.read_parquet(path)
        case ".jsonl":
            return pd.read_json(path, lines=True)
        case ".tsv":
            return pd.read_csv(path, sep="\t", keep_default_na=False)
        case ".csv":
            return pd.read_csv(path, keep_default_na=False)
    raise ValueError("it is none of .csv, .tsv, .jsonl, .parquet")


def _listed(cell: Any) -> list[str]:
    if isinstance(cell, str):
        cell = cell.replace(";", ",").split(",")
    return [str(word).strip() for word in cell] if cell is not None and not isinstance(cell, float) else []
