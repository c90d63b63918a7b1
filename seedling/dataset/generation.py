"""The record: how a dataset generation lies on disk. The only module that reads and writes one.

A folder holds `part-00000.parquet …` (kept rows), `rejected.parquet` (dropped rows, with a `reason`) and
`manifest.json`, written last: its presence means whole. No wall-clock time and no absolute path is in any of them.

An image's bytes lie once, in the generation that first held them (scrape, augment, synthesize). The stages that only
decide about rows (validate, pseudo_label) write every column but `image`; `payloads` joins the two by id.
Part boundaries follow the ids' hashes (content-defined chunking, Muthitacharoen et al. 2001) and the origins' folders,
so rows that come later change only the parts beside them and DVC stores only those.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seedling.errors import DamagedFile, IncompleteGeneration, MissingGeneration
from seedling.files.data_files import OF_DVC, real_path
from seedling.files.reading import read_json, reading, remedy

Modality = Literal["image", "text"]
FORMAT = 1
MANIFEST = "manifest.json"
SPLITS = ("train", "validation", "test", "pool", "out_of_scope")  # that a user may name; mixin is a source's role
REJECTED = "rejected.parquet"
PART_NAME = re.compile(r"part-\d{5,}\.parquet")
ROWS_PER_PART = 200  # on average; a part has a quarter to four times as many
BYTES_PER_PART = 64 * 2**20  # a part is also cut here, so that memory stays flat with large photographs

IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLUMNS: list[pa.Field] = [
    pa.field("id", pa.string()),
    pa.field("split", pa.string()),
    pa.field("fold", pa.int8()),
    pa.field("label", pa.string()),
    pa.field("label_probs", pa.list_(pa.float32())),
    pa.field("label_source", pa.string()),
    pa.field("weight", pa.float32()),
    pa.field("confidence", pa.float32()),
    pa.field("parent_ids", pa.list_(pa.string())),
    pa.field("recipe", pa.string()),
    pa.field("origin", pa.string()),
    pa.field("license", pa.string()),
    pa.field("attribution", pa.string()),
    pa.field("group", pa.string()),
]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the record; `payload` is the encoded image or the NFC text, `extra` the stage's own columns."""

    id: str
    split: str = "pool"
    fold: int | None = None
    label: str | None = None
    label_probs: Sequence[float] | None = None
    label_source: str | None = None
    weight: float = 1.0
    confidence: float = 1.0
    parent_ids: Sequence[str] = ()
    recipe: str | None = None
    origin: str | None = None
    license: str | None = None
    attribution: str | None = None
    group: str | None = None
    payload: bytes | str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def source_of(origin: str | None) -> str:
    """The site of an address, the table of a row, the first folder of a file."""
    place, row, _ = (origin or "").partition("#")
    if "://" in place:
        try:
            return urlsplit(place).hostname or ""
        except ValueError:  # an address that no site can have
            return ""
    return place if row else place.partition("/")[0]


def identify(content: bytes, parents: Sequence[str] = (), recipe: str | None = None) -> str:
    """A row's id, 32 hexadecimal digits: of its content (decoded pixels or NFC text) and of what made it."""
    return identities(content, parents, recipe)[1]


def identities(content: bytes, parents: Sequence[str] = (), recipe: str | None = None) -> tuple[str, str]:
    """The hash of a row's content alone, which copies share whatever made them, and its id; see `identify`."""
    digest = hashlib.blake2b(content, digest_size=16)
    alone = digest.copy()
    alone.update(b"\x1f")
    for part in (*parents, recipe or ""):
        digest.update(b"\x1f" + part.encode())
    return alone.hexdigest(), digest.hexdigest()


def recipe_json(operation: str, **parameters: Any) -> str:
    """The recipe column's canonical JSON: enough to make the row again from its parents."""
    return json.dumps({"operation": operation, **parameters}, sort_keys=True, separators=(",", ":"))


def schema(
    modality: Modality, *, images: bool = True, extra: Sequence[pa.Field] = (), reason: bool = False
) -> pa.Schema:
    """The Parquet schema, with the Hugging Face features in its metadata, so that `datasets` decodes the images."""
    fields = list(COLUMNS)
    if modality == "text":
        fields.append(pa.field("text", pa.string()))
    elif images:
        fields.append(pa.field("image", IMAGE_TYPE))
    fields += [*extra, *([pa.field("reason", pa.string())] if reason else [])]
    features = {one.name: _feature(one.type) for one in fields}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}, sort_keys=True).encode()}
    return pa.schema(fields, metadata=metadata)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE_TYPE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type)}
    return {"_type": "Value", "dtype": {"float": "float32", "double": "float64"}.get(str(kind), str(kind))}


class GenerationWriter:
    """Writes one generation, a part at a time; without `close` the folder has no manifest and counts for nothing."""

    def __init__(
        self,
        folder: Path,
        *,
        stage: str,
        modality: Modality,
        images: bool = True,
        extra: Sequence[pa.Field] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._stage, self._modality = folder, stage, modality
        self._schema = schema(modality, images=images, extra=extra)
        self._columns: list[Row] = []
        self._bytes = 0
        self._parts: list[dict[str, Any]] = []
        self._rejected: list[tuple[Row, str]] = []
        self._rejected_bytes = 0
        self._rejected_schema = schema(modality, images=images, extra=extra, reason=True)
        self._rejected_file = pq.ParquetWriter(folder / REJECTED, self._rejected_schema, compression="zstd")
        self.kept: Counter[tuple[str, str | None, str | None]] = Counter()
        self.reasons: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rejected_file.is_open:
            self._rejected_file.close()

    def keep(self, row: Row) -> None:
        """Adds a kept row."""
        many = ROWS_PER_PART
        if len(self._columns) >= many // 4 and _folder(row) != _folder(self._columns[-1]):
            self._flush()  # so that files that join one folder leave the next folder's parts alone
        self._columns.append(row)
        self._bytes += len(row.payload or "")
        self.kept[row.split, row.label, row.label_source] += 1
        boundary = len(self._columns) >= many // 4 and int(row.id[:12], 16) % many == 0
        if boundary or len(self._columns) >= 4 * many or self._bytes >= BYTES_PER_PART:
            self._flush()

    def reject(self, row: Row, reason: str) -> None:
        """Adds a dropped row with its reason, a short snake_case word."""
        self._rejected.append((row, reason))
        self._rejected_bytes += len(row.payload or "")
        self.reasons[reason] += 1
        if len(self._rejected) >= 4 * ROWS_PER_PART or self._rejected_bytes >= BYTES_PER_PART:
            self._flush_rejected()

    def close(self, *, rows_in: int, classes: Sequence[str] = (), **notes: Any) -> dict[str, Any]:
        """Writes what is left and then the manifest.

        rows_in: the rows that the stage was given or set out to make, counted apart from what it kept and rejected.
        Raises IncompleteGeneration where they do not add up.
        """
        if self._columns or not self._parts:
            self._flush()
        self._flush_rejected()
        self._rejected_file.close()
        kept, rejected = sum(self.kept.values()), sum(self.reasons.values())
        manifest = {
            "format": FORMAT,
            "stage": self._stage,
            "modality": self._modality,
            "classes": list(classes),
            "rows": {"in": rows_in, "kept": kept, "rejected": rejected},
            "reasons": dict(sorted(self.reasons.items())),
            "counts": [
                {"split": split, "label": label, "label_source": source, "rows": rows}
                for (split, label, source), rows in sorted(self.kept.items(), key=lambda one: str(one[0]))
            ],
            "parts": self._parts,
            "notes": notes,
        }
        check_counts(manifest)
        write_json(self._folder / MANIFEST, manifest)
        return manifest

    def _flush(self) -> None:
        name = f"part-{len(self._parts):05d}.parquet"
        table = _table(self._columns, self._schema)
        pq.write_table(table, self._folder / name, compression="zstd", row_group_size=4 * ROWS_PER_PART)
        self._parts.append({"file": name, "rows": len(self._columns)})
        self._columns, self._bytes = [], 0

    def _flush_rejected(self) -> None:
        if self._rejected:
            rows, reasons = [row for row, _ in self._rejected], [reason for _, reason in self._rejected]
            table = _table(rows, self._schema).append_column("reason", pa.array(reasons, pa.string()))
            self._rejected_file.write_table(table.cast(self._rejected_schema))
        self._rejected, self._rejected_bytes = [], 0


def _folder(row: Row) -> str:
    return (row.origin or "").rpartition("/")[0]


def _table(rows: Sequence[Row], wanted: pa.Schema) -> pa.Table:
    def cell(row: Row, name: str) -> Any:
        if name == "image":
            return None if row.payload is None else {"bytes": row.payload, "path": f"{row.id}.png"}
        if name == "text":
            return row.payload
        return row.extra[name] if name in row.extra else getattr(row, name)

    return pa.Table.from_pydict({one.name: [cell(row, one.name) for row in rows] for one in wanted}, schema=wanted)


def check_counts(manifest: Mapping[str, Any], files: Mapping[str, int] | None = None) -> None:
    """Raises IncompleteGeneration unless rows in = rows kept + rows rejected (and, with `files`, as the files have it)."""
    rows = manifest["rows"]
    if rows["in"] != rows["kept"] + rows["rejected"]:
        raise IncompleteGeneration(
            f"Stage '{manifest['stage']}' lost rows: {rows['in']} in, but {rows['kept']} kept + {rows['rejected']} rejected. "
            "This is an error in Seedling: please report it with the manifest."
        )
    if files is not None and (files["kept"], files["rejected"]) != (rows["kept"], rows["rejected"]):
        raise IncompleteGeneration(
            f"Stage '{manifest['stage']}': the manifest says {rows['kept']} kept and {rows['rejected']} rejected rows, "
            f"the files hold {files['kept']} and {files['rejected']}: run the stage again."
        )


def rows_on_disk(folder: Path) -> dict[str, int]:
    """The rows that the Parquet footers count: {"kept", "rejected"}."""
    kept = sum(_rows_in(part) for part in sorted(folder.glob("part-*.parquet")))
    return {"kept": kept, "rejected": _rows_in(folder / REJECTED)}


def _rows_in(file: Path) -> int:
    with reading(file):
        return int(pq.read_metadata(file).num_rows)


def write_json(path: Path, value: Any) -> None:
    """Canonical JSON: sorted keys, two spaces, a last newline; the same value gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")  # renamed into place: a kill or a full disk leaves no half of a file
    try:
        beside.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest. Raises MissingGeneration where the folder is absent or not whole."""
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingGeneration(folder.name if folder.parent.name == "generations" else folder, stage_of(folder))
    manifest: dict[str, Any] = read_json(path)
    if not isinstance(manifest, dict) or "rows" not in manifest:
        raise DamagedFile(path, "it is no manifest", remedy(path))
    for name in [*(str(part["file"]) for part in manifest.get("parts", [])), REJECTED]:
        _check_part(path, name)
    return manifest


def _check_part(manifest: Path, name: str) -> None:
    """Raises DamagedFile for a part that is not a file of the generation, but of another folder, or a link to one that is not in DVC's cache."""
    if name != REJECTED and PART_NAME.fullmatch(name) is None:
        raise DamagedFile(manifest, f"it names {name!r}, which is not a part of a generation", remedy(manifest))
    part = manifest.with_name(name)
    if part.is_symlink() and OF_DVC.search(real_path(part).as_posix()) is None:
        raise DamagedFile(part, f"it is a link to {real_path(part)}", remedy(part))


def digest(folder: Path) -> str:
    """A hash of the folder's files, names and bytes, 16 hexadecimal digits."""
    whole = hashlib.blake2b(digest_size=8)
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        whole.update(
            path.relative_to(folder).as_posix().encode() + b"\x1f" + hashlib.blake2b(path.read_bytes()).digest()
        )
    return whole.hexdigest()


def stage_of(folder: Path) -> str:
    """The stage that writes this folder: `generations/pseudo_label/1` → `pseudo_label@1`, `models/0` → `train@0`."""
    if folder.parent.name in {"pseudo_label", "models"}:
        return f"{folder.parent.name.replace('models', 'train')}@{folder.name}"
    return folder.name


def read(
    folder: Path,
    columns: Sequence[str] | None = None,
    *,
    splits: Collection[str] | None = None,
    ids: Collection[str] | None = None,
) -> pd.DataFrame:
    """The kept rows, one frame; all columns but the images unless told.

    splits, ids: rows of these alone; the others are dropped part by part, so that they never lie in memory together.
    """
    files = [part["file"] for part in read_manifest(folder)["parts"]]
    wanted = {name: pa.array(sorted(some)) for name, some in (("split", splits), ("id", ids)) if some is not None}
    return _read(folder, files, columns, wanted)


def columns_of(folder: Path) -> list[str]:
    """The kept rows' columns but the images."""
    first = folder / read_manifest(folder)["parts"][0]["file"]
    with reading(first):
        return [name for name in pq.read_schema(first).names if name != "image"]


def read_rejected(folder: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """The dropped rows with their reasons."""
    read_manifest(folder)
    return _read(folder, [REJECTED], columns, {})


def _read(
    folder: Path, files: Sequence[str], columns: Sequence[str] | None, wanted: Mapping[str, pa.Array]
) -> pd.DataFrame:
    with reading(folder / files[0]):
        names = pq.read_schema(folder / files[0]).names
    shown = [name for name in names if name != "image"] if columns is None else list(columns)
    tables = []
    for file in files:
        with reading(folder / file):
            table = pq.read_table(folder / file, columns=[*shown, *(name for name in wanted if name not in shown)])
        for name, some in wanted.items():
            table = table.filter(pc.is_in(table[name], some.cast(pa.string())))
        tables.append(table.select(shown))
    frame = pa.concat_tables(tables).to_pandas(ignore_metadata=True)
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.StringDtype):  # None for what is missing, as Row and the schema have it
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame


def ids_of(folder: Path, split: str) -> Iterator[str]:
    """The ids of the split's kept rows, in their order, a part in memory at a time."""
    for part in read_manifest(folder)["parts"]:
        with reading(folder / part["file"]):
            table = pq.read_table(folder / part["file"], columns=["id", "split"])
        yield from table.filter(pc.equal(table["split"], split))["id"].to_pylist()


def stream(folder: Path) -> Iterator[Row]:
    """The kept rows in their order, a row group in memory at a time."""
    for part in read_manifest(folder)["parts"]:
        with reading(folder / part["file"]):
            yield from _rows(pq.ParquetFile(folder / part["file"]))


def _rows(file: pq.ParquetFile) -> Iterator[Row]:
    known = set(Row.__slots__)
    for batch in file.iter_batches(batch_size=256):
        for values in batch.to_pylist():
            image, text = values.pop("image", None), values.pop("text", None)
            extra = {name: values.pop(name) for name in list(values) if name not in known}
            yield Row(**values, payload=image["bytes"] if image else text, extra=extra)


def rewritten(folder: Path, into: Path, change: Callable[[Row], Row]) -> None:
    """The generation with every kept row changed, none added or dropped; its own columns and notes stay, rejected rows are left behind."""
    manifest = read_manifest(folder)
    there = pq.read_schema(folder / manifest["parts"][0]["file"])
    own = [there.field(name) for name in there.names if name not in {*Row.__slots__, "image", "text"}]
    with GenerationWriter(
        into, stage=manifest["stage"], modality=manifest["modality"], images="image" in there.names, extra=own
    ) as writer:
        for row in stream(folder):
            writer.keep(change(row))
        writer.close(rows_in=sum(writer.kept.values()), classes=manifest["classes"], **manifest["notes"])


def payloads(folders: Iterable[Path], wanted: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
    """The images or texts of the wanted ids, each once, in the folders' order.

    Raises IncompleteGeneration where an id is in none of the folders.
    """
    missing = set(wanted)
    for folder in folders:
        column = "text" if read_manifest(folder)["modality"] == "text" else "image"
        for part in read_manifest(folder)["parts"]:
            if not missing:
                return
            with reading(folder / part["file"]):
                file = pq.ParquetFile(folder / part["file"])
                if column not in file.schema_arrow.names:
                    continue
                for batch in file.iter_batches(batch_size=256, columns=["id", column]):
                    for values in batch.to_pylist():
                        if values["id"] in missing:
                            missing.discard(values["id"])
                            yield values["id"], values[column]["bytes"] if column == "image" else values[column]
    if missing:
        shown = ", ".join(sorted(missing)[:3])
        raise IncompleteGeneration(
            f"{len(missing)} rows have no image or text, {shown} among them: run `seedling run` again."
        )
