"""A tiny trained model of the true structure, and a sound it transcribes."""

from pathlib import Path

__all__ = ["CALIBRATION", "DIRECTORY", "NAME", "SAMPLE"]

NAME = "demo"
"""What selects it wherever a model is named."""

DIRECTORY = Path(__file__).parent
SAMPLE = DIRECTORY / "sample.flac"
CALIBRATION = DIRECTORY / "calibration"
"""A folder of sounds that `voxmlx-convert --calibrate demo` listens to."""
