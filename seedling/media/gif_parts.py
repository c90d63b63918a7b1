"""Remove comments and XMP from a GIF by reading its blocks, without decoding a pixel."""

from __future__ import annotations

from collections.abc import Iterator

from seedling.media.image_parts import Part

EXTENSION, IMAGE, END = 0x21, 0x2C, b";"
GRAPHIC_CONTROL, APPLICATION = 0xF9, 0xFF
MAX_SUB_BLOCKS = 1_000_000  # per block; a full sub-block has 255 bytes
REPETITION_HEADERS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


def gif_blocks(encoded: bytes) -> Iterator[Part]:
    """Yield the blocks between the global color table and the trailer.

    A block's kind is its first byte, followed by the label of an extension.
    """
    position = _end_of_color_table(encoded, 10, 13)
    while position < len(encoded) and encoded[position] in {EXTENSION, IMAGE}:
        start = position
        if encoded[position] == IMAGE:
            kind, content = bytes([IMAGE]), _end_of_color_table(encoded, start + 9, start + 10) + 1
        else:
            kind, content = encoded[start : start + 2], start + 2
        position = _end_of_sub_blocks(encoded, content)
        yield Part(kind, start, content, position)


def gif_without_metadata(encoded: bytes, *, first_frame_alone: bool) -> bytes:
    """The file without comments and application data, except the number of repetitions.

    Returns the same bytes if there is nothing to remove. first_frame_alone: whether the other frames are removed.
    """
    blocks = []
    for block in gif_blocks(encoded):
        blocks.append(block)
        if first_frame_alone and block.kind[0] == IMAGE:
            break
    kept = [block for block in blocks if _is_kept(encoded, block)]
    next_byte = encoded[blocks[-1].end :][:1] if blocks else b""
    if first_frame_alone and next_byte not in {b"", b"\x21", b"\x2c", END}:
        return encoded  # damaged: a decoder may skip the damage and find the frame
    if not blocks or (len(kept) == len(blocks) and (first_frame_alone or encoded[blocks[-1].end :] == END)):
        return encoded
    return encoded[: blocks[0].start] + b"".join(encoded[block.start : block.end] for block in kept) + END


def _is_kept(encoded: bytes, block: Part) -> bool:
    if block.kind[0] == IMAGE or block.kind[1:] == bytes([GRAPHIC_CONTROL]):
        return True
    return block.kind[1:] == bytes([APPLICATION]) and encoded.startswith(REPETITION_HEADERS, block.content + 1)


def _end_of_color_table(encoded: bytes, flags_at: int, position: int) -> int:
    flags = encoded[flags_at] if flags_at < len(encoded) else 0
    return position + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)


def _end_of_sub_blocks(encoded: bytes, position: int) -> int:
    size = len(encoded)
    for _ in range(MAX_SUB_BLOCKS):
        if position >= size or not encoded[position]:
            return min(position + 1, size)
        position += encoded[position] + 1
    return size
