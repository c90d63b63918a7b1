"""The section `review` of params.yaml: what reviewers are asked, and when a run waits for their answers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from seedling.config.section import Section

ReviewOrder = Literal[
    "expected_value",
    "label_issues",
    "margin",
    "entropy",
    "disagreement",
    "coreset",
    "newest",
    "random",
    "clusters",
]
WaitAfter = Literal["validate", "pseudo_label"]
MAX_CLASSES, MAX_CLASS_CHARACTERS = 1_000, 200
MAX_KEY_CHARACTERS, MAX_KEYS_PER_ACTION = 32, 64
MAX_TIMEOUT_MINUTES = 60.0 * 24 * 365

MinorityShare = Annotated[float, Field(ge=0, le=0.5)]
KeyCode = Annotated[str, Field(min_length=1, max_length=MAX_KEY_CHARACTERS)]
ClassName = Annotated[str, Field(min_length=1, max_length=MAX_CLASS_CHARACTERS)]


def _as_key_codes(value: Any) -> Any:
    """Read one key as a list of one, and an unquoted digit as its key."""
    codes = value if isinstance(value, list) else [value]
    return [str(code) if isinstance(code, int) and not isinstance(code, bool) else code for code in codes]


ActionKeys = Annotated[tuple[KeyCode, ...], Field(max_length=MAX_KEYS_PER_ACTION), BeforeValidator(_as_key_codes)]


def _as_class_names(value: Any) -> Any:
    """Convert numbers to class names, since YAML parses unquoted numbers."""
    if not isinstance(value, list):
        return value
    return [str(name) if isinstance(name, int | float) and not isinstance(name, bool) else name for name in value]


class ReviewParams(Section):
    """What reviewers are asked, and when a run waits for them.

    wait_after: the stage after which a run waits; null: a run does not wait. answers: the number of new answers since
    the last run for which it waits; until_enough: whether it waits, instead, until the expected gain of 100 further
    answers is below enough_gain, a share of accuracy. timeout_minutes: the time after which the run goes on without.
    random_share, gold_share, repeat_share: shares of the questions that are random rows without a suggestion, rows of
    which the answer is known, and rows that the reviewer has answered before. overlap: the share of rows that a second
    reviewer gets as well. refit_after: the number of answers after which the heads are fitted again. keys: action →
    keys that replace its default keys. classes: the classes of a workspace without any label.
    """

    wait_after: WaitAfter | None = None
    answers: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    until_enough: bool = False
    timeout_minutes: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_MINUTES)] = 1440.0
    order: ReviewOrder = "expected_value"
    random_share: MinorityShare = 0.1
    gold_share: MinorityShare = 0.02
    repeat_share: MinorityShare = 0.02
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.0
    refit_after: Annotated[int, Field(ge=1, le=10_000)] = 20
    enough_gain: Annotated[float, Field(gt=0, lt=1)] = 0.005
    keys: dict[str, ActionKeys] = Field(default_factory=dict)
    classes: Annotated[tuple[ClassName, ...], Field(max_length=MAX_CLASSES), BeforeValidator(_as_class_names)] = ()

    @model_validator(mode="after")
    def _check_shares(self) -> ReviewParams:
        total = self.random_share + self.gold_share + self.repeat_share
        if total > 0.5:
            raise ValueError(
                f"random_share, gold_share and repeat_share sum to {total:g}, and at most half of the questions may "
                "be checks: lower them"
            )
        return self

    @model_validator(mode="after")
    def _check_classes(self) -> ReviewParams:
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if repeated:
            raise ValueError(f"the class '{repeated[0]}' is listed more than once in `classes`: list every class once")
        if self.classes and len(self.classes) < 2:
            raise ValueError("`classes` lists one class: list at least two")
        return self
