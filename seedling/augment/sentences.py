"""Operations on texts by name: words that are replaced, added, moved, dropped, mistyped, misread, cased or masked.

Names, numbers and negations are left alone, and so are the words that params protect: they are what a label most often hangs on. All whitespace stays
as it was. Each operation changes about `share` of the words that may change, at least one of them, and gives the text itself where nothing may.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple, TypeVar

from seedling.media.typos import NEIGHBORS, as_cased
from seedling.stats.randomness import Draws

T = TypeVar("T")
PIECES = re.compile(r"\s+|\S+")
CORE = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)
SENTENCE_END = (".", "!", "?", "…", ":", '."', '!"', '?"')
# English, and the commonest ones of German, French, Spanish, Italian, Portuguese and Dutch.
NEGATIONS = frozenset(
    [
        "no",
        "not",
        "never",
        "none",
        "nothing",
        "nobody",
        "nowhere",
        "neither",
        "nor",
        "cannot",
        "without",
        "hardly",
        "scarcely",
        "barely",
        "nicht",
        "kein",
        "keine",
        "keinen",
        "nie",
        "niemals",
        "ohne",
        "ne",
        "pas",
        "jamais",
        "sans",
        "sin",
        "nunca",
        "ni",
        "non",
        "mai",
        "senza",
        "não",
        "nunca",
        "sem",
        "niet",
        "geen",
        "nooit",
        "zonder",
    ]
)
LOOKALIKES = {  # what optical character recognition takes for another (Kukich 1992 has such tables)
    "l": "1I", "I": "l1", "i": "lj", "O": "0", "o": "0c", "0": "O", "S": "5", "s": "5", "B": "8", "Z": "2", "z": "2", "g": "9q", "q": "g9",
    "e": "c", "c": "e", "a": "o", "u": "v", "v": "u", "n": "h", "h": "b", "b": "h", "t": "f", "f": "t", "m": "n",
}  # fmt: skip
MASK = "[MASK]"
HOLE = "\ue000"  # where a model will put a word: nothing that a text says itself
MASKED, RANDOM = 0.8, 0.1  # of the chosen words; the rest stay (Devlin et al. 2019)

Near = Mapping[str, Sequence[str]]  # a word in lower case → words that may stand for it
Spots = tuple[tuple[int, str], ...]  # places of a word's letters, and what each may become


@dataclass(frozen=True, slots=True)
class Context:
    """What operations draw from. near: synonyms; vocabulary: words of the training texts; protected: words, in lower case, that stay; fill: puts words
    where masks are, (text, mask, the words under them, seed, which words never) → text.
    """

    near: Near = field(default_factory=dict)
    vocabulary: Sequence[str] = ()
    protected: frozenset[str] = frozenset()
    fill: Callable[[str, str, Sequence[str], int, Callable[[str], bool]], str] | None = None


@dataclass(slots=True)
class Cut:
    """A text cut into words and the blanks between them; able: places in `pieces` of the words that may change; hidden: words under masks, by place."""

    pieces: list[str]
    words: Sequence[int]
    able: Sequence[int]
    hidden: dict[int, str] = field(default_factory=dict)


class Seen(NamedTuple):
    """What a word shows by itself. plain: letters alone, and no negation; capital: at its beginning; inner: a capital farther on; ends: a sentence."""

    lower: str
    plain: bool
    capital: bool
    inner: bool
    ends: bool


@lru_cache(100_000)  # a language's words come again and again
def _seen(piece: str) -> Seen:
    lower = piece.lower().strip(".,;:!?\"'()[]…")
    plain = lower.isalpha() and lower not in NEGATIONS and "n't" not in lower
    single = piece == piece.upper() and len(lower) <= 1  # "I", "A": no name
    capital = piece[0].isupper() or (not piece[0].isalnum() and piece.lstrip("\"'([")[:1].isupper())
    inner = any(one.isupper() for one in piece[1:])
    return Seen(lower, plain, capital and not single, inner and not single, piece.endswith(SENTENCE_END))


def cut(text: str, protected: frozenset[str] = frozenset()) -> Cut:
    """The text's words, and which of them may change: no number, no negation, no name (a capital letter within a
    sentence, or a second one; in a text of capitals none).
    """
    known = _cut(text, protected)
    return Cut([*known.pieces], known.words, known.able)


@lru_cache(64)  # the children of a row are made one after the other
def _cut(text: str, protected: frozenset[str]) -> Cut:
    pieces, first = _pieces(text)
    words = range(first, len(pieces), 2)
    able, begins, shouted = [], True, text.isupper()
    for place in words:
        lower, plain, capital, inner, begins_next = _seen(pieces[place])
        if plain and (shouted or not (inner or (capital and not begins))) and lower not in protected:
            able.append(place)
        begins = begins_next
    return Cut(pieces, words, able)


def _pieces(text: str) -> tuple[list[str], int]:
    """Words and the blanks between them, in turn, and the first word's place."""
    words = text.split()
    if " ".join(words) != text:
        return PIECES.findall(text), int(text[:1].isspace())
    pieces = [" "] * max(0, 2 * len(words) - 1)
    pieces[::2] = words
    return pieces, 0


Operation = Callable[[Cut, float, Draws, Context], None]


def change(text: str, operation: str, share: float, seed: int, context: Context) -> str:
    """The text after one operation, see OPERATIONS. share: of the words that may change."""
    found = cut(text, context.protected)
    if found.able:
        OPERATIONS[operation](found, share, Draws(seed), context)
    changed = "".join(found.pieces)
    if context.fill is not None and found.hidden:
        hidden = [found.hidden[place] for place in sorted(found.hidden)]
        return context.fill(changed, HOLE, hidden, seed, lambda word: word in NEGATIONS or word in context.protected)
    return changed


def _one(some: Sequence[T], draw: Draws) -> T:
    """Any of them."""
    return some[draw.below(len(some))]


def _some(places: Sequence[int], share: float, draw: Draws) -> list[int]:
    """So many of them, at least one, in the order in which they were drawn."""
    left = len(places)
    many = round(share * left)
    if many < 2:
        return [places[draw.below(left)]] if left else []
    rest, found = list(places), []
    for _ in range(many):
        place = draw.below(left)
        found.append(rest[place])
        left -= 1
        rest[place] = rest[left]
    return found


@lru_cache(100_000)
def _core(piece: str) -> tuple[str, str, str]:
    """What stands before the word, the word, and what stands after it."""
    found = CORE.match(piece)
    return (found[1], found[2], found[3]) if found else ("", piece, "")


def synonym(found: Cut, share: float, draw: Draws, context: Context) -> None:
    """Words become others that mean nearly the same (Zhang et al. 2015)."""
    known = [place for place in found.able if _core(found.pieces[place])[1].lower() in context.near]
    for place in _some(known, share, draw):
        before, word, after = _core(found.pieces[place])
        found.pieces[place] = before + as_cased(_one(context.near[word.lower()], draw), word) + after


def insert(found: Cut, share: float, draw: Draws, context: Context) -> None:
    """Synonyms of words of the text are put in somewhere; without synonyms, words of the training texts."""
    known = [place for place in found.able if _core(found.pieces[place])[1].lower() in context.near]
    more = [_one(context.near[_core(found.pieces[place])[1].lower()], draw) for place in _some(known, share, draw)]
    if not known and context.vocabulary:
        more = [_one(context.vocabulary, draw) for _ in _some(found.able, share, draw)]
    for word in more:
        place = _one(found.words, draw)
        found.pieces[place] = f"{word} {found.pieces[place]}"


def swap(found: Cut, share: float, draw: Draws, context: Context) -> None:
    """A word and the next one that may change take each other's places (Wei and Zou 2019)."""
    for first in _some(range(len(found.able) - 1), share / 2, draw):
        here, there = found.able[first], found.able[first + 1]
        found.pieces[here], found.pieces[there] = found.pieces[there], found.pieces[here]


def delete(found: Cut, share: float, draw: Draws, context: Context) -> None:
    """Words go, but never the last two."""
    pieces, last = found.pieces, len(found.pieces) - 1
    for place in _some(found.able, share, draw)[: max(0, len(found.words) - 2)]:
        pieces[place] = ""
        if place < last:
            pieces[place + 1] = ""
        elif place:
            pieces[place - 1] = ""


def typo(found: Cut, share: float, draw: Draws, context: Context) -> None:
    """A letter of a word becomes its neighbor on the keyboard (QWERTY)."""
    _one_letter(found, share, draw, _beside)


def misread(found: Cut, share: float, draw: Draws, context: Context) -> None:
    """A letter of a word is taken for one that looks like it."""
    _one_letter(found, share, draw, _alike)


def _one_letter(found: Cut, share: float, draw: Draws, spots_of: Callable[[str], Spots]) -> None:
    for place in _some(found.able, share, draw):
        piece = found.pieces[place]
        if spots := spots_of(piece):
            spot, others = spots[draw.below(len(spots))]
            found.pieces[place] = f"{piece[:spot]}{others[draw.below(len(others))]}{piece[spot + 1 :]}"


@lru_cache(100_000)
def _beside(piece: str) -> Spots:
    return _spots(piece, NEIGHBORS)


@lru_cache(100_000)
def _alike(piece: str) -> Spots:
    return _spots(piece, LOOKALIKES)


def _spots(piece: str, table: Mapping[str, str]) -> Spots:
    found = []
    for spot, letter in enumerate(piece):
        if letter in table:
            found.append((spot, table[letter]))
        elif letter.lower() in table:
            found.append((spot, table[letter.lower()].upper()))
    return tuple(found)


def case(found: Cut, share: float, draw: Draws, context: Context) -> None:
    """The whole text in lower case, in capitals, or words with a capital."""
    way = _one((str.lower, str.upper, str.capitalize), draw)
    for place in found.able:
        found.pieces[place] = way(found.pieces[place])


def mask(found: Cut, share: float, draw: Draws, context: Context) -> None:
    """Of the chosen words 80 % become [MASK], 10 % another word of the training texts, 10 % stay (Devlin et al. 2019). A masked language model, where
    there is one, then says what may stand there.
    """
    for place in _some(found.able, share, draw):
        chance = draw.random()
        before, word, after = _core(found.pieces[place])
        if chance < MASKED:
            found.pieces[place] = before + (MASK if context.fill is None else HOLE) + after
            found.hidden[place] = word
        elif chance < MASKED + RANDOM and context.vocabulary:
            found.pieces[place] = before + _one(context.vocabulary, draw) + after


OPERATIONS: dict[str, Operation] = {
    one.__name__: one for one in (synonym, insert, swap, delete, typo, misread, case, mask)
}
MEDIUM = 0.15  # the share of words of an operation that is named without one
WEAK_AND_STRONG = (0.05, 0.3)  # tried beside it
DEFAULT_POLICY = ("swap", "delete", "typo")
