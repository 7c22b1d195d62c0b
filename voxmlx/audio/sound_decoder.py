"""Any container and codec -> blocks of samples with their times, through FFmpeg."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.stream import Discard, Disposition, Stream

from voxmlx.audio.frame_samples import as_float32

__all__ = [
    "Clock",
    "DecodedSound",
    "Lost",
    "NoSound",
    "ReadableBytes",
    "SoundDecoder",
    "open_container",
    "packets_of",
]

# Containers of sound and films. What FFmpeg knows besides are text, pictures, games'
# formats and lists of other files: a guess at one of them means that it is no sound.
_FORMATS = (
    "3g2,3gp,aac,aax,ac3,ac4,aiff,amr,amrnb,amrwb,ape,apac,asf,asf_o,au,avi,caf,daud,"
    "dff,dsf,dts,dtshd,dv,dvd,eac3,f4v,flac,flv,g722,g729,gsm,gxf,iamf,iff,ircam,"
    "latm,loas,lc3,matroska,webm,matroska\\,webm,mlp,mmf,mov,mp4,m4a,"
    "mov\\,mp4\\,m4a\\,3gp\\,3g2\\,mj2,mp2,mp3,mpc,mpc8,mpeg,mpegts,mpegtsraw,mxf,"
    "nistsphere,nsv,nut,ogg,oma,opus,osq,paf,pvf,qcp,rm,ivr,sbc,shn,sln,sox,spdif,spx,"
    "swf,tak,truehd,tta,voc,vqf,w64,wav,wsaud,wsd,wtv,wv,xwma"
)

# Bytes that FFmpeg asks for at once.
_BUFFER_BYTES = 1 << 16

# Packets in a row that cannot be read before the rest is given up.
_MAX_ERRORS = 200

# Codecs whose packets carry a checksum that is worth looking at.
_CHECKED_CODECS = ("flac", "tta", "ac3", "eac3", "wavpack", "mlp", "truehd")

# Containers whose time stamps count samples, so that a short gap is a lost packet.
# (Ogg counts them too, but for Vorbis FFmpeg interpolates, up to 16 ms wrongly.)
_EXACT_FORMATS = ("flac",)

# Frames whose time stamps are off by less follow each other.
_ROW_S = 0.02
_EXACT_ROW_S = 0.001

# Containers whose time stamps may start anew: parts put one after the other,
# broadcasts that are joined or left.
_JUMPING_FORMATS = ("mpegts", "mpeg", "ogg", "asf", "flv", "aac", "mp3")

# Containers whose time begins at 0, wherever their first sound stands.
_ZERO_FORMATS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")

# Containers that say exactly how long the sound of a stream is.
_EXACT_LENGTHS = (
    *("flac", "aiff", "au", "tta", "wv", "w64", "nistsphere"),
    "mov,mp4,m4a,3gp,3g2,mj2",
)

# Containers that say about how long they are.
_ROUGH_LENGTHS = ("matroska,webm", "flv", "caf", "avi", "asf", "ape", "nut")

_TIME_BASE = Fraction(1, 1_000_000)  # of an AVFormatContext


class NoSound(Exception):
    """A container in which nothing can be heard; the message says what is in it."""


class ReadableBytes(Protocol):
    """Bytes as FFmpeg reads them; with `seek` and `tell` it seeks."""

    def read(self, n_bytes: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class DecodedSound:
    """Float32 samples [n, channels], at `rate` Hz and from `time_s` on, if known.

    `lead_s`: by how much the decoder's own start-up moved the first of them.
    `n_frames` of FFmpeg were put together, each at the time that follows.
    """

    samples: np.ndarray
    rate: int
    time_s: float | None
    lead_s: float = 0.0
    n_frames: int = 1


@dataclass(frozen=True, slots=True)
class Lost:
    """A packet that could not be decoded, and how long its sound would have been."""

    duration_s: float


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of a container, in its own seconds.

    Its timeline begins at `begin_s`; no sound is later than `end_s`, if that is known.
    `may_jump`: time stamps may start anew. `is_exact`: they count samples.
    """

    begin_s: float
    end_s: float | None
    may_jump: bool
    is_exact: bool


class _Row:
    """Frames of one form that follow each other, on their way into one block."""

    def __init__(self, tolerance_s: float) -> None:
        self._tolerance_s = tolerance_s
        self._parts: list[np.ndarray] = []
        self._n_samples = self._rate = 0
        self._time_s: float | None = None
        self._lead_s = 0.0

    @property
    def duration_s(self) -> float:
        return self._n_samples / self._rate if self._rate else 0.0

    def push(self, frame: AudioFrame, packet_s: float | None) -> Iterator[DecodedSound]:
        """Add a frame of a packet at `packet_s`; yield those it does not follow."""
        n_samples, rate, time_s = frame.samples, frame.sample_rate, frame.time
        if not n_samples:
            return
        samples = as_float32(frame)
        if self._parts and not (
            rate == self._rate
            and samples.shape[1] == self._parts[0].shape[1]
            and self._is_next(time_s)
        ):
            yield from self.flush()
        if not self._parts:
            self._rate, self._time_s, self._lead_s = rate, time_s, 0.0
            if time_s is not None and packet_s is not None:
                self._lead_s = max(0.0, time_s - packet_s)
        self._parts.append(samples)
        self._n_samples += n_samples

    def flush(self) -> Iterator[DecodedSound]:
        """Yield what there is as one block."""
        parts, self._parts = self._parts, []
        self._n_samples = 0
        if parts:
            samples = parts[0] if len(parts) == 1 else np.concatenate(parts)
            yield DecodedSound(
                samples, self._rate, self._time_s, self._lead_s, len(parts)
            )

    def _is_next(self, time_s: float | None) -> bool:
        if time_s is None or self._time_s is None:
            return time_s is self._time_s
        return abs(time_s - self._time_s - self.duration_s) <= self._tolerance_s


class SoundDecoder:
    """One open container, and its main stream of sound."""

    def __init__(
        self,
        content: ReadableBytes,
        *,
        format_name: str | None = None,
        options: Mapping[str, str] | None = None,
        track: int | None = None,
    ) -> None:
        """Read the header. Raises FFmpegError, and NoSound if there is no sound.

        `track` is the stream of sound to decode, from 1; None is the one for most.
        """
        self._container = open_container(content, format_name, options)
        try:
            self._stream = self._choose(track)
        except BaseException:
            self._container.close()
            raise
        self.format_name: str = self._container.format.name
        # Languages or names of all sound tracks, and the number of this one, from 1.
        audio = self._container.streams.audio
        self.tracks = [_language(stream.metadata) for stream in audio]
        self.track = audio.index(self._stream) + 1
        # What is better known than FFmpeg knows it.
        self.known_length_s: Fraction | None = None
        codec = self._stream.codec_context
        self.rate: int = codec.sample_rate
        self.n_channels: int = codec.layout.nb_channels
        if codec.name in _CHECKED_CODECS:
            codec.options = {"err_detect": "crccheck+explode"}

    @property
    def stream_index(self) -> int:
        """Return the number of the stream that is decoded, from 0, among all."""
        return self._stream.index

    @property
    def length_s(self) -> Fraction | None:
        """Return how long the header says the sound is; None if it does not."""
        stream = self._stream
        if self.known_length_s is not None:
            return self.known_length_s
        if self._is_plain_caf:
            # FFmpeg shortens the duration where the file is cut, but not this.
            return Fraction(stream.frames, self.rate)
        if self.format_name in _EXACT_LENGTHS and stream.duration is not None:
            time_base = Fraction(stream.time_base or 0)
            begin = 0
            if self.format_name in _ZERO_FORMATS:
                # An edit list may begin with nothing, which the duration leaves out.
                begin = max(0, stream.start_time or 0)
            return (begin + stream.duration) * time_base
        if self.format_name in _ROUGH_LENGTHS:
            if len(self._container.streams) > 1:
                # That of the whole is often longer than that of the sound.
                return _tagged_length_s(stream.metadata)
            if self._container.duration is not None:
                return self._container.duration * _TIME_BASE
        return None

    def ogg_length_s(self, position: int) -> Fraction | None:
        """Return how long an Ogg file is whose last page ends at `position`.

        None where another stream than the sound's may end last.
        """
        if len(self._container.streams) != 1:
            return None
        rate = self.rate
        codec = self._stream.codec_context
        if codec.name == "opus":
            rate = 48_000
            position -= int.from_bytes((codec.extradata or b"")[10:12], "little")
        begin_us = max(0, self._container.start_time or 0)
        length_s = Fraction(position, rate) - begin_us * _TIME_BASE
        return length_s if length_s > 0 else None

    @property
    def is_length_exact(self) -> bool:
        return self.format_name in _EXACT_LENGTHS or self._is_plain_caf

    @property
    def _is_plain_caf(self) -> bool:
        is_plain = self._stream.codec_context.name.startswith("pcm")
        return self.format_name == "caf" and is_plain and self._stream.frames > 0

    @property
    def clock(self) -> Clock:
        """Return how the container counts time."""
        begin_us = cast("int | None", self._container.start_time)
        begin_s = 0.0 if begin_us is None else begin_us / 1_000_000
        length_s = self.length_s
        is_plausible = length_s is None or begin_s <= length_s
        if self.format_name in _ZERO_FORMATS and is_plausible:
            begin_s = min(begin_s, 0.0)
        return Clock(
            begin_s=begin_s,
            end_s=None if length_s is None else begin_s + float(length_s),
            may_jump=self.format_name in _JUMPING_FORMATS,
            is_exact=self.format_name in _EXACT_FORMATS,
        )

    def decoded(
        self, block_s: float, has_more: Callable[[], bool]
    ) -> Iterator[DecodedSound | Lost]:
        """Yield all sound in order, and a `Lost` for what cannot be decoded.

        Packets that follow each other are put together to about `block_s`, so that
        each costs little. Where no more of the source is there yet (`has_more`),
        nothing is held back.
        """
        codec = self._stream.codec_context
        # The first packet of Vorbis gives no sound, but FFmpeg may give it a time.
        is_vorbis = codec.name == "vorbis"
        time_base = float(self._stream.time_base or 0)
        row = _Row(_EXACT_ROW_S if self.format_name in _EXACT_FORMATS else _ROW_S)
        first_s: float | None = None
        for packet in self.packets():
            if packet is None:
                yield from row.flush()
                yield Lost(0.0)
                continue
            try:
                frames = cast(Any, codec).decode(packet)
            except EOFError:
                continue
            except FFmpegError:
                yield from row.flush()
                yield Lost((packet.duration or 0) * time_base)
                continue
            if first_s is None or not is_vorbis:
                first_s = None if packet.pts is None else packet.pts * time_base
            for frame in frames:
                yield from row.push(frame, first_s)
            if row.duration_s >= block_s or not has_more():
                yield from row.flush()
        yield from row.flush()

    def close(self) -> None:
        self._container.close()

    def _choose(self, track: int | None) -> AudioStream:
        streams = self._container.streams
        if not streams.audio:
            kinds = sorted({stream.type for stream in streams})
            raise NoSound(f"has no sound track ({', '.join(kinds) or 'nothing in it'})")
        if track is None:
            best = streams.best("audio")
            if self._container.format.name in _ZERO_FORMATS:
                # Of films players take the first that is marked, FFmpeg the richest.
                marked = (
                    s for s in streams.audio if s.disposition & Disposition.default
                )
                best = next(marked, best)
        elif track <= len(streams.audio):
            best = streams.audio[track - 1]
        else:
            n = len(streams.audio)
            raise NoSound(f"has {n} sound track{'s' * (n > 1)}, no track {track}")
        for stream in streams:
            if stream is not best and stream.type != "data":
                stream.discard = Discard.all
        if best is None or cast(Any, best).codec_context is None:
            raise NoSound("has sound of a codec that FFmpeg does not know")
        if not isinstance(best, AudioStream):
            raise NoSound("has no sound track")
        if (
            not best.codec_context.sample_rate
            or not best.codec_context.layout.nb_channels
        ):
            raise NoSound("has a sound track of unknown form")
        return best

    def packets(self) -> Iterator["Packet[Any] | None"]:
        """Yield packets; None where the container could not be read."""
        return packets_of(self._container, self._stream)


def _language(tags: Mapping[str, str]) -> str:
    language = tags.get("language", "")
    return language if language not in ("", "und") else tags.get("title", "")


def _tagged_length_s(tags: Mapping[str, str]) -> Fraction | None:
    """Return the length that Matroska's statistics tell of a stream: 00:00:01.464."""
    for name, text in tags.items():
        if name.partition("-")[0] == "DURATION":
            try:
                hours, minutes, seconds = map(Fraction, text.split(":"))
            except (ValueError, ZeroDivisionError):
                return None
            return 3600 * hours + 60 * minutes + seconds
    return None


def open_container(
    content: ReadableBytes,
    format_name: str | None = None,
    options: Mapping[str, str] | None = None,
) -> InputContainer:
    """Read a header. Raises FFmpegError. No file or address in it is opened."""
    allowed = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
    return av.open(
        content,
        mode="r",
        format=format_name,
        options=allowed | dict(options or {}),
        buffer_size=_BUFFER_BYTES,
        metadata_errors="replace",
    )


def packets_of(
    container: InputContainer, stream: Stream
) -> Iterator["Packet[Any] | None"]:
    """Yield a stream's packets; None where the container could not be read."""
    n_errors = 0
    while n_errors < _MAX_ERRORS:
        try:
            for packet in container.demux(stream):
                n_errors = 0
                yield packet
        except FFmpegError:
            n_errors += 1
            yield None
        else:
            return
