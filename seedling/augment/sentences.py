"""Operations on texts by name: replace, insert, swap, delete, mistype, misread, recase or mask words.

Names, numbers, negations and protected words do not change: a label depends on them most often. Whitespace stays as it
is. Each operation changes about `share` of the words that may change, and at least one; a text without such a word is
returned unchanged.
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
# English, and the most frequent in German, French, Spanish, Italian, Portuguese and Dutch.
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
LOOKALIKES = {  # confusions of optical character recognition (see the tables in Kukich 1992)
    "l": "1I", "I": "l1", "i": "lj", "O": "0", "o": "0c", "0": "O", "S": "5", "s": "5", "B": "8", "Z": "2", "z": "2",
    "g": "9q", "q": "g9", "e": "c", "c": "e", "a": "o", "u": "v", "v": "u", "n": "h", "h": "b", "b": "h", "t": "f",
    "f": "t", "m": "n",
}  # fmt: skip
MASK = "[MASK]"
HOLE = "\ue000"  # a mask that a model will fill: a private-use character, which no text contains
MASKED_SHARE, RANDOM_SHARE = 0.8, 0.1  # of the selected words; the others stay (Devlin et al. 2019)

Near = Mapping[str, Sequence[str]]  # word in lower case → its synonyms
# (text, mask, the masked words, seed, predicate of forbidden words) → text
Fill = Callable[[str, str, Sequence[str], int, Callable[[str], bool]], str]
Substitutions = tuple[tuple[int, str], ...]  # index of a letter in a word, and its possible replacements


@dataclass(frozen=True, slots=True)
class Context:
    """Resources of the operations.

    near: synonyms; vocabulary: words of the training texts; protected: words, in lower case, that must not change;
    fill: replaces masks.
    """

    near: Near = field(default_factory=dict)
    vocabulary: Sequence[str] = ()
    protected: frozenset[str] = frozenset()
    fill: Fill | None = None


@dataclass(slots=True)
class Tokens:
    """A text split into words and the whitespace between them.

    words: indices in `pieces` of all words; changeable: of the words that may change; masked: masked words by index.
    """

    pieces: list[str]
    words: Sequence[int]
    changeable: Sequence[int]
    masked: dict[int, str] = field(default_factory=dict)


class WordTraits(NamedTuple):
    """What a word shows without its context.

    plain: letters only, and not a negation; capital: the first letter; inner: another letter is a capital;
    ends_sentence: it ends with a punctuation mark that ends a sentence.
    """

    lower: str
    plain: bool
    capital: bool
    inner: bool
    ends_sentence: bool


@lru_cache(100_000)  # the words of a language repeat
def _traits(piece: str) -> WordTraits:
    lower = piece.lower().strip(".,;:!?\"'()[]…")
    plain = lower.isalpha() and lower not in NEGATIONS and "n't" not in lower
    single = piece == piece.upper() and len(lower) <= 1  # "I", "A": not a name
    capital = piece[0].isupper() or (not piece[0].isalnum() and piece.lstrip("\"'([")[:1].isupper())
    inner = any(letter.isupper() for letter in piece[1:])
    return WordTraits(lower, plain, capital and not single, inner and not single, piece.endswith(SENTENCE_END))


def tokenize(text: str, protected: frozenset[str] = frozenset()) -> Tokens:
    """Split the text into words, and find those that may change.

    Numbers, negations, names and protected words may not change. A name has a capital letter within a sentence, or a
    capital that is not its first letter; a text in capitals has no names.
    """
    cached = _tokenize(text, protected)
    return Tokens([*cached.pieces], cached.words, cached.changeable)


@lru_cache(64)  # the augmented rows of one row are created one after the other
def _tokenize(text: str, protected: frozenset[str]) -> Tokens:
    pieces, first = _pieces(text)
    words = range(first, len(pieces), 2)
    changeable, begins_sentence, is_upper = [], True, text.isupper()
    for index in words:
        lower, plain, capital, inner, ends_sentence = _traits(pieces[index])
        is_name = not is_upper and (inner or (capital and not begins_sentence))
        if plain and not is_name and lower not in protected:
            changeable.append(index)
        begins_sentence = ends_sentence
    return Tokens(pieces, words, changeable)


def _pieces(text: str) -> tuple[list[str], int]:
    """Return words and the whitespace between them, alternating, and the index of the first word."""
    words = text.split()
    if " ".join(words) != text:
        return PIECES.findall(text), int(text[:1].isspace())
    pieces = [" "] * max(0, 2 * len(words) - 1)
    pieces[::2] = words
    return pieces, 0


Operation = Callable[[Tokens, float, Draws, Context], None]


def change(text: str, operation: str, share: float, seed: int, context: Context) -> str:
    """Return the text after one operation of OPERATIONS. share: of the words that may change."""
    tokens = tokenize(text, context.protected)
    if tokens.changeable:
        OPERATIONS[operation](tokens, share, Draws(seed), context)
    changed = "".join(tokens.pieces)
    if context.fill is not None and tokens.masked:
        masked = [tokens.masked[index] for index in sorted(tokens.masked)]
        return context.fill(changed, HOLE, masked, seed, lambda word: word in NEGATIONS or word in context.protected)
    return changed


def _choose(options: Sequence[T], draws: Draws) -> T:
    """Return one of the options, drawn uniformly."""
    return options[draws.below(len(options))]


def _sample(indices: Sequence[int], share: float, draws: Draws) -> list[int]:
    """Draw this share of the indices without replacement, at least one, in the order of the draws."""
    n_left = len(indices)
    n_sampled = round(share * n_left)
    if n_sampled < 2:
        return [indices[draws.below(n_left)]] if n_left else []
    rest, sampled = list(indices), []
    for _ in range(n_sampled):
        position = draws.below(n_left)
        sampled.append(rest[position])
        n_left -= 1
        rest[position] = rest[n_left]
    return sampled


@lru_cache(100_000)
def _core(piece: str) -> tuple[str, str, str]:
    """Return the punctuation before the word, the word, and the punctuation after it."""
    match = CORE.match(piece)
    return (match[1], match[2], match[3]) if match else ("", piece, "")


def _with_synonyms(tokens: Tokens, context: Context) -> list[int]:
    return [index for index in tokens.changeable if _core(tokens.pieces[index])[1].lower() in context.near]


def synonym(tokens: Tokens, share: float, draws: Draws, context: Context) -> None:
    """Replace words by synonyms (Zhang et al. 2015)."""
    for index in _sample(_with_synonyms(tokens, context), share, draws):
        before, word, after = _core(tokens.pieces[index])
        tokens.pieces[index] = before + as_cased(_choose(context.near[word.lower()], draws), word) + after


def insert(tokens: Tokens, share: float, draws: Draws, context: Context) -> None:
    """Insert synonyms of words of the text at random positions; without synonyms, words of the training texts."""
    candidates = _with_synonyms(tokens, context)
    inserted = [
        _choose(context.near[_core(tokens.pieces[index])[1].lower()], draws)
        for index in _sample(candidates, share, draws)
    ]
    if not candidates and context.vocabulary:
        inserted = [_choose(context.vocabulary, draws) for _ in _sample(tokens.changeable, share, draws)]
    for word in inserted:
        index = _choose(tokens.words, draws)
        tokens.pieces[index] = f"{word} {tokens.pieces[index]}"


def swap(tokens: Tokens, share: float, draws: Draws, context: Context) -> None:
    """Swap a word with the next one that may change (Wei and Zou 2019)."""
    for first in _sample(range(len(tokens.changeable) - 1), share / 2, draws):
        left, right = tokens.changeable[first], tokens.changeable[first + 1]
        tokens.pieces[left], tokens.pieces[right] = tokens.pieces[right], tokens.pieces[left]


def delete(tokens: Tokens, share: float, draws: Draws, context: Context) -> None:
    """Delete words, but keep at least two."""
    pieces, last = tokens.pieces, len(tokens.pieces) - 1
    for index in _sample(tokens.changeable, share, draws)[: max(0, len(tokens.words) - 2)]:
        pieces[index] = ""
        if index < last:
            pieces[index + 1] = ""
        elif index:
            pieces[index - 1] = ""


def typo(tokens: Tokens, share: float, draws: Draws, context: Context) -> None:
    """Replace a letter of a word by its neighbor on the keyboard (QWERTY)."""
    _replace_letters(tokens, share, draws, _keyboard_substitutions)


def misread(tokens: Tokens, share: float, draws: Draws, context: Context) -> None:
    """Replace a letter of a word by one that looks similar."""
    _replace_letters(tokens, share, draws, _lookalike_substitutions)


def _replace_letters(
    tokens: Tokens, share: float, draws: Draws, substitutions_of: Callable[[str], Substitutions]
) -> None:
    for index in _sample(tokens.changeable, share, draws):
        piece = tokens.pieces[index]
        if substitutions := substitutions_of(piece):
            letter_index, letters = _choose(substitutions, draws)
            tokens.pieces[index] = f"{piece[:letter_index]}{_choose(letters, draws)}{piece[letter_index + 1 :]}"


@lru_cache(100_000)
def _keyboard_substitutions(piece: str) -> Substitutions:
    return _substitutions(piece, NEIGHBORS)


@lru_cache(100_000)
def _lookalike_substitutions(piece: str) -> Substitutions:
    return _substitutions(piece, LOOKALIKES)


def _substitutions(piece: str, table: Mapping[str, str]) -> Substitutions:
    substitutions = []
    for index, letter in enumerate(piece):
        if letter in table:
            substitutions.append((index, table[letter]))
        elif letter.lower() in table:
            substitutions.append((index, table[letter.lower()].upper()))
    return tuple(substitutions)


def case(tokens: Tokens, share: float, draws: Draws, context: Context) -> None:
    """Change the whole text to lower case, upper case, or capitalized words."""
    convert = _choose((str.lower, str.upper, str.capitalize), draws)
    for index in tokens.changeable:
        tokens.pieces[index] = convert(tokens.pieces[index])


def mask(tokens: Tokens, share: float, draws: Draws, context: Context) -> None:
    """Mask words (Devlin et al. 2019).

    Of the selected words 80 % become [MASK], 10 % a random word of the training texts, and 10 % stay. With a masked
    language model, the model then fills the masks.
    """
    for index in _sample(tokens.changeable, share, draws):
        chance = draws.random()
        before, word, after = _core(tokens.pieces[index])
        if chance < MASKED_SHARE:
            tokens.pieces[index] = before + (MASK if context.fill is None else HOLE) + after
            tokens.masked[index] = word
        elif chance < MASKED_SHARE + RANDOM_SHARE and context.vocabulary:
            tokens.pieces[index] = before + _choose(context.vocabulary, draws) + after


OPERATIONS: dict[str, Operation] = {
    operation.__name__: operation for operation in (synonym, insert, swap, delete, typo, misread, case, mask)
}
DEFAULT_SHARE = 0.15  # of the words, for an operation that is named without a share
SCREENED_STRENGTHS = (0.05, 0.3)  # shares that `policy: auto` tries besides the default
DEFAULT_POLICY = ("swap", "delete", "typo")
