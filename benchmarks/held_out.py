"""python -m benchmarks.held_out DIR: the demo model's test sentences as files.

A wav and a txt each, as `convert --verify` and `convert.sensitivity` take them.
"""

import argparse
from pathlib import Path

import soundfile

from tests.held_out import held_out
from voxmlx.config import SAMPLE_RATE

__all__ = ["write_held_out"]


def write_held_out(directory: Path) -> list[Path]:
    """Write the 120 sentences, named after what speaks them; the sounds' paths."""
    directory.mkdir(parents=True)
    paths: list[Path] = []
    for i, sentence in enumerate(held_out()):
        path = directory / f"{i:03d}-{sentence.kind}.wav"
        soundfile.write(path, sentence.samples, SAMPLE_RATE, subtype="PCM_16")
        path.with_suffix(".txt").write_text(f"{sentence.text}\n", encoding="utf-8")
        paths.append(path)
    return paths


def main() -> None:
    """Write them where the user says."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("directory", type=Path)
    write_held_out(parser.parse_args().directory)


if __name__ == "__main__":
    main()
