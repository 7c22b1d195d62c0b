"""Ids become bytes, and bytes become text that never changes."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxmlx import demo
from voxmlx.config import RIGHT_PAD_TOKENS, delay_tokens
from voxmlx.errors import TokenizerError
from voxmlx.text.tokenizer import TextStream, Tokenizer

# 256 single bytes from id 1000 on, as in every tekken vocabulary.
BYTES = Tokenizer(1000, [bytes([value]) for value in range(256)])


def byte_ids(content: bytes) -> list[int]:
    return [1000 + value for value in content]


def edited(directory: Path, target: Path, **changes: object) -> Path:
    content = json.loads((directory / "tekken.json").read_text())
    content.update(changes)
    target.write_text(json.dumps(content))
    return target


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1))
def test_a_character_is_emitted_whole_and_once(text: str) -> None:
    stream = TextStream(BYTES)
    deltas = [stream.push(i) for i in byte_ids(text.encode())]
    assert "".join(deltas) == text.lstrip(" ")
    assert stream.flush() == ""
    assert all(len(delta) <= 1 for delta in deltas)


def test_blanks_between_the_bytes_of_a_character_do_not_break_it() -> None:
    stream = TextStream(BYTES)
    ids = byte_ids("é".encode())
    assert [stream.push(i) for i in (ids[0], 32, 33, 32, ids[1])] == [
        "",
        "",
        "",
        "",
        "é",
    ]


def test_a_stream_that_ends_inside_a_character_says_so_once() -> None:
    stream = TextStream(BYTES)
    for i in byte_ids("a😀".encode()[:-1]):
        stream.push(i)
    assert stream.flush() == "\ufffd"
    assert stream.flush() == ""


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert BYTES.decode(byte_ids(b"a\xffb")) == "a\ufffdb"


def test_leading_spaces_are_dropped_and_later_ones_kept() -> None:
    assert BYTES.decode(byte_ids(b"  a  b ")) == "a  b "


def test_control_ids_have_no_text() -> None:
    assert BYTES.decode([1, 2, 32, 33, 999]) == ""


@pytest.mark.parametrize("token_id", [-1, 1256])
def test_an_id_outside_the_vocabulary_is_an_error(token_id: int) -> None:
    with pytest.raises(IndexError, match=r"outside 0\.\.1255"):
        BYTES.piece(token_id)


def full_size(target: Path) -> Path:
    """A file of 131072 ids, with parts of characters and entries that are unused."""
    rng = np.random.default_rng(7)
    pieces = {bytes([value]): None for value in range(256)}
    while len(pieces) < 131_072 - 1000 + 50:
        n = int(rng.integers(2, 9))
        kind = rng.integers(3)
        if kind == 0:
            pieces[rng.bytes(n)] = None
        else:
            low, high = ((97, 123), (0x80, 0x2FFF))[int(kind) - 1]
            text = " " + "".join(map(chr, rng.integers(low, high, n)))
            pieces[text.encode()[rng.integers(2) : 2 * n]] = None
    pieces.pop(b"", None)
    content = json.loads((demo.DIRECTORY / "tekken.json").read_text("utf-8"))
    content["config"]["default_vocab_size"] = 131_072
    content["config"]["num_vocab_tokens"] = len(pieces)
    content["vocab"] = [
        {"rank": rank, "token_bytes": base64.b64encode(piece).decode(), "token_str": ""}
        for rank, piece in enumerate(pieces)
    ]
    target.write_text(json.dumps(content), encoding="utf-8")
    return target


@pytest.mark.parametrize("name", ["demo", "tiny", "full size"])
def test_every_id_and_every_text_are_mistral_commons(
    name: str, tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    if name == "full size":
        path = full_size(tmp_path / "tekken.json")
    else:
        path = demo.DIRECTORY if name == "demo" else tiny_checkpoint_dir
        path = path / "tekken.json"
    theirs = Tekkenizer.from_file(path)
    ours = Tokenizer.from_file(path, theirs.n_words)
    ids = range(theirs.n_words)
    assert [*map(ours.piece, ids)] == [*map(theirs.id_to_byte_piece, ids)]
    rng = np.random.default_rng(1)
    for _ in range(20):
        chosen = rng.integers(1000, theirs.n_words, 50).tolist()
        content = b"".join(map(theirs.id_to_byte_piece, chosen))
        assert ours.decode(chosen) == content.decode("utf-8", "replace").lstrip(" ")
    for text in (" the ring", "Привет, мир", " iPhone-X 42\n", "日本語の音声", "🎧"):
        assert ours.encode(text) == theirs.encode(text, bos=False, eos=False)


def test_half_a_surrogate_pair_cannot_be_encoded() -> None:
    with pytest.raises(TokenizerError, match="cannot be written"):
        BYTES.encode("a\ud800")


def test_delay_and_padding_are_those_mistral_common_reads(
    tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    audio = json.loads((tiny_checkpoint_dir / "tekken.json").read_text())["audio"]
    changes = {"transcription_delay_ms": 960.0, "streaming_n_left_pad_tokens": 20}
    paths = (
        demo.DIRECTORY / "tekken.json",
        edited(
            tiny_checkpoint_dir, tmp_path / "tekken.json", audio={**audio, **changes}
        ),
    )
    for path in paths:
        config = Tekkenizer.from_file(path).audio
        assert config is not None
        content = json.loads(path.read_text())["config"]
        ours = Tokenizer.from_file(path, content["default_vocab_size"])
        assert ours.delay_ms == config.transcription_delay_ms
        assert delay_tokens(ours.delay_ms) == config.get_num_delay_tokens()
        assert ours.left_pad_tokens == config.n_left_pad_tokens
        n_right = delay_tokens(ours.delay_ms) + 1 + RIGHT_PAD_TOKENS
        assert n_right == config.n_right_pad_tokens()


@pytest.mark.parametrize("audio", [None, {}, {"transcription_delay_ms": None}])
def test_without_a_delay_of_its_own_a_model_has_the_usual_one(
    tiny_checkpoint_dir: Path, tmp_path: Path, audio: object
) -> None:
    path = edited(tiny_checkpoint_dir, tmp_path / "tekken.json", audio=audio)
    tokenizer = Tokenizer.from_file(path, 1500)
    assert (tokenizer.delay_ms, tokenizer.left_pad_tokens) == (480, 32)


@pytest.mark.parametrize(
    ("audio", "named"),
    [
        ({"transcription_delay_ms": 500.0}, "transcription_delay_ms is 500.0, expec"),
        ({"transcription_delay_ms": "480"}, "transcription_delay_ms is '480', expec"),
        ({"transcription_delay_ms": True}, "transcription_delay_ms is True"),
        ({"transcription_delay_ms": [480]}, r"transcription_delay_ms is \[480\]"),
        ({"streaming_n_left_pad_tokens": 0}, "streaming_n_left_pad_tokens is 0"),
        ({"streaming_n_left_pad_tokens": 32.0}, "streaming_n_left_pad_tokens is 32.0"),
        ("soon", "audio is 'soon', expected an object"),
    ],
)
def test_a_delay_or_padding_that_no_model_has_is_refused(
    tiny_checkpoint_dir: Path, tmp_path: Path, audio: object, named: str
) -> None:
    path = edited(tiny_checkpoint_dir, tmp_path / "tekken.json", audio=audio)
    with pytest.raises(TokenizerError, match=rf"tekken\.json: {named}"):
        Tokenizer.from_file(path, 1500)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"tekken\.json is missing"):
        Tokenizer.from_file(tmp_path / "tekken.json", 1500)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"config": 3}'])
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tekken.json"
    path.write_text(content)
    with pytest.raises(TokenizerError, match=r"tekken\.json"):
        Tokenizer.from_file(path, 1500)


def test_another_vocabulary_size_is_refused(tiny_checkpoint_dir: Path) -> None:
    with pytest.raises(TokenizerError, match="1500 ids, the model has 1600"):
        Tokenizer.from_file(tiny_checkpoint_dir / "tekken.json", 1600)


def test_special_ids_of_another_model_are_refused(
    tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    path = edited(tiny_checkpoint_dir, tmp_path / "tekken.json", special_tokens=[])
    with pytest.raises(TokenizerError, match="<s> has id None, expected 1"):
        Tokenizer.from_file(path, 1500)


def test_a_short_vocabulary_is_refused(
    tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    path = edited(tiny_checkpoint_dir, tmp_path / "tekken.json", vocab=[])
    with pytest.raises(TokenizerError, match="lists 0 text tokens, expected 500"):
        Tokenizer.from_file(path, 1500)
