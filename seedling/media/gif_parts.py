"""Walks the blocks of a GIF without decoding a pixel: what its frames need stays, comments and XMP go."""

from __future__ import annotations

from collections.abc import Iterator

from seedling.media.image_parts import Part

EXTENSION, IMAGE, END = 0x21, 0x2C, b";"
GRAPHIC_CONTROL, APPLICATION = 0xF9, 0xFF
MAX_SUB_BLOCKS = 1_000_000  # of one block: full ones hold 255 bytes
LOOPS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


def gif_blocks(encoded: bytes) -> Iterator[Part]:
    """The blocks behind the header and the global color table, up to the trailer; the kind is the byte that begins it, and an extension's label."""
    position = _behind_color_table(encoded, 10, 13)
    while position < len(encoded) and encoded[position] in {EXTENSION, IMAGE}:
        start = position
        if encoded[position] == IMAGE:
            kind, content = bytes([IMAGE]), _behind_color_table(encoded, start + 9, start + 10) + 1
        else:
            kind, content = encoded[start : start + 2], start + 2
        position = _behind_sub_blocks(encoded, content)
        yield Part(kind, start, content, position)


def gif_without_metadata(encoded: bytes, *, first_frame_alone: bool) -> bytes:
    """The file without comments and application data other than how often it repeats; the same bytes where it has none."""
    blocks = []
    for block in gif_blocks(encoded):
        blocks.append(block)
        if first_frame_alone and block.kind[0] == IMAGE:
            break
    kept = [block for block in blocks if _is_kept(encoded, block)]
    behind = encoded[blocks[-1].end :][:1] if blocks else b""
    if first_frame_alone and behind not in {b"", b"\x21", b"\x2c", END}:
        return encoded  # damaged: a decoder may pass over what stops this walk, and find the frame
    if not blocks or (len(kept) == len(blocks) and (first_frame_alone or encoded[blocks[-1].end :] == END)):
        return encoded
    return encoded[: blocks[0].start] + b"".join(encoded[block.start : block.end] for block in kept) + END


def _is_kept(encoded: bytes, block: Part) -> bool:
    if block.kind[0] == IMAGE or block.kind[1:] == bytes([GRAPHIC_CONTROL]):
        return True
    return block.kind[1:] == bytes([APPLICATION]) and encoded.startswith(LOOPS, block.content + 1)


def _behind_color_table(encoded: bytes, flags_at: int, position: int) -> int:
    flags = encoded[flags_at] if flags_at < len(encoded) else 0
    return position + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)


def _behind_sub_blocks(encoded: bytes, position: int) -> int:
    size = len(encoded)
    for _ in range(MAX_SUB_BLOCKS):
        if position >= size or not encoded[position]:
            return min(position + 1, size)
        position += encoded[position] + 1
    return size
