"""Finds secrets that are written out in params.yaml, which git tracks and dvc.lock repeats, and the variables that stand for them.

A value is a secret where its name says so (`Authorization`, `api_key`, `sig`), where it has the form of a known service's
token, or where it is a long random word. What a variable `${NAME}` stands for is not written out.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from seedling.errors import InputError

VARIABLE = re.compile(r"\$\{(\w*)\}")
BARE_VARIABLE = re.compile(r"\$[A-Za-z_]\w*")
SENT = (
    "start",
    "url",
    "query",
    "body",
    "graphql",
    "variables",
    "headers",
)  # the keys of a source that hold what goes to its site
OWN_PREFIX = "SEEDLING_"
REMEDY = (
    "put it into an environment variable whose name begins with SEEDLING_, write ${SEEDLING_…} in its place, and revoke a secret that "
    "was committed"
)

STRONG_NAMES = re.compile(
    r"(?:^|_)(?:authorization|(?:[a-z]*)token|(?:[a-z]*)secret|passw(?:or)?d|pwd|passphrase|credentials?|(?:api|access|private|auth|app"
    r"|subscription|account|client|master|admin|service|licen[sc]e)_?key|signature|session|session_?id|jsessionid|phpsessid|jwt|bearer|sas)(?:$|_)"
)
WEAK_NAMES = re.compile(r"(?:^|_)(?:key|sig|auth|cookie|sid|code|pass|hmac|login|appid|pin)(?:$|_)")
NOT_SECRET_NAMES = re.compile(
    r"(?:^|_)(?:(?:next|page|continuation|sync|start)_token|(?:sort|order|group|partition)_key)$"
)
HARMLESS_HEADERS = re.compile(
    r"^(?:accept.*|content_.*|user_agent|referer|origin|host|cache_control|pragma|from|dnt|te|range|if_.*|sec_.*|x_requested_with)$"
)
KNOWN_TOKENS = re.compile(
    r"(?<![A-Za-z0-9])(?:gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}|xapp-[\w-]{10,}"
    r"|[sr]k[-_](?:live|test|proj|ant)?[-_]?[\w-]{16,}|hf_[A-Za-z0-9]{16,}|A(?:KIA|SIA)[A-Z0-9]{12,}|AIza[\w-]{20,}|ya29\.[\w-]{20,}"
    r"|npm_[A-Za-z0-9]{20,}|pypi-[\w-]{16,}|SG\.[\w-]{10,}\.[\w-]{10,}|dop_v1_[a-f0-9]{32,}|shp[a-z]{2}_[a-fA-F0-9]{16,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)|(?<!\d)\d{6,}:[A-Za-z0-9_-]{30,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
AUTHENTICATION = re.compile(r"^\s*(?:bearer|basic|token|apikey|digest|jwt)\s+\S{6,}", re.IGNORECASE)
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
MAX_LINE_CHARACTERS = 500  # of a message: the search takes quadratic time in the length of a word
MIN_RANDOM_CHARACTERS = 20
MIN_HEX_CHARACTERS = 32
MIN_BITS_PER_CHARACTER = 3.0
MIN_WEAK_CHARACTERS = 6


def variables_in(source: Mapping[Any, Any]) -> list[str]:
    """The names of the variables in what a source sends, each once, in their order."""
    sent = [source[key] for key in SENT if key in source]
    return list(dict.fromkeys(name for _, text in _texts(sent, ()) for name in VARIABLE.findall(text)))


def check_sources(sources: Any, path: object) -> None:
    """Raises InputError for the first secret that a source holds, naming its place and never the value.

    sources: `scrape.sources` as YAML has it, not validated yet: an error of the validation would show values. path: of the file.
    """
    for number, source in enumerate(sources if isinstance(sources, list) else []):
        if isinstance(source, Mapping) and (keys := find_secret(source)):
            where = ".".join(["scrape", "sources", str(number), *keys])
            raise InputError(f"{path}, which git tracks, holds a secret in '{where}': {REMEDY}.")


def find_secret(source: Mapping[Any, Any]) -> tuple[str, ...] | None:
    """The path of keys to the first secret that a source holds written out; None where it holds none."""
    for keys, text in _texts(source, ()):
        key, name = keys[0], _words(keys[-1])
        if key == "headers" and len(keys) > 1:
            secret = _in_header(name, text)
        elif key in {"query", "body", "variables"} and len(keys) > 1:
            secret = _is_secret(name, text)
        elif "://" in text or key in {"url", "start"}:
            secret = _in_address(text)
        else:
            secret = KNOWN_TOKENS.search(text) is not None
        if secret or _in_userinfo(text):
            return keys
    return None


def without_secrets(text: str) -> str:
    """A piece of a file for a message: what follows a name that says that it is a secret is left out, and so are known tokens."""
    lines = []
    for line in text.splitlines():
        line = line[:MAX_LINE_CHARACTERS]
        for match in re.finditer(r"([\w-]+)[\"']?\s*[:=]\s*[\"']?(?=\S)", line):
            name = _words(match[1])
            if STRONG_NAMES.search(name) or WEAK_NAMES.search(name):
                line = line[: match.end()] + "…"
                break
        lines.append(KNOWN_TOKENS.sub("…", line))
    return "\n".join(lines)


def _texts(value: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each word below a value with the keys that lead to it."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _texts(below, (*keys, str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for below in value:
            yield from _texts(below, keys or ("",))
    elif value is not None and not isinstance(value, bool):
        yield keys or ("",), str(value)


def _words(name: str) -> str:
    """A name as words: `X-ApiKey` → `x_api_key`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def _is_secret(name: str, value: str) -> bool:
    """Whether a value of this name, in words, is a secret that is written out."""
    if KNOWN_TOKENS.search(value):
        return True
    rest = VARIABLE.sub("", value).strip()
    if not rest:
        return False
    if rest != value.strip():  # part of it is a variable: the rest may be a scheme, or a prefix
        return any(_is_mixed(word) for word in re.split(r"[\s,;:=\"']+", rest))
    if AUTHENTICATION.search(rest):
        return True
    if NOT_SECRET_NAMES.search(name):
        return False
    if STRONG_NAMES.search(name):
        return True
    if WEAK_NAMES.search(name):
        return (
            _is_mixed(rest)
            or UUID.fullmatch(rest) is not None
            or (len(rest) >= MIN_RANDOM_CHARACTERS and " " not in rest)
        )
    return _is_random(rest)


def _in_header(name: str, value: str) -> bool:
    if HARMLESS_HEADERS.search(name):
        return KNOWN_TOKENS.search(value) is not None
    if name in {"cookie", "set_cookie"}:
        pairs = (pair.partition("=") for pair in value.split(";"))
        return any(_is_secret(_words(key), content.strip()) for key, _, content in pairs)
    return _is_secret(name, value) or UUID.fullmatch(value.strip()) is not None


def _in_address(address: str) -> bool:
    """Whether a URL holds a secret in its query, its fragment, or in its path behind a segment that names one."""
    if KNOWN_TOKENS.search(unquote(address)):
        return True
    path, *parameters = re.split(r"[?&;#]", address)
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if equals and _is_secret(_words(unquote(name)), unquote(value)):
            return True
    segments = path.split("/")
    return any(
        STRONG_NAMES.search(_words(name)) is not None and _is_secret("key", unquote(value))
        for name, value in itertools.pairwise(segments)
    )


def _in_userinfo(text: str) -> bool:
    """Whether a URL holds a password, or a token in place of a user's name."""
    if "://" not in text:
        return False
    try:
        parts = urlsplit(text.strip())
        user, password = parts.username or "", parts.password or ""
    except ValueError:  # not an address: said where it is read
        return "@" in text
    return bool(VARIABLE.sub("", password)) or _is_secret("key", unquote(user))


def _is_mixed(word: str) -> bool:
    """Whether letters and digits stand in a word that is not short."""
    return (
        len(word) >= MIN_WEAK_CHARACTERS
        and re.search(r"[A-Za-z]", word) is not None
        and re.search(r"\d", word) is not None
    )


def _is_random(word: str) -> bool:
    """Whether a word is long and random, as tokens are."""
    if re.fullmatch(r"[0-9a-fA-F]+", word):
        return len(word) >= MIN_HEX_CHARACTERS and re.search(r"[a-fA-F]", word) is not None
    if len(word) < MIN_RANDOM_CHARACTERS or re.fullmatch(r"[\w.+/=~-]+", word) is None or UUID.fullmatch(word):
        return False
    if not (re.search(r"\d", word) and re.search(r"[a-z]", word) and re.search(r"[A-Z]", word)):
        return False
    counts = Counter(word)
    bits = -sum(count / len(word) * math.log2(count / len(word)) for count in counts.values())
    return bits >= MIN_BITS_PER_CHARACTER
