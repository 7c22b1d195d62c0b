"""Runs in a peer's own environment: has it quantize a model, keeps its answers.

    PYTHON peers.py mlx-audio|awni SOURCE DEST INPUTS.npz ANSWERS.npz
    PYTHON peers.py mlx-audio|awni "" DIRECTORY INPUTS.npz ANSWERS.npz

The second form quantizes nothing: it loads a directory of the peer's layout.

INPUTS holds `embeddings` [T, dim] and `mel` [F, 128]; ANSWERS gets the peer's
`logits` and `audio`, what its encoder and adapter make of the mel frames. It uses
nothing of this repository: the package named voxmlx in here is the peer's.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np

BITS, GROUP_SIZE, DELAY_TOKENS = 4, 64, 6


def main() -> None:
    """Write DEST and ANSWERS."""
    peer, source, destination, inputs, answers = sys.argv[1:]
    given = np.load(inputs)
    run = {"mlx-audio": mlx_audio, "awni": awni}[peer]
    logits, audio = run(
        Path(source) if source else None,
        Path(destination),
        mx.array(given["embeddings"]),
        mx.array(given["mel"]),
    )
    np.savez(answers, logits=np.array(logits), audio=np.array(audio))


def mlx_audio(
    source: Path | None, destination: Path, embeddings: mx.array, mel: mx.array
) -> tuple[mx.array, mx.array]:
    """mlx-audio's converter, loader and model."""
    from mlx_audio.stt.utils import load

    if source is not None:
        _convert_by_mlx_audio(source, destination)
    model = load(destination, strict=True)
    # One position at a time, as it decodes: its prompt must fit into the window.
    cache = model.decoder.make_cache()
    hidden = [
        model.decoder.forward(embeddings[i : i + 1], i, cache)[0]
        for i in range(len(embeddings))
    ]
    return model.decoder.logits(mx.concatenate(hidden)), model.encoder(mel.T)


def _convert_by_mlx_audio(source: Path, destination: Path) -> None:
    from mlx_audio.convert import convert

    params = json.loads((source / "params.json").read_text())
    whisper = params["multimodal"]["whisper_model_args"]
    keys = "dim n_layers head_dim hidden_dim n_heads n_kv_heads vocab_size norm_eps"
    keys += " rope_theta sliding_window tied_embeddings"
    keys += " ada_rms_norm_t_cond ada_rms_norm_t_cond_dim"
    config = {
        "model_type": "voxtral_realtime",
        "decoder": {key: params[key] for key in keys.split()},
        "encoder_args": {**whisper["encoder_args"], **whisper["downsample_args"]},
    }
    # Its source needs a config.json.
    (source / "config.json").write_text(json.dumps(config))
    convert(
        str(source),
        str(destination),
        quantize=True,
        q_bits=BITS,
        q_group_size=GROUP_SIZE,
        model_domain="stt",
    )
    # It copies the source along, and would then load that.
    (destination / "consolidated.safetensors").unlink()


def awni(
    source: Path | None, destination: Path, embeddings: mx.array, mel: mx.array
) -> tuple[mx.array, mx.array]:
    """awni/voxmlx's converter, loader and model."""
    from voxmlx.weights import load_model

    from voxmlx import convert

    if source is not None:
        convert.download_model = Path  # it takes Hub ids only
        convert.convert(
            str(source),
            str(destination),
            quantize=True,
            q_bits=BITS,
            q_group_size=GROUP_SIZE,
        )
    model, _ = load_model(destination)
    time = model.time_embedding(mx.array([DELAY_TOKENS]))
    return model.decode(embeddings[None], time, mask="causal")[0], model.encode(mel.T)


if __name__ == "__main__":
    main()
