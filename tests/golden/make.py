"""Write golden.npz: what transformers makes of a seeded model and sound.

python -m tests.golden.make      (needs the `parity` extra)
"""

import json
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tests.golden.inputs import (
    DELAYS_MS,
    ENCODER_STRIDE,
    LOGITS_DELAY_MS,
    LOGITS_STRIDE,
    MEL_STRIDE,
    MODEL,
    PATH,
    SOUND,
    checksums,
    token_ids,
)
from tests.padding import pad_sound
from tests.reference import Reference


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        reference = Reference(MODEL.write(Path(directory)))
    mel = reference.log_mel(pad_sound(SOUND, LOGITS_DELAY_MS))
    logits = reference.logits(SOUND, LOGITS_DELAY_MS, token_ids())
    packages = ("transformers", "torch", "mistral_common", "numpy")
    arrays: dict[str, Any] = {
        "mel": mel[::MEL_STRIDE],
        "encoder": reference.encoder_output(mel)[::ENCODER_STRIDE],
        "adapter": reference.adapter_output(mel),
        "logits": logits[::LOGITS_STRIDE],
        "checksums": json.dumps(checksums()),
        "made_with": json.dumps({name: version(name) for name in packages}),
    }
    for delay_ms in DELAYS_MS:
        ids = reference.greedy_tokens(SOUND, delay_ms)
        arrays[f"tokens_{delay_ms}"] = np.array(ids, np.int32)
    np.savez_compressed(PATH, **arrays)


if __name__ == "__main__":
    main()
