"""Results replace files alone; what a user's text holds has a bound."""

import os
from pathlib import Path

import pytest

from voxmlx.align import main as align
from voxmlx.cli.outputs import ResultFile, check_output, name_one_file_twice
from voxmlx.errors import OutputError
from voxmlx.text.lines import MAX_TEXT_BYTES, TooLongError, read_lines, read_utf8


def test_a_pipe_is_not_replaced_by_a_result(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "talk.srt")
    with pytest.raises(OutputError, match="is a device or a pipe"):
        check_output(tmp_path / "talk.srt", [])


def test_a_symbolic_link_stays_and_its_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept.srt").write_text("old")
    link = tmp_path / "talk.srt"
    link.symlink_to(tmp_path / "kept.srt")
    with ResultFile(link) as file:
        file.write("new")
    assert link.is_symlink()
    assert (tmp_path / "kept.srt").read_text() == "new"


def test_a_link_that_leads_to_itself_gives_way_to_the_result(tmp_path: Path) -> None:
    link = tmp_path / "talk.srt"
    link.symlink_to(link)
    check_output(link, [])
    with ResultFile(link) as file:
        file.write("new")
    assert link.read_text() == "new"


def test_two_names_of_one_file_are_found(tmp_path: Path) -> None:
    (tmp_path / "b.srt").symlink_to(tmp_path / "a.srt")
    assert name_one_file_twice([tmp_path / "a.srt", tmp_path / "b.srt"])
    assert not name_one_file_twice([tmp_path / "a.srt", tmp_path / "a.vtt"])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_every_system_are_lines(tmp_path: Path, end: str) -> None:
    (tmp_path / "names.txt").write_bytes(f"\ufeffone{end}two{end}".encode())
    assert read_lines(tmp_path / "names.txt", "hot words") == ["one", "two"]


def test_a_text_without_an_end_is_not_read_to_it(tmp_path: Path) -> None:
    with (tmp_path / "long.txt").open("wb") as file:
        file.truncate(MAX_TEXT_BYTES + 1)
    with pytest.raises(TooLongError):
        read_utf8(tmp_path / "long.txt")


def test_a_text_of_which_no_word_is_heard_is_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.txt").write_text("zebra quantum")
    sound = Path(__file__).parents[2] / "voxmlx" / "demo" / "sample.flac"
    output = tmp_path / "other.srt"
    given = ["--demo", str(sound), str(tmp_path / "other.txt"), "-o", str(output)]
    assert align(given) == 1
    assert "no word of" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "other.txt"]
