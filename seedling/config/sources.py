"""The sources of rows: the sections of params.yaml under `scrape.sources`, one model per kind."""

from __future__ import annotations

import codecs
import difflib
import itertools
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from seedling.config.patterns import pattern_fault
from seedling.config.section import Section
from seedling.workspace import DATA

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


def _check_group_pattern(pattern: str) -> str:
    _check_pattern(pattern)
    if not re.compile(pattern).groups:
        raise ValueError("needs brackets around the part that files of one group share, as in '([^/]+)_crop'")
    return pattern


def _check_pattern(pattern: str) -> str:
    if fault := pattern_fault(pattern):
        raise ValueError(fault)
    return pattern


def _check_encoding(name: str) -> str:
    try:
        codecs.lookup(name)
        "a".encode(name)  # some codecs do not encode text
    except (LookupError, UnicodeError) as error:
        similar = difflib.get_close_matches(name.lower(), ENCODINGS, n=1)
        hint = f"did you mean '{similar[0]}'?" if similar else "such as utf-8, latin-1, cp1252 or utf-16."
        raise ValueError(f"'{name}' is not a text encoding that Python supports: {hint}") from error
    return name


def _check_range(address: str) -> str:
    first, last = (int(number) for number in re.findall(r"\{(\d+)\.\.(\d+)\}", address)[0])
    if first > last:
        raise ValueError(f"its range goes from {first} down to {last}: write the smaller number first")
    return address


def _as_list(value: Any) -> Any:
    """Wrap a single string in a list."""
    return [value] if isinstance(value, str) else value


# background: every row is of the class `nothing`. mixin: another labeled dataset, whose classes the model learns as an
# auxiliary task.
Role = Literal["training", "background", "mixin"]
Strings = Annotated[list[str], BeforeValidator(_as_list)]


class FolderSource(Section):
    """A folder of the user: `labeled/<class>/*`, `unlabeled/*`, optional `test/<class>/*` and `validation/<class>/*`.

    group: a regular expression that is matched against a file's path; files with the same first bracket form a group.
    by_class: whether every folder in it is a class, including folders that are named like a split, such as test or
    pool.
    """

    kind: Literal["folder"]
    path: str = "."
    may_be_empty: bool = False
    by_class: bool = False
    group: Annotated[str, AfterValidator(_check_group_pattern)] | None = None
    role: Role = "training"


class TableSource(Section):
    """A CSV, TSV, JSONL or Parquet file with a text or image column, or a folder of Parquet files.

    group: a column; rows with the same value in it form a group. delimiter, quoting: the dialect of a CSV or TSV file;
    None: detected. default_split: the split of rows whose split is blank; None: from the file's name (test.csv), else
    train for rows with a label and pool for the others. no_label: values of the label column that mean no label; []: no
    such values; None: the usual ones, such as nan and null. image_folder: the folder that paths in the image column are
    relative to; None: the table's folder.
    """

    kind: Literal["table"]
    path: str
    text: str = "text"
    image: str = "image"
    label: str = "label"
    split: str = "split"
    id: str = "id"
    group: str | None = None
    encoding: Annotated[str, AfterValidator(_check_encoding)] = "utf-8"
    delimiter: Annotated[str, Field(pattern=r'^[^"\r\n]$')] | None = None
    quoting: Literal["double", "backslash", "none"] | None = None
    default_split: Literal["train", "validation", "test", "pool", "out_of_scope"] | None = None
    no_label: list[str] | None = None
    image_folder: str | None = None
    role: Role = "training"


class LabelRule(Section):
    """A labeling function (Ratner et al. 2017): reads a field of an item and returns its label, or abstains.

    field: `origin`, `text`, a column of a table, or a field of a web source (`page`, `alt`, `title`, `around`, or one
    of its `fields`). At most one of: words (label → words; the field contains any of them), pattern (a regular
    expression; its first bracket or its whole match is the label), bands (label → lower bound, excluded upper bound),
    function (in data/labeling.py, or in a package). Without any of them, the field itself is the label. map: the result
    → label; the rule abstains for a result that is not listed.
    """

    rule: Annotated[str, Field(pattern=r"^[\w-]+$")]
    field: str = "text"
    words: dict[str, list[str]] | None = None
    pattern: Annotated[str, AfterValidator(_check_pattern)] | None = None
    bands: dict[str, tuple[float, float]] | None = None
    function: str | None = None
    map: dict[str, str] | None = None

    @model_validator(mode="after")
    def _check_methods(self) -> LabelRule:
        methods = [name for name in ("words", "pattern", "bands", "function") if getattr(self, name) is not None]
        if len(methods) > 1:
            raise ValueError(
                f"rule '{self.rule}' has {' and '.join(methods)}, but only one of them is allowed: write two rules"
            )
        bands = sorted((low, high, label) for label, (low, high) in (self.bands or {}).items())
        for low, high, label in bands:
            if low >= high:
                raise ValueError(
                    f"rule '{self.rule}': the band of '{label}' is empty: it goes from {low:g} up to {high:g}"
                )
        for (_, high, label), (low, _, next_label) in itertools.pairwise(bands):
            if low < high:
                raise ValueError(f"rule '{self.rule}': the bands of '{label}' and '{next_label}' both contain {low:g}")
        return self


class WebSource(Section):
    """The settings of all web sources.

    name: the name of the source in .seedling/web/; by default its kind and address. requests_per_second: the upper
    limit of the adaptive request rate; fixed_pace: always use this rate instead. revisit: what is requested again when
    `as_of` changes: only pages, or items, too (the requests are conditional). allow_private_hosts: hosts on loopback or
    on a private network that may be requested; true allows all. rules: label rules in addition to `scrape.rules`.
    max_megabytes: the limit per response; max_source_megabytes: the limit for all responses in one visit. ${SEEDLING_…}
    in an address, a query, a body or a header is an environment variable, which is sent only to the source's own host
    and never stored; allow_env: other environment variables that may be used.
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
    """A website: the crawler follows its pages; each item on them is an image or a text with fields for label rules.

    item, image, text, fields, tag: CSS selectors, or XPath if they begin with / ./ or (. tag, tags: a short form of a
    label rule with the name `rule`. group_by_page: whether the items of a page form a group. browser: Chromium renders
    the pages; it waits for wait_for and clicks each of `click` until it disappears. browser_sandbox: whether Chromium
    runs in its sandbox. max_page_seconds, max_page_megabytes, max_page_memory_megabytes: the limits per page in the
    browser. saved_site: a folder with the site's files, which is served on loopback and crawled instead of the site.
    """

    kind: Literal["crawl"]
    start: Annotated[Strings, Field(min_length=1)]
    follow: Strings = ["a[rel=next]"]
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
    """Enumerated addresses, `https://host/reports/{1..250000}`; {0001..9999} keeps the zeros.

    A missing page is counted and is not an error. item, image, text, fields: as in a crawl; the default item is the
    whole page. format: the format of the responses; for `json`, the selectors are JMESPath.
    """

    kind: Literal["sequence"]
    url: Annotated[
        str, Field(pattern=r"^([^{}]|\$\{\w+\})*\{\d+\.\.\d+\}([^{}]|\$\{\w+\})*$"), AfterValidator(_check_range)
    ]
    item: str | None = None
    image: str | None = None
    text: str | None = None
    format: Literal["html", "json"] = "html"


class ApiSource(WebSource):
    """A paginated JSON API over GET or POST. items, id, text, image, fields, next: JMESPath.

    next: the next page's address, or a cursor that is sent as `cursor` (query.after, body.page, variables.after). The
    last page is the one without `next`, or where `more` is false. graphql: a query, which is sent by POST with
    `variables`.
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
    def _check_cursor(self) -> ApiSource:
        parameter = (self.cursor or "").partition(".")[0]
        if parameter == "body" and self.body is None:
            raise ValueError(f"cursor is {self.cursor}, but there is no `body`: set `body: {{}}`, or use query")
        if parameter == "variables" and self.graphql is None:
            raise ValueError(f"cursor is {self.cursor}, but there is no `graphql` query with variables: set `graphql`")
        if self.cursor and self.next is None:
            raise ValueError(f"cursor is {self.cursor}, but `next` is missing: set it to the cursor's JMESPath")
        return self


class HuggingFaceSource(Section):
    """A dataset of the Hugging Face Hub, or a folder in data/ that `datasets` reads.

    Needs `pip install 'seedling-ml[hub]'`.

    splits: the dataset's split → the split in Seedling; by default, `train`, `validation` and `test` keep their names.
    label: a column of strings, or of integers with class names in the dataset's features; rows without a label belong
    to the pool.
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


def describe_source(source: Source) -> str:
    """Return the location of a source: its path, its addresses or its dataset's name."""
    match source:
        case FolderSource() | TableSource():
            return DATA if source.path == "." else f"{DATA}/{source.path}"
        case CrawlSource():
            return ", ".join(source.start)
        case HuggingFaceSource():
            return source.dataset
        case _:
            return source.url


def visited_sources(sources: Sequence[Source]) -> list[CrawlSource | SequenceSource | ApiSource]:
    """Return the sources whose rows may change without a change in the workspace; a saved site is part of data/."""
    return [
        source
        for source in sources
        if isinstance(source, SequenceSource | ApiSource) or (isinstance(source, CrawlSource) and not source.saved_site)
    ]
