"""Runs sound through the source a layer at a time, and sums up what each product sees.

Each layer is read, applied to all of the sound, and forgotten. So what is held is the
sound between two layers, one layer, and the sums of its inputs: 1.5 GB in float32.
Between the encoder and the decoder, the decoder is loaded whole once, 7 GB of 16 bits,
for the ids that it makes of the sound.
"""

# pyright: standard
# mlx.nn has no types.

import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

from voxmlx import demo
from voxmlx.checkpoint import best_dtype, empty_network, read_parameters
from voxmlx.config import (
    SAMPLE_RATE,
    delay_tokens,
)
from voxmlx.decoding.loop import decode_together
from voxmlx.decoding.network_requests import DecodeRequest
from voxmlx.errors import AudioError
from voxmlx.kernels import gelu
from voxmlx.layouts import ModelFiles
from voxmlx.model.attention import begin_step
from voxmlx.model.cache import RingKVCache
from voxmlx.model.decoder import time_embedding
from voxmlx.model.layer import Layer, Residual
from voxmlx.model.linear import matmul
from voxmlx.model.rope import RotaryEmbedding
from voxmlx.text.tokenizer import Tokenizer

from .generated_sound import generated_sounds
from .model_reading import chosen_ids, prompt_ids, ring_of_layer, stem_frames
from .products import gram
from .quality import DELAY_MS, Sound, read_sounds

__all__ = [
    "GENERATED",
    "MAX_SECONDS",
    "Calibration",
    "OnHeard",
    "calibration_path",
    "read_calibration",
    "warn_of_little_sound",
]

# Stands for sound that nobody has to bring.
GENERATED = "generated"

# Hears how many positions the decoder has written down, and of how many.
OnHeard = Callable[[int, int], object]

# Beyond it little is gained, and the sound between two layers would fill memory.
MAX_SECONDS = 1200

# With less sound GPTQ is worse than the search, on the demo: KL of q4 0.0069 after a
# hundredth of a second, 0.0044 after 23 s of speech, 0.0029 after 69 s; searched 0.0041.
_FEW_SECONDS = 60

# Longer sounds are cut: each piece is heard as a stream of its own, so that the
# beginnings of streams count as well (KL of q4 on the demo: 0.0043 whole, 0.0030 cut).
_PIECE_SECONDS = 4

# Positions per step: bounds the scores that attention holds.
_POSITIONS = 128

# Pieces decoded side by side: weights are read once for all of them.
_ROWS = 16

_NO_SOUND = {".txt", ".json", ".md"}


def calibration_path(text: str) -> Path:
    """Return the path that a user has typed, for `read_calibration`.

    "./demo" is a folder, though Path makes "demo" of it, which is the demo model's sound.
    Raises ArgumentTypeError.
    """
    if not text:
        raise ArgumentTypeError("the name is empty; name a sound or a folder")
    path = Path(os.path.expanduser(text))
    names = (demo.NAME, GENERATED)
    return path.absolute() if str(path) in names and text not in names else path


def read_calibration(paths: Sequence[Path]) -> list[Sound]:
    """Read sounds, and every sound of folders, up to MAX_SECONDS in all.

    The path "demo" stands for the demo model's calibration sound, "generated" for
    sound that is made here. Raises AudioError.
    """
    found: list[Path] = []
    made: list[Sound] = []
    for path in paths:
        if str(path) == GENERATED:
            made = generated_sounds()
            continue
        folder = demo.CALIBRATION if str(path) == demo.NAME else path
        if not os.path.isdir(folder):  # False also of a path that cannot be
            found.append(folder)
            continue
        try:
            inside = [p for p in sorted(folder.iterdir()) if _is_sound(p)]
        except OSError as error:
            raise AudioError(
                f"{folder} cannot be read: {error.strerror}; name a folder that can"
            ) from None
        if not inside:
            raise AudioError(f"{folder} holds no sound; name a folder that does")
        found += inside
    sounds: list[Sound] = []
    left = MAX_SECONDS * SAMPLE_RATE
    for sound in (*read_sounds(found, with_transcripts=False), *made):
        samples = sound.samples[:left]
        left -= len(samples)
        step = _PIECE_SECONDS * SAMPLE_RATE
        for start in range(0, len(samples), step):
            piece = samples[start : start + step]
            sounds.append(Sound(sound.name, piece, None, sound.has_words))
    return sounds


def _is_sound(path: Path) -> bool:
    is_hidden = path.name.startswith(".")
    return path.is_file() and not is_hidden and path.suffix.lower() not in _NO_SOUND


def warn_of_little_sound(rounding: str, sounds: Sequence[Sound]) -> None:
    """Write one line to stderr where the default rounding may be better."""
    seconds = sum(len(sound.samples) for sound in sounds) / SAMPLE_RATE
    if seconds < _FEW_SECONDS and sys.stderr is not None:
        sys.stderr.write(
            f"voxmlx: warning: --rounding {rounding} heard {seconds:.3g} s of sound; "
            "with less than a minute --rounding search may be better, so give five "
            "minutes or more\n"
        )


class Calibration:
    """Knows H = X^T X of the inputs X of every product, in the order of the network.

    The embedding comes last: its inputs are those of the logits.
    """

    def __init__(
        self,
        files: ModelFiles,
        sounds: Sequence[Sound],
        on_heard: OnHeard = lambda *_: None,
    ) -> None:
        self._files = files
        self._sounds = sounds
        self._on_heard = on_heard
        self._dtype = best_dtype()
        tokenizer = Tokenizer.from_file(
            files.tokenizer_path, files.config.decoder.vocab_size
        )
        self._network = empty_network(files, tokenizer.left_pad_tokens)
        self._stages = self._run()
        self._sums: dict[str, mx.array] = {}

    @property
    def has_words(self) -> bool:
        """Return whether there may be a word in any of the sounds."""
        return any(sound.has_words for sound in self._sounds)

    def hessian(self, path: str) -> mx.array:
        """Return H [n, n], float32, of the network's module `path`.

        It must be asked for in order; those passed over are lost.
        """
        while path not in self._sums:
            self._sums = {}
            mx.clear_cache()
            self._sums = next(self._stages)
        return self._sums[path]

    def _run(self) -> Iterator[dict[str, mx.array]]:
        network, files = self._network, self._files
        self._fill("encoder.stem")
        hidden = [stem_frames(network, x, self._dtype) for x in self._sounds]
        encoder = files.config.encoder
        for i, layer in enumerate(network.encoder.layers):
            path = f"encoder.layers.{i}"
            self._fill(path)
            group = network.encoder.group
            rings = [ring_of_layer(encoder, 1, group, self._dtype) for _ in hidden]
            yield _through(path, layer, hidden, rings, network.encoder.rotary)
            _forget(layer)
        self._fill("encoder.norm")
        self._fill("adapter")
        joined = [self._joined(network.encoder.norm(x)) for x in hidden]
        first, second = network.adapter.linear1, network.adapter.linear2
        inner = [gelu(matmul(first, x)) for x in joined]
        yield {"adapter.linear1": gram(joined), "adapter.linear2": gram(inner)}
        hidden = [matmul(second, x) for x in inner]
        mx.eval(hidden)
        del joined, inner
        hidden = self._decoded(hidden)
        decoder = files.config.decoder
        time = time_embedding([delay_tokens(DELAY_MS)], decoder.dim)
        for i, layer in enumerate(network.decoder.layers):
            path = f"decoder.layers.{i}"
            self._fill(path)
            rings = [ring_of_layer(decoder, 1, 1, self._dtype) for _ in hidden]
            norm = layer.conditioned_norm(time)
            yield _through(path, layer, hidden, rings, network.decoder.rotary, norm)
            _forget(layer)
        self._fill("decoder.norm")
        # Logits are computed from where the prompt ends.
        start = len(prompt_ids(network)) - 1
        heads = [network.decoder.norm(x[:, start:]) for x in hidden]
        yield {"decoder.embedding": gram(heads)}

    def _decoded(self, audio: Sequence[mx.array]) -> list[mx.array]:
        """The decoder's inputs [1, n, dim]: `audio`, and the ids before each."""
        # One more network: its layers come and go with this method.
        network = empty_network(self._files, self._network.left_pad_tokens)
        parameters = list(read_parameters(self._files, self._dtype, "decoder"))
        network.load_weights(parameters, strict=False)
        mx.eval(network.decoder.parameters())
        del parameters
        prompt = prompt_ids(network)
        n_all = sum(x.shape[1] for x in audio)
        n_heard = 0
        inputs: list[mx.array] = []
        for start in range(0, len(audio), _ROWS):
            requests = [
                DecodeRequest(x, network.make_state(DELAY_MS))
                for x in audio[start : start + _ROWS]
            ]
            while left := [request for request in requests if not request.is_done]:
                decode_together(network, left)
                done = n_heard + sum(request.n_done for request in requests)
                self._on_heard(done, n_all)
            n_heard += sum(request.n_done for request in requests)
            for request in requests:
                tokens = np.concatenate([prompt, chosen_ids(request)])
                tokens = tokens[: request.audio.shape[1]]
                known = mx.array(tokens[None].astype(np.int32))
                inputs.append(request.audio + network.decoder.embed(known))
            mx.eval(inputs)
        mx.clear_cache()
        return inputs

    def _joined(self, frames: mx.array) -> mx.array:
        _, n, dim = frames.shape
        group = self._network.encoder.group
        return frames.reshape(1, n // group, dim * group)

    def _fill(self, path: str) -> None:
        parameters = list(read_parameters(self._files, self._dtype, path))
        self._network.load_weights(parameters, strict=False)


class _Watched(nn.Module):
    """A product whose inputs are summed up."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.inputs = mx.array(0.0)
        if "bias" in inner:
            self.bias = inner.bias  # the layer adds it, not the product

    def __call__(self, x: mx.array) -> mx.array:
        self.inputs = self.inputs + gram([x])
        return matmul(self.inner, x)


def _through(
    path: str,
    layer: Layer,
    hidden: list[mx.array],
    rings: Sequence[RingKVCache],
    rotary: RotaryEmbedding,
    norm: mx.array | None = None,
) -> dict[str, mx.array]:
    """Apply the layer to all of `hidden`, in place; what its products have seen."""
    attention, mlp = layer.attention, layer.mlp
    watched = {
        f"{path}.attention.qkv_proj": _Watched(attention.qkv_proj),
        f"{path}.attention.o_proj": _Watched(attention.o_proj),
        f"{path}.mlp.gate_up_proj": _Watched(mlp.gate_up_proj),
        f"{path}.mlp.down_proj": _Watched(mlp.down_proj),
    }
    for name, module in watched.items():
        owner, _, attribute = name.removeprefix(f"{path}.").partition(".")
        setattr(layer[owner], attribute, module)
    for i, (x, ring) in enumerate(zip(hidden, rings, strict=True)):
        parts: list[mx.array] = []
        # Alike in size: MLX compiles very short steps, and a watched product cannot be.
        # A step of the encoder is a whole number of audio tokens.
        n_parts = -(-x.shape[1] // _POSITIONS)
        size = -(-x.shape[1] // (4 * n_parts)) * 4
        for start in range(0, x.shape[1], size):
            piece = x[:, start : start + size]
            step = begin_step([ring], rotary, [piece.shape[1]], attention.n_kv_heads)
            residual = layer(Residual(piece), 0, step, norm)
            whole, _ = residual.normed(
                layer.attention_norm.weight, layer.attention_norm.eps
            )
            mx.eval(whole, [module.inputs for module in watched.values()])
            parts.append(whole)
        hidden[i] = mx.concatenate(parts, axis=1)
        mx.eval(hidden[i])
    return {name: module.inputs for name, module in watched.items()}


def _forget(module: nn.Module) -> None:
    """Let the memory of its parameters go."""
    module.update(tree_map(lambda _: mx.zeros(0), module.parameters()))
