"""The sections `notify` and `reports` of params.yaml: notifications of events, and where a run's pages are served."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from seedling.config.section import Section

EventKind = Literal["gate_failed", "round_rejected", "drift", "needs_review", "nothing_new", "run_failed"]
DEFAULT_EVENTS: tuple[EventKind, ...] = ("gate_failed", "round_rejected", "drift", "needs_review", "run_failed")
ENVIRONMENT_REFERENCE = r"^\$\{SEEDLING_[A-Z0-9_]+\}$"


def _check_reference(value: object) -> object:
    """Reject a literal webhook address: it is a secret and params.yaml is versioned, so only a variable is allowed."""
    if isinstance(value, str) and not value.startswith("${"):
        raise ValueError(
            "a webhook's address is a secret and params.yaml is versioned: put it into an environment variable and "
            "write its name here, such as ${SEEDLING_WEBHOOK_URL}"
        )
    return value


def _check_base_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"'{value}' is not an http or https address, such as https://reports.example.org/seedling")
    return value.rstrip("/")


def _check_store(value: str) -> str:
    parts = urlsplit(value)
    if not parts.scheme or not parts.netloc:
        raise ValueError(f"'{value}' does not name a store, such as s3://bucket/prefix")
    return value.rstrip("/")


class NotifyParams(Section):
    """The receivers of notifications, and the events that are sent.

    webhook: the environment variable with the address, as ${SEEDLING_…}. block: a Prefect notification block as
    type/name. template: the message as a Jinja template. allow_private: whether the webhook may have a private address.
    """

    webhook: Annotated[str | None, Field(pattern=ENVIRONMENT_REFERENCE), BeforeValidator(_check_reference)] = None
    block: Annotated[str | None, Field(pattern=r"^[a-z0-9-]+/[^/]+$")] = None
    events: tuple[EventKind, ...] = DEFAULT_EVENTS
    template: str | None = None
    allow_private: bool = False
    timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0

    @model_validator(mode="after")
    def _has_a_target(self) -> NotifyParams:
        if self.webhook is None and self.block is None:
            raise ValueError("name a target: webhook: ${SEEDLING_WEBHOOK_URL}, or block: slack-webhook/NAME")
        return self


class ReportsParams(Section):
    """Where the pages of a run are served, and what they show.

    base_url: the address under which the pages are served. store: the destination to which the pages are copied after
    a run. show_personal_data: whether the pages show likely personal data in texts instead of masking it.
    """

    base_url: Annotated[str | None, AfterValidator(_check_base_url)] = None
    store: Annotated[str | None, AfterValidator(_check_store)] = None
    show_personal_data: bool = False
