"""How much room is left on a file system of this machine."""

import os
from pathlib import Path


def free_bytes(directory: Path) -> int | None:
    """Return the bytes an ordinary user may still write there; None where that can't be told."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
