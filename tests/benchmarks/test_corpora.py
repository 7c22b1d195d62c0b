"""Corpora are read as they are published."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.corpora.fleurs import LANGUAGES
from benchmarks.corpora.layouts import sets_in
from benchmarks.corpora.passages import n_passages, passages
from benchmarks.speech_sets import Utterance, utterances
from benchmarks.word_times import Marked, TimeErrors, in_one_stream
from tests.benchmarks import layouts
from tests.benchmarks.layouts import HEATING, LIGHTS, SOUND, TIME
from training.dataset import Utterance as Spoken
from training.dataset import write_dataset
from voxmlx import Word
from voxmlx.errors import AudioError

PARTS = [(0.0, 2.2, "turn on"), (2.3, 3.9, "what time"), (3.9, 6.0, "the lights")]


def found(path: Path, **options: str) -> dict[str, list[tuple[str, float]]]:
    """Texts and seconds of all passages, by set."""
    return {
        one.name: [
            (passage.text, sum(map(len, passage.pieces())) / 16_000)
            for passage in passages(one)
        ]
        for one in sets_in(path, **options)
    }


def samples_of(path: Path, index: int = 0) -> np.ndarray:
    passage = list(passages(sets_in(path)[0]))[index]
    return np.concatenate(list(passage.pieces()))


def test_librispeech_has_a_set_for_each_part(tmp_path: Path) -> None:
    root = layouts.librispeech(tmp_path, [(HEATING, "TURN ON"), (TIME, "WHAT TIME")])
    both = [("TURN ON", 2.2), ("WHAT TIME", 1.6)]
    expected = {"librispeech/dev-clean": both[:1], "librispeech/test-clean": both}
    assert found(root) == found(tmp_path) == expected
    assert list(found(root / "test-clean").values()) == [both]
    np.testing.assert_allclose(samples_of(root / "test-clean"), HEATING, atol=1e-4)


@pytest.mark.parametrize("is_packed", [True, False])
def test_fleurs_has_a_set_for_each_language_of_the_model(
    tmp_path: Path, is_packed: bool
) -> None:
    said = {name: [(TIME[:1600], "What, “time”?")] for name in (*LANGUAGES, "af_za")}
    root = layouts.fleurs(tmp_path, said, is_packed=is_packed)
    assert [one.name for one in sets_in(root)] == [f"fleurs/{n}" for n in LANGUAGES]
    assert [one.language for one in sets_in(root)] == [*LANGUAGES.values()]
    assert len(LANGUAGES) == 13
    for one in sets_in(root / "data" / "af_za"):
        assert (one.name, one.language, n_passages(one)) == ("fleurs/af_za", "af", 1)
    assert found(root)["fleurs/ja_jp"] == [("What, “time”?", 0.1)]


def test_common_voice_is_read_with_quotes_as_they_are(tmp_path: Path) -> None:
    root = layouts.common_voice(tmp_path, [(HEATING, '"Turn on, he said.')])
    (texts,) = found(root).values()
    assert [text for text, _ in texts] == ['"Turn on, he said.']
    assert texts[0][1] == pytest.approx(2.2, abs=0.1)
    assert [(s.name, s.language) for s in sets_in(root)] == [("common-voice/en", "en")]


def test_a_talk_of_tedlium_is_one_stream_from_its_first_to_its_last_segment(
    tmp_path: Path,
) -> None:
    rows = [
        (0.5, 2.2, "turn on <unk> the heating"),
        (2.3, 3.9, "ignore_time_segment_in_scoring"),
        (3.9, 5.5, "{ turn / tern } on (%hesitation) the lights"),
    ]
    root = layouts.tedlium(tmp_path, SOUND, rows)
    (one,) = sets_in(root)
    (talk,) = passages(one)
    assert (one.name, one.is_long_form) == ("tedlium/test", True)
    assert talk.text == "turn on the heating turn on the lights"
    assert talk.ignored_ms == ((pytest.approx(1800), pytest.approx(3400)),)
    heard = np.concatenate(list(talk.pieces()))
    np.testing.assert_allclose(heard, SOUND[8000:88000], atol=1e-4)
    texts = [passage.text for passage in passages(one, is_long_form=False)]
    assert texts == ["turn on the heating", "turn on the lights"]


def test_hub5_has_the_calls_of_switchboard_apart(tmp_path: Path) -> None:
    both = np.stack([TIME[::2], HEATING[: len(TIME) : 2]], axis=1)
    for name in ("sw_4390", "en_4156"):
        content = layouts.sound_bytes(both, "NIST", 8_000, "ULAW")
        (tmp_path / f"{name}.sph").write_bytes(content)
    (tmp_path / "hub5e00.english.stm").write_text(
        "sw_4390 B sw_4390_B 0.00 1.50 <O,en,F> TURN ON\n"
        "en_4156 A en_4156_A 0.00 1.00 <O,en,M> WHAT TIME\n"
    )
    assert found(tmp_path) == {
        "switchboard/hub5e00": [("TURN ON", 1.5)],
        "callhome/hub5e00": [("WHAT TIME", 1.0)],
    }
    heard, said = samples_of(tmp_path)[8000:16000], HEATING[8000:16000]
    assert np.corrcoef(heard, said)[0, 1] > 0.9


def test_earnings_calls_keep_punctuation_and_lose_marks(tmp_path: Path) -> None:
    root = layouts.earnings(tmp_path, {"4320211": (TIME, "What time is it, now?")})
    (texts,) = found(root).values()
    assert texts[0][0] == "What time is it, now?"
    assert sets_in(tmp_path)[0].name == "earnings21"


def test_meanwhile_is_cut_out_of_whole_videos_only(tmp_path: Path) -> None:
    videos = {
        "1YOmY-Vjy-o": (SOUND, "0:02.2", "0:03.9", "WHAT\nTIME"),
        "3P_XnxdlXu0": (TIME, "2:08.3", "2:09.9", "IS IT"),
    }
    root = layouts.meanwhile(tmp_path, videos)
    assert found(root) == {
        "meanwhile": [("WHAT TIME", pytest.approx(1.7)), ("IS IT", 1.6)]
    }


def test_ami_is_heard_at_the_headset_of_who_speaks(tmp_path: Path) -> None:
    rows = [(0.0, 2.2, "turn on ."), (3.9, 6.0, "the lights")]
    root = layouts.ami(tmp_path, SOUND, rows)
    assert found(root) == {"ami-ihm/test": [("turn on", 2.2), ("the lights", 2.1)]}
    np.testing.assert_allclose(samples_of(root, 1), SOUND[62400:], atol=1e-4)


def test_chime4_has_a_real_and_a_simulated_part(tmp_path: Path) -> None:
    root = layouts.chime4(tmp_path, TIME, "WHAT TIME")
    one = [("WHAT TIME", 1.6)]
    assert found(root) == {"chime-4/et05_real": one, "chime-4/et05_simu": one}


def test_gigaspeech_is_read_without_its_garbage(tmp_path: Path) -> None:
    rows = [
        (3.9, 6.0, "THE <COMMA> LIGHTS <QUESTIONMARK>"),
        (0.0, 2.2, "TURN ON <PERIOD>"),
        (2.3, 3.9, "<MUSIC>"),
    ]
    root = layouts.gigaspeech(tmp_path, SOUND, rows)
    texts = [("TURN ON.", 2.2), ("THE, LIGHTS?", pytest.approx(2.1, abs=0.01))]
    assert found(root) == {"gigaspeech/test": texts}


def test_switchboard_is_heard_on_the_side_of_who_speaks(tmp_path: Path) -> None:
    text = "[laughter-turn] on {the} heat[ing]- [silence] [lite/light]"
    root = layouts.switchboard(tmp_path, LIGHTS, HEATING, text)
    (texts,) = found(root).values()
    assert [one for one, _ in texts] == ["turn on the heat- light"]
    heard, said = samples_of(root)[8000:24000], HEATING[8000:24000]
    assert np.corrcoef(heard, said)[0, 1] > 0.9


def test_a_manifest_names_parts_of_sounds_that_may_overlap(tmp_path: Path) -> None:
    rows = [*PARTS, (0.5, 5.0, "all of it")]
    path = layouts.manifest(tmp_path, SOUND, rows)
    expected = [
        ("turn on", 2.2),
        ("all of it", 4.5),
        ("what time", pytest.approx(1.6)),
        ("the lights", pytest.approx(2.1)),
    ]
    assert (
        found(path)["manifest/test_manifest"]
        == found(tmp_path)["manifest/test_manifest"]
    )
    assert found(path)["manifest/test_manifest"] == expected
    np.testing.assert_allclose(samples_of(path, 1), SOUND[8000:80000], atol=1e-4)
    skipped = {passage.id for passage in list(passages(sets_in(path)[0]))[:2]}
    rest = [p.text for p in passages(sets_in(path)[0], skipped=skipped)]
    assert rest == ["what time", "the lights"]


def test_a_kaldi_directory_is_read_and_its_commands_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(layouts.sound_bytes(SOUND))
    (tmp_path / "text").write_text("u1 turn on\nu2 what time\n")
    (tmp_path / "segments").write_text("u2 a 2.3 3.9\nu1 a 0.0 2.2\n")
    (tmp_path / "wav.scp").write_text("a a.wav\n")
    (texts,) = found(tmp_path).values()
    assert texts == [("turn on", 2.2), ("what time", pytest.approx(1.6))]
    (tmp_path / "wav.scp").write_text("a sph2pipe a.sph |\n")
    with pytest.raises(AudioError, match="sph2pipe"):
        found(tmp_path)


def test_folders_of_sounds_with_texts_may_be_nested(tmp_path: Path) -> None:
    for folder in ("a", "b/c"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x.wav").write_bytes(layouts.sound_bytes(TIME))
        (tmp_path / folder / "x.txt").write_text(f"in\n{folder}")
    (tmp_path / "alone.txt").write_text("no sound")
    assert [*found(tmp_path).values()] == [[("in a", 1.6), ("in b/c", 1.6)]]


def test_marks_of_words_come_with_their_utterance(tmp_path: Path) -> None:
    write_dataset(tmp_path, [Spoken(TIME, ("what", "time"), (4000, 9600), "a")])
    (one,) = utterances(tmp_path)
    assert one.word_ends_ms == (250, 600)
    np.testing.assert_allclose(one.samples, TIME, atol=1e-4)


def test_what_has_no_layout_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "talk.wav").write_bytes(layouts.sound_bytes(TIME))
    with pytest.raises(AudioError, match="holds no speech to compare with"):
        sets_in(tmp_path)
    with pytest.raises(AudioError, match="does not exist"):
        sets_in(tmp_path / "none")
    (tmp_path / "m.jsonl").write_text('{"text": 1}\n')
    with pytest.raises(AudioError, match=r"line 1 of .* expected a JSON object"):
        sets_in(tmp_path / "m.jsonl")


def test_errors_of_time_are_those_of_recognized_words() -> None:
    marks = [
        Marked("one", None, 500),
        Marked("two", 500, 900),
        Marked("six", None, 2000),
    ]
    words = [Word("One", 100, 580), Word("two,", 400, 870), Word("sick", 1500, 2000)]
    errors = TimeErrors.of(marks, words)
    assert errors is not None
    assert (errors.n_words, errors.end_mean, errors.end_within) == (2, 25, 1)
    assert (errors.start_mean, errors.start_within) == (-100, 1)


def test_marks_move_with_their_utterance() -> None:
    said = Utterance(np.ones(16_000, np.float32), "one two", (400.0, 900.0))
    sound, marks = in_one_stream([said, said], pause_s=0.5)
    assert len(sound) == 3.5 * 16_000
    assert marks == [
        Marked("one", None, 900),
        Marked("two", 900, 1400),
        Marked("one", None, 2400),
        Marked("two", 2400, 2900),
    ]
