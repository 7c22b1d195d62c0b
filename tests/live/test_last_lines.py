"""The caption file holds the last lines, whole at every moment, and nobody's else."""

import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from voxmlx import demo
from voxmlx.errors import OutputError
from voxmlx.events import (
    ChannelEvent,
    DraftChanged,
    Event,
    Finished,
    TextDelta,
    Word,
    WordFinal,
)
from voxmlx.live import wrap
from voxmlx.live.__main__ import main
from voxmlx.live.last_lines import LastLinesFile, check_caption_file
from voxmlx.text.caption_text import CaptionText, SplitCaptionText

TEXT = "seven oh seven zero nine two turn on the heating what time is it"
SAID: list[Event] = [
    TextDelta(f" {word}", 300 * i) for i, word in enumerate(TEXT.split())
]


def opened(path: Path, n_lines: int = 2, width: int = 20) -> LastLinesFile:
    return LastLinesFile(path, CaptionText(), n_lines=n_lines, width=width)


def test_the_file_holds_the_last_lines_and_is_empty_at_both_ends(
    tmp_path: Path,
) -> None:
    path = tmp_path / "last.txt"
    path.write_text("captions of yesterday\n")
    file = opened(path)
    assert path.read_text() == ""
    lines: list[str] = []
    for event in SAID:
        file.on_events([event])
        lines = path.read_text("utf-8").splitlines()
        assert len(lines) <= 2
        assert all(len(line) <= 20 for line in lines)
    assert lines == ["heating what time is", "it"]
    file.on_events([Finished(5000, 60)])
    assert path.read_text("utf-8").splitlines() == lines
    file.close()
    assert path.read_text() == ""
    assert os.listdir(tmp_path) == ["last.txt"]


def test_a_reader_never_sees_a_part_of_a_version(tmp_path: Path) -> None:
    path = tmp_path / "last.txt"
    file = opened(path, n_lines=1, width=400)
    versions = {"", *(f"{i} {'x' * 300} {i}\n" for i in range(300))}
    seen: set[str] = set()
    is_over, is_read = threading.Event(), threading.Event()

    def read() -> None:
        while not is_over.is_set():
            seen.add(path.read_text())
            is_read.set()

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(300):
        if i % 100 == 0:  # however late the reader is, it sees some versions
            is_read.clear()
            assert is_read.wait(60)
        file.on_events([TextDelta(f" {i} {'x' * 300} {i}", 3000 * (i + 1))])
    is_over.set()
    reader.join()
    assert len(seen) > 1
    assert seen <= versions


def test_a_link_stays_and_the_file_it_names_keeps_its_permissions(
    tmp_path: Path,
) -> None:
    real = tmp_path / "real.txt"
    real.touch(mode=0o600)
    link = tmp_path / "last.txt"
    link.symlink_to(real)
    file = opened(link)
    file.on_events(SAID)
    assert link.is_symlink()
    assert real.read_text("utf-8").endswith("is\nit\n")
    assert real.stat().st_mode & 0o777 == 0o600
    file.close()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * 5000, "holds more than captions"),
        (b"\xff\x00", "holds more than captions"),
    ],
)
def test_what_is_no_earlier_caption_is_not_replaced(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(OutputError, match=message):
        check_caption_file(path, [])
    assert path.read_bytes() == content


def test_of_a_large_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    with path.open("wb") as file:
        file.truncate(1 << 26)
    tracemalloc.start()
    with pytest.raises(OutputError, match="holds more than captions"):
        check_caption_file(path, [])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def said_by(channel: int, text: str, at_ms: int) -> ChannelEvent:
    return ChannelEvent(channel, WordFinal(Word(text, at_ms, at_ms + 200), at_ms))


@pytest.mark.parametrize("word", ["word", "字"])
@pytest.mark.parametrize("is_split", [False, True])
def test_the_work_of_an_event_does_not_grow_with_the_paragraph(
    word: str, is_split: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_measured = 0

    def counted(text: str) -> int:
        nonlocal n_measured
        n_measured += len(text)
        return cell_len(text)

    monkeypatch.setattr(wrap, "cell_len", counted)
    path = tmp_path / "last.txt"
    file: LastLinesFile[Any]
    if is_split:
        text = SplitCaptionText(["Anna", "Ben"])
        file = LastLinesFile(path, text, n_lines=2, width=20)
    else:
        file = opened(path)
    work: list[int] = []
    for i in range(100):
        if is_split:
            event = said_by(1 + i % 2, f"{word}{i}", 100 * i)
            draft = ChannelEvent(1, DraftChanged(f" maybe {i}", 100 * i))
        else:
            event = TextDelta(f" {word}{i}", 100 * i)
            draft = DraftChanged(f" maybe {i}", 100 * i)
        n_before = n_measured
        file.on_events([event])
        work.append(n_measured - n_before)
        shown, n_before = path.read_text("utf-8"), n_measured
        file.on_events([draft])
        assert n_measured == n_before, "a draft is not shown"
        assert path.read_text("utf-8") == shown
    assert max(work[50:]) <= 2 * max(work[:20])


class Typed:
    """A text that is set by hand."""

    text = draft = ""

    def push(self, events: Sequence[str], /) -> bool:
        (self.text,) = events
        return True


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.lists(st.text("ab é,。好字 ", max_size=15), max_size=3), max_size=6),
    st.integers(1, 3),
)
def test_lines_are_those_of_the_text_wrapped_at_once(
    growth: list[list[str]], n_lines: int
) -> None:
    growing = ["", "", ""]
    with TemporaryDirectory() as directory:
        path = Path(directory, "last.txt")
        file = LastLinesFile(path, Typed(), n_lines=n_lines, width=8)
        for one in growth:
            for i, more in enumerate(one):
                growing[i] += more
            if len(one) == 3:
                growing = [*growing[1:], ""]
            text = "\n".join(growing)
            file.on_events([text])
            shown = path.read_text("utf-8")
            LastLinesFile(path, Typed(), n_lines=n_lines, width=8).on_events([text])
            assert shown == path.read_text("utf-8")
            path.write_text(shown, "utf-8")


def test_devices_directories_and_inputs_are_not_replaced(tmp_path: Path) -> None:
    words, folder, fifo = (tmp_path / f"{name}.txt" for name in ("a", "b", "c"))
    words.write_text("Voxtral\n")
    folder.mkdir()
    os.mkfifo(fifo)
    linked = tmp_path / "linked.txt"
    linked.symlink_to(words)
    hard = tmp_path / "hard.txt"
    hard.hardlink_to(words)
    for path in (words, linked, hard):
        with pytest.raises(OutputError, match="one of the inputs"):
            check_caption_file(path, [str(words)])
    with pytest.raises(OutputError, match="is a directory"):
        check_caption_file(folder, [])
    with pytest.raises(OutputError, match="a device or a pipe"):
        check_caption_file(fifo, [])
    with pytest.raises(OutputError, match="cannot be written"):
        check_caption_file(tmp_path / "nowhere" / "last.txt", [])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--caption-file", "last.srt"],
        ["--caption-file", "last"],
        ["--caption-file", "a.txt", "--output", "a.txt"],
        ["--caption-file", "a.txt", "--output", "./a.txt"],
        ["--caption-lines", "3"],
        ["--caption-file", "a.txt", "--caption-lines", "0"],
    ],
)
def test_a_wrong_caption_file_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)


def test_a_caption_file_that_is_read_elsewhere_is_told_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("names.txt").write_text("Voxtral\n")
    given = ["--demo", "--hotwords", "names.txt", "--caption-file", "names.txt"]
    assert main(given) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "names.txt is one of the inputs" in line
    assert Path("names.txt").read_text() == "Voxtral\n"


def test_the_file_of_standard_output_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "last.txt"
    with path.open("wb") as output:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "voxmlx.live", "--demo", "--plain"),
                *("--caption-file", str(path), "--input", str(demo.SAMPLE)),
            ],
            stdout=output,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "is where a standard stream goes" in done.stderr


def test_a_name_of_many_bytes_is_written_as_any_other(tmp_path: Path) -> None:
    path = tmp_path / f"{'字' * 80}.txt"
    file = opened(path)
    file.on_events(SAID)
    assert path.read_text("utf-8").split()[-1] == "it"
    file.close()
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_directory_that_becomes_a_file_is_one_clear_error(tmp_path: Path) -> None:
    directory = tmp_path / "captions"
    directory.mkdir()
    file = opened(directory / "last.txt")
    directory.rename(tmp_path / "elsewhere")
    directory.touch()
    with pytest.raises(OutputError, match="cannot be written: Not a directory"):
        file.on_events(SAID)


def test_where_captions_cannot_go_there_are_no_results_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    link, results = tmp_path / "link.txt", tmp_path / "results"
    link.symlink_to("/nonexistent/directory/x.txt")
    results.mkdir()
    outputs = [f"--output={results / 'b.srt'}", f"--record={results / 'b.wav'}"]
    arguments = ["--demo", f"--input={demo.SAMPLE}", f"--caption-file={link}", *outputs]
    assert main(arguments) == 1
    assert "there is no directory /nonexistent/directory" in capsys.readouterr().err
    assert list(results.iterdir()) == []
