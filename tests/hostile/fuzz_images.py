"""Fuzzes what reads images from strangers: nothing but a reason may come of any bytes, and soon.

    FUZZ_SECONDS=600 PYTHONPATH=tests python -m hostile.fuzz_images

Not collected by pytest. Files of the corpus are changed at random places, cut, joined and repeated; each is then decoded, walked, and stripped of
its metadata. What raises another error, takes too long, or changes its pixels with its metadata gone is written to a folder, and the command ends with 1.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hostile.image_corpus import forms

from seedling.media import images
from seedling.media.decoding import decode_here
from seedling.media.decoding_limits import share_of_limit
from seedling.media.image_export import image_for_others
from seedling.media.image_metadata import read_metadata

MAX_CPU_SECONDS = 2.0  # of one input; this machine may be busy, so it is not the clock that counts
MAX_MEGAPIXELS = 4.0
MAX_SEED_BYTES = 50_000
INTERESTING = (
    b"\x00",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x00\x01",
    b"\xff\xda",
    b"\xff\xd9",
)


def changed(encoded: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """The bytes with a few changes of random kinds."""
    content = bytearray(encoded)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        offset, length = rng.randrange(len(content) + 1), rng.choice((1, 2, 4, 12, 64, 500))
        kind = rng.randrange(7)
        if kind == 0 and content:
            content[min(offset, len(content) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            piece = rng.choice(INTERESTING)
            content[offset : offset + len(piece)] = piece
        elif kind == 2:
            del content[offset : offset + length]
        elif kind == 3:
            content[offset:offset] = content[offset : offset + length] * rng.choice((1, 2, 50))
        elif kind == 4:
            content[offset : offset + length] = rng.randbytes(length)
        elif kind == 5:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            content[offset:offset] = other[start : start + length]
        elif rng.random() < 0.2:
            del content[offset:]
        del content[2 * MAX_SEED_BYTES :]
    return bytes(content)


def fault(encoded: bytes) -> str | None:
    """A description of what is wrong with the handling of these bytes, or None."""
    began = time.process_time()
    try:
        pixels = images.decode(encoded, MAX_MEGAPIXELS)
    except images.Undecodable:
        pixels = None
    read_metadata(encoded)
    images.megapixels(encoded)
    if pixels is not None:
        handed = image_for_others(encoded, MAX_MEGAPIXELS)
        if share_of_limit(handed, MAX_MEGAPIXELS) <= 1 and not np.array_equal(
            decode_here(handed, MAX_MEGAPIXELS), pixels
        ):
            return "the pixels change with the metadata"
        if read_metadata(handed).has_location:
            return "a place is handed on"
    seconds = time.process_time() - began
    return f"it takes {seconds:.1f} s of the processor" if seconds > MAX_CPU_SECONDS else None


def main() -> int:
    """Fuzz for FUZZ_SECONDS (60) from FUZZ_SEED (0), and return the exit status."""
    until = time.monotonic() + float(os.environ.get("FUZZ_SECONDS", "60"))
    rng = random.Random(int(os.environ.get("FUZZ_SEED", "0")))  # noqa: S311  (no secret)
    seeds = [encoded for _, _, encoded, _ in forms() if encoded and len(encoded) <= MAX_SEED_BYTES]
    counts, faults = Counter[str](), Counter[str]()
    folder = Path(tempfile.mkdtemp(prefix="fuzz_images_"))
    while time.monotonic() < until:
        encoded = changed(rng.choice(seeds), seeds, rng)
        try:
            description = fault(encoded)
        except Exception as error:  # noqa: BLE001  (any is a finding)
            description = f"{type(error).__name__}: {error}"
        counts["inputs"] += 1
        if description is not None:
            faults[description] += 1
            path = folder / hashlib.sha256(encoded).hexdigest()[:16]
            path.write_bytes(encoded)
            print(f"{path}: {description}", file=sys.stderr)
    print(f"{counts['inputs']:,} inputs, {faults.total():,} faults{f', in {folder}' if faults else ''}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
