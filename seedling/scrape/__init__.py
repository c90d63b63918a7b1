"""scrape: brings folders, tables and sites into one record, with weak labels and provenance.

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
from seedling.files.data_files import NotRead, inside, real_path
from seedling.files.ignored_files import IGNORED, count_files, write_ignored
from seedling.media import images, texts
from seedling.media.image_modes import Color, color_of
from seedling.parallel.pool import in_pieces
from seedling.plugins import AUGMENTING
from seedling.progress import Progress, counted, silent
from seedling.scrape.folder import LabelsByFile, empty_classes, read_folder
from seedling.scrape.hub import read_hub
from seedling.scrape.image_tables import labels_by_file
from seedling.scrape.items import Item, has_lone_surrogate, storable
from seedling.scrape.label_rules import FILE, Audit, DawidSkene, Majority, Rules, Votes
from seedling.scrape.label_values import SURROGATE
from seedling.scrape.table import read_table
from seedling.scrape.web import collected, items_of, name_of

VOTES = pa.field("votes", pa.list_(pa.string()))  # where several rules speak
AT_ONCE = 256  # items in memory
MEGABYTES_A_PIECE = 8  # of items that are sent to one worker together


def scrape(
    params: ScrapeParams,
    facts: WorkspaceConfig,
    *,
    data: Path,
    output: Path,
    remembered: Path | None = None,
    progress: Progress = silent,
) -> None:
    """Writes `generations/scrape`: every item of every source, kept as it came or rejected with a reason, with the label that its source or its
    label rules give it.

    remembered: the folder in which sources on the web are remembered between runs; None: they are not.
    Raises InputError for a source that is not there, cannot be read or holds nothing; SourceUnreachable for a site that gave nothing for now.
    """
    if not data.is_dir():
        raise InputError(
            f"{data} does not exist: `dvc pull` brings it where it is stored, `seedling init` makes it anew."
        )
    _check_names(params.sources)
    tables = cache(partial(labels_by_file, params.sources, data, facts.modality))
    with ExitStack() as stack:
        sources = [_opened(one, params, facts, data, remembered, tables, progress, stack) for one in params.sources]
        combine = _combine(params, sources, facts)
        shown = len({name for one in sources for name in one.rules.names()}) > 1
        _write(params, facts, sources, combine, data, output, [VOTES] if shown else [], progress)


def _check_names(sources: Sequence[Source]) -> None:
    names = Counter(name_of(one) for one in sources if isinstance(one, CrawlSource | SequenceSource | ApiSource))
    if twice := [name for name, many in names.items() if many > 1]:
        raise InputError(f"params.yaml: two sources would be remembered as '{twice[0]}': give each its own `name`.")


def _write(
    params: ScrapeParams,
    facts: WorkspaceConfig,
    sources: Sequence[Opened],
    combine: Majority | DawidSkene,
    data: Path,
    output: Path,
    extra: list[pa.Field],
    progress: Progress,
) -> None:
    found, votes_of, labeled = 0, dict[str, tuple[str, Votes]](), set[str | None]()
    human: dict[str, str] = {}
    files_read: set[str] = set()
    with GenerationWriter(output, stage="scrape", modality=facts.modality, extra=extra) as writer:
        items = counted(_noting_files(_labeled(sources, combine, facts), files_read), progress, "read")
        seen: dict[tuple[str, str | None], set[str | None]] = {}
        for row, votes, reason in _rows(items, facts, color_of(params.transparent_background)):
            found += 1
            if extra:
                row = replace(row, extra={"votes": [f"{rule}={label}" for rule, label in votes] or None})
            if row.label_source == "human" and row.label:
                human[row.id] = row.label
            if votes:
                votes_of[f"{row.id} {row.origin}"] = (row.id, votes)
            labels = seen.setdefault((row.id, row.origin), set())
            if reason or row.label in labels:
                writer.reject(row, reason or "exact_duplicate")
                continue
            # The same thing under the same address with another tag: validate is to see both, and to tell them apart.
            writer.keep(replace(row, origin=f"{row.origin}#{row.label}") if labels else row)
            labels.add(row.label)
            labeled.add(row.label)
        if not found:
            raise InputError(
                "Nothing was found: describe a source under scrape.sources in params.yaml (docs/collecting.md), or put rows into data/labeled/<class>/."
            )
        audit = Audit(found)
        for identity, votes in votes_of.values():
            audit.hear(votes, human.get(identity))
        notes: dict[str, Any] = {"rules": audit.table()} if votes_of else {}
        if no_items := {one.name: one.counts for one in sources if one.counts}:
            notes["no_items"] = no_items
        if empty := sorted({label for one in sources for label in one.empty} - labeled):
            notes["empty_classes"] = empty
        files = count_files(data, params.sources, frozenset(files_read))
        write_ignored(output / IGNORED, files.ignored)
        notes["files"] = {"in": files.total, "read": files.read, "ignored": files.reasons()}
        kinds = [source.kind for source in params.sources]
        writer.close(rows_in=found, sources=kinds, **notes)


def _noting_files(items: Iterable[tuple[Item, Votes]], files_read: set[str]) -> Iterator[tuple[Item, Votes]]:
    """The same items; their files are added to `files_read`."""
    for item, votes in items:
        if item.file is not None:
            files_read.add(item.file)
        yield item, votes


@dataclass(frozen=True, slots=True)
class Opened:
    """A source whose items can be read, more than once; counts: what gave no item and is no error; empty: classes whose folders hold no file."""

    name: str
    items: Callable[[], Iterator[Item]]
    rules: Rules
    role: Role = "training"
    counts: Mapping[str, int] = field(default_factory=dict)
    empty: Sequence[str] = ()


def _opened(
    source: Source,
    params: ScrapeParams,
    facts: WorkspaceConfig,
    data: Path,
    remembered: Path | None,
    tables: Callable[[], LabelsByFile],
    progress: Progress,
    stack: ExitStack,
) -> Opened:
    limit = int(params.max_megabytes * 2**20)
    rules = Rules([*rules_of(source), *params.rules], data)
    if isinstance(source, FolderSource):
        others = [
            one.saved_site if isinstance(one, CrawlSource) else getattr(one, "path", None) for one in params.sources
        ]
        code = [name for name in (FILE, AUGMENTING[0]) if not (data / name).is_symlink()]
        elsewhere = frozenset(real_path(data / other) for other in [*others, *code] if other)

        def read() -> Iterator[Item]:
            return read_folder(source, data, facts.modality, limit, elsewhere, tables())

        classes = source.role == "training" and inside(data, source.path).is_dir()
        empty = empty_classes(source, data, elsewhere) if classes else ()
        return Opened(source.path, read, rules, source.role, empty=empty)
    if isinstance(source, TableSource):
        read = partial(read_table, source, data, facts.modality, limit, fields=bool(rules))
        return Opened(source.path, read, rules, source.role)
    if isinstance(source, HuggingFaceSource):
        return Opened(source.dataset, partial(read_hub, source, data, facts.modality, limit), rules, source.role)
    from_web = stack.enter_context(
        collected(source, data, remembered, params.as_of, facts.modality == "image", progress)
    )
    return Opened(name_of(source), partial(items_of, source, from_web), rules, source.role, from_web.counts)


def rules_of(source: Source) -> list[LabelRule]:
    """A source's own label rules, its `tag` among them."""
    rules = list(getattr(source, "rules", []))
    if isinstance(source, CrawlSource) and source.tag:
        rules.insert(0, LabelRule(rule=source.rule, field="tag", map=source.tags or None))
    return rules


def _combine(params: ScrapeParams, sources: Sequence[Opened], facts: WorkspaceConfig) -> Majority | DawidSkene:
    if params.combine == "majority":
        return Majority()
    cast = Counter(
        one.rules.votes(_fields(item, one.rules, facts)) for one in sources if one.rules for item in one.items()
    )
    del cast[()]
    return DawidSkene(cast)


def _labeled(
    sources: Sequence[Opened], combine: Majority | DawidSkene, facts: WorkspaceConfig
) -> Iterator[tuple[Item, Votes]]:
    """Each item with its rules' votes; what people did not label has what the votes come to."""
    for source in sources:
        for item in source.items():
            votes = (
                source.rules.votes(_fields(item, source.rules, facts)) if source.rules and item.reason is None else ()
            )
            if source.role == "background" and item.split in {"train", "pool"}:
                item = replace(item, split="train", label=NOTHING, label_source="weak:background")
            elif item.label is None and item.split == "pool" and (agreed := combine(votes)) is not None:
                by = "+".join(agreed.rules)
                item = replace(
                    item, split="train", label=agreed.label, label_source=f"weak:{by}", confidence=agreed.confidence
                )
            if source.role == "mixin":  # never held out: another dataset's rows say nothing of ours
                item = replace(
                    item, split="mixin", reason=item.reason or (None if item.label else "mixin_without_label")
                )
            item = _storable(item)
            weight = item.weight * item.confidence if item.split in {"train", "mixin"} else 1.0
            yield replace(item, weight=weight), votes


def _storable(item: Item) -> Item:
    """The item as files can hold it: half a character, as of a text that was cut within an emoji, is written out in names; a label with one is none."""
    texts_of = {name: getattr(item, name) for name in ("origin", "label_source", "license", "attribution", "group")}
    changes: dict[str, Any] = {
        name: storable(value) for name, value in texts_of.items() if value is not None and has_lone_surrogate(value)
    }
    if item.label is not None and has_lone_surrogate(item.label):
        changes |= {"label": None, "label_source": None, "reason": item.reason or SURROGATE}
    return replace(item, **changes) if changes else item


def _fields(item: Item, rules: Rules, facts: WorkspaceConfig) -> Mapping[str, str]:
    fields = {**item.fields, "origin": item.origin}
    if facts.modality == "text" and rules.needs_text():
        with suppress(OSError, UnicodeDecodeError):  # said as the row's reason, where it is read
            fields["text"] = str(item.load())
    return fields


def _rows(
    items: Iterable[tuple[Item, Votes]], facts: WorkspaceConfig, background: Color | None
) -> Iterator[tuple[Row, Votes, str | None]]:
    """The rows in the items' order, decoded by as many threads as the machine has cores, or by a cluster. background: of transparent images."""
    load = partial(_load, facts=facts, background=background)
    waiting: deque[tuple[Item, Votes, Loaded]] = deque()

    def loaded() -> Iterator[Loaded]:
        remaining = iter(items)
        with ThreadPoolExecutor() as threads:
            while block := list(islice(remaining, AT_ONCE)):
                for (item, votes), found in zip(block, threads.map(load, block), strict=True):
                    waiting.append((item, votes, found))
                    yield found

    with ThreadPoolExecutor() as threads:
        in_threads = partial(_by_threads, threads)
        for contents in in_pieces(Decode(facts), _pieces(loaded()), here=in_threads):
            for content in contents:
                item, votes, (payload, _) = waiting.popleft()
                yield _row(item, content, payload, facts), votes, content.reason


def _by_threads(threads: ThreadPoolExecutor, decode: Decode, pieces: Iterable[list[Loaded]]) -> Iterator[list[Content]]:
    for piece in pieces:
        yield list(threads.map(decode.one, piece))


Loaded = tuple[bytes | str, str | None]  # what an item holds, and the reason where it cannot be read


def _load(given: tuple[Item, Votes], facts: WorkspaceConfig, background: Color | None) -> Loaded:
    item, _ = given
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
        payload = images.on_background(payload, facts.max_megapixels, background)
    return payload, None


def _pieces(loaded: Iterable[Loaded]) -> Iterator[list[Loaded]]:
    piece, held = list[Loaded](), 0
    for one in loaded:
        piece.append(one)
        held += len(one[0])
        if len(piece) == AT_ONCE or held > MEGABYTES_A_PIECE * 2**20:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece


@dataclass(frozen=True, slots=True)
class Content:
    """What decoding gave: the id, None of what cannot be read; a text tidied, None of an image; the reason why it cannot stay."""

    id: str | None
    text: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Decode:
    """Decodes and identifies what items hold; a piece of work that any process may do."""

    facts: WorkspaceConfig

    def __call__(self, loaded: Sequence[Loaded]) -> list[Content]:
        """The content of each."""
        return [self.one(one) for one in loaded]

    def one(self, loaded: Loaded) -> Content:
        """Bytes that give no image are kept as they are: whether they may stay is validate's business."""
        payload, reason = loaded
        if reason is not None:
            return Content(None, reason=reason)
        if isinstance(payload, str):
            if has_lone_surrogate(payload):
                return Content(None, reason=SURROGATE)
            return Content(_identity(texts.content(payload)), text=texts.clean(payload))
        try:
            return Content(_identity(images.content(images.decode(payload, self.facts.max_megapixels))))
        except images.Undecodable:
            return Content(_identity(payload))


def _identity(content: bytes) -> str | None:
    return identify(content) if content else None


def _row(item: Item, content: Content, payload: bytes | str, facts: WorkspaceConfig) -> Row:
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
        payload=(b"" if facts.modality == "image" else "")
        if content.reason
        else payload
        if content.text is None
        else content.text,
    )
