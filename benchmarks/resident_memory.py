"""Reads what a process has in memory, as Linux says it."""

from pathlib import Path
from typing import NamedTuple

__all__ = ["Resident", "resident"]


class Resident(NamedTuple):
    """Bytes of a process: anonymous, and all with mapped pages of the file cache."""

    anonymous: int
    all: int


def resident(pid: int) -> Resident | None:
    """Return them; None of an ended process, and on systems other than Linux."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = dict(line.split(":", 1) for line in text.splitlines())
    try:
        kb = [int(found[key].split()[0]) for key in ("RssAnon", "VmRSS")]
    except KeyError:  # ended, and not asked after yet
        return None
    return Resident(*(1024 * n for n in kb))
