"""The record: the format of a dataset generation on disk. The only module that reads and writes generations.

A folder contains `part-00000.parquet …` (kept rows), `rejected.parquet` (rejected rows, with a `reason`) and
`manifest.json`. The manifest is written last, so a folder with a manifest is complete. The files contain neither times
nor absolute paths.

An image is stored once, in the generation that created it (scrape, augment, synthesize). The stages that only decide
about rows (validate, pseudo_label) write all columns except `image`; `payloads` joins the two by id. Part boundaries
follow the hashes in the ids (content-defined chunking, Muthitacharoen et al. 2001) and the folders of the origins. New
rows therefore change only the neighboring parts, and DVC stores only those.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from seedling.dataset.row_index import RowGroup, RowIndex
from seedling.errors import DamagedFile, IncompleteGeneration, MissingGeneration
from seedling.files.data_files import OF_DVC, real_path
from seedling.files.reading import read_json, reading, remedy
from seedling.workspace import GENERATIONS, MANIFEST, MODELS, PART_NAME, PARTS, REJECTED, part_file

if TYPE_CHECKING:
    import pandas as pd

Modality = Literal["image", "text"]
FORMAT = 1
SPLITS = ("train", "validation", "test", "pool", "out_of_scope")  # that users can set; mixin is the role of a source
ROWS_PER_PART = 200  # on average; a part has a quarter of it to four times as many
READ_BATCH_ROWS = 256
KEPT_INDEXES = 8  # that a process keeps; an index has about 50 bytes per row
MAX_PART_BYTES = 64 * 2**20  # bounds the memory for large photographs

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
    """One row of the record.

    payload: the encoded image or the NFC text; extra: the stage's own columns.
    """

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
    """The host of a URL, the table of a table row, or the first folder of a file path."""
    location, separator, _ = (origin or "").partition("#")
    if "://" in location:
        try:
            return urlsplit(location).hostname or ""
        except ValueError:  # an invalid URL
            return ""
    return location if separator else location.partition("/")[0]


def identify(content: bytes, parents: Sequence[str] = (), recipe: str | None = None) -> str:
    """A row's id, 32 hexadecimal digits: the hash of its content (decoded pixels or NFC text), parents and recipe."""
    return identities(content, parents, recipe)[1]


def identities(content: bytes, parents: Sequence[str] = (), recipe: str | None = None) -> tuple[str, str]:
    """The hash of the content alone, which copies share whatever their parents and recipe, and the id of `identify`."""
    digest = hashlib.blake2b(content, digest_size=16)
    content_digest = digest.copy()
    content_digest.update(b"\x1f")
    for part in (*parents, recipe or ""):
        digest.update(b"\x1f" + part.encode())
    return content_digest.hexdigest(), digest.hexdigest()


def recipe_json(operation: str, **parameters: Any) -> str:
    """The canonical JSON of the recipe column, which is enough to create the row again from its parents."""
    return json.dumps({"operation": operation, **parameters}, sort_keys=True, separators=(",", ":"))


def schema(
    modality: Modality, *, images: bool = True, extra: Sequence[pa.Field] = (), reason: bool = False
) -> pa.Schema:
    """The Parquet schema. Its metadata contains the Hugging Face features, so that `datasets` decodes the images."""
    fields = list(COLUMNS)
    if modality == "text":
        fields.append(pa.field("text", pa.string()))
    elif images:
        fields.append(pa.field("image", IMAGE_TYPE))
    fields += [*extra, *([pa.field("reason", pa.string())] if reason else [])]
    features = {column.name: _feature(column.type) for column in fields}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}, sort_keys=True).encode()}
    return pa.schema(fields, metadata=metadata)


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE_TYPE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type)}
    return {"_type": "Value", "dtype": {"float": "float32", "double": "float64"}.get(str(kind), str(kind))}


class GenerationWriter:
    """Write one generation, a part at a time. Without a call of `close` it has no manifest and is incomplete."""

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
        self._rows: list[Row] = []
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
        """Add a kept row."""
        min_rows = ROWS_PER_PART // 4
        if len(self._rows) >= min_rows and _folder(row) != _folder(self._rows[-1]):
            self._flush()  # new files in one folder do not change the parts of the next folder
        self._rows.append(row)
        self._bytes += len(row.payload or "")
        self.kept[row.split, row.label, row.label_source] += 1
        is_boundary = len(self._rows) >= min_rows and int(row.id[:12], 16) % ROWS_PER_PART == 0
        if is_boundary or len(self._rows) >= 4 * ROWS_PER_PART or self._bytes >= MAX_PART_BYTES:
            self._flush()

    def reject(self, row: Row, reason: str) -> None:
        """Add a rejected row with its reason code, in snake_case."""
        self._rejected.append((row, reason))
        self._rejected_bytes += len(row.payload or "")
        self.reasons[reason] += 1
        if len(self._rejected) >= 4 * ROWS_PER_PART or self._rejected_bytes >= MAX_PART_BYTES:
            self._flush_rejected()

    def close(self, *, rows_in: int, classes: Sequence[str] = (), **notes: Any) -> dict[str, Any]:
        """Write the remaining rows and then the manifest, which is returned.

        rows_in: the number of rows that the stage received or planned to create, counted independently of the kept and
        rejected rows; notes: stored in the manifest.

        Raises IncompleteGeneration if rows_in is not the number of kept and rejected rows.
        """
        if self._rows or not self._parts:
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
                for (split, label, source), rows in sorted(self.kept.items(), key=lambda item: str(item[0]))
            ],
            "parts": self._parts,
            "notes": notes,
        }
        check_counts(manifest)
        write_json(self._folder / MANIFEST, manifest)
        return manifest

    def _flush(self) -> None:
        name = part_file(len(self._parts))
        table = _table(self._rows, self._schema)
        pq.write_table(table, self._folder / name, compression="zstd", row_group_size=4 * ROWS_PER_PART)
        self._parts.append({"file": name, "rows": len(self._rows)})
        self._rows, self._bytes = [], 0

    def _flush_rejected(self) -> None:
        if self._rejected:
            rows, reasons = [row for row, _ in self._rejected], [reason for _, reason in self._rejected]
            table = _table(rows, self._schema).append_column("reason", pa.array(reasons, pa.string()))
            self._rejected_file.write_table(table.cast(self._rejected_schema))
        self._rejected, self._rejected_bytes = [], 0


def _folder(row: Row) -> str:
    return (row.origin or "").rpartition("/")[0]


def _table(rows: Sequence[Row], columns: pa.Schema) -> pa.Table:
    def cell(row: Row, name: str) -> Any:
        if name == "image":
            return None if row.payload is None else {"bytes": row.payload, "path": f"{row.id}.png"}
        if name == "text":
            return row.payload
        return row.extra[name] if name in row.extra else getattr(row, name)

    values = {column.name: [cell(row, column.name) for row in rows] for column in columns}
    return pa.Table.from_pydict(values, schema=columns)


def check_counts(manifest: Mapping[str, Any], files: Mapping[str, int] | None = None) -> None:
    """Check that rows in = rows kept + rows rejected, and that the files have as many rows as the manifest.

    files: {"kept", "rejected"}, from `rows_on_disk`; None: only the manifest is checked.

    Raises IncompleteGeneration if the numbers differ.
    """
    rows = manifest["rows"]
    if rows["in"] != rows["kept"] + rows["rejected"]:
        raise IncompleteGeneration(
            f"Stage '{manifest['stage']}' lost rows: {rows['in']} in, but {rows['kept']} kept + {rows['rejected']} "
            "rejected. This is an error in Seedling: please report it with the manifest."
        )
    if files is not None and (files["kept"], files["rejected"]) != (rows["kept"], rows["rejected"]):
        raise IncompleteGeneration(
            f"Stage '{manifest['stage']}': the manifest has {rows['kept']} kept and {rows['rejected']} rejected rows, "
            f"but the files hold {files['kept']} and {files['rejected']}: run the stage again."
        )


def rows_on_disk(folder: Path) -> dict[str, int]:
    """The numbers of rows in the Parquet footers: {"kept", "rejected"}."""
    kept = sum(_rows_in(part) for part in sorted(folder.glob(PARTS)))
    return {"kept": kept, "rejected": _rows_in(folder / REJECTED)}


def _rows_in(file: Path) -> int:
    with reading(file):
        return int(pq.read_metadata(file).num_rows)


def write_json(path: Path, value: Any) -> None:
    """Write canonical JSON: sorted keys, an indent of two spaces, and a final newline.

    Equal values give equal bytes. The file is renamed into place, so that a kill or a full disk leaves no partial file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    try:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest.

    Raises MissingGeneration if the folder is absent or incomplete, and DamagedFile if the manifest or a part is not
    valid.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingGeneration(folder.name if folder.parent.name == GENERATIONS else folder, stage_of(folder))
    manifest: dict[str, Any] = read_json(path)
    if not isinstance(manifest, dict) or "rows" not in manifest:
        raise DamagedFile(path, "it is not a manifest", remedy(path))
    for name in [*(str(part["file"]) for part in manifest.get("parts", [])), REJECTED]:
        _check_part(path, name)
    return manifest


def _check_part(manifest: Path, name: str) -> None:
    """Check that a part is a file of the generation, or a link into DVC's cache.

    Raises DamagedFile for a name in another folder or for another link.
    """
    if name != REJECTED and PART_NAME.fullmatch(name) is None:
        raise DamagedFile(manifest, f"it names {name!r}, which is not a part of a generation", remedy(manifest))
    part = manifest.with_name(name)
    if part.is_symlink() and OF_DVC.search(real_path(part).as_posix()) is None:
        raise DamagedFile(part, f"it is a link to {real_path(part)}", remedy(part))


def digest(folder: Path) -> str:
    """A hash of the names and contents of the folder's files, 16 hexadecimal digits."""
    folder_digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        folder_digest.update(
            path.relative_to(folder).as_posix().encode() + b"\x1f" + hashlib.blake2b(path.read_bytes()).digest()
        )
    return folder_digest.hexdigest()


def stage_of(folder: Path) -> str:
    """The stage that writes the folder: `generations/pseudo_label/1` → `pseudo_label@1`, `models/0` → `train@0`."""
    if folder.parent.name in {"pseudo_label", MODELS}:
        return f"{folder.parent.name.replace(MODELS, 'train')}@{folder.name}"
    return folder.name


def read(
    folder: Path,
    columns: Sequence[str] | None = None,
    *,
    splits: Collection[str] | None = None,
    ids: Collection[str] | None = None,
) -> pd.DataFrame:
    """Read the kept rows into one frame.

    columns: None for all columns except the images; splits, ids: only these rows are read. Other rows are dropped part
    by part, so that they are never in memory together, and parts without any of the ids are not read.
    """
    files = [part["file"] for part in read_manifest(folder)["parts"]]
    if ids is not None:
        groups = _row_index([folder / file for file in files]).find(ids)
        files = sorted({group.file.name for group in groups}) or files[:1]
    selected = {"split": splits, "id": ids}
    filters = {name: pa.array(sorted(values)) for name, values in selected.items() if values is not None}
    return _read(folder, files, columns, filters)


def columns_of(folder: Path) -> list[str]:
    """The names of the kept rows' columns, except the images."""
    first = folder / read_manifest(folder)["parts"][0]["file"]
    with reading(first):
        return [name for name in pq.read_schema(first).names if name != "image"]


def read_rejected(folder: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the rejected rows with their reasons."""
    read_manifest(folder)
    return _read(folder, [REJECTED], columns, {})


def _read(
    folder: Path, files: Sequence[str], columns: Sequence[str] | None, filters: Mapping[str, pa.Array]
) -> pd.DataFrame:
    """Read files of the generation. filters: column → the values of the rows to read."""
    import pandas as pd  # here: 0.3 s, which a spider's process does not need

    with reading(folder / files[0]):
        names = pq.read_schema(folder / files[0]).names
    selected = [name for name in names if name != "image"] if columns is None else list(columns)
    to_read = [*selected, *(name for name in filters if name not in selected)]
    tables = []
    for file in files:
        with reading(folder / file):
            table = pq.read_table(folder / file, columns=to_read)
        for name, values in filters.items():
            table = table.filter(pc.is_in(table[name], values.cast(pa.string())))
        tables.append(table.select(selected))
    frame = pa.concat_tables(tables).to_pandas(ignore_metadata=True)
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.StringDtype):  # None for missing values, as in Row and the schema
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame


def ids_of(folder: Path, split: str) -> Iterator[str]:
    """Yield the ids of the split's kept rows in order, with one part in memory at a time."""
    for part in read_manifest(folder)["parts"]:
        with reading(folder / part["file"]):
            table = pq.read_table(folder / part["file"], columns=["id", "split"])
        yield from table.filter(pc.equal(table["split"], split))["id"].to_pylist()


def stream(folder: Path) -> Iterator[Row]:
    """Yield the kept rows in order, with one row group in memory at a time."""
    for part in read_manifest(folder)["parts"]:
        with reading(folder / part["file"]):
            yield from _rows(pq.ParquetFile(folder / part["file"]))


def _rows(file: pq.ParquetFile) -> Iterator[Row]:
    row_fields = set(Row.__slots__)
    for batch in file.iter_batches(batch_size=READ_BATCH_ROWS):
        for values in batch.to_pylist():
            image, text = values.pop("image", None), values.pop("text", None)
            extra = {name: values.pop(name) for name in list(values) if name not in row_fields}
            yield Row(**values, payload=image["bytes"] if image else text, extra=extra)


def rewrite(folder: Path, into: Path, change: Callable[[Row], Row]) -> None:
    """Write the generation into another folder with every kept row changed.

    The stage's own columns and the notes are kept. Rejected rows are left out.
    """
    manifest = read_manifest(folder)
    columns = pq.read_schema(folder / manifest["parts"][0]["file"])
    extra = [columns.field(name) for name in columns.names if name not in {*Row.__slots__, "image", "text"}]
    with GenerationWriter(
        into, stage=manifest["stage"], modality=manifest["modality"], images="image" in columns.names, extra=extra
    ) as writer:
        for row in stream(folder):
            writer.keep(change(row))
        writer.close(rows_in=sum(writer.kept.values()), classes=manifest["classes"], **manifest["notes"])


def payloads(folders: Iterable[Path], ids: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
    """Yield the id and the image or text of these rows, each once, in the order of the folders.

    Raises IncompleteGeneration if an id is in none of the folders.
    """
    for group, column in _locate(folders, ids):
        yield from zip(group.ids, _payloads(group, column), strict=True)


def rejected_payloads(folder: Path, ids: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
    """Yield the id and the image or text of these rejected rows, each once; ids without a rejected row are left out."""
    column = "text" if read_manifest(folder)["modality"] == "text" else "image"
    for group in _row_index([folder / REJECTED]).find(ids):
        yield from zip(group.ids, _payloads(group, column), strict=True)


def _locate(folders: Iterable[Path], ids: Iterable[str]) -> Iterator[tuple[RowGroup, str]]:
    """Yield the row groups that hold the images or texts of these rows, each with the column to read."""
    missing = set(ids)
    for folder in folders:
        if not missing:
            return
        manifest = read_manifest(folder)
        column = "text" if manifest["modality"] == "text" else "image"
        parts = [folder / part["file"] for part in manifest["parts"]]
        if not _has_column(parts[0], column):
            continue
        for group in _row_index(parts).find(missing):
            missing.difference_update(group.ids)
            yield group, column
    if missing:
        examples = ", ".join(sorted(missing)[:3])
        raise IncompleteGeneration(
            f"{len(missing)} rows have no image or text, for example {examples}: run `seedling run` again."
        )


@dataclass(frozen=True)
class PayloadReader:
    """Reads the images or texts of these generations by id, as `payloads` does."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, *folders: Path) -> PayloadReader:
        """Read from these folders."""
        return cls(folders)

    def __call__(self, ids: Iterable[str]) -> Iterator[tuple[str, bytes | str]]:
        """Yield the id and the image or text of these rows, each once. Raises what `payloads` raises."""
        return payloads(self.folders, ids)

    def order(self, ids: Iterable[str]) -> list[str]:
        """Return the ids, each once, in the order in which they are read. Raises what `payloads` raises."""
        return [row_id for group, _ in _locate(self.folders, ids) for row_id in group.ids]


def _payloads(group: RowGroup, column: str) -> Iterator[bytes | str]:
    """Yield the images or texts of the group's rows. The row group is read up to the last of them."""
    first, last = 0, group.rows[-1]
    with reading(group.file), pq.ParquetFile(group.file) as file:
        batches = file.iter_batches(READ_BATCH_ROWS, row_groups=[group.number], columns=[column])
        while first <= last:
            batch = next(batches)
            in_batch = group.rows[(group.rows >= first) & (group.rows < first + len(batch))] - first
            first += len(batch)
            for payload in batch[column].take(pa.array(in_batch)).to_pylist():
                yield payload["bytes"] if column == "image" else payload


def _has_column(part: Path, column: str) -> bool:
    with reading(part):
        return column in pq.read_schema(part).names


def _row_index(parts: Sequence[Path]) -> RowIndex:
    """The index of these parts, read from the column of ids alone, and kept until a part changes."""
    return _read_index(tuple(parts), tuple(_version(part) for part in parts))


def _version(part: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced or written again."""
    with reading(part):
        stat = part.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


@lru_cache(maxsize=KEPT_INDEXES)
def _read_index(parts: tuple[Path, ...], versions: tuple[tuple[int, int, int], ...]) -> RowIndex:
    ids_of_groups: dict[tuple[Path, int], list[str]] = {}
    for part in parts:
        with reading(part), pq.ParquetFile(part) as file:
            for number in range(file.num_row_groups):
                ids_of_groups[part, number] = file.read_row_group(number, columns=["id"])["id"].to_pylist()
    return RowIndex.of(ids_of_groups)
