"""python -m benchmarks.hard_voices DIR: a voice the demo model never heard, made harder.

The sentences of the synthesiser `pico`, which was not in training: as they are, and then
with another speed, level, room and noise each time (training.augment; needs the extra
`training`). The first half of these times they pass the band of a telephone. A wav and a txt each. The demo's map of
confidence is fitted to them: `python -m benchmarks.confidence DIR --fit voxmlx/demo`.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile

from tests.held_out import held_out
from training.augment import augment_utterance, background_noise, equalise
from voxmlx.config import SAMPLE_RATE

__all__ = ["write_hard_voices"]


def write_hard_voices(directory: Path, n_variants: int, seed: int = 0) -> int:
    """Write the sentences `1 + n_variants` times; return how many files that is."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    silence = np.zeros(3 * SAMPLE_RATE // 8, np.float32)
    sentences = held_out("pico")
    for variant in range(1 + n_variants):
        for i, sentence in enumerate(sentences):
            sound = np.concatenate([silence, sentence.samples, silence])
            if variant:
                sound, _ = augment_utterance(sound, (), rng)
                if variant <= n_variants // 2:
                    sound = equalise(sound, rng, is_telephone=True)
                noise = background_noise(len(sound), rng)
                sound = sound + noise * np.float32(10 ** (rng.uniform(-25, 5) / 20))
            path = directory / f"{variant:02d}-{i:03d}.wav"
            samples = np.clip(sound, -1, 1)
            soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
            path.with_suffix(".txt").write_text(f"{sentence.text}\n", encoding="utf-8")
    return len(sentences) * (1 + n_variants)


def main() -> None:
    """Write them where the user says."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--variants", type=int, default=8)
    arguments = parser.parse_args()
    print(write_hard_voices(arguments.directory, arguments.variants), "files")


if __name__ == "__main__":
    main()
