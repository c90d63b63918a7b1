"""`seedling export`: the dataset as folders of pictures, as tables, or as a dataset of the Hugging Face Hub, with its card."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from ruamel.yaml import YAML

from tasks.errors import InputError
from tasks.evaluate import read_verdicts
from tasks.generation import MANIFEST, payloads, read, read_manifest
from tasks.params import load
from tasks.progress import Progress, counted, terminal

COLUMNS = [
    "id",
    "split",
    "label",
    "label_source",
    "weight",
    "confidence",
    "parents",
    "origin",
    "licence",
    "attribution",
]
SPLITS = ("train", "validation", "test", "pool", "out_of_scope")
MADE = ("augment", "synthesize", "pseudo_label")
ROWS_A_FILE = 2_000
UNLABELLED = "_unlabelled"  # no class's folder begins so
SUFFIX_OF = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp", b"BM": "bmp", b"GIF8": "gif"}


class Form(StrEnum):
    """Of a dataset."""

    folders = "folders"
    table = "table"
    huggingface = "huggingface"


@dataclass(frozen=True)
class Dataset:
    """Rows with where their pictures or texts lie."""

    rows: pd.DataFrame
    sources: tuple[Path, ...]
    modality: str
    classes: list[str]

    @classmethod
    def of(cls, workspace: Path, splits: Sequence[str], made: Sequence[str]) -> Dataset:
        """The rows of these splits, as validate has them, and what the stages of `made` added. Raises InputError for a name that is none."""
        for given, known in ((splits, SPLITS), (made, MADE)):
            for one in given:
                if one not in known:
                    raise InputError(f"'{one}' is none of {', '.join(known)}.")
        root = workspace / "generations"
        manifest = read_manifest(root / "validate")
        frames = [read(root / "validate", COLUMNS, splits=list(splits)).assign(stage="validate")]
        sources = [root / "scrape"]
        labelled = {*frames[0].loc[frames[0]["label"].notna(), "id"]}
        for stage in made:
            folder = root / stage
            if stage == "pseudo_label":  # what the accepted model learnt from
                folder /= str(read_verdicts(workspace / "models")[-1]["accepted_round"])
            if (folder / MANIFEST).is_file():
                found = read(folder, COLUMNS).assign(stage=stage)
                frames.append(found[~found["id"].isin(labelled)])
                sources += [] if stage == "pseudo_label" else [folder]
        rows = pd.concat([one.astype(object) for one in frames], ignore_index=True)
        rows = rows.drop_duplicates("id", keep="last").reset_index(
            drop=True
        )  # a pool row that was labelled counts with its label
        if rows.empty:
            raise InputError(f"There is no row of {', '.join(splits)}: `seedling status` shows what there is.")
        return cls(rows, tuple(sources), manifest["modality"], manifest["classes"])

    def content(self, rows: pd.DataFrame) -> Iterator[tuple[str, bytes | str]]:
        """(id, encoded picture or text) of these rows, in any order."""
        yield from payloads(self.sources, rows["id"])


def export(
    workspace: Path, folder: Path, *, form: Form | None, splits: Sequence[str], made: Sequence[str], licence: str
) -> None:
    """Writes the dataset to `folder`, which is made. Raises InputError where something is in it, or where the form does not suit the rows."""
    params = load(workspace)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty: name another folder, or empty it.")
    chosen = form or (Form.folders if params.modality == "image" else Form.table)
    dataset = Dataset.of(workspace, splits, made)
    if chosen is Form.folders and dataset.modality == "text":
        raise InputError("Texts are not exported as folders: use --as table or --as huggingface.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with terminal("export") as progress:
            WRITERS[chosen](dataset, partial, progress)
        (partial / "README.md").write_text(card(dataset, workspace.name, licence, chosen), encoding="utf-8")
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    counts = ", ".join(f"{count:,} {name}" for name, count in Counter(dataset.rows["split"]).items())
    Console().print(f"{folder}: {len(dataset.rows):,} rows ({counts}), {chosen}.", highlight=False, soft_wrap=True)
    for stage in made:
        if not (dataset.rows["stage"] == stage).any():
            Console().print(f"No row of {stage} is among them: the accepted model learnt from none, or none was made.")


def _as_folders(dataset: Dataset, folder: Path, progress: Progress) -> None:
    """split/class/id.png, as torchvision's ImageFolder and the Hub's imagefolder read them, and metadata.csv."""
    known = dataset.rows.set_index("id")
    names = plain_names(dataset.classes)
    places = {}
    for one, content in counted(dataset.content(dataset.rows), progress, "pictures", len(known)):
        row, encoded = known.loc[one], bytes(content)  # type: ignore[arg-type]
        label = UNLABELLED if row["label"] is None else names[row["label"]]
        path = folder / row["split"] / label / f"{one}.{suffix_of(encoded)}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
        places[one] = path.relative_to(folder).as_posix()
    _write_csv(folder / "metadata.csv", [{"file_name": places[row["id"]], **row} for row in _plain(dataset.rows)])


def _as_table(dataset: Dataset, folder: Path, progress: Progress) -> None:
    """A CSV a split; pictures lie beside it, in pictures/."""
    content = dict(counted(dataset.content(dataset.rows), progress, "rows", len(dataset.rows)))
    for split, rows in dataset.rows.groupby("split", sort=False):
        lines = []
        for row in _plain(rows):
            payload = content[row["id"]]
            if isinstance(payload, bytes):
                path = folder / "pictures" / f"{row['id']}.{suffix_of(payload)}"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(payload)
                lines.append({"image": path.relative_to(folder).as_posix(), **row})
            else:
                lines.append({"text": payload, **row})
        _write_csv(folder / f"{split}.csv", lines)


def _as_huggingface(dataset: Dataset, folder: Path, progress: Progress) -> None:
    """data/<split>-00000.parquet with the Hub's features: `datasets.load_dataset(folder)` reads it."""
    image = dataset.modality == "image"
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())]) if image else pa.string()
    content_of = "image" if image else "text"
    texts = ["id", "label_source", "origin", "licence", "attribution", "stage"]
    schema = pa.schema(
        [
            (content_of, kind),
            ("label", pa.int64()),
            *((name, pa.string()) for name in texts),
            ("weight", pa.float32()),
            ("confidence", pa.float32()),
        ]
    )
    features: dict[str, Any] = {name: {"dtype": "string", "_type": "Value"} for name in texts}
    features |= {name: {"dtype": "float32", "_type": "Value"} for name in ("weight", "confidence")}
    features |= {"label": {"names": dataset.classes, "_type": "ClassLabel"}}
    features |= {content_of: {"_type": "Image"} if image else {"dtype": "string", "_type": "Value"}}
    ordered = {name: features[name] for name in schema.names}
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": ordered}})})
    number = {name: place for place, name in enumerate(dataset.classes)}
    (folder / "data").mkdir()
    done = 0
    for split, rows in dataset.rows.groupby("split", sort=False):
        for part, first in enumerate(range(0, len(rows), ROWS_A_FILE)):
            mine = rows.iloc[first : first + ROWS_A_FILE]
            content = dict(dataset.content(mine))
            lines = []
            for row in _plain(mine):
                payload = content[row["id"]]
                held = (
                    {"bytes": payload, "path": f"{row['id']}.{suffix_of(payload)}"}
                    if isinstance(payload, bytes)
                    else payload
                )
                label = None if row["label"] is None else number[row["label"]]
                lines.append({**row, "label": label, content_of: held})
            pq.write_table(
                pa.Table.from_pylist(lines, schema=schema),
                folder / "data" / f"{split}-{part:05d}.parquet",
                compression="zstd",
            )
            done += len(mine)
            progress("rows", done, len(dataset.rows))


WRITERS = {Form.folders: _as_folders, Form.table: _as_table, Form.huggingface: _as_huggingface}


def _plain(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in rows.drop(columns=["split", "parents"]).to_dict("records"):
        yield {str(name): None if value is None or value != value else value for name, value in row.items()}


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def plain_names(classes: Sequence[str]) -> dict[str, str]:
    """A folder's name for each class: letters, digits, dots, dashes; no two alike, none that leads elsewhere."""
    found: dict[str, str] = {}
    for name in classes:
        plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name)).strip("._") or "class"
        taken = {one.casefold() for one in found.values()}
        number, free = 2, plain
        while free.casefold() in taken:
            number, free = number + 1, f"{plain}_{number}"
        found[name] = free
    return found


def suffix_of(encoded: bytes) -> str:
    """By content."""
    return next((suffix for start, suffix in SUFFIX_OF.items() if encoded.startswith(start)), "png")


def card(dataset: Dataset, name: str, licence: str, form: Form) -> str:
    """README.md: the dataset card of the Hub, with what is known of the rows."""
    rows = dataset.rows
    task = "image-classification" if dataset.modality == "image" else "text-classification"
    header: dict[str, Any] = {
        "license": licence,
        "task_categories": [task],
        "pretty_name": name,
        "tags": ["seedling"],
    }
    if form is Form.huggingface:
        splits = list(dict.fromkeys(rows["split"]))
        files = [{"split": one, "path": f"data/{one}-*.parquet"} for one in splits]
        header["configs"] = [{"config_name": "default", "data_files": files}]
    lines = ["---", *_yaml(header), "---", "", f"# {name}", ""]
    lines += [
        f"{len(rows):,} {'pictures' if dataset.modality == 'image' else 'texts'} of {len(dataset.classes)} classes, grown with Seedling.",
        "",
    ]
    lines += [
        "| split | rows | labelled by people | by rules or models | made from others | unlabelled |",
        "|---|---|---|---|---|---|",
    ]
    for split, mine in rows.groupby("split", sort=False):
        made = mine["stage"].isin(["augment", "synthesize"])
        human = (mine["label_source"] == "human") & ~made
        none = mine["label"].isna() & ~made
        counts = [len(mine), human.sum(), (~human & ~none & ~made).sum(), made.sum(), none.sum()]
        lines.append(f"| {split} | " + " | ".join(f"{int(one):,}" for one in counts) + " |")
    lines += [
        "",
        "| class | " + " | ".join(dict.fromkeys(rows["split"])) + " |",
        "|---|" + "---|" * rows["split"].nunique(),
    ]
    for one in dataset.classes:
        counts = [
            int(((rows["label"] == one) & (rows["split"] == split)).sum()) for split in dict.fromkeys(rows["split"])
        ]
        lines.append(f"| {one.replace('|', '/')} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    known = Counter(rows["licence"].fillna("not stated"))
    lines += [
        "",
        "## Licences",
        "",
        *(f"- {what}: {count:,} rows" for what, count in sorted(known.items(), key=lambda pair: (-pair[1], pair[0]))),
    ]
    lines += [
        "",
        "Where a page stated a licence or an author, `licence` and `attribution` of each row say so; `origin` says where it comes from.",
        "",
    ]
    return "\n".join(lines)


def _yaml(header: dict[str, Any]) -> list[str]:
    out = io.StringIO()
    YAML().dump(header, out)
    return out.getvalue().rstrip().splitlines()
