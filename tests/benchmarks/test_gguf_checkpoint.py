"""The file for transcribe.cpp holds our numbers under its names, in its order."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gguf_checkpoint import (
    ARCHITECTURE,
    TRANSCRIBE_CPP,
    byte_characters,
    write_gguf,
)
from tests.tiny import TinyModel
from voxmlx import load
from voxmlx.errors import CheckpointError
from voxmlx.layouts import model_modules
from voxmlx.model.decoder import time_embedding

gguf = pytest.importorskip("gguf", reason="needs the package gguf, of the extra bench")

MODEL = TinyModel()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODEL.write(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def written(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return gguf.GGUFReader(write_gguf(source, path))


def tensors(reader: Any) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.data for tensor in reader.tensors}


def value(reader: Any, name: str) -> Any:
    return reader.get_field(name).contents()


def test_every_tensor_is_ours_once_its_order_is_undone(
    source: Path, written: Any
) -> None:
    network = load(source, "float32").model
    stored = tensors(written)
    packed = {
        "encoder.layers.1.attention.q_proj": (
            network.encoder.layers[1].attention.qkv_proj.weight[:96]
        ),
        "decoder.layers.1.attention.k_proj": (
            network.decoder.layers[1].attention.qkv_proj.weight[128:160]
        ),
        "decoder.layers.0.mlp.up_proj": (
            network.decoder.layers[0].mlp.gate_up_proj.weight[128:]
        ),
        "encoder.stem.conv2": network.encoder.stem.conv2.weight,
        "decoder.embedding": network.decoder.embedding.weight,
        "decoder.layers.1.ada.up": network.decoder.layers[1].ada.up.weight,
    }
    modules = {m.path: m for m in model_modules(network.config)}
    for path, ours in packed.items():
        name = f"{TRANSCRIBE_CPP.stored_path(path)}.weight"
        back = TRANSCRIBE_CPP.to_ours(modules[path], stored[name])
        assert (back == np.array(ours)).all(), path


def test_pairs_that_are_rotated_together_lie_half_a_head_apart(
    source: Path, written: Any
) -> None:
    ours = np.array(
        load(source, "float32").model.encoder.layers[0].attention.qkv_proj.weight
    )
    theirs = tensors(written)["enc.blocks.0.attn.q.weight"]
    half = MODEL.encoder_head_dim // 2
    assert (theirs[1] == ours[2]).all()
    assert (theirs[half] == ours[1]).all()


def test_no_tensor_is_left_out_and_none_is_added(written: Any) -> None:
    config = MODEL
    per_encoder_layer, per_decoder_layer = 9 + 4, 9 + 2
    n_own = 2 * 2 + 1 + 2 + 1 + 1
    n_constants = 3
    assert len(written.tensors) == (
        config.encoder_layers * per_encoder_layer
        + config.decoder_layers * per_decoder_layer
        + n_own
        + n_constants
    )


def test_sizes_and_the_delay_are_those_of_the_directory(
    source: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in source.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    tekken = json.loads((copy / "tekken.json").read_text())
    tekken["audio"]["transcription_delay_ms"] = 2400
    (copy / "tekken.json").write_text(json.dumps(tekken))
    reader = gguf.GGUFReader(write_gguf(copy, tmp_path / "copy.gguf"))
    assert value(reader, "general.architecture") == ARCHITECTURE
    own = f"stt.{ARCHITECTURE}"
    assert value(reader, f"{own}.time.default_num_delay_tokens") == 30
    assert value(reader, f"{own}.decoder.sliding_window") == MODEL.decoder_window
    assert value(reader, f"{own}.encoder.d_model") == MODEL.encoder_dim
    assert value(reader, f"{own}.projector.input_dim") == 4 * MODEL.encoder_dim
    assert value(reader, "stt.frontend.global_log_mel_max") == 1.5


def test_the_delay_is_embedded_with_the_frequencies_in_the_file(written: Any) -> None:
    rates = tensors(written)["dec.time_embed.inv_freq"]
    angle = 6 * rates.astype(np.float64)
    table = np.concatenate([np.cos(angle), np.sin(angle)])
    ours = np.array(time_embedding([6], MODEL.decoder_dim)[0])
    assert np.abs(table - ours).max() < 1e-6


def test_every_id_has_the_bytes_of_our_vocabulary(source: Path, written: Any) -> None:
    tokenizer = load(source, "float32").tokenizer
    bytes_of = {character: i for i, character in enumerate(byte_characters())}
    assert len(bytes_of) == 256
    tokens = value(written, "tokenizer.ggml.tokens")
    kinds = value(written, "tokenizer.ggml.token_type")
    assert len(tokens) == tokenizer.vocab_size
    for token_id in range(tokenizer.n_special, tokenizer.vocab_size):
        piece = bytes(bytes_of[character] for character in tokens[token_id])
        assert piece == tokenizer.piece(token_id)
    assert set(kinds[: tokenizer.n_special]) == {3}
    assert set(kinds[tokenizer.n_special :]) == {1}


def test_only_matrices_are_put_into_4_bits(source: Path, tmp_path: Path) -> None:
    path = write_gguf(source, tmp_path / "q4.gguf", in_4_bits=True)
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}
    assert kinds["dec.token_embd.weight"] == "Q4_0"
    assert kinds["enc.blocks.0.ffn.down.weight"] == "Q4_0"
    assert kinds["enc.blocks.0.ffn.down.bias"] == "F32"
    assert kinds["enc.conv.0.weight"] == "F32"
    assert kinds["frontend.mel_filterbank"] == "F32"


def test_a_quantized_model_is_refused(source: Path, tmp_path: Path) -> None:
    from convert.__main__ import convert

    convert(str(source), tmp_path / "q4", recipe="q4", dtype="float32")
    with pytest.raises(CheckpointError, match="is quantized, expected a dense model"):
        write_gguf(tmp_path / "q4", tmp_path / "q4.gguf")
    assert not (tmp_path / "q4.gguf").exists()
