"""Output files: names that do not collide, contents that are never half written."""

import contextlib
import os
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from voxmlx.errors import OutputError

__all__ = [
    "ResultFile",
    "StandardOutput",
    "check_output",
    "name_one_file_twice",
    "plan_outputs",
    "unwritable",
]

# Names of most file systems are at most so long.
_MAX_NAME_BYTES = 255


def plan_outputs(
    inputs: Sequence[str], directory: Path, suffix: str, *, stdin_stem: str = "stdin"
) -> list[Path]:
    """Return the output path of each input: its stem in `directory`, with `suffix`.

    Inputs of one stem from several folders keep their folders: then every output
    lies below `directory` as its input lies below the folder common to all. Touches
    nothing. Raises OutputError when two inputs would share an output, when one would
    overwrite an input, or when `directory` cannot be written.
    """
    stems = [stdin_stem if name == "-" else Path(name).stem for name in inputs]
    outputs = [directory / f"{stem}{suffix}" for stem in stems]
    if len({_key(output) for output in outputs}) < len(outputs):
        folders = _folders(inputs)
        outputs = [
            directory / folder / output.name
            for folder, output in zip(folders, outputs, strict=True)
        ]
    taken: dict[str, str] = {}
    for name, output in zip(inputs, outputs, strict=True):
        if (key := _key(output)) in taken:
            raise OutputError(
                f"{taken[key]} and {name} would both be written to {output}; rename "
                "one, or use an --output-dir of its own for it"
            )
        taken[key] = name
    for output in outputs:
        check_output(output, inputs)
    return outputs


def check_output(
    output: Path, inputs: Sequence[str], *, advice: str = "choose another --output-dir"
) -> None:
    """Raise OutputError unless `output` may be written, and is none of `inputs`.

    `advice` is what helps where its directory does not.
    """
    _refuse_unwritable(output.parent, advice)
    if output.is_dir():
        raise OutputError(f"{output} is a directory, expected a file or nothing")
    if output.exists() and not output.is_file():
        raise OutputError(
            f"{output} is a device or a pipe, which a file would replace; leave the "
            "option out and redirect standard output there"
        )
    if output.exists() and any(
        os.path.exists(name) and os.path.samefile(name, output) for name in inputs
    ):
        raise OutputError(
            f"{output} is one of the inputs and would be overwritten; choose "
            f"another name, or {advice}"
        )


def name_one_file_twice(outputs: Sequence[Path]) -> bool:
    """Return whether two of the paths lead to one file, by links or by spelling."""
    keys = {_key(Path(os.path.realpath(output))) for output in outputs}
    return len(keys) < len(outputs)


def _key(path: Path) -> str:
    # macOS takes names for the same that differ in case or in how accents are spelt.
    return unicodedata.normalize("NFC", str(path)).casefold()


def _folders(inputs: Sequence[str]) -> list[str]:
    """Each input's folder, relative to the one that is common to all."""
    folders = ["" if n == "-" else os.path.dirname(os.path.abspath(n)) for n in inputs]
    named = [folder for folder in folders if folder]
    common = os.path.commonpath(named) if named else ""
    return [os.path.relpath(folder, common) if folder else "" for folder in folders]


class ResultFile:
    """A text file that gets its name once it is complete.

    A context manager. Until then it is written beside its place, under a name that
    says so: talk.partial.srt for talk.srt. Leaving the context with an exception
    removes it, unless `keep` was called. An earlier file of that name stays as it was
    until it is replaced. A symbolic link stays, and the file that it names is replaced.
    Failures to write raise OutputError.
    """

    def __init__(
        self, path: Path, *, is_journal: bool = False, is_temporary: bool = False
    ) -> None:
        """A journal is written out at once, and over what a killed run has left.

        The same text is expected, so that the file stays whole, until `cut` or the end
        removes the rest. A temporary file never gets its name: its end removes it.
        """
        self._path = path = Path(os.path.realpath(path)) if path.is_symlink() else path
        self.is_journal = is_journal
        self._is_temporary = is_temporary
        # In the same directory, since a rename is atomic only within a file system.
        self.partial_path = _partial(path)
        self._is_kept = False

    def __enter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            is_resumed = self.is_journal and self.partial_path.exists()
            self._file = open(
                self.partial_path,
                "r+" if is_resumed else "w",
                encoding="utf-8",
                errors="backslashreplace",
                newline="\n",
            )
        except OSError as error:
            raise unwritable(self._path, error) from None
        return self

    def write(self, text: str) -> None:
        try:
            self._file.write(text)
            if text and self.is_journal:
                self._file.flush()
        except OSError as error:
            raise unwritable(self._path, error) from None

    def cut(self) -> None:
        """Remove what the file holds beyond what has been written."""
        self._file.truncate()

    def keep(self) -> None:
        """Keep what has been written under its partial name, whatever comes."""
        self._is_kept = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._end()
            return
        try:
            self._file.flush()
            self._file.truncate()
            os.fsync(self._file.fileno())
            self._file.close()
            if self._is_temporary:
                self.partial_path.unlink()
            else:
                os.replace(self.partial_path, self._path)
        except OSError as failure:
            self._end()
            raise unwritable(self._path, failure) from None
        except BaseException:
            self._end()
            raise

    def _end(self) -> None:
        # The file may have what it cannot write still in its buffer.
        with contextlib.suppress(OSError):
            self._file.close()
        if not self._is_kept:
            self.partial_path.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """talk.srt -> talk.partial.srt, its stem cut if that would be too long."""
    stem, ending = path.stem, f".partial{path.suffix}"
    while len(os.fsencode(stem + ending)) > _MAX_NAME_BYTES:
        stem = stem[:-1]
    return path.with_name(stem + ending)


class StandardOutput:
    """Standard output, written through at once and left at the start of a line.

    A context manager. A reader that goes away raises BrokenPipeError, any other
    failure to write OutputError.
    """

    def __enter__(self) -> Self:
        if sys.stdout is None:
            raise OutputError("standard output is closed; name a file with --output")
        # JSON is UTF-8 by definition, and text should not depend on the locale; file
        # names that are not UTF-8 are printed with escapes.
        reconfigure = getattr(sys.stdout, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")
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
            raise unwritable("standard output", error) from None
        self._is_mid_line = not text.endswith("\n")

    def __exit__(self, *_: object) -> None:
        if self._is_mid_line:
            self.write("\n")


def _refuse_unwritable(directory: Path, advice: str) -> None:
    """Raise OutputError unless `directory` exists, or could be made, for writing."""
    if directory.exists() and not directory.is_dir():
        raise OutputError(f"{directory} is a file, expected a directory; {advice}")
    existing = directory.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"{directory} cannot be written; check the permissions of {existing} or "
            f"{advice}"
        )


def unwritable(name: Path | str, error: OSError) -> OutputError:
    """Return the error of a result that the system does not let us write."""
    return OutputError(f"{name} cannot be written: {error.strerror or error}")
