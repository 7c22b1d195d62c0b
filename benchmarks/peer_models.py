"""One checkpoint in each implementation's own format."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from benchmarks.gguf_checkpoint import write_gguf
from convert.__main__ import convert
from tests.tiny import EOS, TinyModel

__all__ = ["DENSE_BITS", "FLOOR", "OVERHEAD", "mlx_audio_config", "write_all"]

DENSE_BITS = 32

# True layer counts, small widths: what a step costs is everything but its products.
OVERHEAD = TinyModel(
    encoder_layers=32, encoder_window=750, decoder_layers=26, decoder_window=8192
)

# True widths and heads; two layers each and a quarter of the vocabulary, so that three
# implementations in float32 fit into one machine.
FLOOR = TinyModel(
    encoder_dim=1280,
    encoder_layers=2,
    encoder_heads=32,
    encoder_head_dim=64,
    encoder_hidden_dim=5120,
    encoder_window=750,
    decoder_dim=3072,
    decoder_layers=2,
    decoder_heads=32,
    decoder_kv_heads=8,
    decoder_head_dim=128,
    decoder_hidden_dim=9216,
    decoder_window=8192,
    vocab_size=32768,
)

EMBEDDING = "mm_streams_embeddings.embedding_module.tok_embeddings.weight"
_KEYS = (
    "dim",
    "n_layers",
    "head_dim",
    "hidden_dim",
    "n_heads",
    "n_kv_heads",
    "vocab_size",
    "norm_eps",
    "rope_theta",
    "sliding_window",
    "tied_embeddings",
    "ada_rms_norm_t_cond",
    "ada_rms_norm_t_cond_dim",
)


def write_source(model: TinyModel, directory: Path) -> Path:
    """Mistral's layout, float32. The end of a sequence never comes: it ends or resets
    the peers' streams, and random weights would say it at random.
    """
    tensors = model.tensors()
    tensors[EMBEDDING][EOS] = 0
    if model.vocab_size <= 2000:
        return model.write(directory, tensors=tensors)
    # Its vocabulary is longer than what the tiny model finds words for.
    small = TinyModel().tekken()
    n_text = model.vocab_size - 1000
    pieces = [bytes([value]) for value in range(256)]
    pieces += [f" x{i}".encode() for i in range(n_text - 256)]
    small["vocab"] = [
        {
            "rank": rank,
            "token_bytes": base64.b64encode(piece).decode(),
            "token_str": None,
        }
        for rank, piece in enumerate(pieces)
    ]
    small["config"]["default_vocab_size"] = model.vocab_size
    small["config"]["num_vocab_tokens"] = len(pieces)
    directory.mkdir(parents=True)
    save_file(tensors, directory / "consolidated.safetensors")
    (directory / "params.json").write_text(json.dumps(model.params()))
    (directory / "tekken.json").write_text(json.dumps(small))
    return directory


def mlx_audio_config(params: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json that mlx-audio wants beside Mistral's weights."""
    whisper = params["multimodal"]["whisper_model_args"]
    return {
        "model_type": "voxtral_realtime",
        "decoder": {key: params[key] for key in _KEYS},
        "encoder_args": {**whisper["encoder_args"], **whisper["downsample_args"]},
    }


def write_all(
    source: Path, directory: Path, bits: int, pythons: Mapping[str, Path]
) -> dict[str, Path]:
    """Return what each implementation is to load, in its own format.

    The MLX peers' own converters make what is quantized; transcribe.cpp gets a file of
    `write_gguf`. Raises ImportError without the package `gguf`.
    """
    directory.mkdir(parents=True)
    made: dict[str, Path] = {}
    for name in ("ours", *pythons):
        if name == "transcribe-cpp":
            path = directory / "transcribe-cpp.gguf"
            made[name] = write_gguf(source, path, in_4_bits=bits == 4)
        elif bits == DENSE_BITS:
            made[name] = _linked(source, directory / name, name)
        else:
            assert bits == 4
            made[name] = directory / name
            _write_in_4_bits(source, directory / name, name, pythons)
    return made


def _linked(source: Path, directory: Path, name: str) -> Path:
    """Return a folder of links; mlx-audio needs a config.json, which others refuse."""
    directory.mkdir()
    for path in source.iterdir():
        os.link(path, directory / path.name)
    if name == "mlx-audio":
        params = json.loads((source / "params.json").read_text())
        text = json.dumps(mlx_audio_config(params))
        (directory / "config.json").write_text(text)
    return directory


def _write_in_4_bits(
    source: Path, directory: Path, name: str, pythons: Mapping[str, Path]
) -> None:
    if name == "ours":
        convert(str(source), directory, recipe="q4", dtype="float32")
        return
    copy = _linked(source, directory.with_name(f"{name}-source"), name)
    script = Path(__file__).with_name("peer_convert.py")
    command = [pythons[name], script, name, copy, directory]
    subprocess.run(command, check=True, cwd=directory.parent, env=clean_environment(1))
    shutil.rmtree(copy)


def clean_environment(n_threads: int, blas: str | None = None) -> dict[str, str]:
    """Ours, but for the path that leads to a package of the same name as a peer's.

    Every BLAS gets `n_threads`; the library `blas` takes the place of that of MLX's wheel.
    """
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    kept |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(n_threads))
    if blas is not None:
        kept["LD_PRELOAD"] = blas
    return kept
