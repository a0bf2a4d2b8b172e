"""One GPU a worker process, whatever started it."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from xai_lib.errors import OptionError

# Locks are held as long as the process lives; the system lets go of them when it ends.
_HELD: list[FileLock] = []


def claim_gpu(device: str) -> torch.device:
    """Return the device of this process: for "auto" or "cuda", a visible GPU nobody else claimed.

    Each GPU has a lock file of the user's in the host's temporary folder, so that the workers of
    one host share its GPUs out among themselves without a word. With more workers than GPUs the
    rest double up. Raises OptionError for a GPU that is not there.
    """
    count = torch.cuda.device_count()
    if device.startswith("cuda") and int(device.partition(":")[2] or 0) >= count:
        raise OptionError(f"device is {device}, but {platform.node()} has {count} GPUs for it.")
    if not count or device not in ("auto", "cuda"):
        return torch.device("cpu" if device == "auto" else device)
    for index in range(count):
        name = torch.cuda.get_device_properties(index).uuid
        lock = FileLock(
            Path(tempfile.gettempdir()) / f"xai-gpu-{os.getuid()}-{name}.lock", timeout=0
        )
        try:
            lock.acquire()
        except Timeout:
            continue
        _HELD.append(lock)
        return torch.device("cuda", index)
    return torch.device("cuda", os.getpid() % count)
