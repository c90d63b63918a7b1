"""params.yaml as frozen pydantic models that forbid unknown keys: every setting that a user may change."""

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

from seedling.config.former_keys import REMOVED_KEYS, present_name
from seedling.config.monitoring_params import NotifyParams, ReportsParams
from seedling.config.review_params import ReviewParams
from seedling.config.secret_literals import check_sources
from seedling.config.section import Section
from seedling.config.sources import LabelRule, Source
from seedling.errors import InputError
from seedling.files.yaml_files import read_yaml_file
from seedling.workspace import Workspace

_value_repr = reprlib.Repr()  # shortens a value in an error message; enough remains to find it in the file
_value_repr.maxstring = _value_repr.maxother = 200

Effort = Literal["quick", "normal", "thorough"]
Share = Annotated[float, Field(ge=0, le=1)]


NOTHING = "nothing"  # the class whose rows belong to none of the other classes


def _as_string(value: Any) -> Any:
    if isinstance(value, date):
        raise ValueError(  # noqa: TRY004  (pydantic does not report a TypeError)
            f"YAML reads {value} as a date, which dvc.lock cannot store: put it in quotes, '{value}'"
        )
    return None if value is None else str(value)


def _as_list(value: Any) -> Any:
    """Wrap a single operation in a list."""
    return [value] if (isinstance(value, str) and value != "auto") or isinstance(value, dict) else value


class ScrapeParams(Section):
    """The sources to collect rows from; every path is relative to data/.

    as_of: the name of a visit to the web, by convention a date; with a new value, the stage visits the web sources
    again.
    rules: label rules for every source. combine: how the labels of several rules for one item are combined.
    transparent_background: the color behind transparent images; auto: white, or black if the image would not be
    visible on white.
    """

    as_of: Annotated[str | None, BeforeValidator(_as_string)] = None
    sources: Annotated[list[Source], Field(min_length=1)]
    rules: list[LabelRule] = []
    combine: Literal["majority", "dawid_skene"] = "majority"
    transparent_background: Annotated[str, Field(pattern="^(auto|white|black|gray|#[0-9a-fA-F]{6})$")] = "auto"
    max_megabytes: Annotated[float, Field(gt=0)] = 50.0


class ValidateParams(Section):
    """The requirements for a usable row, and how rows are split.

    fixed_camera: whether all images show nearly the same scene, so that they do not count as near-duplicates; auto:
    such images are detected and kept apart.
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

    sha256: the expected hash of the weights' file. precision: bfloat16 is faster on devices that support it, and less
    exact.
    """

    model: str
    revision: str | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"


def _as_model(value: Any) -> Any:
    """Read a name without settings as a model with default settings."""
    return {"model": value} if isinstance(value, str) else value


class AugmentParams(Section):
    """Label-preserving augmented rows: `augmentations_per_row` of them per training row, by effort if null.

    policy: operations by name, with a strength or with arguments; auto: the operations that help this data.
    balance: 0 to 1, how strongly rare classes get additional augmented rows. hard: 0 to 1, the same for rows that
    out-of-fold models find difficult. thesaurus: a file in data/. masked_lm: the model that fills the masks of `mask`.
    protect: words that text operations do not change. label_guard: whether to reject augmented rows for which
    out-of-fold models predict another class than for the parent row. adversarial: the share of rows that get an
    adversarial example against such a model, changed by at most adversarial_levels of 255. plugin: a Python file in
    data/ whose functions the policy may name; null loads nothing.
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


def _as_strings(value: Any) -> Any:
    """Convert numbers in a list or in the keys of a mapping to strings, since YAML parses unquoted numbers."""
    if isinstance(value, list):
        return [item if isinstance(item, str) else _number_as_string(item) for item in value]
    if isinstance(value, dict) and "file" not in value:
        return {key if isinstance(key, str) else _number_as_string(key): item for key, item in value.items()}
    return value


def _number_as_string(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        raise ValueError(f"YAML reads {value} as a value that is not text: put it in quotes")
    return str(value)


class SlotFile(Section):
    """Values of a slot from a file in data/: the file's lines, or a column of a table."""

    file: str
    column: str | None = None


SlotValues = Annotated[list[str] | SlotFile | dict[str, float], BeforeValidator(_as_strings)]


class Template(Section):
    """One template: `text` with {slots} and [optional parts], the label of its rows, and the slots' values.

    label: null if the text contains {label}; the template then generates rows of every class. slots: a list, values
    with weights, or a file. never: combinations that are not generated, slot → value, values or a range of numbers.
    """

    label: str | None = None
    text: str
    slots: dict[str, SlotValues] = {}
    never: list[
        dict[
            str,
            Annotated[
                list[str], BeforeValidator(lambda values: _as_strings(values if isinstance(values, list) else [values]))
            ],
        ]
    ] = []

    @model_validator(mode="after")
    def _check_label(self) -> Template:
        if self.label is None and "{label}" not in self.text:
            raise ValueError(f"'{self.text}' has no label: set `label`, or use {{label}} in the text")
        return self


class SynthesizeParams(Section):
    """Synthetic rows: mixup, CutMix and pasted objects for images (rows per training row), templates for texts.

    partners: the second image of mixup and CutMix is any row of the fold, or a row of the same or of another class.
    cut_by: the method that finds an object: grabcut, or a function of the plugin. plugin: a Python file in data/.
    negatives: backgrounds without their object per training row, as rows of the class `nothing`. generate: images of a
    generative model per training row, generate_side pixels wide; the model trains for generate_steps, by effort if
    null. translate: images in the style of another source per training row, from translate_into, or from any other
    source if null. template_rows: the maximum number of rows per class from templates. label_names: the text that
    stands for a class in {label}.
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
    "logistic_regression",
    "encoder_regression",
    "svm",
    "random_forest",
    "nearest_neighbors",
    "boosted_trees",
    "network",
    "fine_tuned",
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
    """The learners that are compared, and when a round counts as worse than the previous one."""

    candidates: list[Candidate] | None = None
    losses: list[Loss] | None = None
    mixin: bool = True
    choose_by: Literal["log_loss", "balanced_log_loss"] = "log_loss"
    budget_seconds: Annotated[float, Field(gt=0)] | None = None
    pool_rows: Annotated[int, Field(ge=0)] | None = None
    target_selective_accuracy: Annotated[float, Field(gt=0, lt=1)] | None = None
    image_side: Annotated[int, Field(ge=16, le=128)] | None = None
    steps: Annotated[int, Field(ge=10)] | None = None
    accept_if_p_better: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    reject_if_p_accuracy_worse: Annotated[float, Field(gt=0.5, lt=1)] = 0.99
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


MAX_ROUNDS = 3  # pseudo-label rounds in dvc.yaml; params and effort may limit a run to fewer


class PseudoLabelParams(Section):
    """The number of pseudo-label rounds (by effort if null), and which pseudo-labels of the pool are kept."""

    rounds: Annotated[int, Field(ge=0, le=MAX_ROUNDS)] | None = None
    filter: Filter | None = None
    threshold: Share = 0.9
    propagation: Annotated[float, Field(ge=0, lt=1)] = 0.8
    neighbors: Annotated[int, Field(ge=1)] = 10
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    hard_classes: Annotated[float, Field(ge=0, le=1)] = 1.0
    queue: Annotated[int, Field(ge=0)] = 200


class EvaluateParams(Section):
    """The bootstrap intervals, the columns of the slices, and the number of rows for the robustness evaluation."""

    bootstrap_draws: Annotated[int, Field(ge=200)] = 2000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    calibration_bins: Annotated[int, Field(ge=2)] = 10
    ordered_classes: tuple[str, ...] = ()  # from the lowest to the highest, if the classes have an order
    slices: tuple[str, ...] | None = None  # columns; None: the default ones
    robustness_rows: Annotated[int, Field(ge=0)] | None = None  # None: by effort


class WorkspaceConfig(Section):
    """The settings that every stage uses."""

    # Part of every stage's cache key, so that results of another version are never reused.
    pipeline_version: Literal[18] = 18
    modality: Literal["image", "text"]
    effort: Effort = "normal"
    seed: Annotated[int, Field(ge=0)] = 0
    max_megapixels: Annotated[float, Field(gt=0)] = 64.0


SECRET_SETTINGS = {  # names of settings of DVC remotes
    *("access_key_id", "secret_access_key", "session_token", "password", "custom_auth_header", "token"),
    *("connection_string", "account_key", "sas_token", "client_secret", "passphrase"),
}
SECRET_IN_QUERY = re.compile(
    r"(^|&)(sig|signature|token|access_token|key|secret|password|x-amz-[a-z-]+)=", re.IGNORECASE
)


def find_secrets(settings: Mapping[str, Any]) -> list[str]:
    """Return the names of the remote's settings that hold a secret: a password, a key, or a URL that contains one."""
    secrets = [name for name in settings if name.lower() in SECRET_SETTINGS]
    for name in ("url", "endpointurl"):
        address = urlsplit(str(settings.get(name, "")))
        if address.password is not None or SECRET_IN_QUERY.search(address.query):
            secrets.append(name)
    return secrets


def _as_remote(value: Any) -> Any:
    """Read a URL without settings as a remote with default settings."""
    return {"url": value} if isinstance(value, str) else value


class Params(WorkspaceConfig):
    """All of params.yaml.

    encoder: computes the features of all stages. remote: the DVC remote to push to: a URL, the name of a DVC remote,
    or the remote's settings. push: whether to push after each run, for at most push_minutes.
    """

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
    review: ReviewParams = ReviewParams()
    notify: NotifyParams | None = None
    reports: ReportsParams = ReportsParams()

    @property
    def config(self) -> WorkspaceConfig:
        """The settings that every stage uses: pipeline version, modality, effort, seed and maximum image size."""
        return WorkspaceConfig(**{name: getattr(self, name) for name in WorkspaceConfig.model_fields})

    @property
    def rounds(self) -> int:
        """The maximum number of pseudo-label rounds: `pseudo_label.rounds`, or by effort if that is null."""
        by_effort = {"quick": 1, "normal": 2, "thorough": 3}[self.effort]
        return by_effort if self.pseudo_label.rounds is None else self.pseudo_label.rounds


def load(workspace: Path) -> Params:
    """Read the workspace's params.yaml.

    Raises InputError that names the file, the invalid key and the most similar valid key.
    """
    path = Workspace(workspace).params_file
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path} has no sections: start from `seedling init` or copy an example's params.yaml.")
    scrape = values.get("scrape")
    check_sources(scrape.get("sources") if isinstance(scrape, dict) else None, path)
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise InputError(_explain(path, error)) from error
    _check_remote(path, params.remote)
    return params


def _check_remote(path: Path, remote: Mapping[str, Any] | None) -> None:
    """Check the remote outside of the model, whose errors would print the secret value."""
    if remote is None:
        return
    if not remote.get("url"):
        raise InputError(
            f"{path}: 'remote' has no url: write `remote: s3://bucket/path`, or `remote: {{url: s3://bucket/path, …}}`."
        )
    if secrets := find_secrets(remote):
        raise InputError(
            f"{path}, which git tracks, holds a secret in 'remote.{secrets[0]}': remove it there, and set it in the "
            "environment (such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), or with "
            "`dvc remote modify --local seedling KEY VALUE`."
        )


def read_yaml(path: Path) -> Any:
    """Return the parsed content of a YAML file. Raises InputError if it does not exist or is not valid YAML."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: is this a Seedling workspace? `seedling init DIR --images PATH` creates one."
        )
    return read_yaml_file(path)


def set_value(workspace: Path, keys: Sequence[str], value: Any) -> None:
    """Write one value into params.yaml and keep its comments, so that the versioned file has the value that was used.

    keys: the path of keys to the value.
    """
    path, yaml = Workspace(workspace).params_file, YAML()
    yaml.preserve_quotes, yaml.width = True, 200
    yaml.indent(mapping=2, sequence=4, offset=2)
    read_yaml(path)  # checks the size limits and reports syntax errors
    values = yaml.load(path.read_text(encoding="utf-8"))
    section = values
    for key in keys[:-1]:
        section = section[key]
    if section.get(keys[-1]) != value:
        section[keys[-1]] = value
        temporary = path.with_suffix(".yaml.new")  # renamed into place, so that a kill leaves no partial file
        try:
            with temporary.open("w", encoding="utf-8") as file:
                yaml.dump(values, file)
            temporary.replace(path)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror}): change its owner or mode, or free space."
            ) from error


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for detail in error.errors():
        key_path = ".".join(str(key) for key in detail["loc"])
        if detail["type"] == "extra_forbidden":
            if (current_name := present_name(key_path)) is not None:
                lines.append(f"'{key_path}' is now '{current_name}': `seedling migrate` renames it")
                continue
            if key_path in REMOVED_KEYS:
                lines.append(f"'{key_path}' is gone: {REMOVED_KEYS[key_path]}; `seedling migrate` removes it")
                continue
            similar = difflib.get_close_matches(str(detail["loc"][-1]), known_keys(), n=1, cutoff=0.5)
            lines.append(f"unknown key '{key_path}'" + (f" (did you mean '{similar[0]}'?)" if similar else ""))
        elif detail["loc"] == ("pipeline_version",):
            current_version = WorkspaceConfig.model_fields["pipeline_version"].default
            lines.append(
                f"pipeline_version is {detail['input']!r}, but this Seedling has {current_version}: run "
                "`seedling migrate`, after which every stage runs again"
            )
        else:
            is_secret = detail["loc"][:2] == ("notify", "webhook")
            is_hidden = is_secret or isinstance(detail["input"], dict)
            input_text = "" if is_hidden else f" (it is {_value_repr.repr(detail['input'])})"
            lines.append(f"'{key_path}': {detail['msg'][0].lower()}{detail['msg'][1:]}{input_text}")
    return f"{path}: " + "; ".join(lines) + ". docs/params.md lists every key."


def known_keys() -> list[str]:
    """Return every valid key of params.yaml, of all sections."""
    sections = [
        *(Params, ScrapeParams, ValidateParams, AugmentParams, Template, SlotFile, SynthesizeParams),
        *(EncoderParams, TrainParams, PseudoLabelParams, EvaluateParams, ReviewParams, NotifyParams, ReportsParams),
        *(LabelRule, *get_args(get_args(Source)[0])),
    ]
    return sorted({field.alias or name for section in sections for name, field in section.model_fields.items()})
