"""Disk access: errors as one line, files written whole, and room for them."""

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.filesize import decimal

from voxmlx.errors import CheckpointError, OutputError

__all__ = [
    "Stamp",
    "amount",
    "check_room",
    "disk_errors",
    "source_errors",
    "sync",
    "write_whole",
]


@dataclass(frozen=True, slots=True)
class Stamp:
    """The identity of a source's file, to notice that it was replaced."""

    path: Path
    n_bytes: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        with source_errors(path):
            status = path.stat()
        return cls(path, status.st_size, status.st_mtime_ns)

    def check(self, file: BinaryIO) -> None:
        """Raises CheckpointError when `file`, opened at `path`, is another by now."""
        status = os.fstat(file.fileno())
        if (status.st_size, status.st_mtime_ns) != (self.n_bytes, self.changed_ns):
            raise CheckpointError(
                f"{self.path} has changed since the conversion began ({self.n_bytes} "
                f"bytes then, {status.st_size} now); convert again once nothing writes "
                "to it"
            )

    def read(self) -> bytes:
        """The content of a small file. Raises CheckpointError."""
        with source_errors(self.path), self.path.open("rb") as file:
            content = file.read()
            self.check(file)
        return content


@contextmanager
def source_errors(path: Path) -> Generator[None]:
    """Turn an OSError while reading the source into a CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read: {error.strerror or error}"
        ) from error


@contextmanager
def disk_errors(destination: Path, *, is_begun: bool = True) -> Generator[None]:
    """Turn an OSError while writing the destination into an OutputError."""
    try:
        yield
    except OSError as error:
        kept = "what is done is kept, so the same command goes on from here"
        raise OutputError(
            f"{destination} cannot be written: {error.strerror or error}; "
            f"{kept if is_begun else 'name another destination'}"
        ) from None


def check_room(place: Path, n_bytes: int, purpose: str = "") -> None:
    """Raises OutputError unless `n_bytes` fit where `place` is, or will be."""
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < n_bytes:
        raise OutputError(
            f"{place} has {amount(free)} free and {amount(n_bytes)} are needed{purpose}; "
            "make room, or name another place"
        )


def amount(n_bytes: int) -> str:
    """Bytes in the decimal unit that fits."""
    return decimal(n_bytes, precision=2)


def write_whole(path: Path, content: bytes) -> None:
    """Let `path` appear with all of `content`, or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    sync(temporary)
    temporary.rename(path)


def sync(path: Path) -> None:
    """Have a file or directory survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(PermissionError):  # some file systems sync no directories
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
