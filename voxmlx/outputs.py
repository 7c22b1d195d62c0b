"""Where results go: names that do not collide, files that are never half written."""

import contextlib
import io
import os
import secrets
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from voxmlx.errors import OutputError

__all__ = ["AtomicTextFile", "StandardOutput", "plan_outputs"]


def plan_outputs(
    inputs: Sequence[str], directory: Path, suffix: str, *, stdin_stem: str = "stdin"
) -> list[Path]:
    """The output path of each input: its stem in `directory`, with `suffix`.

    Touches nothing. Raises OutputError when two inputs would share an output, when
    one would overwrite an input, or when `directory` cannot be written.
    """
    outputs: list[Path] = []
    taken: dict[str, str] = {}
    for name in inputs:
        output = directory / f"{stdin_stem if name == '-' else Path(name).stem}{suffix}"
        # macOS takes names for the same that differ in case or in how accents are
        # spelt.
        key = unicodedata.normalize("NFC", output.name).casefold()
        if key in taken:
            raise OutputError(
                f"{taken[key]} and {name} would both be written to {output}; rename "
                "one, or use an --output-dir of its own for it"
            )
        taken[key] = name
        outputs.append(output)
    _refuse_unwritable(directory)
    for output in outputs:
        if output.is_dir():
            raise OutputError(f"{output} is a directory, expected a file or nothing")
        if output.exists() and any(
            os.path.exists(name) and os.path.samefile(name, output) for name in inputs
        ):
            raise OutputError(
                f"{output} is one of the inputs and would be overwritten; choose "
                "another --output-dir"
            )
    return outputs


class AtomicTextFile:
    """A text file that appears under its name once it is complete, or not at all.

    A context manager: leaving it with an exception removes what was written and
    leaves a file of that name as it was. Failures to write raise OutputError.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # In the same directory, since a rename is atomic only within a file system.
        self._temporary = path.with_name(f".voxmlx-{secrets.token_hex(8)}.tmp")

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(
                self._temporary,
                "x",
                encoding="utf-8",
                errors="backslashreplace",
                newline="\n",
            )
        except OSError as error:
            raise _unwritable(str(self._path), error) from None
        return self

    def write(self, text: str) -> None:
        try:
            self._file.write(text)
        except OSError as error:
            raise _unwritable(str(self._path), error) from None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.replace(self._temporary, self._path)
        except OSError as failure:
            self._discard()
            raise _unwritable(str(self._path), failure) from None
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        # The file may have what it cannot write still in its buffer.
        with contextlib.suppress(OSError):
            self._file.close()
        self._temporary.unlink(missing_ok=True)


class StandardOutput:
    """Standard output, written through at once and left at the start of a line.

    A context manager. A reader that goes away raises BrokenPipeError, any other
    failure to write OutputError.
    """

    def __enter__(self) -> Self:
        if sys.stdout is None:
            raise OutputError("standard output is closed; use --output-dir")
        # JSON is UTF-8 by definition, and text should not depend on the locale; file
        # names that are not UTF-8 are printed with escapes.
        stdout: object = sys.stdout
        if isinstance(stdout, io.TextIOWrapper):
            stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        self._is_mid_line = False
        return self

    def write(self, text: str) -> None:
        if not text:
            return
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            self._is_mid_line = False
            raise
        except OSError as error:
            self._is_mid_line = False
            raise _unwritable("standard output", error) from None
        self._is_mid_line = not text.endswith("\n")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_mid_line:
            self.write("\n")


def _refuse_unwritable(directory: Path) -> None:
    """Raise OutputError unless `directory` exists, or could be made, for writing."""
    if directory.exists() and not directory.is_dir():
        raise OutputError(
            f"{directory} is a file, expected a directory; choose another --output-dir"
        )
    existing = directory.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"{directory} cannot be written; check the permissions of {existing} or "
            "choose another --output-dir"
        )


def _unwritable(name: str, error: OSError) -> OutputError:
    return OutputError(f"{name} cannot be written: {error.strerror or error}")
