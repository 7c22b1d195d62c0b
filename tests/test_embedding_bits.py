"""The tied embedding is quantized while it is read, where a model keeps 16 bits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
import soundfile

from benchmarks.embedding_bits import write_default_like
from convert import quality
from convert.__main__ import main as convert_main
from convert.products import dequantize
from tests.convert.directories import MODEL, write_mlx_audio
from tests.sounds import speech_like
from voxmlx import Checkpoint, demo, load
from voxmlx.checkpoint import DtypeName
from voxmlx.decoding.loop import greedy_ids
from voxmlx.errors import CheckpointError
from voxmlx.layouts import embedding as embedding_module
from voxmlx.layouts import open_model
from voxmlx.layouts.embedding import (
    DEFAULT_EMBEDDING_BITS,
    EMBEDDING,
    EMBEDDING_BITS,
    quantized_embedding,
    with_quantized_embedding,
)


@pytest.fixture(scope="module")
def like_the_default(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mlx-community's layout in 4 bits, its embedding not quantized."""
    directory = tmp_path_factory.mktemp("models") / "default"
    return write_mlx_audio(directory, 4, skipped=("tok_embeddings",))


def embedding_of(checkpoint: Checkpoint) -> Any:
    return checkpoint.model.decoder.embedding


@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_embedding_is_what_mlx_makes_of_the_whole_matrix(
    like_the_default: Path,
    monkeypatch: pytest.MonkeyPatch,
    bits: int,
    dtype: DtypeName,
) -> None:
    # Seven rows at a time: the last block is a shorter one.
    monkeypatch.setattr(embedding_module, "_BLOCK_BYTES", 7 * 4 * MODEL.decoder_dim)
    made = load(like_the_default, dtype, embedding_bits=bits)
    whole = embedding_of(load(like_the_default, dtype, embedding_bits=16)).weight
    module = embedding_of(made)
    assert made.embedding_bits == bits
    for got, expected in zip(
        (module.weight, module.scales, module.biases),
        mx.quantize(whole, 64, bits),
        strict=True,
    ):
        assert got.dtype == expected.dtype
        assert mx.array_equal(got, expected)


def test_sixteen_bits_leave_it_as_it_is(like_the_default: Path) -> None:
    checkpoint = load(like_the_default, "float32", embedding_bits=16)
    assert "scales" not in embedding_of(checkpoint)
    assert checkpoint.embedding_bits is None


def test_nothing_else_is_quantized(tmp_path: Path, tiny_checkpoint_dir: Path) -> None:
    # A model in 16 bits throughout, and one whose embedding is quantized already.
    plain = load(tiny_checkpoint_dir, "float32")
    assert "scales" not in embedding_of(plain)
    assert plain.embedding_bits is None
    packed = load(write_mlx_audio(tmp_path / "m", 4), "float32")
    assert embedding_of(packed).bits == 4
    assert packed.embedding_bits is None


@pytest.mark.parametrize("bits", [0, 4, 32])
def test_other_bits_are_refused(like_the_default: Path, bits: int) -> None:
    with pytest.raises(
        CheckpointError, match=f"embedding_bits is {bits}, expected one of 16, 8, 6"
    ):
        load(like_the_default, embedding_bits=bits)


def test_no_more_than_a_block_of_the_file_is_in_memory(
    like_the_default: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = open_model(like_the_default)
    files = with_quantized_embedding(stored, 8)
    tensor = files.tensors[f"{EMBEDDING}.weight"]
    block = tensor.n_bytes // 20
    monkeypatch.setattr(embedding_module, "_BLOCK_BYTES", block)
    n_read: list[int] = []
    read = np.fromfile

    def counted(*arguments: Any) -> Any:
        array = read(*arguments)
        n_read.append(array.nbytes)
        return array

    monkeypatch.setattr(np, "fromfile", counted)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    made = quantized_embedding(files, files.precisions[EMBEDDING], mx.float16)
    kept = sum(array.nbytes for array in made.values())
    assert sum(n_read) == tensor.n_bytes  # each byte once
    assert max(n_read) <= block
    # The result, a block as it is stored and in its type, and what is made of it.
    assert mx.get_peak_memory() - before <= kept + 4 * block
    assert kept < 0.6 * tensor.n_bytes


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    directory = write_mlx_audio(tmp_path / "m", 4, skipped=("tok_embeddings",))
    path = directory / "model.safetensors"
    tensors: Any = mx.load(str(path))
    mx.eval(tensors)
    tensors["decoder.tok_embeddings.weight"][900, 3] = value
    mx.save_safetensors(str(path), tensors)
    with pytest.raises(
        CheckpointError, match=r"embedding\.weight holds NaN or infinite"
    ):
        load(directory)


def test_a_file_cut_short_meanwhile_is_refused(like_the_default: Path) -> None:
    files = with_quantized_embedding(open_model(like_the_default), 8)
    name = f"{EMBEDDING}.weight"
    tensor = files.tensors[name]
    n_bytes = tensor.path.stat().st_size
    entry = replace(tensor.entry, start=n_bytes - 64, end=n_bytes - 64 + tensor.n_bytes)
    cut = replace(files, tensors={**files.tensors, name: replace(tensor, entry=entry)})
    with pytest.raises(CheckpointError, match="has become shorter"):
        quantized_embedding(cut, files.precisions[EMBEDDING], mx.float32)


@pytest.mark.parametrize(
    "seconds", [4, pytest.param(60, marks=pytest.mark.slow, id="whole")]
)
def test_the_ids_of_the_demo_stay_as_they_are(tmp_path: Path, seconds: int) -> None:
    directory = write_default_like(demo.NAME, tmp_path / "demo")
    (sound,) = quality.read_sounds([demo.SAMPLE])
    samples = sound.padded[None, : (seconds + 3) * 16_000]
    ids: list[list[int]] = []
    for bits in EMBEDDING_BITS:
        checkpoint = load(directory, "float32", embedding_bits=bits)
        assert checkpoint.embedding_bits == (None if bits == 16 else bits)
        dequantize(checkpoint.model)  # the same numbers, faster on a CPU
        state = checkpoint.model.make_state()
        ids.append(greedy_ids(checkpoint.model, samples, state).tolist())
    assert ids[0] == ids[1] == ids[2]


def test_a_certificate_says_that_loading_quantized_it(
    like_the_default: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", speech_like(16_000), 16_000)
    made = tmp_path / "ours"
    arguments = [str(like_the_default), str(made), "--recipe", "keep", "--verify"]
    assert convert_main([*arguments, str(tmp_path / "a.wav")]) == 0
    content = json.loads((made / "quality.json").read_text("utf-8"))
    assert content["embedding_bits_at_load"] == DEFAULT_EMBEDDING_BITS
    # The source was read as it is stored, so the difference shows.
    assert content["total"]["mean_kl"] > 0
    assert (
        f"{DEFAULT_EMBEDDING_BITS} bits, in these" in (made / "README.md").read_text()
    )
