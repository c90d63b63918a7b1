"""The device of models (CUDA, Apple or CPU), its threads, precision and memory."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, suppress
from typing import Any

from seedling.parallel.executor import this_process


def device_of(number: int = 0) -> Any:
    """Return a GPU by number (modulo the number of GPUs), Apple's GPU, or the CPU.

    With several processes, each process uses the GPU of its local number. CUDA is set to exact, deterministic
    arithmetic.
    """
    import torch

    process = this_process()

    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        return torch.device("cuda", (number if process.count == 1 else process.local) % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def use_one_thread(device: Any) -> None:
    """Use one thread on the CPU: a different order of sums would give different bytes."""
    import torch

    if device.type == "cpu":
        torch.set_num_threads(1)  # for the current thread: OpenMP stores the number per thread


def mixed_precision(device: Any) -> AbstractContextManager[object]:
    """Return a context with mixed precision on CUDA: bfloat16 in the forward pass, float32 weights and sums."""
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda")


def keep_freed_memory() -> None:
    """Make the C library (glibc) keep freed memory for the next layer.

    Otherwise most of the time is spent on returning memory to the system.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option, value in ((-3, 2**31 - 1), (-1, 2**31 - 1), (-2, 256 * 2**20), (-8, 1)):
            library.mallopt(option, value)  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD, M_ARENA_MAX


def release_freed_memory() -> None:
    """Return freed memory to the system (glibc) that `keep_freed_memory` and fragmentation retained."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
