"""python -m benchmarks.full_size_checkpoint DIR: random weights in the true shapes."""

import base64
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convert.disk import check_room, disk_errors
from tests.tiny import TinyModel
from voxmlx.cli.arguments import CommandParser, run_command
from voxmlx.config import ModelConfig
from voxmlx.layouts import model_modules
from voxmlx.layouts.names import MISTRAL

FULL_SIZE = TinyModel(
    encoder_dim=1280,
    encoder_layers=32,
    encoder_heads=32,
    encoder_head_dim=64,
    encoder_hidden_dim=5120,
    encoder_window=750,
    decoder_dim=3072,
    decoder_layers=26,
    decoder_heads=32,
    decoder_kv_heads=8,
    decoder_head_dim=128,
    decoder_hidden_dim=9216,
    decoder_window=8192,
    vocab_size=131072,
)
_N_TENSORS = 711
_N_BYTES = 8_900_000_000
_POOL = 2**23  # weights drawn once; tensors are cut from it


def main(arguments: Sequence[str] | None = None) -> int:
    """Write params.json, consolidated.safetensors (8.86 GB) and tekken.json."""
    prog = "python -m benchmarks.full_size_checkpoint"
    parser = CommandParser(prog, description=__doc__)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args(arguments).directory
    return run_command(lambda: _write(directory))


def _write(directory: Path) -> int:
    with disk_errors(directory, is_begun=False):
        check_room(directory, _N_BYTES)
        directory.mkdir(parents=True)
        params = FULL_SIZE.params()
        (directory / "params.json").write_text(json.dumps(params), encoding="utf-8")
        (directory / "tekken.json").write_text(json.dumps(_tekken()), encoding="utf-8")
        n_bytes = _write_weights(directory / "consolidated.safetensors", params)
    print(f"{directory}: {n_bytes / 1e9:.2f} GB")
    return 0


def _write_weights(path: Path, params: dict[str, object]) -> int:
    tensors: list[tuple[str, tuple[int, ...]]] = []
    for module in model_modules(ModelConfig.from_params(params)):
        stored = MISTRAL.stored_path(module.path)
        tensors.append((f"{stored}.weight", MISTRAL.stored_shape(module)))
        if module.has_bias:
            tensors.append((f"{stored}.bias", module.shape[:1]))
    assert len(tensors) == _N_TENSORS
    header: dict[str, object] = {}
    offset = 0
    for name, shape in tensors:
        end = offset + 2 * int(np.prod(shape))
        span = [offset, end]
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": span}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    matrix = _random(-7)
    norm = _random(0) & np.uint16(0x7FFF)  # norms are positive
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for i, (name, shape) in enumerate(tensors):
            pool = norm if "norm.weight" in name else matrix
            left, start = int(np.prod(shape)), 7919 * i % _POOL
            while left:
                part = pool[start : start + left]
                file.write(part.data)
                left, start = left - len(part), 0
        return file.tell()


def _random(exponent: int) -> np.ndarray:
    """bfloat16 bits of numbers with magnitudes in [2^exponent, 2^(exponent + 2))."""
    bits = np.random.default_rng(0).integers(0, 2**16, _POOL, np.uint16)
    sign_and_fraction = bits & np.uint16(0x807F)
    power = (bits >> 8 & np.uint16(1)) + np.uint16(127 + exponent)
    return sign_and_fraction | power << np.uint16(7)


def _tekken() -> dict[str, object]:
    """A vocabulary of the true size: bytes, then made-up pieces."""
    content = TinyModel().tekken()
    n_text = FULL_SIZE.vocab_size - 1000
    pieces = [bytes([value]) for value in range(256)]
    pieces += [f" x{i}".encode() for i in range(n_text - 256)]
    content["vocab"] = [
        {"rank": rank, "token_bytes": base64.b64encode(p).decode(), "token_str": None}
        for rank, p in enumerate(pieces)
    ]
    content["config"]["default_vocab_size"] = FULL_SIZE.vocab_size
    content["config"]["num_vocab_tokens"] = len(pieces)
    return content


if __name__ == "__main__":
    sys.exit(main())
