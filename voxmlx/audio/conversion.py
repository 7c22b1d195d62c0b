"""Placed sound of one form -> 16 kHz, its channels mixed, chosen or apart."""

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from voxmlx.audio.channels import SPLIT, FileChannel
from voxmlx.audio.mixing import Mixer
from voxmlx.audio.placing import Placed
from voxmlx.audio.resample import Resampler
from voxmlx.events import SoundWarning

__all__ = ["Conversion"]


class Conversion:
    """Mixing and resampling of sound that has one rate and one number of channels."""

    def __init__(self, name: str, first: Placed, channel: FileChannel) -> None:
        self._name = name
        self._rate = first.rate
        n_channels = first.samples.shape[1]
        self._mixer = Mixer(n_channels, first.rate, channel)
        n_apart = n_channels if channel == SPLIT else None
        self._resampler = Resampler(first.rate, n_apart)
        self._is_told = False
        self._at_s = Fraction(0)

    def fits(self, placed: Placed) -> bool:
        n_channels = placed.samples.shape[1]
        return (placed.rate, n_channels) == (self._rate, self._mixer.n_channels)

    def push(
        self, samples: np.ndarray, at_s: Fraction
    ) -> Iterator[np.ndarray | SoundWarning]:
        self._at_s = at_s
        yield from self._resampled(self._mixer.push(samples))

    def flush(self) -> Iterator[np.ndarray | SoundWarning]:
        yield from self._resampled(self._mixer.flush())
        if len(piece := self._resampler.flush()) > 0:
            yield piece

    def _resampled(self, mono: np.ndarray) -> Iterator[np.ndarray | SoundWarning]:
        chosen = self._mixer.chosen
        if chosen is not None and not self._is_told:
            self._is_told = True
            yield SoundWarning(
                "inverted",
                f"{self._name} has channels that cancel each other when mixed (one is "
                f"inverted), noticed at {float(self._at_s):.1f} s; channel {chosen + 1} "
                "is heard alone there",
                int(self._at_s * 1000),
            )
        if len(mono) and len(piece := self._resampler.push(mono)) > 0:
            yield piece
