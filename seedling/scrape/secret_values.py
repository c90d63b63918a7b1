"""What the variables in a source stand for: put in where a request leaves for the source's own site, and masked in what comes back."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus, urlsplit

from seedling.config.secret_literals import BARE_VARIABLE, OWN_PREFIX, REMEDY, VARIABLE, find_secret, variables_in
from seedling.config.sources import ApiSource, CrawlSource, SequenceSource
from seedling.errors import InputError
from seedling.terminal.notices import state_once

IN_ADDRESS = re.compile(r"(?:\$|%24)(?:\{|%7B)(\w+)(?:\}|%7D)", re.IGNORECASE)  # as libraries quote it
SHOWN_IN_ADDRESS = "$%7B{}%7D"
MIN_CHARACTERS = 4  # of a value that is masked in addresses
MIN_MIXED_CHARACTERS, MIN_PLAIN_CHARACTERS = 6, 12  # of one that is masked in texts, with digits or without
Web = CrawlSource | SequenceSource | ApiSource


def addresses_of(source: Web) -> list[str]:
    """Where the source begins."""
    return source.start if isinstance(source, CrawlSource) else [source.url]


def origin_of(url: str) -> str:
    """Scheme, host and port of an address."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def check_secrets(source: Web) -> None:
    """Raises InputError for a secret that is written out, and for a variable that may not be read, is not set, or stands where it may not."""
    if place := find_secret(source.model_dump(exclude_defaults=True)):
        raise InputError(f"params.yaml, which git tracks, holds a secret in '{'.'.join(place)}' of a source: {REMEDY}.")
    where = f"params.yaml: scrape.sources: the source at {addresses_of(source)[0]}"
    for address in addresses_of(source):
        if VARIABLE.search(address.partition("://")[0]) or VARIABLE.search(urlsplit(address).netloc):
            raise InputError(
                f"{where} has a variable in its host: write the host out, and only what follows it as a variable."
            )
    if isinstance(source, ApiSource):
        for name, value in source.headers.items():
            if bare := BARE_VARIABLE.search(value):
                raise InputError(f"{where}: the header {name} names {bare[0]}: write ${{{bare[0][1:]}}}.")
    for name in variables_in(source.model_dump()):
        if not name.startswith(OWN_PREFIX) and name not in source.allow_env:
            raise InputError(
                f"{where} reads the environment variable {name or '${}'}: only variables whose names begin with {OWN_PREFIX} may be read, and "
                f"those that the source names, as in `allow_env: [{name or 'NAME'}]`."
            )
        if name not in os.environ:
            raise InputError(f"{where} needs the environment variable {name}, which is not set.")
        if re.search(r"[\x00-\x1f\x7f]", os.environ[name]):
            raise InputError(
                f"{where}: the environment variable {name} holds a line break or another control character: set it anew."
            )
        if not name.startswith(OWN_PREFIX):
            state_once(
                f"The environment variable {name} is sent to {origin_of(addresses_of(source)[0])}, as `allow_env` in params.yaml says."
            )


@dataclass(frozen=True)
class SecretValues:
    """A source's variables and their values, and the origins that they are sent to: no other site gets one.

    in_addresses: the variables that may stand in an address; others in an address that a page gives are left as they are.
    """

    values: Mapping[str, str]
    in_addresses: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, source: Web) -> SecretValues:
        """As the environment has them now."""
        names = variables_in(source.model_dump())
        in_addresses = variables_in({"start": addresses_of(source), "query": getattr(source, "query", {})})
        values = {name: os.environ[name] for name in names if name in os.environ}
        return cls(values, frozenset(in_addresses), frozenset(map(origin_of, addresses_of(source))))

    def __bool__(self) -> bool:
        return bool(self.values)

    def sent_to(self, url: str) -> bool:
        """Whether requests to this address carry the values."""
        return bool(self.values) and origin_of(url) in self.origins

    def in_address(self, url: str) -> str:
        """The address with its variables' values."""
        known = {name: self.values[name] for name in self.in_addresses & self.values.keys()}
        return IN_ADDRESS.sub(lambda found: quote(known[found[1]], safe="") if found[1] in known else found[0], url)

    def in_header(self, value: str) -> str:
        """A header's value with its variables' values."""
        return VARIABLE.sub(lambda found: self.values.get(found[1], found[0]), value)

    def in_json(self, body: bytes) -> bytes:
        """A JSON body with its variables' values."""
        return VARIABLE.sub(
            lambda found: json.dumps(self.values[found[1]])[1:-1] if found[1] in self.values else found[0],
            body.decode("utf-8"),
        ).encode("utf-8")

    def masked_address(self, url: str) -> str:
        """The address with the variables' names in place of their values."""
        for name, value in self._longest_first():
            if len(value) >= MIN_CHARACTERS:
                for form in {quote(value, safe=""), quote_plus(value), quote(value), value}:
                    url = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", SHOWN_IN_ADDRESS.format(name), url)
        return url

    def masked(self, text: str) -> str:
        """A text with the variables' names in place of the values that are secrets by their form, however they are quoted."""
        for form, name in self._forms():
            text = text.replace(form, f"${{{name}}}")
        return text

    def masked_bytes(self, body: bytes) -> bytes:
        """As `masked`, of an answer's body."""
        for form, name in self._forms():
            body = body.replace(form.encode(), b"${%s}" % name.encode())
        return body

    def masked_values(self, value: Any) -> Any:
        """As `masked`, of every text in a JSON value."""
        if isinstance(value, str):
            return self.masked(value)
        if isinstance(value, dict):
            return {self.masked(key): self.masked_values(below) for key, below in value.items()}
        return [self.masked_values(below) for below in value] if isinstance(value, list) else value

    def _longest_first(self) -> list[tuple[str, str]]:
        return sorted(self.values.items(), key=lambda pair: (-len(pair[1]), pair[0]))

    def _forms(self) -> list[tuple[str, str]]:
        """The ways in which a value may be repeated, and its variable. A short plain word is no secret by its form: masked, it would go missing from rows."""
        forms = []
        for name, value in self._longest_first():
            mixed = re.search(r"\d", value) is not None and re.search(r"[^\W\d]", value) is not None
            if " " not in value and len(value) >= (MIN_MIXED_CHARACTERS if mixed else MIN_PLAIN_CHARACTERS):
                quoted = (value, quote(value, safe=""), quote_plus(value), html.escape(value), json.dumps(value)[1:-1])
                forms += [(form, name) for form in dict.fromkeys((*quoted, value.replace("/", r"\/")))]
        return forms
