"""Runs inside a peer's own environment: quantises a checkpoint, keeps its answers.

    PYTHON peers.py mlx-audio|awni SOURCE DEST INPUTS.npz ANSWERS.npz

INPUTS holds `embeddings` [T, dim] and `mel` [F, 128]; ANSWERS gets the peer's
`logits` and `audio`, what its encoder and adapter make of the mel frames. It uses
nothing of this repository: the package named voxmlx in here is the peer's.
"""

import json
import shutil
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np

BITS, GROUP_SIZE, DELAY_TOKENS = 4, 64, 6


def main() -> None:
    """Write DEST and ANSWERS."""
    peer, source, destination, inputs, answers = sys.argv[1:]
    given = np.load(inputs)
    run = {"mlx-audio": mlx_audio, "awni": awni}[peer]
    logits, audio = run(
        Path(source),
        Path(destination),
        mx.array(given["embeddings"]),
        mx.array(given["mel"]),
    )
    shutil.copy(Path(source) / "tekken.json", destination)
    np.savez(answers, logits=np.array(logits), audio=np.array(audio))


def mlx_audio(
    source: Path, destination: Path, embeddings: mx.array, mel: mx.array
) -> tuple[mx.array, mx.array]:
    """mlx-audio's model, quantiser and writer."""
    from mlx_audio.lm.convert import quantize_model, save_config, save_model
    from mlx_audio.stt.models.voxtral_realtime import Model, ModelConfig
    from mlx_audio.stt.models.voxtral_realtime.decoder import compute_time_embedding

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
    model = Model(ModelConfig.from_dict(json.loads(json.dumps(config))))
    # Its adapter is born for the real model's width only.
    dim, joined = params["dim"], 4 * whisper["encoder_args"]["dim"]
    model.encoder.audio_language_projection_0 = nn.Linear(joined, dim, bias=False)
    model.encoder.audio_language_projection_2 = nn.Linear(dim, dim, bias=False)
    weights = model.sanitize(mx.load(str(source / "consolidated.safetensors")))
    model.load_weights(list(weights.items()))

    def predicate(path: str, module: nn.Module) -> bool:
        fits = hasattr(module, "weight") and module.weight.shape[-1] % GROUP_SIZE == 0
        return fits and model.model_quant_predicate(path, module)

    _, config = quantize_model(
        model, config, GROUP_SIZE, BITS, quant_predicate=predicate
    )
    model.decoder.precompute_ada_scales(compute_time_embedding(DELAY_TOKENS, dim))
    hidden, _ = model.decoder.forward(embeddings)
    answers = model.decoder.logits(hidden), model.encoder(mel.T)
    mx.eval(answers)
    destination.mkdir()
    save_model(destination, model)
    save_config(config, config_path=destination / "config.json")
    return answers


def awni(
    source: Path, destination: Path, embeddings: mx.array, mel: mx.array
) -> tuple[mx.array, mx.array]:
    """awni/voxmlx's model, quantiser and writer."""
    from voxmlx.weights import load_model

    from voxmlx import convert

    model, config = load_model(source)
    quantization = convert._quantize_model(model, GROUP_SIZE, BITS)
    time = model.time_embedding(mx.array([DELAY_TOKENS]))
    logits = model.decode(embeddings[None], time, mask="causal")[0]
    answers = logits, model.encode(mel.T)
    mx.eval(answers)
    convert._save_model(destination, model)
    content = {**config, "quantization": quantization}
    (destination / "config.json").write_text(json.dumps(content, indent=4))
    return answers


if __name__ == "__main__":
    main()
