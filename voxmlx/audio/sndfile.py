"""Sound files through libsndfile, read forward, and checked to be whole."""

import os
import re
import threading
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from voxmlx.audio.mp3_layout import find_mp3
from voxmlx.audio.ogg_layout import find_ogg
from voxmlx.audio.wav_header import CUT_ADVICE
from voxmlx.errors import AudioError

__all__ = ["SndfileStream"]

# libsndfile's length of a file that does not say how long it is.
_UNKNOWN_LENGTH = 2**63 - 1

# Two frames of MPEG sound: encoders disagree about the silence at the ends.
_MP3_SLACK_SAMPLES = 2 * 1152

# libsndfile takes a shorter length than the file's header promises without an
# error, but writes "SSND : 128008 (should be 63981)" to its log.
_SHORTENED = re.compile(
    r"^\s*(?:data|SSND|BODY|riff|Data Size)\s*:\s*(\d+) \(should be (\d+)\)",
    re.MULTILINE,
)

# Sizes from here on stand for "unknown" (see wav_header).
_FIRST_STAND_IN = 0x7FFF_E000


class _ForwardOnly(soundfile.SoundFile):
    """A sound file whose decoder runs from start to end without a seek.

    soundfile seeks after every read, which makes an MP3's samples depend on how
    many are read at once (by 0.13 of full scale in a test).
    """

    def seekable(self) -> bool:
        return False


class SndfileStream:
    """The samples of a file in any format libsndfile knows.

    `n_samples` counts samples per channel; None while unknown.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        """Read an open regular file, which its opener closes after `close`.

        Raises AudioError for what is no sound file, and for one that is shorter
        than its header says, as far as that shows before decoding.
        """
        self._name = name
        self._pipe: _Pipe | None = None
        self._slack_samples = 0
        mp3 = find_mp3(file)
        layout = mp3 if mp3 is not None else find_ogg(file)
        if layout is not None and layout.is_cut:
            raise _cut_short(name)
        if layout is not None and layout.is_joined:
            raise AudioError(
                f"{name} is several recordings one after the other, of which only the "
                "first would be read; join them by re-encoding with ffmpeg"
            )
        if mp3 is None:
            descriptor = file.fileno()
            os.lseek(descriptor, 0, os.SEEK_SET)
        else:
            # Where it can see the size of an MP3, libsndfile guesses the length from
            # the first bit rate and stops there; from a pipe it reads to the end.
            self._pipe = _Pipe(file, mp3.sound_start)
            self._slack_samples = _MP3_SLACK_SAMPLES
            descriptor = self._pipe.read_end
        try:
            self._sound = _ForwardOnly(descriptor, closefd=False)
        except soundfile.LibsndfileError as error:
            self._close_pipe()
            raise AudioError(
                f"{name} is not a sound file that libsndfile reads "
                f"({error.error_string.rstrip('.')}); expected wav, flac, ogg, opus, "
                "mp3 or aiff; convert others with ffmpeg"
            ) from None
        self.rate = int(self._sound.samplerate)
        self.n_channels = int(self._sound.channels)
        n_samples = int(self._sound.frames)
        self.n_samples = None if n_samples == _UNKNOWN_LENGTH else n_samples
        if _is_shortened(self._sound.extra_info):
            self.close()
            raise _cut_short(name)

    def blocks(self, max_samples: int) -> Iterator[np.ndarray]:
        """Yield [n, channels] float32, 1 to `max_samples` samples at a time.

        Raises AudioError where the file is damaged, and at its end if it held less
        than it promised.
        """
        n_read = 0
        while True:
            try:
                block = self._sound.read(max_samples, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise AudioError(
                    f"{self._name} is damaged or cut short at about "
                    f"{n_read / self.rate:.1f} s ({error.error_string.rstrip('.')}); "
                    f"{CUT_ADVICE}"
                ) from None
            if len(block) == 0:
                break
            n_read += len(block)
            yield block
        if self._pipe is not None and self._pipe.error is not None:
            raise self._pipe.error
        if self.n_samples is not None and n_read + self._slack_samples < self.n_samples:
            raise AudioError(
                f"{self._name} is damaged or cut short: it promises "
                f"{self.n_samples / self.rate:.3f} s of sound, "
                f"{n_read / self.rate:.3f} s could be read; {CUT_ADVICE}"
            )

    def close(self) -> None:
        """Close the decoder and its pipe."""
        self._sound.close()
        self._close_pipe()

    def _close_pipe(self) -> None:
        if self._pipe is not None:
            self._pipe.close()


class _Pipe:
    """A thread that pours a file, from a position on, into a pipe."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self.error: OSError | None = None
        self.read_end, self._write_end = os.pipe()
        self._file = file
        file.seek(start)
        self._thread = threading.Thread(target=self._pour, daemon=True)
        self._thread.start()

    def _pour(self) -> None:
        try:
            with open(self._write_end, "wb") as pipe:
                while piece := self._file.read(1 << 16):
                    pipe.write(piece)
        except BrokenPipeError:
            pass  # closed before the end
        except OSError as error:
            self.error = error

    def close(self) -> None:
        os.close(self.read_end)
        self._thread.join()


def _is_shortened(log: str) -> bool:
    """Whether libsndfile's log tells of a header that promised more."""
    return any(
        int(held) < int(promised) < _FIRST_STAND_IN
        for promised, held in _SHORTENED.findall(log)
    )


def _cut_short(name: str) -> AudioError:
    return AudioError(
        f"{name} is cut short: it ends before its header says; {CUT_ADVICE}"
    )
