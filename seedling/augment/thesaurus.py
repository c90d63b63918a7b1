"""A user's thesaurus: a table of words and of what may stand for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from seedling.errors import InputError

WORD, SYNONYMS = ("word", "lemma"), ("synonyms", "synonym")
SHORTEST = 4  # letters: shorter words are mostly those that hold a sentence together, and have many senses
MOST = 5  # words that may stand for one


def read_thesaurus(path: Path) -> dict[str, list[str]]:
    """A word in lower case → single words that may stand for it, the first sense's where the table has a column `sense`.

    path: CSV, TSV, JSONL or Parquet with the columns word (or lemma) and synonyms: a list, or words between commas or semicolons. Raises InputError for
    another file, or one in which there is nothing.
    """
    if not path.is_file():
        raise InputError(
            f"params.yaml: augment.thesaurus: {path} does not exist: put the file into data/, and name it from there."
        )
    try:
        table = _table(path)
    except (ValueError, OSError) as error:
        raise InputError(f"params.yaml: augment.thesaurus: {path} cannot be read: {error}") from error
    word, synonyms = (next((one for one in names if one in table.columns), None) for names in (WORD, SYNONYMS))
    if word is None or synonyms is None:
        raise InputError(
            f"params.yaml: augment.thesaurus: {path} has the columns {', '.join(map(str, table.columns))}: it needs `word` and `synonyms`."
        )
    if "sense" in table.columns:
        table = table[table["sense"] == 1]
    found: dict[str, list[str]] = {}
    for key, others in zip(table[word].astype(str).str.lower(), table[synonyms], strict=True):
        if len(key) < SHORTEST or not key.isalpha():
            continue
        known = found.setdefault(key, [])
        known += [one for one in _listed(others) if one.isalpha() and one != key and one not in known][
            : MOST - len(known)
        ]
    found = {key: known for key, known in found.items() if known}
    if not found:
        raise InputError(
            f"params.yaml: augment.thesaurus: {path} has no word of {SHORTEST} letters or more with a synonym of one word."
        )
    return found


def _table(path: Path) -> pd.DataFrame:
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


def _listed(given: Any) -> list[str]:
    if isinstance(given, str):
        given = given.replace(";", ",").split(",")
    return [str(one).strip() for one in given] if given is not None and not isinstance(given, float) else []
