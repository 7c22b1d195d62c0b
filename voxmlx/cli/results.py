"""One input's transcript on its way into files, in all formats at once."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from voxmlx.cli.outputs import ResultFile, StandardOutput
from voxmlx.events import ChannelEvent, Event, TokenDecoded
from voxmlx.text.formats import FormatOptions, Writer, make_writer
from voxmlx.text.journal import read_journal
from voxmlx.text.split_writers import SplitWriter, make_split_writer

__all__ = ["Results"]

_JOURNAL = "jsonl"


class Results:
    """The files of one input, and the journal from which a killed run goes on.

    The journal is a jsonl file with ids beside the others, talk.partial.jsonl. It goes
    when all is complete, unless it is one of the results. A context manager: leaving
    it without `end` removes what is not kept.
    """

    def __init__(
        self,
        outputs: Sequence[tuple[str, Path | None]],
        options: FormatOptions,
        head: Mapping[str, Any],
        settings: str | None,
        labels: Sequence[str] = (),
    ) -> None:
        """Write pairs of a format and a file; None is standard output.

        `settings` tells runs apart that would give other results. None is for an input
        that cannot be read twice: there is no journal. `labels` are for events of
        several channels, for which there is none either.
        """
        self._outputs = list(outputs)
        self._options = options
        self._head = dict(head)
        first = outputs[0][1]
        self._journal_path: Path | None = None
        self._labels = list(labels)
        if settings is not None and first is not None and not labels:
            self._head |= {"settings": settings}
            named = [path for name, path in outputs if name == _JOURNAL]
            self._is_temporary = not named
            self._journal_path = named[0] if named else first.with_suffix(".jsonl")
        self._files: list[tuple[Writer | SplitWriter, StandardOutput | ResultFile]] = []
        self.tokens: list[TokenDecoded] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name, path in self._outputs:
                if path is None:
                    self._add(name, stack.enter_context(StandardOutput()))
                elif path != self._journal_path:
                    self._add(name, stack.enter_context(ResultFile(path)))
            if self._journal_path is not None:
                self._open_journal(self._journal_path, stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, text: str) -> None:
        """Write text as it is, to the first output."""
        self._files[0][1].write(text)

    def feed(self, event: Event | ChannelEvent) -> None:
        """Write an event; events of channels belong to results that have labels."""
        for writer, output in self._files:
            output.write(writer.feed(event))  # pyright: ignore[reportArgumentType]
        if isinstance(event, TokenDecoded) and event.index + 1 == len(self.tokens):
            # All is there again that a killed run knew: what it wrote behind goes.
            for _, output in self._files:
                if isinstance(output, ResultFile):
                    output.cut()

    def keep(self) -> None:
        """Complete the partial files, as far as they go, and keep them."""
        for writer, output in self._files:
            if not isinstance(output, ResultFile):
                output.write(writer.end())
                continue
            if not output.is_journal:
                output.write(writer.end())
            output.keep()

    def end(self) -> None:
        """Complete all files, and give them their names."""
        for writer, output in self._files:
            output.write(writer.end())
        self._stack.close()

    def _open_journal(self, path: Path, stack: ExitStack) -> None:
        file = ResultFile(path, is_journal=True, is_temporary=self._is_temporary)
        journal = read_journal(file.partial_path)
        head = {"type": "stream"} | self._head
        if journal.head == head:
            self.tokens = journal.tokens
        else:
            file.partial_path.unlink(missing_ok=True)
        self._add(_JOURNAL, stack.enter_context(file))

    def _add(self, name: str, output: StandardOutput | ResultFile) -> None:
        is_journal = isinstance(output, ResultFile) and output.is_journal
        options = replace(self._options, has_ids=is_journal)
        head = self._head if is_journal else self._head_of_results()
        writer: Writer | SplitWriter = make_writer(name, options, head)
        if self._labels:
            writer = make_split_writer(name, self._labels, options, head)
        self._files.append((writer, output))

    def _head_of_results(self) -> dict[str, Any]:
        return {k: v for k, v in self._head.items() if k != "settings"}
