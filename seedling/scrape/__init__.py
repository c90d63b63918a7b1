"""scrape: collects folders, tables and websites into one generation, with weak labels and provenance.

python -m seedling.runner scrape
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from seedling.config.params import NOTHING, ScrapeParams, WorkspaceConfig
from seedling.config.sources import (
    ApiSource,
    CrawlSource,
    FolderSource,
    HuggingFaceSource,
    LabelRule,
    Role,
    SequenceSource,
    Source,
    TableSource,
)
from seedling.dataset.generation import GenerationWriter, Row, identify
from seedling.errors import InputError
from seedling.features.image_cache import ImageCache, ImageRecord
from seedling.files.data_files import NotRead, inside, real_path
from seedling.files.ignored_files import count_files, write_ignored
from seedling.media import images, texts
from seedling.media.image_modes import Color, color_of
from seedling.parallel.pool import in_pieces
from seedling.progress import Progress, counted, silent
from seedling.records.stage_notes import FilesRecord, RuleRecord, ScrapeNotes
from seedling.scrape.folder import LabelsByFile, empty_classes, read_folder
from seedling.scrape.hub import read_hub
from seedling.scrape.image_tables import labels_by_file
from seedling.scrape.items import Item, has_lone_surrogate, storable
from seedling.scrape.label_rules import Audit, Rules
from seedling.scrape.label_values import SURROGATE
from seedling.scrape.table import read_table
from seedling.scrape.web import collect, items_of, name_of
from seedling.stats.voting import DawidSkene, Majority, Votes
from seedling.workspace import AUGMENTING_FILE, IGNORED, LABELING_FILE

VOTES = pa.field("votes", pa.list_(pa.string()))  # added if there is more than one rule
ITEMS_PER_BLOCK = 256  # items that are in memory together
MEGABYTES_PER_BLOCK = 8  # of items that are sent to one worker together


def scrape(
    params: ScrapeParams,
    config: WorkspaceConfig,
    *,
    data: Path,
    output: Path,
    crawl_stores: Path | None = None,
    image_cache: ImageCache | None = None,
    progress: Progress = silent,
) -> None:
    """Write `generations/scrape`: each item of each source, unchanged or rejected with a reason, with its label.

    The label comes from the source or from label rules.

    crawl_stores: the folder with one file per web source, which is kept between runs; None: nothing is kept.
    image_cache: stores what later stages need of the decoded images; None: nothing is kept.
    Raises InputError for a source that is missing, unreadable or empty; SourceUnreachable for a site that returned
    nothing because of a temporary failure.
    """
    if not data.is_dir():
        raise InputError(
            f"{data} does not exist: restore it with `dvc pull` if it is stored, or create it with `seedling init`."
        )
    _check_names(params.sources)
    tables = cache(partial(labels_by_file, params.sources, data, config.modality))
    collection = Collection(params, config, data, crawl_stores, tables, progress)
    with ExitStack() as stack:
        sources = [collection.open(source, stack) for source in params.sources]
        _write(collection, sources, output, image_cache)


def _check_names(sources: Sequence[Source]) -> None:
    names = Counter(
        name_of(source) for source in sources if isinstance(source, CrawlSource | SequenceSource | ApiSource)
    )
    if duplicates := [name for name, count in names.items() if count > 1]:
        raise InputError(f"params.yaml: two sources have the name '{duplicates[0]}': give each its own `name`.")


@dataclass(slots=True)
class RowTally:
    """Counts rows while they are written, for the manifest.

    labels: of the kept rows; votes_of: id and origin of a row → its id and its rules' votes; human: row id → human
    label.
    """

    row_count: int = 0
    labels: set[str | None] = field(default_factory=set)
    votes_of: dict[str, tuple[str, Votes]] = field(default_factory=dict)
    human: dict[str, str] = field(default_factory=dict)

    def add(self, row: Row, votes: Votes) -> None:
        """Count a row, whether it is kept or rejected."""
        self.row_count += 1
        if row.label_source == "human" and row.label:
            self.human[row.id] = row.label
        if votes:
            self.votes_of[f"{row.id} {row.origin}"] = (row.id, votes)

    def rule_statistics(self) -> tuple[RuleRecord, ...]:
        """Return statistics of the label rules for the manifest."""
        if not self.votes_of:
            return ()
        audit = Audit(self.row_count)
        for row_id, votes in self.votes_of.values():
            audit.add(votes, self.human.get(row_id))
        return audit.table()


def _write(collection: Collection, sources: Sequence[OpenSource], output: Path, image_cache: ImageCache | None) -> None:
    params, config = collection.params, collection.config
    has_several_rules = len({name for source in sources for name in source.rules.names()}) > 1
    extra = [VOTES] if has_several_rules else []
    combine = _combine(params, sources, config)
    files_read: set[str] = set()
    with GenerationWriter(output, stage="scrape", modality=config.modality, extra=extra) as writer:
        items = _noting_files(_labeled(sources, combine, config), files_read)
        counted_items = counted(items, collection.progress, "read")
        rows = _rows(counted_items, config, color_of(params.transparent_background), image_cache)
        tally = _write_rows(writer, rows, has_votes_column=has_several_rules)
        if not tally.row_count:
            raise InputError(
                "No items found: describe a source under scrape.sources in params.yaml (docs/collecting.md), "
                "or put rows into data/labeled/<class>/."
            )
        files = count_files(collection.data, params.sources, frozenset(files_read))
        write_ignored(output / IGNORED, files.ignored)
        notes = ScrapeNotes(
            sources=tuple(source.kind for source in params.sources),
            rules=tally.rule_statistics(),
            no_items={source.name: dict(source.counts) for source in sources if source.counts},
            empty_classes=tuple(sorted({label for source in sources for label in source.empty} - tally.labels)),
            files=FilesRecord(files_in=files.total, read=files.read, ignored=files.reasons()),
        )
        writer.close(rows_in=tally.row_count, notes=notes)


def _write_rows(
    writer: GenerationWriter, rows: Iterable[tuple[Row, Votes, str | None]], *, has_votes_column: bool
) -> RowTally:
    """Keep or reject each row (row, votes, reason to reject it)."""
    tally = RowTally()
    labels_of: dict[tuple[str, str | None], set[str | None]] = {}  # id and origin → labels that are already kept
    for row, votes, reason in rows:
        tally.add(row, votes)
        if has_votes_column:
            row = replace(row, extra={"votes": [f"{rule}={label}" for rule, label in votes] or None})
        labels = labels_of.setdefault((row.id, row.origin), set())
        if reason or row.label in labels:
            writer.reject(row, reason or "exact_duplicate")
            continue
        # The same content with the same origin and another tag: validate needs both, under different origins.
        writer.keep(replace(row, origin=f"{row.origin}#{row.label}") if labels else row)
        labels.add(row.label)
        tally.labels.add(row.label)
    return tally


def _noting_files(items: Iterable[tuple[Item, Votes]], files_read: set[str]) -> Iterator[tuple[Item, Votes]]:
    """Yield the same items, and add their files to `files_read`."""
    for item, votes in items:
        if item.file is not None:
            files_read.add(item.file)
        yield item, votes


@dataclass(frozen=True, slots=True)
class OpenSource:
    """A source whose items can be read, more than once.

    counts: reason → pages or numbers without an item that are not errors; empty: classes whose folders have no file.
    """

    name: str
    items: Callable[[], Iterator[Item]]
    rules: Rules
    role: Role = "training"
    counts: Mapping[str, int] = field(default_factory=dict)
    empty: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Collection:
    """What all sources of one run have in common.

    crawl_stores: the folder with one file per web source, or None; tables: the labels that tables give to files.
    """

    params: ScrapeParams
    config: WorkspaceConfig
    data: Path
    crawl_stores: Path | None
    tables: Callable[[], LabelsByFile]
    progress: Progress

    @property
    def max_bytes(self) -> int:
        """The maximum size of an item."""
        return int(self.params.max_megabytes * 2**20)

    def open(self, source: Source, stack: ExitStack) -> OpenSource:
        """Open a source; a website is crawled first. stack: ends what the source starts."""
        data, modality = self.data, self.config.modality
        rules = Rules([*rules_of(source), *self.params.rules], data)
        if isinstance(source, FolderSource):
            return self._open_folder(source, rules)
        if isinstance(source, TableSource):
            read = partial(read_table, source, data, modality, self.max_bytes, fields=bool(rules))
            return OpenSource(source.path, read, rules, source.role)
        if isinstance(source, HuggingFaceSource):
            read = partial(read_hub, source, data, modality, self.max_bytes)
            return OpenSource(source.dataset, read, rules, source.role)
        crawl = stack.enter_context(
            collect(source, data, self.crawl_stores, self.params.as_of, modality == "image", self.progress)
        )
        return OpenSource(name_of(source), partial(items_of, source, crawl), rules, source.role, crawl.counts)

    def _open_folder(self, source: FolderSource, rules: Rules) -> OpenSource:
        data = self.data
        others = [
            other.saved_site if isinstance(other, CrawlSource) else getattr(other, "path", None)
            for other in self.params.sources
        ]
        code = [name for name in (LABELING_FILE, AUGMENTING_FILE) if not (data / name).is_symlink()]
        elsewhere = frozenset(real_path(data / relative) for relative in [*others, *code] if relative)

        def read() -> Iterator[Item]:
            return read_folder(source, data, self.config.modality, self.max_bytes, elsewhere, self.tables())

        has_classes = source.role == "training" and inside(data, source.path).is_dir()
        empty = empty_classes(source, data, elsewhere) if has_classes else ()
        return OpenSource(source.path, read, rules, source.role, empty=empty)


def rules_of(source: Source) -> list[LabelRule]:
    """Return a source's own label rules, including one for its `tag`."""
    rules = list(getattr(source, "rules", []))
    if isinstance(source, CrawlSource) and source.tag:
        rules.insert(0, LabelRule(rule=source.rule, field="tag", map=source.tags or None))
    return rules


def _combine(params: ScrapeParams, sources: Sequence[OpenSource], config: WorkspaceConfig) -> Majority | DawidSkene:
    if params.combine == "majority":
        return Majority()
    counts = Counter(
        source.rules.votes(_fields(item, source.rules, config))
        for source in sources
        if source.rules
        for item in source.items()
    )
    del counts[()]
    return DawidSkene(counts)


def _labeled(
    sources: Sequence[OpenSource], combine: Majority | DawidSkene, config: WorkspaceConfig
) -> Iterator[tuple[Item, Votes]]:
    """Yield each item with its rules' votes; an item without a human label gets the label that the votes agree on."""
    for source in sources:
        for item in source.items():
            votes = (
                source.rules.votes(_fields(item, source.rules, config)) if source.rules and item.reason is None else ()
            )
            if source.role == "background" and item.split in {"train", "pool"}:
                item = replace(item, split="train", label=NOTHING, label_source="weak:background")
            elif item.label is None and item.split == "pool" and (agreed := combine(votes)) is not None:
                rule_names = "+".join(agreed.voters)
                item = replace(
                    item,
                    split="train",
                    label=agreed.label,
                    label_source=f"weak:{rule_names}",
                    confidence=agreed.confidence,
                )
            if source.role == "mixin":  # never held out: rows of another dataset do not measure accuracy on this one
                item = replace(
                    item, split="mixin", reason=item.reason or (None if item.label else "mixin_without_label")
                )
            item = _storable(item)
            weight = item.weight * item.confidence if item.split in {"train", "mixin"} else 1.0
            yield replace(item, weight=weight), votes


def _storable(item: Item) -> Item:
    """Return the item with strings that files can store.

    A lone surrogate, half of a character as in a text that was cut within an emoji, is escaped in names; a label with
    a lone surrogate is removed.
    """
    texts_of = {name: getattr(item, name) for name in ("origin", "label_source", "license", "attribution", "group")}
    changes: dict[str, Any] = {
        name: storable(value) for name, value in texts_of.items() if value is not None and has_lone_surrogate(value)
    }
    if item.label is not None and has_lone_surrogate(item.label):
        changes |= {"label": None, "label_source": None, "reason": item.reason or SURROGATE}
    return replace(item, **changes) if changes else item


def _fields(item: Item, rules: Rules, config: WorkspaceConfig) -> Mapping[str, str]:
    fields = {**item.fields, "origin": item.origin}
    if config.modality == "text" and rules.needs_text():
        with suppress(OSError, UnicodeDecodeError):  # becomes the row's reason later, when it is read
            fields["text"] = str(item.load())
    return fields


def _rows(
    items: Iterable[tuple[Item, Votes]], config: WorkspaceConfig, background: Color | None, cache: ImageCache | None
) -> Iterator[tuple[Row, Votes, str | None]]:
    """Yield the rows in the items' order, decoded by one thread per core, or by a cluster.

    background: the color behind transparent images; cache: stores what later stages need of the images.
    """
    load = partial(_load, config=config, background=background)
    waiting: deque[tuple[Item, Votes, Loaded]] = deque()

    def loaded() -> Iterator[Loaded]:
        remaining = iter(items)
        with ThreadPoolExecutor() as threads:
            while block := list(islice(remaining, ITEMS_PER_BLOCK)):
                for (item, votes), content in zip(block, threads.map(load, block), strict=True):
                    waiting.append((item, votes, content))
                    yield content

    with ThreadPoolExecutor() as threads:
        in_threads = partial(_by_threads, threads)
        for contents in in_pieces(
            Decode(config, cache is not None, cache is not None and cache.keeps_copies),
            _blocks(loaded()),
            here=in_threads,
        ):
            if cache is not None:
                cache.put([(str(content.id), content.record) for content in contents if content.record is not None])
            for content in contents:
                item, votes, (payload, _) = waiting.popleft()
                yield _row(item, content, payload, config), votes, content.reason


def _by_threads(threads: ThreadPoolExecutor, decode: Decode, blocks: Iterable[list[Loaded]]) -> Iterator[list[Content]]:
    for block in blocks:
        yield list(threads.map(decode.decode, block))


Loaded = tuple[bytes | str, str | None]  # an item's content, and the reason if it cannot be read


def _load(item_and_votes: tuple[Item, Votes], config: WorkspaceConfig, background: Color | None) -> Loaded:
    item, _ = item_and_votes
    if item.reason is not None:
        return b"", item.reason
    try:
        payload = item.load()
    except UnicodeDecodeError:
        return b"", "not_utf8"
    except NotRead as error:
        return b"", str(error)
    except OSError:
        return b"", "unreadable_file"
    if isinstance(payload, bytes):
        payload = images.on_background(payload, config.max_megapixels, background)
    return payload, None


def _blocks(loaded: Iterable[Loaded]) -> Iterator[list[Loaded]]:
    block, byte_count = list[Loaded](), 0
    for content in loaded:
        block.append(content)
        byte_count += len(content[0])
        if len(block) == ITEMS_PER_BLOCK or byte_count > MEGABYTES_PER_BLOCK * 2**20:
            yield block
            block, byte_count = [], 0
    if block:
        yield block


@dataclass(frozen=True, slots=True)
class Content:
    """Decoded content.

    id: None if it cannot be read; text: normalized, None for an image; reason: why it is rejected; record: what later
    stages need of a decoded image, if it is asked for.
    """

    id: str | None
    text: str | None = None
    reason: str | None = None
    record: ImageRecord | None = None


@dataclass(frozen=True)
class Decode:
    """Decodes items and computes their ids, in any process.

    measures: whether images get a record; copies: whether the record has a copy of the image.
    """

    config: WorkspaceConfig
    measures: bool = False
    copies: bool = False

    def __call__(self, loaded: Sequence[Loaded]) -> list[Content]:
        """Decode each item of a block."""
        return [self.decode(content) for content in loaded]

    def decode(self, loaded: Loaded) -> Content:
        """Decode one item. Bytes that are not an image stay as they are: validate decides whether to reject them."""
        payload, reason = loaded
        if reason is not None:
            return Content(None, reason=reason)
        if isinstance(payload, str):
            if has_lone_surrogate(payload):
                return Content(None, reason=SURROGATE)
            return Content(_identity(texts.content(payload)), text=texts.clean(payload))
        try:
            pixels = images.decode(payload, self.config.max_megapixels)
        except images.Undecodable:
            return Content(_identity(payload))
        return Content(
            _identity(images.content(pixels)),
            record=ImageRecord.of(pixels, copy=self.copies) if self.measures else None,
        )


def _identity(content: bytes) -> str | None:
    return identify(content) if content else None


def _row(item: Item, content: Content, payload: bytes | str, config: WorkspaceConfig) -> Row:
    return Row(
        id=content.id or identify(item.origin.encode()),
        split=item.split,
        label=item.label,
        label_source=item.label_source,
        weight=item.weight,
        confidence=item.confidence,
        origin=item.origin,
        license=item.license,
        attribution=item.attribution,
        group=item.group,
        payload=(b"" if config.modality == "image" else "")
        if content.reason
        else payload
        if content.text is None
        else content.text,
    )
