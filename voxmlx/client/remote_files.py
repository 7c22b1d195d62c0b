"""Sound files -> events, transcribed by a server, several at a time."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from voxmlx.audio.channels import Channel
from voxmlx.audio.files import AudioFile, open_audio
from voxmlx.cli.json_fields import fields_of
from voxmlx.client.answered_words import Answered, answered_events, read_answer
from voxmlx.client.http_server import HttpServer, Response, Upload
from voxmlx.client.sound_upload import flac_pieces, is_read_by_all
from voxmlx.errors import AudioError, ServerError
from voxmlx.events import Event, SoundWarning

__all__ = ["RemoteFiles", "ServedModel", "Settings", "find_model"]

# Between two attempts: twice as long each time, up to the last figure.
_FIRST_S, _LONGEST_S = 0.5, 15.0
# An upload that is under way for so long shows that the server works.
_WORKING_S = 10.0

# Statuses that pass, and that say no to one file's bytes. Others say no to all we send.
_PASSING = {408, 425, 429, 502, 503, 504}
_UNREADABLE = {400, 415, 422, 500}
_TOO_LARGE = 413


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A server's model, by the server's name for it, and whether the server is ours."""

    name: str
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings for all files: what is asked of a server and done with its answers.

    `needs_times` says that text alone is of no use.
    """

    needs_times: bool
    has_confidence: bool
    delay_ms: int | None
    hotwords: Sequence[str]
    replacements: Mapping[str, str]
    pause_ms: int
    raw_rate: int | None
    channel: Channel
    reconnect_s: float
    track: int | None = None


def find_model(server: HttpServer, wanted: str | None) -> ServedModel:
    """Ask which models are served; return the one that is wanted, or the only one.

    Raises ServerError.
    """
    answer = server.get("/models")
    if answer.status == 404 and wanted is not None:
        return ServedModel(wanted, False)
    if answer.status != 200:
        raise _refusal(server, answer)
    listed: Any = answer.content.get("data")
    entries = [fields_of(one) for one in listed] if isinstance(listed, list) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] -- JSON of others
    names = [str(one.get("id")) for one in entries]
    is_ours = any(one.get("owned_by") == "voxmlx" for one in entries)
    if wanted is not None:
        return ServedModel(wanted, is_ours)
    if is_ours:  # one model, by all its names
        return ServedModel(names[0], True)
    if len(names) != 1:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise ServerError(
            f"the server {server.base} has {len(names)} models, expected one; name it "
            f"with --model{': ' if shown else ''}{shown}"
        )
    return ServedModel(names[0], False)


class RemoteFiles:
    """Transcribes files on one server. Its calls may come from several threads."""

    def __init__(
        self,
        server: HttpServer,
        model: ServedModel,
        settings: Settings,
        notify: Callable[[str], None],
    ) -> None:
        """`notify` gets a sentence when a file waits for the server."""
        self._server = server
        self._model = model
        self._settings = settings
        self._notify = notify
        self._is_stopped = threading.Event()
        self._lock = threading.Lock()
        self._started: dict[int, float] = {}  # of requests under way
        self._n_requests = 0
        self._succeeded_at = 0.0

    def stop(self) -> None:
        """End all that is under way; every call raises ServerError. From any thread."""
        self._is_stopped.set()
        self._server.abort()

    def transcribe(
        self,
        name: str,
        audio: AudioFile | None,
        sent: Callable[[int, int], None] = lambda n_bytes, n_total: None,
    ) -> Iterator[Event]:
        """Yield the events of one input; `audio` is it, where it is open already.

        `sent` is told how many bytes of how many are gone. Raises AudioError for what
        cannot be read here or there, and ServerError.
        """
        try:
            pieces, duration_ms = self._answers(name, audio, sent)
        except OSError as error:
            raise AudioError(
                f"{name} cannot be sent: {error.strerror or error}"
            ) from None
        if self._settings.needs_times and not all(one.has_times for one in pieces):
            raise self._no_times()
        if any(one.is_estimated for one in pieces):
            self._notify(
                f"{name}: the server tells times of segments alone; those of words are "
                "estimated"
            )
        duration_ms = max([duration_ms, *(one.duration_ms for one in pieces)])
        if not any(one.words for one in pieces):
            warning = SoundWarning(
                "no_words", f"no words were heard in {name}", duration_ms
            )
            pieces = [*pieces, Answered((), 0, True, warnings=(warning,))]
        yield from answered_events(
            pieces,
            duration_ms,
            replacements=self._settings.replacements,
            pause_ms=self._settings.pause_ms,
        )

    # ---- What is sent.

    def _answers(
        self,
        name: str,
        audio: AudioFile | None,
        sent: Callable[[int, int], None],
    ) -> tuple[list[Answered], int]:
        """Return what the server says of an input's pieces, and how long the input is."""
        settings = self._settings
        asked = (settings.raw_rate, settings.channel, settings.track)
        is_plain = audio is None and all(one is None for one in asked)
        if is_plain:
            path = Path(name)
            if self._model.is_ours or is_read_by_all(path):
                with open(path, "rb") as file:
                    answer = self._answer(path.name, file, sent)
                if answer.status == 200:
                    return [read_answer(answer.content)], 0
                if answer.status not in (*_UNREADABLE, _TOO_LARGE):
                    raise _refusal(self._server, answer)
                if self._model.is_ours and answer.status != _TOO_LARGE:
                    raise AudioError(_unread(name, answer))
        found: list[Answered] = []
        duration_ms = 0
        with ExitStack() as stack:
            opened = audio or stack.enter_context(
                open_audio(
                    name,
                    raw_rate=settings.raw_rate,
                    channel=settings.channel,
                    track=settings.track,
                )
            )
            sending = flac_pieces(opened, is_whole=self._model.is_ours and not is_plain)
            for piece in sending:
                answer = self._answer(f"{Path(name).stem}.flac", piece.file, sent)
                if answer.status in (*_UNREADABLE, _TOO_LARGE):
                    raise AudioError(_unread(name, answer))
                if answer.status != 200:
                    raise _refusal(self._server, answer)
                found.append(read_answer(answer.content).later(piece.start_ms))
                duration_ms = piece.end_ms
            warnings = tuple(opened.take_warnings())
        if warnings:
            found.append(Answered((), 0, True, warnings=warnings))
        return found, duration_ms

    def _answer(
        self, name: str, file: BinaryIO, sent: Callable[[int, int], None]
    ) -> Response:
        """Send one file; return what the server says about it. Raises ServerError."""
        has_times = self._model.is_ours or self._settings.needs_times
        form = "verbose_json" if has_times else "json"
        answer = self._patiently(Upload(self._fields(form), file, name), sent)
        if has_times and answer.status in _UNREADABLE and _is_about_form(answer):
            raise self._no_times()
        return answer

    def _no_times(self) -> ServerError:
        return ServerError(
            f"the server {self._server.base} tells text alone of {self._model.name}, "
            "and no times; only --format txt can be made of it"
        )

    def _fields(self, form: str) -> list[tuple[str, str]]:
        settings = self._settings
        fields = [("model", self._model.name), ("response_format", form)]
        if form == "verbose_json":
            fields += [
                ("timestamp_granularities[]", one) for one in ("word", "segment")
            ]
        if self._model.is_ours:
            fields += [("keywords[]", word) for word in settings.hotwords]
            if settings.delay_ms is not None:
                fields.append(("delay_ms", str(settings.delay_ms)))
            if settings.has_confidence:
                fields.append(("include[]", "logprobs"))
        return fields

    # ---- Patience.

    def _patiently(self, upload: Upload, sent: Callable[[int, int], None]) -> Response:
        """Send a form, and again while the server is away or full.

        Raises ServerError once it was so for too long, while it worked on nothing of
        ours.
        """
        since: float | None = None
        n_failures = 0
        while True:
            wait_s = min(_FIRST_S * 2**n_failures, _LONGEST_S)
            try:
                answer = self._timed(upload, sent)
            except ServerError as error:
                if not error.may_return:
                    raise
                trouble = error
            else:
                if answer.status not in _PASSING:
                    self._succeeded_at = time.monotonic()
                    return answer
                trouble = _refusal(self._server, answer)
                wait_s = max(wait_s, min(answer.retry_after_s or 0.0, 60.0))
            if self._is_stopped.is_set():
                raise trouble
            now = time.monotonic()
            if since is None or self._works(since):
                since = now
            left_s = since + self._settings.reconnect_s - now
            if left_s <= 0:
                raise ServerError(
                    f"{trouble}; tried for {self._settings.reconnect_s:g} s (--reconnect)"
                )
            if n_failures == 0:
                self._notify(f"{upload.name} waits: {trouble}")
            n_failures = min(n_failures + 1, 10)
            if self._is_stopped.wait(min(wait_s, left_s)):
                raise ServerError("stopped")

    def _timed(self, upload: Upload, sent: Callable[[int, int], None]) -> Response:
        with self._lock:
            self._n_requests += 1
            number = self._n_requests
            self._started[number] = time.monotonic()
        try:
            return self._server.post("/audio/transcriptions", upload, sent)
        finally:
            with self._lock:
                del self._started[number]

    def _works(self, since: float) -> bool:
        """Return whether the server has answered since, or is at another file of ours."""
        with self._lock:
            oldest = min(self._started.values(), default=time.monotonic())
        return self._succeeded_at > since or time.monotonic() - oldest > _WORKING_S


def _is_about_form(answer: Response) -> bool:
    """Return whether a server refuses the form of the answer, and not the file."""
    return any(
        word in answer.message.lower()
        for word in ("verbose_json", "response_format", "timestamp_granularit")
    )


def _unread(name: str, answer: Response) -> str:
    return f"{name} is not read by the server (HTTP {answer.status}): {answer.message}"


def _refusal(server: HttpServer, answer: Response) -> ServerError:
    hint = "; give the right --api-key" if answer.status == 401 else ""
    if 300 <= answer.status < 400:
        hint = "; give the address that it leads to"
    may_return = answer.status in _PASSING
    return ServerError(
        f"the server {server.base} refuses (HTTP {answer.status}): {answer.message}{hint}",
        may_return=may_return,
    )
