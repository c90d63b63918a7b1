"""Read the first directory of a TIFF without decoding a pixel, and blank all tags that do not describe its pixels."""

from __future__ import annotations

import struct
from dataclasses import dataclass

COLOR_PROFILE_TAG = 34675
COMPRESSION_TAG, PHOTOMETRIC_TAG = 259, 262
WIDTH, HEIGHT, SAMPLES, ROWS_PER_STRIP, PLANAR, SEPARATE_PLANES = 256, 257, 277, 278, 284, 2
TILE_WIDTH, TILE_HEIGHT = 322, 323
STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES = 273, 279, 324, 325
PIXEL_TAGS = frozenset(
    {WIDTH, HEIGHT, 258, COMPRESSION_TAG, PHOTOMETRIC_TAG, 266, 274, SAMPLES, ROWS_PER_STRIP, PLANAR, 292, 293}
    | {STRIP_OFFSETS, STRIP_BYTES, TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, 317, 320, 332, 334, 338, 339}
    | {347, 529, 530, 531, 532}
)
BYTES_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
NUMBER_OF_TYPE = {1: "B", 3: "H", 4: "I"}
MAX_TAGS = 1_000
MAX_TIFF_PIECES = 100_000  # strips or tiles, which decoders list in Python


class NotWalkable(ValueError):
    """The directory is damaged, or of an unsupported kind (BigTIFF)."""


@dataclass(frozen=True, slots=True)
class Tag:
    """One entry of the directory: its twelve bytes, and the positions where its values start and end in the file."""

    number: int
    kind: int
    count: int
    entry: bytes
    start: int
    end: int


@dataclass(frozen=True)
class Directory:
    """The first directory of a TIFF file. order: the byte order in the notation of `struct`; offset: its position."""

    encoded: bytes
    order: str
    offset: int
    tags: tuple[Tag, ...]

    @classmethod
    def of(cls, encoded: bytes) -> Directory:
        """Read the directory. Raises NotWalkable if it is damaged or unsupported."""
        order = {b"II\x2a\0": "<", b"MM\0\x2a": ">"}.get(encoded[:4])
        if order is None or len(encoded) < 8:
            raise NotWalkable("no TIFF header")
        (offset,) = struct.unpack_from(f"{order}I", encoded, 4)
        if offset + 2 > len(encoded):
            raise NotWalkable("the directory is beyond the end of the file")
        (count,) = struct.unpack_from(f"{order}H", encoded, offset)
        if count > MAX_TAGS or offset + 2 + 12 * count > len(encoded):
            raise NotWalkable("the directory is truncated")
        tags = []
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            number, kind, values, pointer = struct.unpack_from(f"{order}HHII", encoded, entry)
            size = BYTES_OF_TYPE.get(kind, 1) * values
            start = entry + 8 if size <= 4 else pointer
            tags.append(Tag(number, kind, values, encoded[entry : entry + 12], start, start + size))
        return cls(encoded, order, offset, tuple(tags))

    def numbers(self, number: int) -> tuple[int, ...]:
        """The integers of a tag; empty if it is absent or truncated. Raises NotWalkable for too many values."""
        for tag in self.tags:
            if tag.number == number and tag.kind in NUMBER_OF_TYPE and tag.end <= len(self.encoded):
                if tag.count > MAX_TIFF_PIECES:
                    raise NotWalkable("too many values")
                return struct.unpack_from(f"{self.order}{tag.count}{NUMBER_OF_TYPE[tag.kind]}", self.encoded, tag.start)
        return ()

    def number(self, number: int, default: int) -> int:
        """The first integer of a tag, or the default."""
        return (*self.numbers(number), default)[0]

    def max_pieces(self) -> int:
        """The number of strips or tiles of an image of this size."""
        width, height = self.number(WIDTH, 0), self.number(HEIGHT, 0)
        planes = self.number(SAMPLES, 1) if self.number(PLANAR, 1) == SEPARATE_PLANES else 1
        if self.numbers(TILE_OFFSETS):
            across, down = max(1, self.number(TILE_WIDTH, 1)), max(1, self.number(TILE_HEIGHT, 1))
            return planes * -(-width // across) * -(-height // down)
        return planes * -(-height // max(1, min(height, self.number(ROWS_PER_STRIP, height))))

    def pieces(self) -> list[tuple[int, int]]:
        """The start and end of each strip or tile."""
        pieces = []
        for offsets, sizes in ((STRIP_OFFSETS, STRIP_BYTES), (TILE_OFFSETS, TILE_BYTES)):
            starts = self.numbers(offsets)
            lengths = self.numbers(sizes) or (len(self.encoded),) * len(starts)
            pieces += [(start, start + length) for start, length in zip(starts, lengths, strict=False)]
        return pieces


def tiff_without_metadata(encoded: bytes, *, keep_color: bool) -> bytes:
    """Keep only the first image of the file: all other bytes, and tags that do not describe pixels, become zero.

    keep_color: whether the color profile is kept. Raises NotWalkable if the directory cannot be read.
    """
    directory = Directory.of(encoded)
    kept = PIXEL_TAGS | {COLOR_PROFILE_TAG} if keep_color else PIXEL_TAGS
    tags = [tag for tag in directory.tags if tag.number in kept]
    head = struct.pack(f"{directory.order}H", len(tags)) + b"".join(tag.entry for tag in tags) + bytes(4)
    cleared = bytearray(len(encoded))
    outside = [(tag.start, tag.end) for tag in tags if tag.end - tag.start > 4]
    copied = 0
    for start, end in sorted([(0, 8), *outside, *directory.pieces()]):  # pieces may overlap
        first = max(start, copied)
        piece = encoded[first:end]
        cleared[first : first + len(piece)] = piece
        copied = max(copied, end)
    offset = directory.offset
    cleared[offset : offset + len(head)] = head[: len(cleared) - offset]
    return bytes(cleared)
