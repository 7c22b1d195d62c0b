"""Samples of a frame of FFmpeg as float32."""

from typing import Any

import numpy as np
from av.audio.frame import AudioFrame

__all__ = ["as_float32"]

_DTYPES: dict[str, type[np.generic]] = {
    name + suffix: dtype
    for name, dtype in (
        ("u8", np.uint8),
        ("s16", np.int16),
        ("s32", np.int32),
        ("flt", np.float32),
        ("dbl", np.float64),
    )
    for suffix in ("", "p")
}


def as_float32(frame: AudioFrame) -> np.ndarray:
    """Return the samples of a frame, [n, channels], each channel in one piece if it was."""
    n_channels = frame.layout.nb_channels
    name = frame.format.name
    if name not in _DTYPES:
        values = frame.to_ndarray()
        values = values.T if frame.format.is_planar else values.reshape(-1, n_channels)
    else:
        # What to_ndarray gives, several times faster.
        planes: Any = frame.planes  # have the buffer protocol, which their stub omits
        dtype, n = _DTYPES[name], frame.samples
        if len(planes) > 1:
            values = np.array([np.frombuffer(plane, dtype, n) for plane in planes]).T
        else:
            values = np.frombuffer(planes[0], dtype, n * n_channels)
            values = values.reshape(-1, n_channels)
    if values.dtype == np.float32:
        return values
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if values.dtype == np.int16:
        return values.astype(np.float32) / 2**15
    if values.dtype == np.int32:
        return values.astype(np.float32) / 2**31
    with np.errstate(over="ignore"):  # infinite values are refused further on
        return values.astype(np.float32)
