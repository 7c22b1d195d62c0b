"""Bytes -> 16 kHz sound, and what was wrong with them, in order as they are read."""

import shlex
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from av.error import FFmpegError

from voxmlx.audio.byte_source import ByteSource, ForwardBytes, SeekableBytes
from voxmlx.audio.channels import SPLIT, FileChannel
from voxmlx.audio.conversion import Conversion
from voxmlx.audio.damage import DamagedSpots, duration_text
from voxmlx.audio.kinds import (
    HEAD_BYTES,
    is_container,
    is_mp4,
    needs_seeking,
    refuse_no_sound,
)
from voxmlx.audio.long_mp4 import open_mp4
from voxmlx.audio.mp3_length import Mp3Length
from voxmlx.audio.ogg_length import OggLength
from voxmlx.audio.placing import Placed, Placer
from voxmlx.audio.raw_pcm import RawPcmReader
from voxmlx.audio.resample import check_rate
from voxmlx.audio.sound_decoder import (
    Clock,
    DecodedSound,
    Lost,
    NoSound,
    ReadableBytes,
    SoundDecoder,
)
from voxmlx.audio.values import MAX_LEVEL, are_in_bounds, first_beyond, first_not_finite
from voxmlx.audio.w64_length import W64_HEAD_BYTES, w64_samples
from voxmlx.audio.wav import WAV_HEAD_BYTES, WavBytes, is_wav
from voxmlx.errors import AudioError
from voxmlx.events import SoundWarning

__all__ = ["Reading"]

# How long a block is at most.
_BLOCK_S = 0.5

# 1 MB of float32: what bounds a block where channels are many.
_BLOCK_VALUES = 1 << 18

# A length that a header states roughly may be off by this much.
_ROUGH_S = Fraction(1, 4)

# What encoders append at most to fill their last packets.
_MAX_PADDING_S = Fraction(1, 5)

# Each has a session of its own, and a part of the memory.
_MAX_SPLIT = 16

# Of the first packets of a stream, most must be sound.
_N_TRIED = 20

_CLOCK_OF_SAMPLES = Clock(0.0, None, may_jump=False, is_exact=True)


class Reading:
    """One source, open and known to be sound.

    `length_s` is what the header promises, None if it does not.
    """

    def __init__(
        self,
        source: ByteSource,
        raw_rate: int | None,
        channel: FileChannel = None,
        track: int | None = None,
    ) -> None:
        """Read the header. Raises AudioError for what is no sound, and OSError.

        `raw_rate` is the rate in Hz of bytes without a header: 16-bit mono samples.
        None refuses such bytes. `channel` is the channel to hear, as `Mixer` has it,
        `track` the sound track, from 1.
        """
        self._track = track
        self._channel: FileChannel = channel
        self._source = source
        self._name = source.name
        self._wav: WavBytes | None = None
        self._copy: BinaryIO | None = None
        self._mp3 = Mp3Length()
        self._ogg: OggLength | None = None
        if raw_rate is not None:
            check_rate(raw_rate, self._name)
        try:
            self._begin(raw_rate)
        except BaseException:
            if self._copy is not None:
                self._copy.close()
            raise

    def _begin(self, raw_rate: int | None) -> None:
        source = self._source
        head = source.peek(HEAD_BYTES)
        if not head:
            raise AudioError(f"{self._name} is empty (0 bytes), expected sound")
        try:
            self._decoder = self._open(head, raw_rate)
        except NoSound as error:
            raise AudioError(
                f"{self._name} {error}, expected sound; see what it holds with: "
                f"{self._look()}"
            ) from None
        except FFmpegError:
            source.raise_error()
            raise self._unreadable(head) from None
        source.raise_error()
        if isinstance(self._decoder, RawPcmReader) and (self._track or 1) > 1:
            self.close()
            raise AudioError(
                f"{self._name} has one sound track, expected track {self._track}; leave "
                "the track out"
            )
        self.rate = self._decoder.rate
        self.n_channels = self._decoder.n_channels
        try:
            check_rate(self.rate, self._name)
            self._check_channel(self.n_channels)
        except AudioError:
            self.close()
            raise
        self.length_s = self._length_s()

    def pieces(self) -> Iterator[np.ndarray | SoundWarning]:
        """Yield float32 [n] at 16 kHz and warnings. Raises AudioError and OSError."""
        decoder = self._decoder
        yield from self._told_of_tracks()
        clock = _CLOCK_OF_SAMPLES
        if self._wav is None and not isinstance(decoder, RawPcmReader):
            clock = decoder.clock
        placer = Placer(clock)
        spots = DamagedSpots(self._name)
        chain: Conversion | None = None
        at_s = Fraction(0)
        # Sound is handled in blocks of this; that of a pipe in shorter ones as it comes.
        block_s = min(_BLOCK_S, _BLOCK_VALUES / (self.n_channels * self.rate))
        blocks = decoder.decoded(block_s, self._source.has_more)
        for placed in self._without_padding(placer.place(self._tried(blocks))):
            self._refuse_values(placed, at_s)
            yield from spots.told(placed, at_s)
            if chain is None or not chain.fits(placed):
                if chain is not None:
                    yield from chain.flush()
                self._check_channel(placed.samples.shape[1], at_s)
                chain = Conversion(self._name, placed, self._channel)
            yield from chain.push(placed.samples, at_s)
            at_s += Fraction(len(placed.samples), placed.rate)
        self._source.raise_error()
        if chain is None:
            raise self._no_sound(placer.n_lost_at_end)
        yield from chain.flush()
        yield from spots.flush(at_s)
        yield from self._told_at_end(at_s, placer.n_lost_at_end)

    def close(self) -> None:
        """Close the decoder and what was copied; the source is left to its owner."""
        self._decoder.close()
        if self._copy is not None:
            self._copy.close()

    def _open(self, head: bytes, raw_rate: int | None) -> SoundDecoder | RawPcmReader:
        source = self._source
        refuse_no_sound(head, self._name, self._look())
        if is_wav(head[:WAV_HEAD_BYTES]):
            self._wav = wav = WavBytes(source)
            form, raw_name = wav.format, wav.format.raw_name
            if raw_name is not None:
                check_rate(form.rate, self._name)
                return self._open_samples(wav, raw_name, form.rate, form.n_channels)
            return SoundDecoder(wav, format_name="wav", options={"ignore_length": "1"})
        if raw_rate is not None and not is_container(head):
            return self._open_samples(ForwardBytes(source), "s16le", raw_rate, 1)
        if is_mp4(head):
            decoder, self._copy = open_mp4(source, head, self._track)
            return decoder
        if needs_seeking(head):
            file = source.file_from_start()
            source.raise_error()
            if not source.is_seekable:
                self._copy = file
            file.seek(source.start)
            n_samples = w64_samples(file.read(W64_HEAD_BYTES))
            seekable = SeekableBytes(source, file, source.start)
            decoder = SoundDecoder(seekable, track=self._track)
            if n_samples is not None and decoder.format_name == "w64":
                decoder.known_length_s = Fraction(n_samples, decoder.rate)
            return decoder
        if head.startswith(b"OggS"):
            self._ogg = OggLength(source)
            return SoundDecoder(
                ForwardBytes(source, self._ogg.watch), track=self._track
            )
        return SoundDecoder(ForwardBytes(source, self._mp3.watch), track=self._track)

    def _open_samples(
        self, content: ReadableBytes, name: str, rate: int, n_channels: int
    ) -> RawPcmReader:
        try:
            return RawPcmReader(content, name, rate, n_channels)
        except (FFmpegError, ValueError):
            raise AudioError(
                f"{self._name} is a damaged WAV: its header claims {n_channels} channels "
                f"at {rate} Hz; write it again with ffmpeg"
            ) from None

    def _length_s(self) -> Fraction | None:
        if self._wav is not None:
            n_samples = self._wav.n_samples
            return None if n_samples is None else Fraction(n_samples, self.rate)
        if isinstance(self._decoder, RawPcmReader):
            return None
        if self._decoder.format_name == "mp3" and self._mp3.n_samples is not None:
            return Fraction(self._mp3.n_samples, self.rate)
        if self._ogg is not None and (position := self._ogg.position) is not None:
            return self._decoder.ogg_length_s(position)
        return self._decoder.length_s

    @property
    def _is_length_exact(self) -> bool:
        return (
            isinstance(self._decoder, RawPcmReader)
            or self._wav is not None
            or self._ogg is not None
            or self._decoder.format_name == "mp3"
            or self._decoder.is_length_exact
        )

    def _tried(
        self, blocks: Iterable[DecodedSound | Lost]
    ) -> Iterator[DecodedSound | Lost]:
        """The same blocks. Raises AudioError where the first of them are no sound."""
        n_good = n_bad = 0
        for block in blocks:
            if isinstance(block, Lost):
                n_bad += 1
            else:
                n_good += block.n_frames
            if n_good + n_bad <= _N_TRIED and n_bad > 10 > n_good:
                raise self._damaged()
            yield block

    def _without_padding(self, blocks: Iterable[Placed]) -> Iterator[Placed]:
        """The same sound without what an encoder appended to fill its last packet."""
        if self.length_s is None or not self._is_length_exact:
            yield from blocks
            return
        left_s = self.length_s
        beyond: list[Placed] = []
        beyond_s = Fraction(0)
        for block in blocks:
            duration_s = Fraction(len(block.samples), block.rate)
            if beyond or duration_s > left_s:
                n_within = 0
                if not beyond:
                    n_within = max(0, int(left_s * block.rate))
                    if n_within:
                        yield block.cut(0, n_within)
                beyond.append(block.cut(n_within, None))
                beyond_s += duration_s - Fraction(n_within, block.rate)
                if beyond_s > _MAX_PADDING_S:
                    # That much is no padding: the length in the header is wrong.
                    yield from beyond
                    yield from blocks
                    return
                left_s = Fraction(0)
            else:
                left_s -= duration_s
                yield block

    def _refuse_values(self, placed: Placed, at_s: Fraction) -> None:
        if are_in_bounds(placed.samples):
            return
        flat = placed.samples.reshape(-1)
        n_channels = placed.samples.shape[1]
        if (bad := first_not_finite(flat)) is not None:
            time_s = float(at_s) + bad // n_channels / placed.rate
            raise AudioError(
                f"{self._name} has a NaN or infinite sample at {time_s:.3f} s, expected "
                "finite ones; write it again as 16-bit PCM"
            )
        if (bad := first_beyond(flat)) is not None:
            time_s = float(at_s) + bad // n_channels / placed.rate
            raise AudioError(
                f"{self._name} has a sample of {flat[bad]:g} at {time_s:.3f} s, expected "
                f"-1 to 1 (at most {MAX_LEVEL:g}); were whole numbers written as floats? "
                f"scale them with: ffmpeg -i {self._quoted()} -af volume=1/32768 sound.wav"
            )

    def _told_of_tracks(self) -> Iterator[SoundWarning]:
        decoder = self._decoder
        if isinstance(decoder, RawPcmReader) or self._track is not None:
            return
        tracks = decoder.tracks
        if len(tracks) > 1:
            named = (
                f"{n} ({tag})" if tag else str(n) for n, tag in enumerate(tracks, 1)
            )
            yield SoundWarning(
                "tracks",
                f"{self._name} has {len(tracks)} sound tracks, {', '.join(named)}; track "
                f"{decoder.track} is heard, another one with --track N",
                0,
            )

    def _told_at_end(self, end_s: Fraction, n_lost: int) -> Iterator[SoundWarning]:
        end_ms = int(end_s * 1000)
        wav = self._wav
        if wav is not None and wav.has_other_recording:
            yield SoundWarning(
                "joined",
                f"{self._name} holds another recording in another format behind the "
                f"first; only the first, {float(end_s):.3f} s, was read",
                end_ms,
            )
        if wav is not None and wav.unannounced_bytes and wav.promised_bytes is not None:
            yield SoundWarning(
                "wrong_length",
                f"{self._name} holds more sound than its header says: "
                f"{float(end_s):.3f} s were read, not {float(self.length_s or 0):.3f}",
                end_ms,
            )
        missing_s = Fraction(0) if self.length_s is None else self.length_s - end_s
        if missing_s > (0 if self._is_length_exact else _ROUGH_S):
            yield SoundWarning(
                "cut_short",
                f"{self._name} is cut short: its header promises "
                f"{float(self.length_s or 0):.3f} s of sound, it holds "
                f"{float(end_s):.3f} s; {duration_text(missing_s)} is missing",
                end_ms,
            )
        elif self._ogg is not None and self._ogg.is_cut:
            yield SoundWarning(
                "cut_short",
                f"{self._name} is cut short: it ends at {float(end_s):.3f} s without the "
                "mark of an end; how much is missing is not known",
                end_ms,
            )
        elif isinstance(self._decoder, RawPcmReader) and (
            n_odd := self._decoder.n_odd_bytes
        ):
            yield SoundWarning(
                "cut_short",
                f"{self._name} ends in the middle of a sample: {n_odd} bytes were left "
                "over; was it cut, or is it in another format?",
                end_ms,
            )
        elif n_lost and self._wav is None:
            yield SoundWarning(
                "damaged",
                f"{self._name} is damaged at its end, from {float(end_s):.3f} s on",
                end_ms,
            )

    def _no_sound(self, n_lost: int) -> AudioError:
        if n_lost:
            return self._damaged()
        return AudioError(
            f"{self._name} holds no sound: it has a header, but not one sample"
        )

    def _damaged(self) -> AudioError:
        return AudioError(
            f"{self._name} is damaged: it looks like {self._decoder.format_name}, but "
            f"nothing in it can be decoded; see what it holds with: {self._look()}"
        )

    def _unreadable(self, head: bytes) -> AudioError:
        if head[4:8] == b"ftyp":
            return AudioError(
                f"{self._name} is an MP4 without its index (moov), which is written "
                "last: the recording or the copy was broken off; fetch it again, or "
                f"try: ffmpeg -i {self._quoted()} sound.wav"
            )
        if is_container(head):
            return AudioError(
                f"{self._name} is damaged: its header cannot be read; fetch it again, "
                f"or try: ffmpeg -i {self._quoted()} sound.wav"
            )
        raw = "voxmlx transcribe --raw --rate 16000 " + (
            "-" if self._source.is_pipe else self._quoted()
        )
        return AudioError(
            f"{self._name} is not a sound file that is known here; convert it with: "
            f"ffmpeg -i {self._quoted()} sound.wav; if it is bare 16-bit samples, use: "
            f"{raw}"
        )

    def _check_channel(self, n_channels: int, at_s: Fraction = Fraction(0)) -> None:
        if isinstance(self._channel, int) and self._channel > n_channels:
            has = "1 channel" if n_channels == 1 else f"{n_channels} channels"
            raise AudioError(
                f"{self._name} has {has}, expected channel {self._channel}; choose "
                f"one from 1 to {n_channels}, or mix"
            )
        if self._channel != SPLIT:
            return
        if n_channels > _MAX_SPLIT:
            raise AudioError(
                f"{self._name} has {n_channels} channels, expected at most {_MAX_SPLIT} "
                "to split; choose one with --channel N, or mix"
            )
        if n_channels != self.n_channels:
            raise AudioError(
                f"{self._name} has {self.n_channels} channels, and {n_channels} from "
                f"{float(at_s):.3f} s on, expected the same to split; use --channel mix"
            )

    def _quoted(self) -> str:
        return "FILE" if self._source.is_pipe else shlex.quote(self._name)

    def _look(self) -> str:
        return f"ffprobe {self._quoted()}"
