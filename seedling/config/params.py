"""params.yaml: every number that a person may change, loaded once into frozen models that forbid unknown keys."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from ruamel.yaml import YAML

from seedling.config.former_keys import present_name
from seedling.config.monitoring_params import NotifyParams, ReportsParams
from seedling.config.secret_literals import check_sources
from seedling.config.section import Section
from seedling.config.sources import LabelRule, Source
from seedling.errors import InputError
from seedling.files.yaml_files import read_yaml_file

_shown = reprlib.Repr()  # of a value in an error: enough to find it in the file
_shown.maxstring = _shown.maxother = 200

Effort = Literal["quick", "normal", "thorough"]
Share = Annotated[float, Field(ge=0, le=1)]


NOTHING = "nothing"  # a class of this name holds what is none of the others


def _as_a_word(value: Any) -> Any:
    if isinstance(value, date):
        raise ValueError(  # noqa: TRY004  (which pydantic would not tell of)
            f"YAML takes {value} for a date, which DVC's lock file cannot hold: write it in quotes, '{value}'"
        )
    return None if value is None else str(value)


def _as_list(value: Any) -> Any:
    """One operation stands for a list of one."""
    return [value] if (isinstance(value, str) and value != "auto") or isinstance(value, dict) else value


class ScrapeParams(Section):
    """What to bring in; every path is relative to data/. rules: of every source; combine: how several that speak of one item agree. transparent_background: on which
    transparent images are put; auto: white, or black where nothing of the image could be seen on white. A new `as_of` (any word, a date by custom) makes the stage go to the web again.
    """

    as_of: Annotated[str | None, BeforeValidator(_as_a_word)] = None
    sources: Annotated[list[Source], Field(min_length=1)]
    rules: list[LabelRule] = []
    combine: Literal["majority", "dawid_skene"] = "majority"
    transparent_background: Annotated[str, Field(pattern="^(auto|white|black|gray|#[0-9a-fA-F]{6})$")] = "auto"
    max_megabytes: Annotated[float, Field(gt=0)] = 50.0


class ValidateParams(Section):
    """What a usable row is, and how rows are split.

    fixed_camera: whether all images show nearly the same scene, so that none is a near-duplicate of another; auto: those that do are
    found, and kept apart.
    """

    min_side: Annotated[int, Field(ge=1)] = 8
    min_characters: Annotated[int, Field(ge=1)] = 2
    blank_contrast: Annotated[float, Field(ge=0)] = 2.0
    near_duplicate_bits: Annotated[int, Field(ge=0, le=3)] = 3
    near_duplicate_difference: Annotated[float, Field(ge=0, le=255)] = 6.0
    fixed_camera: Literal["auto"] | bool = "auto"
    near_duplicate_similarity: Annotated[float, Field(gt=0.5, le=1)] = 0.8
    merge_case: bool = True
    min_class_rows: Annotated[int, Field(ge=1)] = 1
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    test_share: Annotated[float, Field(ge=0, lt=1)] = 0.2
    min_test_rows: Annotated[int, Field(ge=1)] = 30
    label_issues: Literal["ignore", "report", "drop", "relabel", "down-weight"] = "report"
    items_per_minute: Annotated[float, Field(gt=0)] = 20.0


class EncoderParams(Section):
    """A pretrained encoder: a folder, a model of the Hub at a revision, or all-MiniLM-L6-v2 from its package.

    sha256: what the weights' file must hash to; precision: bfloat16 is faster where the device has it, and less exact.
    """

    model: str
    revision: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"


def _as_model(value: Any) -> Any:
    """A name alone is a model with nothing more said of it."""
    return {"model": value} if isinstance(value, str) else value


class AugmentParams(Section):
    """Label-preserving children of training rows; `augmentations_per_row` of them for each row, by effort if null.

    policy: operations by name, with a strength or with arguments; `auto`: those that help this data. balance: 0 to 1, how far rare classes get more
    children; hard: likewise rows that models of the other folds find hard. thesaurus: a file in data/; masked_lm: a model that fills the masks of `mask`; protect: words that text operations leave alone; label_guard: children that models of the other folds
    take for another class than their parent are rejected. adversarial: the share of rows that get a child which misleads such a model,
    changed by adversarial_levels of 255. plugin: a Python file in data/ whose functions the policy may name; nothing is loaded where null.
    """

    augmentations_per_row: Annotated[int, Field(ge=0)] | None = None
    policy: Annotated[Literal["auto"] | list[str | dict[str, Any]] | None, BeforeValidator(_as_list)] = None
    balance: Share = 0.0
    hard: Share = 0.0
    thesaurus: str | None = None
    masked_lm: Annotated[EncoderParams | None, BeforeValidator(_as_model)] = None
    protect: list[str] = []
    label_guard: bool = False
    adversarial: Share = 0.0
    plugin: str | None = None
    adversarial_attack: Literal["fgsm", "deepfool"] = "fgsm"
    adversarial_levels: Annotated[float, Field(gt=0, le=255)] = 4.0
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5


def _as_words(value: Any) -> Any:
    """YAML takes a bare number for one; in a sentence it is a word."""
    if isinstance(value, list):
        return [item if isinstance(item, str) else _number_as_word(item) for item in value]
    if isinstance(value, dict) and "file" not in value:
        return {key if isinstance(key, str) else _number_as_word(key): item for key, item in value.items()}
    return value


def _number_as_word(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        raise ValueError(f"YAML takes {value} for no word: put it in quotes")
    return str(value)


class SlotFile(Section):
    """Values of a slot from a file in data/: its lines, or a column of a table."""

    file: str
    column: str | None = None


SlotValues = Annotated[list[str] | SlotFile | dict[str, float], BeforeValidator(_as_words)]


class Template(Section):
    """One template: `text` with {slots} and [optional parts], the label of what it makes, and the slots' values.

    label: null where the text names it, {label}: it then makes rows of every class. slots: a list, values with weights, or a file. never: combinations
    that are not said, slot → value, values or a range of numbers.
    """

    label: str | None = None
    text: str
    slots: dict[str, SlotValues] = {}
    never: list[
        dict[
            str,
            Annotated[
                list[str], BeforeValidator(lambda words: _as_words(words if isinstance(words, list) else [words]))
            ],
        ]
    ] = []

    @model_validator(mode="after")
    def _says_its_label(self) -> Template:
        if self.label is None and "{label}" not in self.text:
            raise ValueError(f"'{self.text}' has no label: give it one, or let the text name it as {{label}}")
        return self


class SynthesizeParams(Section):
    """New rows: mixtures and pasted objects for images (per training row), templates for texts (at most so many a class).

    partners: of a mixture, any row of the fold, or rows of the same or of another class. cut_by: what finds an object, grabcut or a function of
    the plugin, a Python file in data/. negatives: backgrounds without their object, per training row, as rows of the class `nothing`. generate: images of a
    generator, per training row, generate_side pixels wide; it learns for generate_steps, by effort where null. translate: images as from another source, per training
    row, from translate_into, any other where null. label_names: how a class is said in {label}.
    """

    mixup: Annotated[float, Field(ge=0)] | None = None
    mixup_alpha: Annotated[float, Field(gt=0)] = 0.4
    cutmix: Annotated[float, Field(ge=0)] = 0.0
    cutmix_alpha: Annotated[float, Field(gt=0)] = 1.0
    partners: Literal["any", "same_class", "other_class"] = "any"
    cut_and_paste: Annotated[float, Field(ge=0)] = 0.0
    cut_by: str = "grabcut"
    plugin: str | None = None
    blend: Literal["feather", "poisson"] = "feather"
    negatives: Annotated[float, Field(ge=0, le=1)] = 0.0
    generate: Annotated[float, Field(ge=0)] = 0.0
    generate_side: Annotated[int, Field(ge=8, le=128, multiple_of=8)] = 32
    generate_steps: Annotated[int, Field(gt=0)] | None = None
    translate: Annotated[float, Field(ge=0)] = 0.0
    translate_into: str | None = None
    templates: list[Template] = []
    template_rows: Annotated[int, Field(ge=0)] | dict[str, Annotated[int, Field(ge=0)]] = 40
    label_names: dict[str, str] = {}
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5


Candidate = Literal[
    "logistic_regression", "svm", "random_forest", "nearest_neighbors", "boosted_trees", "network", "fine_tuned"
]
Loss = Literal[
    "plain",
    "label_weighted",
    "label_weighted_twice",
    "balanced",
    "logit_adjusted",
    "focal",
    "symmetric",
    "second_head",
    "consistency",
    "mixin",
]


class TrainParams(Section):
    """Which learners are compared, and when a round is worse than the one before."""

    candidates: list[Candidate] | None = None
    losses: list[Loss] | None = None
    mixin: bool = True
    choose_by: Literal["log_loss", "balanced_log_loss"] = "log_loss"
    budget_seconds: Annotated[float, Field(gt=0)] | None = None
    pool_rows: Annotated[int, Field(ge=0)] | None = None
    target_selective_accuracy: Annotated[float, Field(gt=0, lt=1)] = 0.95
    image_side: Annotated[int, Field(ge=16, le=128)] | None = None
    steps: Annotated[int, Field(ge=10)] | None = None
    decision_seeds: Annotated[int, Field(ge=1, le=20)] | None = None
    reject_if_p_worse: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    margin: Share = 0.0
    reject_if_p_accuracy_worse: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    converged_share: Share = 0.01
    bootstrap_draws: Annotated[int, Field(ge=200)] = 2000


Filter = Literal[
    "all",
    "confidence",
    "class_wise",
    "top_per_class",
    "agreement",
    "dropout_certainty",
    "without_unreliable_classes",
    "curriculum",
]


MAX_ROUNDS = 3  # of pseudo-labels: so many stages are in dvc.yaml; params and effort may ask for fewer


class PseudoLabelParams(Section):
    """How many rounds (by effort where null), and which of the pool's labels are kept."""

    rounds: Annotated[int, Field(ge=0, le=MAX_ROUNDS)] | None = None
    filter: Filter | None = None
    threshold: Share = 0.9
    propagation: Annotated[float, Field(ge=0, lt=1)] = 0.8
    neighbors: Annotated[int, Field(ge=1)] = 10
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


class WorkspaceConfig(Section):
    """What every stage knows of the workspace."""

    # Part of every stage's key, so that no cached result of another version is taken for one of this version.
    pipeline_version: Literal[16] = 16
    modality: Literal["image", "text"]
    effort: Effort = "normal"
    seed: Annotated[int, Field(ge=0)] = 0
    max_megapixels: Annotated[float, Field(gt=0)] = 64.0


SECRET_SETTINGS = {  # of DVC's remotes
    *("access_key_id", "secret_access_key", "session_token", "password", "custom_auth_header", "token"),
    *("connection_string", "account_key", "sas_token", "client_secret", "passphrase"),
}
SECRET_IN_QUERY = re.compile(
    r"(^|&)(sig|signature|token|access_token|key|secret|password|x-amz-[a-z-]+)=", re.IGNORECASE
)


def find_secrets(settings: Mapping[str, Any]) -> list[str]:
    """The settings of a DVC remote that hold a secret: a password, a key, or an address with one of them in it."""
    secrets = [name for name in settings if name.lower() in SECRET_SETTINGS]
    for name in ("url", "endpointurl"):
        address = urlsplit(str(settings.get(name, "")))
        if address.password is not None or SECRET_IN_QUERY.search(address.query):
            secrets.append(name)
    return secrets


def _as_remote(value: Any) -> Any:
    """An address alone is a remote with nothing more set."""
    return {"url": value} if isinstance(value, str) else value


class Params(WorkspaceConfig):
    """The whole of params.yaml. encoder: computes the features of all stages. remote: where DVC pushes to, an address, the name of a DVC remote, or its settings; push: after each run, for at most push_minutes."""

    encoder: Annotated[EncoderParams | None, BeforeValidator(_as_model)] = None
    remote: Annotated[dict[str, str | int | bool] | None, BeforeValidator(_as_remote)] = None
    push: bool = False
    push_minutes: Annotated[float, Field(gt=0)] = 30.0

    scrape: ScrapeParams
    validate_: ValidateParams = Field(default=ValidateParams(), alias="validate")
    augment: AugmentParams = AugmentParams()
    synthesize: SynthesizeParams = SynthesizeParams()
    train: TrainParams = TrainParams()
    pseudo_label: PseudoLabelParams = PseudoLabelParams()
    evaluate: EvaluateParams = EvaluateParams()
    notify: NotifyParams | None = None
    reports: ReportsParams = ReportsParams()

    @property
    def facts(self) -> WorkspaceConfig:
        """Modality, effort, seed and the largest image that is decoded."""
        return WorkspaceConfig(**{name: getattr(self, name) for name in WorkspaceConfig.model_fields})

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
    scrape = values.get("scrape")
    check_sources(scrape.get("sources") if isinstance(scrape, dict) else None, path)
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(path, error)) from error
    _check_remote(path, params.remote)
    return params


def _check_remote(path: Path, remote: Mapping[str, Any] | None) -> None:
    """Apart from the model, whose errors would show the value."""
    if remote is None:
        return
    if not remote.get("url"):
        raise InputError(
            f"{path}: 'remote' has no url: write `remote: s3://bucket/path`, or `remote: {{url: s3://bucket/path, …}}`."
        )
    if secrets := find_secrets(remote):
        raise InputError(
            f"{path}, which git tracks, holds a secret in 'remote.{secrets[0]}': remove it there, and give it in the environment "
            "(such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or with `dvc remote modify --local seedling KEY VALUE`."
        )


def read_yaml(path: Path) -> Any:
    """A YAML file's value. Raises InputError where it is absent or no YAML."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: is this a Seedling workspace? `seedling init DIR --images PATH` makes one."
        )
    return read_yaml_file(path)


def set_value(workspace: Path, keys: Sequence[str], value: Any) -> None:
    """Writes one value into params.yaml, comments kept: what a run used stands in the file that DVC versions."""
    path, yaml = workspace / "params.yaml", YAML()
    yaml.preserve_quotes, yaml.width = True, 200
    yaml.indent(mapping=2, sequence=4, offset=2)
    read_yaml(path)  # with its limits and its errors
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
    for detail in error.errors():
        where = ".".join(str(step) for step in detail["loc"])
        if detail["type"] == "extra_forbidden":
            if (present := present_name(where)) is not None:
                lines.append(f"'{where}' is now '{present}': `seedling migrate` renames it")
                continue
            near = difflib.get_close_matches(str(detail["loc"][-1]), known_keys(), n=1, cutoff=0.5)
            lines.append(f"unknown key '{where}'" + (f" (did you mean '{near[0]}'?)" if near else ""))
        elif detail["loc"] == ("pipeline_version",):
            present_version = WorkspaceConfig.model_fields["pipeline_version"].default
            lines.append(
                f"pipeline_version is {detail['input']!r}, but this Seedling has {present_version}: run `seedling migrate`, after which every stage runs again"
            )
        else:
            secret = detail["loc"][:2] == ("notify", "webhook")
            input_shown = (
                "" if secret or isinstance(detail["input"], dict) else f" (it is {_shown.repr(detail['input'])})"
            )
            lines.append(f"'{where}': {detail['msg'][0].lower()}{detail['msg'][1:]}{input_shown}")
    return f"{path}: " + "; ".join(lines) + ". docs/params.md lists every key."


def known_keys() -> list[str]:
    """Every key that params.yaml may hold, in any section."""
    sections = [
        *(Params, ScrapeParams, ValidateParams, AugmentParams, Template, SlotFile, SynthesizeParams),
        *(EncoderParams, TrainParams, PseudoLabelParams, EvaluateParams, NotifyParams, ReportsParams),
        *(LabelRule, *get_args(get_args(Source)[0])),
    ]
    return sorted({field.alias or name for section in sections for name, field in section.model_fields.items()})
