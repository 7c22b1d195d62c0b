"""A tiny trained model of the true structure, and a sound it transcribes."""

from pathlib import Path

__all__ = ["DIRECTORY", "NAME", "SAMPLE"]

NAME = "demo"
"""What selects it wherever a model is named."""

DIRECTORY = Path(__file__).parent
SAMPLE = DIRECTORY / "sample.flac"
