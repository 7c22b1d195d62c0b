"""Directories that mlx-audio and awni/voxmlx write themselves load and agree.

The packages live in environments of their own (awni's has our name):

    python3.11 -m venv A && A/bin/pip install mlx-audio "mlx[cpu]"
    python3.11 -m venv B && B/bin/pip install voxmlx "mlx[cpu]"
    export VOXMLX_PEER_MLX_AUDIO=A/bin/python VOXMLX_PEER_AWNI=B/bin/python
"""

import os
import subprocess
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

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
    python = os.environ.get(PEERS[peer])
    if not python:
        pytest.skip(f"{PEERS[peer]} is not set: see the docstring of this file")
    source = SOURCES[peer].write(tmp_path / "source")
    rng = np.random.default_rng(0)
    dim = SOURCES[peer].decoder_dim
    embeddings = rng.standard_normal((24, dim)).astype(np.float32)
    # Three audio tokens: awni/voxmlx's encoder knows no window.
    mel = rng.standard_normal((24, 128)).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", embeddings=embeddings, mel=mel)
    script = Path(__file__).with_name("peers.py")
    names = [source, tmp_path / "theirs", tmp_path / "inputs.npz", tmp_path / "out.npz"]
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [python, script, peer, *names]
    subprocess.run(command, check=True, cwd=tmp_path, env=clean)
    answers = np.load(tmp_path / "out.npz")

    model = load(tmp_path / "theirs", "float32").model
    assert isinstance(model.decoder.embedding, nn.QuantizedEmbedding)
    state = model.make_state(480)
    logits = model.decoder.step(mx.array(embeddings)[None], state.decoder)
    audio = model.adapter(model.encoder.step(mx.array(mel)[None], state.encoder))
    for found, theirs in ((logits, answers["logits"]), (audio, answers["audio"])):
        np.testing.assert_allclose(
            np.array(found[0]), theirs, atol=TOLERANCE * np.abs(theirs).max(), rtol=0
        )
