"""The level of the noise under one stream, and what stands out from it."""

__all__ = ["MIN_FLOOR_DBFS", "NoiseFloor"]

# Sound begins this far above the noise floor and ends below the lower figure.
_ONSET_DB, _RELEASE_DB = 12.0, 6.0
# Quieter than this never stands out, and no floor is lower: digital silence between
# two words must not turn a faint hiss after it into a voice.
_MIN_SOUND_DBFS, MIN_FLOOR_DBFS = -52.0, -64.0
# The floor falls with the sound within 50 ms.
_FALL_PER_MS = 0.02
# It rises by so much in a millisecond: twelve seconds of speech without a gap do not
# hide the next word.
_RISE_DB_PER_MS = 0.001


class NoiseFloor:
    """The level of the noise under one stream, and whether a window stands out from it.

    Example, windows of 10 ms: in noise of -55 dBFS the floor rests at -55. A syllable
    of -40 stands out, and lifts the floor by 0.01 dB a window. What follows stands out
    until it is below -49, 6 dB above the floor. After that it takes -43 again.
    """

    def __init__(self, window_ms: int) -> None:
        """Begin a stream whose levels are of windows of `window_ms`."""
        self._fall = _FALL_PER_MS * window_ms
        self._rise_db = _RISE_DB_PER_MS * window_ms
        self._dbfs: float | None = None
        self._is_exceeded = False

    def exceeded_by(self, level_dbfs: float) -> bool:
        """Return whether the next window, of this level, stands out; follow its level.

        No level is below MIN_FLOOR_DBFS.
        """
        floor = self._dbfs
        if floor is None:
            # A stream may begin inside a word: start low, and let noise lift it.
            floor = min(level_dbfs, _MIN_SOUND_DBFS)
        elif level_dbfs < floor:
            floor += self._fall * (level_dbfs - floor)
        else:
            floor += min(self._rise_db, level_dbfs - floor)
        self._dbfs = floor
        above = _RELEASE_DB if self._is_exceeded else _ONSET_DB
        self._is_exceeded = level_dbfs >= max(floor + above, _MIN_SOUND_DBFS)
        return self._is_exceeded
