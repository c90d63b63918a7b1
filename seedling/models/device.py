"""Where models run: a GPU, Apple's, or the processor; on how many threads, how exactly, and in what memory."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, suppress
from typing import Any

from seedling.parallel.executor import this_process


def device_of(number: int = 0) -> Any:
    """The number-th GPU, counted round and round; Apple's; else the processor. GPUs are asked for exact, repeatable sums.

    A process that works beside others has the GPU of its own number.
    """
    import torch

    process = this_process()

    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        return torch.device("cuda", (number if process.count == 1 else process.local) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def one_thread(device: Any) -> None:
    """On the processor a model's sums stay on one thread: in another order they would give other bytes."""
    import torch

    if device.type == "cpu":
        torch.set_num_threads(1)  # of this thread: OpenMP keeps the number a thread


def in_half(device: Any) -> AbstractContextManager[object]:
    """Mixed precision where the device has it: bfloat16 in the forward pass, float32 in weights and sums."""
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def keep_freed_memory() -> None:
    """Tells the C library (glibc) to keep freed memory for the next layer: handing it back costs most of the time."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, value in ((-3, 2**31 - 1), (-1, 2**31 - 1), (-2, 256 * 2**20), (-8, 1)):
            library.mallopt(option, value)  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX


def release_freed_memory() -> None:
    """Hands freed memory back to the system (glibc), which `keep_freed_memory` and small objects in between have held."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
