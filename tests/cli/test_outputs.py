"""Output files: names that do not collide, contents that are never half written."""

import os
import stat
from pathlib import Path

import pytest

from voxmlx.cli.outputs import ResultFile, plan_outputs
from voxmlx.errors import OutputError


def test_an_output_has_the_stem_of_its_input(tmp_path: Path) -> None:
    assert plan_outputs(["a/talk.wav", "b.tar.mp3", "-"], tmp_path, ".txt") == [
        tmp_path / "talk.txt",
        tmp_path / "b.tar.txt",
        tmp_path / "stdin.txt",
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("talk.wav", "talk.mp3"),
        ("talk.wav", "talk.wav"),
        ("a/talk.wav", "a/talk.mp3"),
        ("talk.wav", "TALK.wav"),
        ("caf\u00e9.wav", "cafe\u0301.mp3"),
        ("stdin.wav", "-"),
    ],
)
def test_two_inputs_for_one_output_are_refused(
    tmp_path: Path, first: str, second: str
) -> None:
    with pytest.raises(OutputError, match="would both be written to") as caught:
        plan_outputs([first, "other.wav", second], tmp_path, ".txt")
    assert first in str(caught.value)
    assert second in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        (["a/talk.wav", "b/talk.wav", "c.wav"], ["a/talk", "b/talk", "c"]),
        (["x/a/talk.wav", "./x/b/../c/TALK.mp3"], ["a/talk", "c/TALK"]),
        (
            ["/far/a/1/talk.wav", "/far/a/2/talk.wav", "-"],
            ["1/talk", "2/talk", "stdin"],
        ),
        (["/far/talk.wav", "/far/deep/er/talk.wav"], ["talk", "deep/er/talk"]),
    ],
)
def test_inputs_of_one_name_keep_their_folders(
    tmp_path: Path, inputs: list[str], outputs: list[str]
) -> None:
    planned = plan_outputs(inputs, tmp_path, ".txt")
    assert planned == [tmp_path / f"{output}.txt" for output in outputs]


def test_an_output_that_is_an_input_is_refused(tmp_path: Path) -> None:
    sound = tmp_path / "talk.txt"
    sound.write_bytes(b"sound under a strange name")
    with pytest.raises(OutputError, match="one of the inputs"):
        plan_outputs([str(sound)], tmp_path, ".txt")


def test_an_output_that_is_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "talk.txt").mkdir()
    with pytest.raises(OutputError, match="is a directory"):
        plan_outputs(["talk.wav"], tmp_path, ".txt")


def test_an_output_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    for directory in (tmp_path / "results", tmp_path / "results" / "deeper"):
        with pytest.raises(OutputError, match="results"):
            plan_outputs(["talk.wav"], directory, ".txt")


@pytest.mark.parametrize("directory", ["", "to/be/made"])
def test_a_directory_that_cannot_be_written_is_refused(
    tmp_path: Path, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def refuse(path: Path, mode: int) -> bool:
        assert mode & os.W_OK
        asked.append(path)
        return False

    monkeypatch.setattr("os.access", refuse)
    with pytest.raises(OutputError, match="cannot be written"):
        plan_outputs(["talk.wav"], tmp_path / directory, ".txt")
    assert asked == [tmp_path]


def test_planning_touches_nothing(tmp_path: Path) -> None:
    plan_outputs(["talk.wav"], tmp_path / "to" / "be" / "made", ".txt")
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "made" / "talk.txt"
    with ResultFile(path) as file:
        file.write("half, ")
        assert not path.exists()
        file.write("caf\u00e9\n")
    assert path.read_text(encoding="utf-8") == "half, caf\u00e9\n"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_is_replaced_when_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    path.write_text("old")
    with ResultFile(path) as file:
        file.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_seen_to_be_incomplete_until_it_is_complete(tmp_path: Path) -> None:
    with ResultFile(tmp_path / "talk.srt") as file:
        (path,) = tmp_path.iterdir()
        assert path == file.partial_path == tmp_path / "talk.partial.srt"


def test_what_was_written_can_be_kept_as_a_partial_file(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    path.write_text("old")

    def fail() -> None:
        with ResultFile(path) as file:
            file.write("half\n")
            file.keep()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert (tmp_path / "talk.partial.txt").read_text() == "half\n"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_everything_as_it_was(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "talk.txt"
    path.write_text("old")

    def fail() -> None:
        with ResultFile(path) as file:
            file.write("half")
            raise error

    with pytest.raises(error):
        fail()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_a_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("")
    with ResultFile(tmp_path / "talk.txt") as file:
        file.write("")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_name_as_long_as_names_may_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 249 + "\u00e9" + ".txt")
    with ResultFile(path) as file:
        file.write("text")
    assert path.read_text() == "text"


def test_a_file_that_cannot_be_written_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    def write() -> None:
        with ResultFile(tmp_path / "talk.txt") as file:
            file.write("text")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"talk\.txt cannot be written: No space"):
        write()
    assert list(tmp_path.iterdir()) == []
