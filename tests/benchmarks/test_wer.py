"""The command for error rates: its figures, its interruptions and its memory."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from benchmarks import wer
from benchmarks.corpora.passages import Passage
from benchmarks.hypotheses import Hypothesis, WerRun
from benchmarks.normalizers import NORMALIZERS, normalizers_for
from benchmarks.passage_decoder import PassageReading, decode_passages
from benchmarks.published import published
from benchmarks.scoring import Errors, aligned_lines, score
from benchmarks.wer_table import markdown, rows_of
from convert.word_errors import WordErrors
from tests.benchmarks import layouts
from tests.benchmarks.layouts import HEATING, LIGHTS, SOUND, TIME
from voxmlx import Checkpoint, Word

# What the demo model hears there, and texts that differ from it in known ways.
HEARD = ("turn on the heating", "what time is it", "turn on the lights")

RUN = WerRun("a/set", "demo", "float32", "float32", 16, 480, False)


def distance(said: Sequence[str], heard: Sequence[str]) -> int:
    """Return the edit distance of two lists, by the textbook."""
    row = list(range(len(heard) + 1))
    for i, left in enumerate(said, 1):
        above, row[0] = row[0], i
        for j, right in enumerate(heard, 1):
            above, row[j] = (
                row[j],
                min(row[j] + 1, row[j - 1] + 1, above + (left != right)),
            )
    return row[-1]


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five layouts, with the demo's sound inside."""
    root = tmp_path_factory.mktemp("five")
    return [
        layouts.librispeech(
            root / "1",
            [(HEATING, "TURN ON THE LIGHTING"), (TIME, "WHAT TIME IS IT NOW")],
        )
        / "test-clean",
        layouts.fleurs(root / "2", {"en_us": [(LIGHTS, "Turn the lights!")]}),
        layouts.tedlium(
            root / "3",
            SOUND,
            [
                (0.0, 2.2, "turn on the the heating"),
                (2.25, 3.9, "ignore_time_segment_in_scoring"),
                (3.9, 6.0, "turn on the lights"),
            ],
        ),
        layouts.earnings(root / "4", {"4320211": (HEATING, "Turn off the heating.")}),
        layouts.manifest(
            root / "5", SOUND, [(2.2, 3.9, "what time is it"), (3.9, 6.0, "lights")]
        ),
    ]


def run(paths: Sequence[Path], output: Path, *options: str) -> list[dict[str, Any]]:
    arguments = [*map(str, paths), "--output", str(output), "--dtype", "float32"]
    assert wer.main([*arguments, *options]) == 0
    return json.loads((output / "wer.json").read_text("utf-8"))["rows"]


def test_figures_of_five_layouts_are_those_computed_by_hand(
    five: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = run(five, tmp_path)
    expected = {
        "librispeech/test-clean": (Errors(9, 1, 1, 0), 2),
        "fleurs/en_us": (Errors(3, 0, 0, 1), 1),
        "tedlium/test": (Errors(9, 0, 1, 0), 1),
        "earnings21": (Errors(4, 1, 0, 0), 1),
        "manifest/test_manifest": (Errors(5, 0, 0, 3), 2),
    }
    found = {
        row["run"]["set"]: (Errors(**row["errors"]), row["n_utterances"])
        for row in rows
    }
    assert found == expected
    said = [["turn", "on", "the", "lighting"], ["what", "time", "is", "it", "now"]]
    n_wrong = [
        distance(*pair) for pair in zip(said, map(str.split, HEARD[:2]), strict=True)
    ]
    assert rows[0]["error_rate"] == sum(n_wrong) / sum(map(len, said)) == 2 / 9
    drawn = np.random.default_rng(1).integers(0, 2, (4000, 2))
    rates = np.array(n_wrong)[drawn].sum(1) / np.array([4, 5])[drawn].sum(1)
    assert rows[0]["interval"] == [*np.quantile(rates, [0.025, 0.975])]
    assert rows[0]["hours"] == pytest.approx(3.8 / 3600, rel=1e-3)
    table = (tmp_path / "wer.md").read_text("utf-8")
    assert table in capsys.readouterr().out
    # A copy of two utterances is not the set of 2620 that others publish.
    assert "transcribe.cpp" not in table
    assert (
        "| fleurs/en_us | model card, bf16 | - | 480 | not published | 4.90% |" in table
    )
    assert "said   turn on the LIGHTING\nheard  turn on the HEATING" in table


def test_an_interrupted_command_goes_on_to_the_same_table(
    five: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [five[4]]
    whole = run(paths, tmp_path / "whole")

    def interrupted(*args: object, **options: object) -> Iterator[PassageReading]:
        yield next(decode_passages(*args, **options))  # pyright: ignore -- passed on
        raise KeyboardInterrupt

    broken = tmp_path / "broken"
    arguments = [*map(str, paths), "--output", str(broken), "--dtype", "float32"]
    monkeypatch.setattr(wer, "decode_passages", interrupted)
    assert wer.main(arguments) == 130
    monkeypatch.setattr(wer, "decode_passages", decode_passages)
    (file,) = broken.glob("*.jsonl")
    with file.open("a") as lines:
        lines.write('{"id": "2-talk.wav", "said": "lig')  # cut off
    again = run(paths, broken)
    times = {"times_real_time", "hours"}
    kept = [
        [{k: v for k, v in row.items() if k not in times} for row in rows]
        for rows in (whole, again)
    ]
    assert kept[0] == kept[1]
    assert [row["hours"] for row in whole] == [row["hours"] for row in again]
    # Nothing is heard again, whatever it is measured with.
    monkeypatch.setattr(wer, "decode_passages", lambda *_, passages=(), **__: iter(()))
    other = run(paths, broken, "--normalizers", "none", "characters")
    assert [row["measure"] for row in other] == ["WER", "CER"]


def test_a_file_of_another_run_is_refused(
    five: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "librispeech_test-clean--demo--float32--kv16--480ms.jsonl"
    (tmp_path / name).write_text('{"set": "another"}\n')
    arguments = [str(five[0]), "--output", str(tmp_path), "--dtype", "float32"]
    assert wer.main(arguments) == 1
    error = capsys.readouterr().err
    assert "choose another --output" in error
    assert error.count("\n") == 1


def test_marked_speech_is_measured_in_time_too() -> None:
    words = (Word("turn", 0, 480), Word("off", 500, 900), Word("lights", 900, 1500))
    marks = (500.0, 800.0, 1480.0)
    one = Hypothesis("1", "turn on lights", "turn off lights", 1.5, 0.1, marks, words)
    (row,) = rows_of(RUN, [one, one], normalizers_for("en"))
    assert row.times is not None
    assert (row.times.n_words, row.times.end_mean) == (4, 0)
    assert row.times.end_within == 1
    assert "| a/set | demo, float32, float32 | 480 | 4 | +0 |" in markdown([row], [])


def test_intervals_hold_the_rate_and_are_of_utterances() -> None:
    errors = WordErrors((0, 1, 0, 3, 0, 1), (5, 5, 5, 5, 5, 5))
    low, high = errors.interval() or (1, 0)
    assert 0 <= low < 5 / 30 < high < 0.5
    one = Hypothesis("1", "a b", "a c", 1.0, 0.1)
    (row,) = rows_of(RUN, [one], normalizers_for("fr"))
    assert (row.error_rate, row.interval) == (0.5, None)


def test_texts_are_compared_in_words_or_characters() -> None:
    english, basic = NORMALIZERS["english"], NORMALIZERS["basic"]
    assert (
        score("It's twenty one, colour!", "it is 21 color", english).errors.n_wrong == 0
    )
    assert score("It is seven.", "it is SEVEN", basic).errors == Errors(3)
    assert score("It is.", "it is", NORMALIZERS["none"]).errors == Errors(2, 2)
    characters = NORMALIZERS["characters"]
    result = score("今天 天氣很好", "今天天气很好。", characters).errors
    assert result == Errors(6, 1, 0, 0)
    assert [n.name for n in normalizers_for("ja")] == ["characters", "basic"]
    assert [n.name for n in normalizers_for("en")] == ["english"]
    assert [n.name for n in normalizers_for(None)] == ["basic"]


def test_silence_and_invention_are_counted() -> None:
    basic = NORMALIZERS["basic"]
    assert score("", "a b", basic).errors == Errors(0, 0, 0, 2)
    assert score("a b", "", basic).errors == Errors(2, 0, 2, 0)


def test_an_alignment_shows_errors_and_what_is_near_them() -> None:
    said = "a b c d e f g h i j"
    result = score(said, "a b c d e f g x j k", NORMALIZERS["none"])
    assert aligned_lines(result.pairs) == [
        "said   e f g H I J",
        "heard  e f g X J K",
    ]
    lines = aligned_lines([("猫", None), ("a", "b")] * 40)
    assert lines[:2] == [
        "said   " + "猫 A " * 17 + "猫",
        "heard  " + "** B " * 17 + "**",
    ]


def test_published_figures_are_of_the_same_set_and_delay() -> None:
    rows = published("librispeech/test-clean", 480, 2620)
    assert [row.error_rate for row in rows] == [
        2.08,
        2.08,
        2.09,
        2.07,
        2.08,
        2.08,
        2.08,
    ]
    assert published("librispeech/test-clean", 480, 2) == []
    assert published("librispeech/test-clean", 960, 2620) == []
    assert [r.error_rate for r in published("fleurs/ja_jp", 2400, 650)] == [5.50]
    by_language = [
        published(f"fleurs/{name}", 480, 1)[0].error_rate for name in wer_languages()
    ]
    assert np.mean(by_language) == pytest.approx(8.72, abs=0.005)


def wer_languages() -> list[str]:
    from benchmarks.corpora.fleurs import LANGUAGES

    return [*LANGUAGES]


@pytest.mark.slow
@pytest.mark.parametrize("is_long_form", [False, True])
def test_an_hour_of_sound_grows_memory_by_less_than_20_mb(
    is_long_form: bool, tiny_checkpoint: Checkpoint
) -> None:
    # Its rings are full within seconds, so that whatever grows is not theirs.
    process = psutil.Process()
    sizes: list[int] = []
    n_pieces = 450 if is_long_form else 10

    def pieces() -> Iterator[np.ndarray]:
        for i in range(n_pieces):
            if i % 10 == 0:
                sizes.append(process.memory_info().rss)
            yield SOUND[: 2 * 16_000]

    n_passages = 4 if is_long_form else 180
    waiting = (Passage(str(i), "", pieces) for i in range(n_passages))
    readings = decode_passages(tiny_checkpoint, waiting, delay_ms=480, n_streams=4)
    sound_s = sum(reading.sound_s for reading in readings)
    assert sound_s == 3600
    # The rings are full after the first tenth.
    settled = sizes[len(sizes) // 10]
    assert max(sizes[len(sizes) // 2 :]) - settled < 20e6
