"""Directories of mlx-audio and awni/voxmlx agree, theirs here and ours there.

The packages live in environments of their own (awni's has our name):

    python3.11 -m venv A && A/bin/pip install mlx-audio "mlx[cpu]"
    python3.11 -m venv B && B/bin/pip install voxmlx "mlx[cpu]"
    export VOXMLX_PEER_MLX_AUDIO=A/bin/python VOXMLX_PEER_AWNI=B/bin/python
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from convert.__main__ import convert
from tests.convert.directories import MODEL
from tests.tiny import TinyModel
from voxmlx import load

PEERS = {"mlx-audio": "VOXMLX_PEER_MLX_AUDIO", "awni": "VOXMLX_PEER_AWNI"}

# mlx-audio's adapter has the real model's widths, whatever its config.json says.
SOURCES = {
    "mlx-audio": TinyModel(
        encoder_dim=1280,
        encoder_layers=1,
        encoder_heads=8,
        decoder_dim=3072,
        decoder_layers=1,
        vocab_size=1280,
    ),
    "awni": MODEL,
}

# Both sides run the same quantized products in another order of operations.
TOLERANCE = 2e-4


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS)
def test_a_peers_quantized_directory_gives_the_peers_logits(
    peer: str, tmp_path: Path
) -> None:
    python = python_of(peer)
    source = SOURCES[peer].write(tmp_path / "source")
    directory = tmp_path / "theirs"
    compare(peer, directory, answers_of(python, peer, source, directory))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("peer", "recipe"),
    [("mlx-audio", "q4"), ("mlx-audio", "q4-mixed"), ("awni", "q4"), ("awni", "q6")],
)
def test_a_peer_loads_what_layout_writes_and_gives_our_logits(
    peer: Any, recipe: str, tmp_path: Path
) -> None:
    python = python_of(peer)
    source = SOURCES[peer].write(tmp_path / "source")
    directory = tmp_path / "ours"
    convert(str(source), directory, recipe=recipe, dtype="float32", layout=peer)
    compare(peer, directory, answers_of(python, peer, None, directory))


def python_of(peer: str) -> str:
    """The interpreter of the peer's environment; skips where there is none."""
    python = os.environ.get(PEERS[peer])
    if not python:
        pytest.skip(f"{PEERS[peer]} is not set: see the docstring of this file")
    return python


def inputs_of(peer: str) -> dict[str, np.ndarray]:
    """Seeded inputs of the decoder and the encoder."""
    rng = np.random.default_rng(0)
    dim = SOURCES[peer].decoder_dim
    # Three audio tokens: awni/voxmlx's encoder knows no window.
    return {
        "embeddings": rng.standard_normal((24, dim)).astype(np.float32),
        "mel": rng.standard_normal((24, 128)).astype(np.float32),
    }


def answers_of(
    python: str, peer: str, source: Path | None, directory: Path
) -> dict[str, np.ndarray]:
    """What the peer makes of the inputs; it writes `directory` first from a source."""
    place = directory.parent
    inputs = inputs_of(peer)
    np.savez(place / "inputs.npz", embeddings=inputs["embeddings"], mel=inputs["mel"])
    script = Path(__file__).with_name("peers.py")
    names = [source or "", directory, place / "inputs.npz", place / "out.npz"]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [python, script, peer, *names]
    subprocess.run(command, check=True, cwd=place, env=clean)
    return dict(np.load(place / "out.npz"))


def compare(peer: str, directory: Path, answers: dict[str, np.ndarray]) -> None:
    """Our logits and audio embeddings of the same inputs are the peer's."""
    inputs = inputs_of(peer)
    model = load(directory, "float32").model
    assert isinstance(model.decoder.embedding, nn.QuantizedEmbedding)
    state = model.make_state(480)
    embeddings, mel = (mx.array(inputs[name])[None] for name in ("embeddings", "mel"))
    logits = model.decoder.step(embeddings, state.decoder)
    audio = model.adapter(model.encoder.step(mel, state.encoder))
    for found, theirs in ((logits, answers["logits"]), (audio, answers["audio"])):
        np.testing.assert_allclose(
            np.array(found[0]), theirs, atol=TOLERANCE * np.abs(theirs).max(), rtol=0
        )
