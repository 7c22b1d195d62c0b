"""The checksums of a model directory: written, and verified."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from voxmlx.errors import CheckpointError

from .disk import source_errors

__all__ = ["MANIFEST_NAME", "check", "digest_of", "write_manifest"]

# The format of `sha256sum`, which can check it too.
MANIFEST_NAME = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64}) [ *]([^/\\]+)")


def digest_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(directory: Path, known: Mapping[str, str]) -> None:
    """List every file of `directory`, and those of `known`, there already or not.

    `known` digests are not computed again.
    """
    names = {path.name for path in directory.iterdir()} | known.keys()
    lines = [
        f"{known.get(name) or digest_of(directory / name)}  {name}\n"
        for name in sorted(names - {MANIFEST_NAME})
    ]
    (directory / MANIFEST_NAME).write_text("".join(lines), encoding="utf-8")


def check(directory: Path) -> int:
    """Compare every listed file; returns how many there are.

    Raises CheckpointError naming the first file that is missing or differs.
    """
    path = directory / MANIFEST_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{path} is missing; --check wants a directory that convert has written"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CheckpointError(
            f"{path} is no text, expected digests and names; fetch or convert the model "
            "again"
        ) from None
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise CheckpointError(
                f"{path} has the line {line!r}, expected a digest and a name; fetch or "
                "convert the model again"
            )
        expected, name = match.groups()
        file = directory / name
        with source_errors(file):
            found = digest_of(file) if file.is_file() else None
        if found is None:
            raise CheckpointError(
                f"{file} is missing, and {MANIFEST_NAME} lists it; fetch or convert "
                "the model again"
            )
        if found != expected:
            raise CheckpointError(
                f"{file} is damaged: its SHA-256 is {found[:12]}..., the manifest says "
                f"{expected[:12]}...; fetch or convert the model again"
            )
    if not lines:
        raise CheckpointError(f"{path} is empty; fetch or convert the model again")
    return len(lines)
