"""params.yaml: every number that a person may change, loaded once into frozen models that forbid unknown keys."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.errors import InputError

Effort = Literal["quick", "normal", "thorough"]
Share = Annotated[float, Field(ge=0, le=1)]


NOTHING = "nothing"  # a class of this name holds what is none of the others


class Section(BaseModel):
    """A section of params.yaml: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _compiles(pattern: str) -> str:
    try:
        brackets = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    if not brackets:
        raise ValueError("needs brackets around what files that belong together share, as in '([^/]+)_crop'")
    return pattern


def _is_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from error
    return pattern


def _rises(address: str) -> str:
    first, last = (int(one) for one in address.partition("{")[2].partition("}")[0].split(".."))
    if first > last:
        raise ValueError(f"its range goes from {first} down to {last}: write the smaller number first")
    return address


Role = Literal["training", "background"]  # background: every row is of the class `nothing`


class FolderSource(Section):
    """The user's folder: `labelled/<class>/*`, `unlabelled/*`, optional `test/<class>/*` and `validation/<class>/*`.

    group: a regular expression over a file's path; files in which its first bracket holds the same belong together.
    """

    kind: Literal["folder"]
    path: str = "."
    may_be_empty: bool = False
    group: Annotated[str, AfterValidator(_compiles)] | None = None
    role: Role = "training"


class TableSource(Section):
    """A CSV, TSV, JSONL or Parquet file with a text or image column, or a folder of Parquet files.

    group: a column; rows with the same word in it belong together.
    """

    kind: Literal["table"]
    path: str
    text: str = "text"
    image: str = "image"
    label: str = "label"
    split: str = "split"
    id: str = "id"
    group: str | None = None
    encoding: str = "utf-8"
    role: Role = "training"


class LabelRule(Section):
    """A labelling function (Ratner et al. 2017): reads a field of an item and says its label, or nothing.

    field: `origin`, `text`, a column of a table, or a field of a web source (`page`, `alt`, `title`, `around`, its own `fields`). One of words
    (label → words, any of which stands in the field), pattern (a regular expression whose first bracket, or whole match, is the label),
    bands (label → from, up to but not with), and function (in data/labelling.py, or of a package). map: what was found → label; what it does not
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
        given = [name for name in ("words", "pattern", "bands", "function") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"rule '{self.rule}' has {' and '.join(given)}: one of them decides, so make it two rules")
        return self


class WebSource(Section):
    """What all sources on the web share.

    name: under which it is remembered in .seedling/web/; its kind and address without one. requests_per_second is a ceiling below which the pace is
    found; fixed_pace: it is kept instead. revisit: what is asked for again when `as_of` changes, pages alone or items too (only what changed is sent).
    allow_private_hosts: those of loopback and of the own network that may be asked, or true for all. rules: beside those of `scrape.rules`.
    """

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")] | None = None
    fields: dict[str, str] = {}
    rules: list[LabelRule] = []
    role: Role = "training"
    licence: str | None = None
    attribution: str | None = None
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    requests_per_second: Annotated[float, Field(gt=0)] = 20.0
    fixed_pace: bool = False
    revisit: Literal["pages", "all"] = "pages"
    max_items: Annotated[int, Field(ge=1)] = 100_000
    max_pages: Annotated[int, Field(ge=1)] = 100_000
    max_megabytes: Annotated[float, Field(gt=0)] = 20.0
    allow_private_hosts: bool | list[str] = False


class CrawlSource(WebSource):
    """A site: pages are followed, each item on them gives a picture or a text, and fields that label rules read.

    item, image, text, fields, tag: CSS selectors, or XPath where they begin with / ./ or (. tag with tags: a label rule in short, named `rule`.
    group_by_page: whether the items of one page belong together. browser: pages are rendered by Chromium, which waits for wait_for and clicks on
    each of `click` until it is gone. saved_site: a folder with the site's files, which is then served on loopback and crawled in the site's stead.
    """

    kind: Literal["crawl"]
    start: str | list[str]
    follow: str | list[str] = "a[rel=next]"
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
    url: Annotated[str, Field(pattern=r"^[^{}]*\{\d+\.\.\d+\}[^{}]*$"), AfterValidator(_rises)]
    item: str | None = None
    image: str | None = None
    text: str | None = None
    format: Literal["html", "json"] = "html"


class ApiSource(WebSource):
    """JSON over GET or POST, page by page. items, id, text, image, fields, next: JMESPath.

    next: the next page's address, or a cursor that goes into `cursor` (query.after, body.page, variables.after) until there is none, or until
    `more` is false. graphql: a query, sent by POST with variables. ${NAME} in headers is taken from the environment, and written nowhere.
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


class HuggingFaceSource(Section):
    """A dataset of the Hugging Face Hub, or a folder in data/ that `datasets` reads. Needs `pip install 'seedling[hub]'`.

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
    licence: str | None = None
    attribution: str | None = None
    role: Role = "training"


Source = Annotated[
    FolderSource | TableSource | CrawlSource | SequenceSource | ApiSource | HuggingFaceSource,
    Field(discriminator="kind"),
]


class ScrapeParams(Section):
    """What to bring in; every path is relative to data/. rules: of every source; combine: how several that speak of one item agree. A new `as_of` (any word, a date by custom) makes the stage go to the web again."""

    as_of: Annotated[str | None, BeforeValidator(lambda given: None if given is None else str(given))] = None
    sources: Annotated[list[Source], Field(min_length=1)]
    rules: list[LabelRule] = []
    combine: Literal["majority", "dawid_skene"] = "majority"
    max_megabytes: Annotated[float, Field(gt=0)] = 50.0


class ValidateParams(Section):
    """What a usable row is, and how rows are split."""

    min_side: Annotated[int, Field(ge=1)] = 8
    min_characters: Annotated[int, Field(ge=1)] = 2
    blank_contrast: Annotated[float, Field(ge=0)] = 2.0
    near_duplicate_bits: Annotated[int, Field(ge=0, le=3)] = 3
    near_duplicate_difference: Annotated[float, Field(ge=0, le=255)] = 6.0
    near_duplicate_similarity: Annotated[float, Field(gt=0.5, le=1)] = 0.8
    merge_case: bool = True
    min_class_rows: Annotated[int, Field(ge=1)] = 1
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    min_test_rows: Annotated[int, Field(ge=1)] = 30
    doubtful_labels: Literal["ignore", "report", "drop", "relabel", "down-weight"] = "report"
    items_a_minute: Annotated[float, Field(gt=0)] = 20.0


class AugmentParams(Section):
    """Label-preserving children of training rows; `children` a row, by effort where null."""

    children: Annotated[int, Field(ge=0)] | None = None
    policy: list[dict[str, dict[str, Any]]] | None = None
    word_operations: Annotated[list[Literal["swap", "delete", "typo"]], Field(min_length=1)] = [
        "swap",
        "delete",
        "typo",
    ]
    words_changed: Share = 0.15
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5


class Template(Section):
    """One template: `text` with {slots}, the label of what it makes, and the slots' values."""

    label: str
    text: str
    slots: dict[str, Annotated[list[str], Field(min_length=1)]] = {}


class SynthesizeParams(Section):
    """New rows: mixup for images (per training row), templates for texts (at most so many a class)."""

    mixup: Annotated[float, Field(ge=0)] | None = None
    mixup_alpha: Annotated[float, Field(gt=0)] = 0.4
    templates: list[Template] = []
    template_rows: Annotated[int, Field(ge=0)] = 40
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5


def _named(given: Any) -> Any:
    """A name alone is an encoder with nothing more said of it."""
    return {"model": given} if isinstance(given, str) else given


class EncoderParams(Section):
    """A pretrained encoder: a folder, a model of the Hub at a revision, or all-MiniLM-L6-v2 from its package.

    sha256: what the weights' file must hash to; precision: bfloat16 is faster where the device has it, and less exact.
    """

    model: str
    revision: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"


Candidate = Literal[
    "logistic_regression", "svm", "random_forest", "nearest_neighbours", "boosted_trees", "network", "fine_tuned"
]
Loss = Literal[
    "plain",
    "trusted",
    "strictly_trusted",
    "balanced",
    "logit_adjusted",
    "focal",
    "symmetric",
    "second_head",
    "consistency",
]


class TrainParams(Section):
    """Which learners are compared, and when a round is worse than the one before."""

    encoder: Annotated[EncoderParams | None, BeforeValidator(_named)] = None
    candidates: list[Candidate] | None = None
    losses: list[Loss] | None = None
    choose_by: Literal["log_loss", "balanced_log_loss"] = "log_loss"
    budget_seconds: Annotated[float, Field(gt=0)] | None = None
    pool_rows: Annotated[int, Field(ge=0)] | None = None
    wanted_accuracy: Annotated[float, Field(gt=0, lt=1)] = 0.95
    image_side: Annotated[int, Field(ge=16, le=128)] | None = None
    steps: Annotated[int, Field(ge=10)] | None = None
    verdict_seeds: Annotated[int, Field(ge=1, le=20)] | None = None
    worse_probability: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    margin: Share = 0.0
    surely_worse_probability: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    converged_share: Share = 0.01
    bootstrap_draws: Annotated[int, Field(ge=200)] = 2000


Filter = Literal[
    "all",
    "confidence",
    "class_wise",
    "top_a_class",
    "agreement",
    "dropout_certainty",
    "without_doubted_classes",
    "curriculum",
]


class PseudoLabelParams(Section):
    """How many rounds (by effort where null), and which of the pool's labels are kept."""

    rounds: Annotated[int, Field(ge=0, le=3)] | None = None
    filter: Filter | None = None
    threshold: Share = 0.9
    propagation: Annotated[float, Field(ge=0, lt=1)] = 0.8
    neighbours: Annotated[int, Field(ge=1)] = 10
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    hard_classes: Annotated[float, Field(ge=0, le=1)] = 1.0
    queue: Annotated[int, Field(ge=0)] = 200


class EvaluateParams(Section):
    """How the intervals are drawn, by what the rows are cut, and how many of them are judged again with changes."""

    bootstrap_draws: Annotated[int, Field(ge=200)] = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    calibration_bins: Annotated[int, Field(ge=2)] = 10
    ordered_classes: tuple[str, ...] = ()  # from the lowest to the highest, where the classes have an order
    slices: tuple[str, ...] | None = None  # columns; None: the usual ones
    robustness_rows: Annotated[int, Field(ge=0)] | None = None  # None: by effort


class Facts(Section):
    """What every stage knows of the workspace."""

    line: Literal[8] = 8  # part of every stage's key, so that no cache of another version's results is taken for ours
    modality: Literal["image", "text"]
    effort: Effort = "normal"
    seed: Annotated[int, Field(ge=0)] = 0
    max_megapixels: Annotated[float, Field(gt=0)] = 64.0


class Params(Facts):
    """The whole of params.yaml."""

    scrape: ScrapeParams
    validate_: ValidateParams = Field(default=ValidateParams(), alias="validate")
    augment: AugmentParams = AugmentParams()
    synthesize: SynthesizeParams = SynthesizeParams()
    train: TrainParams = TrainParams()
    pseudo_label: PseudoLabelParams = PseudoLabelParams()
    evaluate: EvaluateParams = EvaluateParams()

    @property
    def facts(self) -> Facts:
        """Modality, effort, seed and the largest picture that is decoded."""
        return Facts(**{name: getattr(self, name) for name in Facts.model_fields})

    @property
    def rounds(self) -> int:
        """The pseudo-label rounds at most: as params say, else by effort."""
        by_effort = {"quick": 1, "normal": 2, "thorough": 3}[self.effort]
        return by_effort if self.pseudo_label.rounds is None else self.pseudo_label.rounds


def load(workspace: Path) -> Params:
    """The workspace's params. Raises InputError that names the file, the key and the nearest known one."""
    path = workspace / "params.yaml"
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no sections: start from `seedling init` or copy an example's params.yaml.")
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(path, error)) from error


def read_yaml(path: Path) -> Any:
    """A YAML file's value. Raises InputError where it is absent or no YAML."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: is this a Seedling workspace? `seedling init DIR --images PATH` makes one."
        )
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not readable YAML: {error}") from error


def set_value(workspace: Path, keys: Sequence[str], value: Any) -> None:
    """Writes one value into params.yaml, comments kept: what a run used stands in the file that DVC versions."""
    path, yaml = workspace / "params.yaml", YAML()
    yaml.preserve_quotes, yaml.width = True, 200
    yaml.indent(mapping=2, sequence=4, offset=2)
    values = yaml.load(path.read_text(encoding="utf-8"))
    section = values
    for key in keys[:-1]:
        section = section[key]
    if section.get(keys[-1]) != value:
        section[keys[-1]] = value
        beside = path.with_suffix(".yaml.new")  # renamed into place, so that no kill leaves half a file
        try:
            with beside.open("w", encoding="utf-8") as file:
                yaml.dump(values, file)
            beside.replace(path)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror}): change its owner or mode, or free space."
            ) from error


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for one in error.errors():
        where = ".".join(str(step) for step in one["loc"])
        if one["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(one["loc"][-1]), known_keys(), n=1, cutoff=0.5)
            lines.append(f"unknown key '{where}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
        elif one["loc"] == ("line",):
            own = Facts.model_fields["line"].default
            lines.append(
                f"it was written for line {one['input']!r} of Seedling, this is line {own}: write `line: {own}`, take dvc.yaml from a new workspace, and every stage is made anew"
            )
        else:
            shown = "" if isinstance(one["input"], dict) else f" (it is {one['input']!r})"
            lines.append(f"'{where}': {one['msg'][0].lower()}{one['msg'][1:]}{shown}")
    return f"{path}: " + "; ".join(lines) + ". docs/params.md lists every key."


def known_keys() -> list[str]:
    """Every key that params.yaml may hold, in any section."""
    sections: list[type[Section]] = [Params, FolderSource, TableSource, CrawlSource, ScrapeParams, ValidateParams]
    sections += [SequenceSource, ApiSource, HuggingFaceSource, LabelRule]
    sections += [
        AugmentParams,
        Template,
        SynthesizeParams,
        EncoderParams,
        TrainParams,
        PseudoLabelParams,
        EvaluateParams,
    ]
    return sorted({field.alias or name for section in sections for name, field in section.model_fields.items()})
