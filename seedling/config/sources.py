"""Where rows may come from: the sections of params.yaml under `scrape.sources`, one model a kind."""

from __future__ import annotations

import codecs
import difflib
import itertools
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from seedling.config.patterns import fault_of_pattern
from seedling.config.section import Section

ENCODINGS = (
    *(
        "utf-8",
        "utf-8-sig",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "utf-32",
        "latin-1",
        "iso-8859-1",
        "iso-8859-15",
        "ascii",
    ),
    *(
        "cp1250",
        "cp1251",
        "cp1252",
        "cp1253",
        "cp1254",
        "cp437",
        "cp850",
        "mac-roman",
        "shift_jis",
        "euc-jp",
        "gb18030",
    ),
    *("gbk", "big5", "euc-kr", "koi8-r"),
)


def _compiles(pattern: str) -> str:
    _is_pattern(pattern)
    if not re.compile(pattern).groups:
        raise ValueError("needs brackets around what files that belong together share, as in '([^/]+)_crop'")
    return pattern


def _is_pattern(pattern: str) -> str:
    if fault := fault_of_pattern(pattern):
        raise ValueError(fault)
    return pattern


def _is_encoding(name: str) -> str:
    try:
        codecs.lookup(name)
        "a".encode(name)  # some codecs are not for texts
    except (LookupError, UnicodeError) as error:
        near = difflib.get_close_matches(name.lower(), ENCODINGS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else "such as utf-8, latin-1, cp1252 or utf-16."
        raise ValueError(f"'{name}' is not an encoding of texts that Python knows: {hint}") from error
    return name


def _rises(address: str) -> str:
    first, last = (int(number) for number in re.findall(r"\{(\d+)\.\.(\d+)\}", address)[0])
    if first > last:
        raise ValueError(f"its range goes from {first} down to {last}: write the smaller number first")
    return address


def _many(value: Any) -> Any:
    """One word stands for a list of one."""
    return [value] if isinstance(value, str) else value


# background: every row is of the class `nothing`; mixin: another labeled dataset, whose own classes are learnt beside ours.
Role = Literal["training", "background", "mixin"]
Words = Annotated[list[str], BeforeValidator(_many)]


class FolderSource(Section):
    """The user's folder: `labeled/<class>/*`, `unlabeled/*`, optional `test/<class>/*` and `validation/<class>/*`.

    group: a regular expression over a file's path; files in which its first bracket holds the same belong together.
    by_class: whether every folder in it is a class, also one that is named like a split, such as test or pool.
    """

    kind: Literal["folder"]
    path: str = "."
    may_be_empty: bool = False
    by_class: bool = False
    group: Annotated[str, AfterValidator(_compiles)] | None = None
    role: Role = "training"


class TableSource(Section):
    """A CSV, TSV, JSONL or Parquet file with a text or image column, or a folder of Parquet files.

    group: a column; rows with the same word in it belong together. delimiter, quoting: how a CSV or TSV file is written; None:
    found out. default_split: of rows whose split is blank; None: what the file's name says (test.csv), else train where they have a label, else pool.
    no_label: values of the label column that stand for no label; [] for none; None: the usual words, such as nan and null. image_folder: where
    the paths in the image column start; None: in the table's folder.
    """

    kind: Literal["table"]
    path: str
    text: str = "text"
    image: str = "image"
    label: str = "label"
    split: str = "split"
    id: str = "id"
    group: str | None = None
    encoding: Annotated[str, AfterValidator(_is_encoding)] = "utf-8"
    delimiter: Annotated[str, Field(pattern=r'^[^"\r\n]$')] | None = None
    quoting: Literal["double", "backslash", "none"] | None = None
    default_split: Literal["train", "validation", "test", "pool", "out_of_scope"] | None = None
    no_label: list[str] | None = None
    image_folder: str | None = None
    role: Role = "training"


class LabelRule(Section):
    """A labeling function (Ratner et al. 2017): reads a field of an item and says its label, or nothing.

    field: `origin`, `text`, a column of a table, or a field of a web source (`page`, `alt`, `title`, `around`, its own `fields`). One of words
    (label → words, any of which stands in the field), pattern (a regular expression whose first bracket, or whole match, is the label),
    bands (label → from, up to but not with), and function (in data/labeling.py, or of a package). map: what was found → label; what it does not
    name is no label. Without any of them the field itself is.
    """

    rule: Annotated[str, Field(pattern=r"^[\w-]+$")]
    field: str = "text"
    words: dict[str, list[str]] | None = None
    pattern: Annotated[str, AfterValidator(_is_pattern)] | None = None
    bands: dict[str, tuple[float, float]] | None = None
    function: str | None = None
    map: dict[str, str] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> LabelRule:
        ways_set = [name for name in ("words", "pattern", "bands", "function") if getattr(self, name) is not None]
        if len(ways_set) > 1:
            raise ValueError(
                f"rule '{self.rule}' has {' and '.join(ways_set)}: one of them decides, so make it two rules"
            )
        ends = sorted((low, high, label) for label, (low, high) in (self.bands or {}).items())
        for low, high, label in ends:
            if low >= high:
                raise ValueError(
                    f"rule '{self.rule}': the band of '{label}' is empty: it goes from {low:g} up to {high:g}"
                )
        for (_, high, label), (low, _, other) in itertools.pairwise(ends):
            if low < high:
                raise ValueError(f"rule '{self.rule}': the bands of '{label}' and '{other}' both hold {low:g}")
        return self


class WebSource(Section):
    """What all sources on the web share.

    name: under which it is remembered in .seedling/web/; its kind and address without one. requests_per_second is a ceiling below which the pace is
    found; fixed_pace: it is kept instead. revisit: what is asked for again when `as_of` changes, pages alone or items too (only what changed is sent).
    allow_private_hosts: those of loopback and of the own network that may be asked, or true for all. rules: beside those of `scrape.rules`.
    max_megabytes: of one answer; max_source_megabytes: of all that the source sends in a visit. ${SEEDLING_…} in an address, a query, a body or a
    header is a variable of the environment, sent to the source's own host and written nowhere; allow_env: other variables that may be read so.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None
    fields: dict[str, str] = {}
    rules: list[LabelRule] = []
    role: Role = "training"
    license: str | None = None
    attribution: str | None = None
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    requests_per_second: Annotated[float, Field(gt=0)] = 20.0
    fixed_pace: bool = False
    revisit: Literal["pages", "all"] = "pages"
    max_items: Annotated[int, Field(ge=1)] = 100_000
    max_pages: Annotated[int, Field(ge=1)] = 100_000
    max_megabytes: Annotated[float, Field(gt=0)] = 20.0
    max_source_megabytes: Annotated[float, Field(gt=0)] = 10_000.0
    allow_private_hosts: bool | list[str] = False
    allow_env: list[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")]] = []


class CrawlSource(WebSource):
    """A site: pages are followed, each item on them gives an image or a text, and fields that label rules read.

    item, image, text, fields, tag: CSS selectors, or XPath where they begin with / ./ or (. tag with tags: a label rule in short, named `rule`.
    group_by_page: whether the items of one page belong together. browser: pages are rendered by Chromium, which waits for wait_for and clicks on
    each of `click` until it is gone, in its sandbox unless browser_sandbox says otherwise; max_page_seconds, max_page_megabytes and
    max_page_memory_megabytes: what one page may take there. saved_site: a folder with the site's files, which is then served on loopback and crawled in the site's stead.
    """

    kind: Literal["crawl"]
    start: Annotated[Words, Field(min_length=1)]
    follow: Words = ["a[rel=next]"]
    item: str
    image: str | None = None
    text: str | None = None
    tag: str | None = None
    tags: dict[str, str] = {}
    rule: str = "tag"
    group_by_page: bool = False
    max_depth: Annotated[int, Field(ge=1)] = 10_000
    browser: bool = False
    browser_path: str | None = None
    browser_sandbox: bool = True
    max_page_seconds: Annotated[float, Field(gt=0)] = 300.0
    max_page_megabytes: Annotated[float, Field(gt=0)] = 100.0
    max_page_memory_megabytes: Annotated[float, Field(gt=0)] = 2_000.0
    wait_for: str | None = None
    click: list[str] = []
    max_clicks: Annotated[int, Field(ge=1)] = 100
    saved_site: str | None = None
    saved_site_limit: Annotated[float, Field(gt=0)] = 60.0


class SequenceSource(WebSource):
    """Enumerated addresses, `https://host/reports/{1..250000}` ({0001..9999} keeps the zeros); an absent one is counted and is no error.

    item, image, text, fields: as in a crawl; item: the whole page without one. format: of the answers; in `json` the selectors are JMESPath.
    """

    kind: Literal["sequence"]
    url: Annotated[str, Field(pattern=r"^([^{}]|\$\{\w+\})*\{\d+\.\.\d+\}([^{}]|\$\{\w+\})*$"), AfterValidator(_rises)]
    item: str | None = None
    image: str | None = None
    text: str | None = None
    format: Literal["html", "json"] = "html"


class ApiSource(WebSource):
    """JSON over GET or POST, page by page. items, id, text, image, fields, next: JMESPath.

    next: the next page's address, or a cursor that goes into `cursor` (query.after, body.page, variables.after) until there is none, or until
    `more` is false. graphql: a query, sent by POST with variables.
    """

    kind: Literal["api"]
    url: str
    method: Literal["GET", "POST"] = "GET"
    query: dict[str, str | int | float] = {}
    body: dict[str, Any] | None = None
    graphql: str | None = None
    variables: dict[str, Any] = {}
    headers: dict[str, str] = {}
    items: str
    id: str | None = None
    image: str | None = None
    text: str | None = None
    next: str | None = None
    cursor: Annotated[str, Field(pattern=r"^(query|body|variables)\.\w+$")] | None = None
    more: str | None = None

    @model_validator(mode="after")
    def _cursor_has_a_place(self) -> ApiSource:
        parameter = (self.cursor or "").partition(".")[0]
        if parameter == "body" and self.body is None:
            raise ValueError(f"cursor is {self.cursor}, but there is no `body`: write `body: {{}}`, or take query")
        if parameter == "variables" and self.graphql is None:
            raise ValueError(f"cursor is {self.cursor}, but there is no `graphql` query whose variables they are")
        if self.cursor and self.next is None:
            raise ValueError(f"cursor is {self.cursor}, but `next` does not say where an answer has it")
        return self


class HuggingFaceSource(Section):
    """A dataset of the Hugging Face Hub, or a folder in data/ that `datasets` reads. Needs `pip install 'seedling-ml[hub]'`.

    splits: the dataset's split → ours; without them `train`, `validation` and `test` are taken as they are named. label: a column of words, or of
    numbers whose names the dataset knows; rows without one are pool.
    """

    kind: Literal["huggingface"]
    dataset: str
    config: str | None = None
    revision: str | None = None
    splits: dict[str, str] = {}
    text: str = "text"
    image: str = "image"
    label: str = "label"
    license: str | None = None
    attribution: str | None = None
    role: Role = "training"


Source = Annotated[
    FolderSource | TableSource | CrawlSource | SequenceSource | ApiSource | HuggingFaceSource,
    Field(discriminator="kind"),
]


def described(source: Source) -> str:
    """A source in a few words: where it lies."""
    match source:
        case FolderSource() | TableSource():
            return "data" if source.path == "." else f"data/{source.path}"
        case CrawlSource():
            return ", ".join(source.start)
        case HuggingFaceSource():
            return source.dataset
        case _:
            return source.url


def visited_sources(sources: Sequence[Source]) -> list[CrawlSource | SequenceSource | ApiSource]:
    """The sources whose rows may change without a change in the workspace; a saved site is part of data/."""
    return [
        source
        for source in sources
        if isinstance(source, SequenceSource | ApiSource) or (isinstance(source, CrawlSource) and not source.saved_site)
    ]
