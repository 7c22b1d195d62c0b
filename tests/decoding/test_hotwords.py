"""Hot words are heard when they are said, and leave no trace when they are not."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract import cut
from tests.evaluated import Evaluations
from tests.scripted import PAD, WORD, scripted, vocabulary
from tests.sounds import speech_like
from voxmlx.checkpoint import Checkpoint
from voxmlx.decoding.hotwords import (
    HotwordMatch,
    HotwordTrie,
    read_hotword_trie,
    read_hotwords,
)
from voxmlx.decoding.rules import GUARDS
from voxmlx.errors import HotwordError, TokenizerError
from voxmlx.events import Event, TextDelta, TokenDecoded, WordFinal
from voxmlx.session import Session

WORDS = vocabulary(" Vox", "tral", "trail", " Fox", " New", " York", " Mini", " many")


def ids_of(*texts: str) -> list[int]:
    return [token_id for text in texts for token_id in WORDS.encode(text)]


VOX, TRAL, TRAIL, FOX = ids_of(" Vox", "tral", "trail", " Fox")
NEW, YORK, MINI, MANY = ids_of(" New", " York", " Mini", " many")
SOUND = speech_like(16_000 * 4)

# What is said, as the ids that are likely at each position; the best one leads.
Said = Sequence[Mapping[int, float]]
BLANK = {PAD: 15.0}
MARKER = {WORD: 15.0, PAD: 3.0}


def model(said: Said) -> Checkpoint:
    def script(index: int, before: Sequence[int]) -> Mapping[int, float]:
        return said[index] if index < len(said) else BLANK

    return scripted(script, WORDS)


def run(
    checkpoint: Checkpoint, hotwords: Sequence[str], sizes: Sequence[int] = ()
) -> list[Event]:
    session = Session(checkpoint, hotwords=hotwords, hotword_boost=4.0, confidence=True)
    events = [e for piece in cut(SOUND, sizes) for e in session.push(piece)]
    return events + session.finish()


def ids(events: Sequence[Event]) -> list[int]:
    return [e.token_id for e in events if isinstance(e, TokenDecoded)]


def words(events: Sequence[Event]) -> list[str]:
    return [e.word.text for e in events if isinstance(e, WordFinal)]


MISHEARD = [
    BLANK,
    MARKER,
    {FOX: 12.0, VOX: 9.0},
    {TRAIL: 12.0, TRAL: 11.0},
    BLANK,
    MARKER,
    {MANY: 12.0, MINI: 6.0},
]


def test_a_rare_word_is_written_as_the_user_writes_it() -> None:
    checkpoint = model(MISHEARD)
    assert words(run(checkpoint, [])) == ["Foxtrail", "many"]
    assert words(run(checkpoint, ["Voxtral"])) == ["Voxtral", "many"]
    assert words(run(checkpoint, ["Voxtrail", "York"])) == ["Voxtrail", "many"]


def test_a_word_that_is_only_begun_is_rolled_back() -> None:
    far = [*MISHEARD[:3], {TRAIL: 12.0, TRAL: 2.0}, *MISHEARD[4:]]
    checkpoint = model(far)
    unboosted = run(checkpoint, [])
    assert run(checkpoint, ["Voxtral"]) == unboosted
    assert run(checkpoint, ["Voxtral Mini"]) == unboosted


def test_a_phrase_goes_on_over_blanks_and_ends_with_a_pause() -> None:
    said = [
        *(BLANK, MARKER, {FOX: 9.0, NEW: 8.0}, BLANK, BLANK, MARKER),
        {MANY: 9.0, YORK: 8.0},
    ]
    assert words(run(model(said), ["New York"])) == ["New", "York"]
    # Only the first word was said, then others, or nothing for long.
    for rest in ({MANY: 19.0, YORK: 8.0}, BLANK):
        said[-1] = rest
        assert run(model(said), ["New York"]) == run(model(said), [])


def test_a_hot_word_is_matched_from_the_start_of_a_word_only() -> None:
    said = [BLANK, MARKER, {FOX: 12.0}, {TRAIL: 12.0, TRAL: 11.0}, BLANK]
    assert words(run(model(said), ["tral"])) == ["Foxtrail"]
    said = [BLANK, {FOX: 12.0, VOX: 11.0}, {TRAIL: 12.0, TRAL: 11.0}, BLANK]
    assert words(run(model(said), ["Voxtral"])) == ["Foxtrail"]


def test_what_a_word_is_helped_by_is_capped() -> None:
    match = HotwordMatch(HotwordTrie(WORDS, ["Voxtral York"], boost=4.0))
    match.observe(WORD, 0.0)
    assert match.boost()[VOX] == 4.0
    match.observe(VOX, 3.5)
    assert match.boost() == {TRAL: 0.5}
    match.observe(TRAL, 0.5)
    assert match.boost() == {YORK: 4.0}  # as each word of a phrase has its own
    match.observe(WORD, 0.0)
    match.observe(FOX, 0.0)
    match.observe(WORD, 0.0)
    assert match.boost()[VOX] == 4.0


def test_only_the_help_needed_is_counted() -> None:
    # Four ids, each short of the best by as much; all of them get 4 logits at most.
    long = vocabulary(" aa", "bb", "cc", "dd", "zz")
    a, b, c, d, z = (i for t in (" aa", "bb", "cc", "dd", "zz") for i in long.encode(t))

    def heard(short: float) -> list[str]:
        said = [BLANK, MARKER, *({z: 9.0, i: 9.0 - short} for i in (a, b, c, d))]
        checkpoint = scripted(lambda i, _: said[i] if i < len(said) else BLANK, long)
        return words(run(checkpoint, ["aabbccdd"]))

    assert heard(0.9) == ["aabbccdd"]
    assert heard(1.1) == ["zzzzzzzz"]


def test_a_hot_word_is_not_written_into_a_longer_word() -> None:
    ninth = vocabulary(" nine", " nin", "th", "n")
    nine, nin, th, n = (
        i for t in (" nine", " nin", "th", "n") for i in ninth.encode(t)
    )
    end = [BLANK, MARKER, {nine: 12.0}, BLANK]

    def heard(*said: Mapping[int, float]) -> list[str]:
        said = (BLANK, MARKER, *said, *end)
        checkpoint = scripted(lambda i, _: said[i] if i < len(said) else BLANK, ninth)
        return words(run(checkpoint, ["nine"]))

    # Were the trial confirmed at once, this were "nineth", and "ninenth".
    assert heard({nin: 9.0, nine: 8.0}, {th: 12.0}, BLANK) == ["ninth", "nine"]
    assert heard({nin: 9.0, nine: 8.0}, {n: 12.0}, {th: 12.0}) == ["ninnth", "nine"]
    assert heard({nin: 9.0, nine: 8.0}, BLANK) == ["nine", "nine"]


def test_a_word_ends_where_no_letter_follows() -> None:
    tokenizer = vocabulary("語", "é", ", it", "'s", "1")
    trie = HotwordTrie(tokenizer, ["nine"])

    def ends(ending: str, *texts: str) -> list[bool]:
        return [trie.ends_word(ending, tokenizer.encode(text)[0]) for text in texts]

    assert trie.ends_word("e", PAD)
    assert trie.ends_word("e", WORD)
    assert ends("e", " ", ", it", "'s", "語") == [True] * 4
    assert ends("e", "a", "é", "1") == [False] * 3
    assert not trie.ends_word("e", tokenizer.encode("ü")[0])  # half a character
    assert ends("本", "語", "a", "é") == [True] * 3


def test_a_hot_word_that_changes_what_follows_is_rolled_back() -> None:
    def said_after(rest: int) -> Checkpoint:
        def script(index: int, before: Sequence[int]) -> Mapping[int, float]:
            if index == 2:
                return {FOX: 9.0, MINI: 8.0}
            if index in (1, 5):
                return MARKER
            return {rest if MINI in before else NEW: 15.0} if index == 6 else BLANK

        return scripted(script, WORDS)

    assert words(run(said_after(NEW), ["Mini"])) == ["Mini", "New"]
    for rest in (YORK, PAD):
        unboosted = run(said_after(rest), [])
        assert words(unboosted) == ["Fox", "New"]
        assert run(said_after(rest), ["Mini"]) == unboosted


def test_a_name_heard_as_two_words_is_one() -> None:
    def script(index: int, before: Sequence[int]) -> Mapping[int, float]:
        if VOX in before:
            return {TRAL: 15.0} if before[-1] == VOX else BLANK
        said = [BLANK, MARKER, {FOX: 9.0, VOX: 8.0}, BLANK, MARKER, {MANY: 15.0}]
        return said[index] if index < len(said) else BLANK

    assert words(run(scripted(script, WORDS), [])) == ["Fox", "many"]
    assert words(run(scripted(script, WORDS), ["Voxtral"])) == ["Voxtral"]


def test_a_hot_word_swallows_no_word_after_it() -> None:
    def script(index: int, before: Sequence[int]) -> Mapping[int, float]:
        if NEW in before:
            return BLANK
        said = [BLANK, MARKER, {FOX: 9.0, NEW: 8.0}, BLANK, MARKER, {MANY: 15.0}]
        return said[index] if index < len(said) else BLANK

    assert words(run(scripted(script, WORDS), ["New"])) == ["Fox", "many"]


def test_two_hot_words_in_a_row_are_both_heard() -> None:
    for n_pad in (0, 1, 4, 9):
        said = [BLANK, MARKER, {FOX: 9.0, MINI: 8.0}, *[BLANK] * n_pad]
        said += [MARKER, {MANY: 9.0, YORK: 8.0}, BLANK, MARKER, {NEW: 15.0}]
        events = run(model(said), ["York", "Mini"])
        assert words(events) == ["Mini", "York", "New"]


@pytest.mark.parametrize("phrase", ["Voxtral", "voxtral", "Voxtral mini"])
def test_a_phrase_is_found_with_a_capital_and_without(phrase: str) -> None:
    small = vocabulary(" vox", " Vox", "tral", " Fox", " mini", " many")
    tral, fox, mini, many = (
        i for t in ("tral", " Fox", " mini", " many") for i in small.encode(t)
    )

    def heard(first: str) -> list[str]:
        (vox,) = small.encode(first)
        said = [BLANK, MARKER, {fox: 9.0, vox: 8.0}, {tral: 9.0}, BLANK, MARKER]
        said.append({many: 9.0, mini: 8.0})
        checkpoint = scripted(lambda i, _: said[i] if i < len(said) else BLANK, small)
        return words(run(checkpoint, [phrase]))

    second = "mini" if "mini" in phrase else "many"
    assert heard(" vox") == ["voxtral", second]
    assert heard(" Vox") == ["Voxtral", second]


@given(st.lists(st.sampled_from([0, 1, 640, 1279, 1280, 1281, 4000]), max_size=12))
@settings(max_examples=20, deadline=None)
def test_what_comes_out_does_not_depend_on_block_size(sizes: list[int]) -> None:
    for said in (MISHEARD, [*MISHEARD[:3], {TRAIL: 12.0, TRAL: 2.0}, *MISHEARD[4:]]):
        checkpoint = model(said)
        assert run(checkpoint, ["Voxtral Mini"], sizes) == run(
            checkpoint, ["Voxtral Mini"]
        )


def test_a_stream_that_ends_within_a_hot_word_rolls_it_back() -> None:
    n_ids = len(ids(run(model([]), [])))
    said = [*[BLANK] * (n_ids - 2), MARKER, {FOX: 12.0, VOX: 9.0}]
    assert run(model(said), ["Voxtral"]) == run(model(said), [])


def test_ids_held_back_are_few() -> None:
    said = [MARKER, {FOX: 9.0, NEW: 8.0}, *[BLANK] * 40]
    session = Session(model(said), hotwords=["New York"])
    plain = Session(model(said))
    n_held: list[int] = [0]
    for start in range(0, len(SOUND), 1280):
        piece = SOUND[start : start + 1280]
        n_more = len(ids(plain.push(piece))) - len(ids(session.push(piece)))
        n_held.append(n_held[-1] + n_more)
    assert 0 < max(n_held) <= 64


def test_a_hot_word_is_given_up_after_64_ids() -> None:
    pause = [BLANK] * 24
    said = [MARKER, {FOX: 9.0, NEW: 8.0}, *pause, MARKER, {YORK: 12.0}, *pause]
    said += [MARKER, {MINI: 12.0}, *pause, MARKER, {MANY: 12.0}]
    sound = speech_like(16_000 * 10)

    def heard(hotwords: Sequence[str]) -> list[str]:
        session = Session(model(said), hotwords=hotwords, hotword_boost=4.0)
        return words(session.push(sound) + session.finish())

    assert heard(["New York"]) == ["New", "York", "Mini", "many"]
    # It would be complete after 80 ids.
    assert heard(["New York Mini many"]) == ["Fox", "York", "Mini", "many"]


class _NotMany:
    """Forbids `many` as the seventh id."""

    name = "not_many"
    min_confidence = None

    def __init__(self) -> None:
        self.n_observed = 0

    def idle_tokens(self) -> int:
        return 0

    def bias(self, is_speech: bool) -> dict[int, float]:
        del is_speech
        return {MANY: -20.0} if self.n_observed == 6 else {}

    def observe(self, token_id: int, is_speech: bool) -> None:
        del token_id, is_speech
        self.n_observed += 1

    def refused(self) -> None:
        raise AssertionError

    def copy(self) -> "_NotMany":
        twin = _NotMany()
        twin.n_observed = self.n_observed
        return twin


def test_a_trial_is_compared_with_rules_that_have_seen_its_first_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(GUARDS, "not_many", _NotMany)  # pyright: ignore[reportArgumentType] -- a dict
    heard: list[list[str]] = []
    for hotwords in ((), ("Voxtral",)):
        session = Session(
            model(MISHEARD),
            hotwords=hotwords,
            hotword_boost=4.0,
            guards=["not_many"],
        )
        heard.append(words(session.push(SOUND) + session.finish()))
    assert heard == [["Foxtrail", "Mini"], ["Voxtral", "Mini"]]


def test_the_confidence_is_the_models_own() -> None:
    (token,) = (
        e
        for e in run(model(MISHEARD), ["Voxtral"])
        if isinstance(e, TokenDecoded) and e.token_id == VOX
    )
    others = WORDS.vocab_size - 2
    total = math.exp(12) + math.exp(9) + others
    assert token.logprob == pytest.approx(math.log(math.exp(9) / total), abs=1e-4)


def test_an_empty_list_is_no_list() -> None:
    assert run(model(MISHEARD), []) == run(model(MISHEARD), ["York"])


def test_an_empty_list_computes_nothing(
    tiny_checkpoint: Checkpoint, tmp_path: Path
) -> None:
    sound = speech_like(16_000 * 2, seed=3)
    counts: list[tuple[list[int], int, int]] = []
    options: tuple[dict[str, Any], ...] = ({}, {}, {"hotwords": []})
    for option in options:
        with pytest.MonkeyPatch.context() as monkeypatch:
            evaluations = Evaluations(monkeypatch, tmp_path)
            session = Session(tiny_checkpoint, **option)
            session.push(sound)
            session.finish()
        counts.append(evaluations.counts())
    unboosted, empty = counts[1:]  # the first hears the silence before a stream, too
    assert empty == unboosted
    n_operations, n_read, n_chosen = unboosted
    assert sum(n_operations) > 1000
    assert n_read > 0
    assert n_chosen == 0


def test_a_tiny_models_words_do_not_depend_on_block_size(
    tiny_checkpoint: Checkpoint,
) -> None:
    sound = speech_like(16_000 * 2, seed=7)

    def heard(*pieces: np.ndarray) -> tuple[list[int], str]:
        # Its ids are so close that anything is a hot word away.
        session = Session(
            tiny_checkpoint, hotwords=["the ring", "you", "é"], hotword_boost=4.0
        )
        events = [e for piece in pieces for e in session.push(piece)]
        events += session.finish()
        texts = [e.text for e in events if isinstance(e, TextDelta)]
        return ids(events), "".join(texts)

    whole = heard(sound)
    assert heard(*np.split(sound, range(1000, len(sound), 1000))) == whole
    assert len(whole[0]) == 25 + 10


def test_text_is_cut_into_the_ids_mistral_common_gives_it(
    tiny_checkpoint: Checkpoint, tiny_checkpoint_dir: Path
) -> None:
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    theirs = Tekkenizer.from_file(tiny_checkpoint_dir / "tekken.json")
    for text in (
        " the ring",
        "Привет, мир",
        " größer 42",
        " iPhone-X",
        "日本語の音声",
        "🎧",
    ):
        ours = tiny_checkpoint.tokenizer.encode(text)
        assert ours == theirs.encode(text, bos=False, eos=False)
        assert tiny_checkpoint.tokenizer.decode(ours) == text.lstrip(" ")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "does not exist"),
        (b"caf\xe9\n", r"is not UTF-8 \(byte 3\)"),
        (b"Voxtral\n\nYork\n", "line 2: a hot word is empty"),
        (b"Voxtral\n \t\n", "line 2: a hot word is empty"),
        (b"Vox\x00tral\n", "line 1: .* nobody can say"),
        (b"x" * 99, "line 1: .* takes 100 tokens, at most 32"),
    ],
)
def test_a_bad_file_of_hot_words_is_one_clear_line(
    tmp_path: Path, content: bytes | None, named: str
) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(HotwordError, match=named) as caught:
        read_hotword_trie(path, WORDS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_word_the_vocabulary_cannot_spell_is_refused() -> None:
    from voxmlx.text.tokenizer import Tokenizer

    poor = Tokenizer(1000, [b"a", b" "])
    with pytest.raises(TokenizerError, match="'b' cannot be written"):
        poor.encode("b")
    with pytest.raises(HotwordError, match="cannot be written"):
        HotwordTrie(poor, ["a b"])


def test_a_good_file_is_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffVoxtral\r\nNew York".encode())
    assert [line.strip() for line in read_hotwords(path)] == [
        "Voxtral",
        "New York",
    ]
