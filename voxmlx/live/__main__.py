"""Sound as it comes -> captions: `python -m voxmlx.live`."""

import sys

if __name__ == "__main__":
    # Before all else is imported: Ctrl-C meanwhile should show no traceback.
    from voxmlx.cli.start import live

    sys.exit(live())


import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from voxmlx import demo
from voxmlx.audio.devices import (
    PortAudio,
    describe_devices,
    find_device,
    import_portaudio,
)
from voxmlx.audio.file_source import FileSource
from voxmlx.audio.files import STANDARD_INPUT, open_audio
from voxmlx.audio.microphone import Microphone
from voxmlx.cli.arguments import (
    check_delay,
    check_draft_delay,
    default_model,
    raw_rate,
    run_command,
)
from voxmlx.cli.interruption import ended_by_first_signal
from voxmlx.cli.server_arguments import (
    reconnect_s,
    server_key,
)
from voxmlx.cli.word_arguments import (
    cue_rules,
    word_options,
)
from voxmlx.config import BASE_MODEL
from voxmlx.errors import DeviceError, OutputError
from voxmlx.events import Event
from voxmlx.live.captions import Captions, Listener, LiveStream, SoundSource
from voxmlx.live.changing_stream import ChangingStream
from voxmlx.live.command_line import make_parser, parse_arguments
from voxmlx.live.command_runner import CommandRunner
from voxmlx.live.display import PlainDisplay, TerminalDisplay
from voxmlx.live.json_display import JsonDisplay
from voxmlx.live.lag_warning import LagWarning, RecoveryWarning
from voxmlx.live.local_sessions import open_sessions
from voxmlx.live.output_files import CaptionFile, Recording, refuse_existing
from voxmlx.live.recorded import RecordedSound
from voxmlx.live.remote import RemoteMetrics, RemoteStream
from voxmlx.live.remote_events import RemoteEvents
from voxmlx.live.server_connection import server_url
from voxmlx.live.several import run_several
from voxmlx.live.shown_elsewhere import (
    JSON_LINES,
    Elsewhere,
    open_commands,
    refuse_caption_file,
)
from voxmlx.live.source_arguments import has_several_sources
from voxmlx.live.sources import device_of
from voxmlx.live.stream_metrics import Figures, StreamMetrics
from voxmlx.live.summary import summary
from voxmlx.live.worker_commands import CommandReader
from voxmlx.session import Session
from voxmlx.text.caption_text import CaptionText
from voxmlx.text.formats import FormatOptions, make_writer
from voxmlx.text.journal import Journal, read_journal

__all__ = ["main", "make_parser"]


def main(
    argv: Sequence[str] | None = None,
    *,
    portaudio: PortAudio | None = None,
) -> int:
    """Run the command; its exit status. `portaudio` stands in for the real one."""
    return run_command(lambda: _run(parse_arguments(argv), portaudio))


def _run(arguments: argparse.Namespace, portaudio: PortAudio | None) -> int:
    if arguments.list_devices:
        devices = describe_devices(portaudio or import_portaudio())
        sys.stdout.write("\n".join(devices or ["no microphone"]) + "\n")
        return 0
    check_delay(arguments)
    check_draft_delay(arguments)
    word_options(arguments)
    if has_several_sources(arguments):
        return run_several(arguments, portaudio)
    resumed = _open_resumed(arguments)
    if resumed is None:
        refuse_existing([*arguments.output, arguments.record])
    refuse_caption_file(arguments)
    # A missing file or microphone is reported before a model is downloaded and loaded.
    # A microphone is opened after that, or its queue would fill with sound.
    played = _open_file(arguments, resumed)
    if played is None and not _may_play_the_sample(arguments):
        find_device(portaudio or import_portaudio(), _device(arguments))
    with ExitStack() as stack:
        if played is not None:
            stack.callback(played.close)
        elsewhere = Elsewhere(arguments, stack)
        commands = open_commands(arguments, stack)
        stream, metrics, head = _open_stream(arguments, stack, commands)
        journal = _read_journal(arguments, head) if resumed is not None else None
        waiting: list[str] = []
        source: Microphone | FileSource | None = played
        if source is None and commands is not None and commands.has_ended:
            return 0  # who wanted it has gone, and nobody listens
        if source is None:
            source = _open_microphone(arguments, portaudio, waiting.append)
            stack.callback(source.close)
        display = stack.enter_context(
            _display(
                arguments,
                source,
                stream,
                elsewhere.head(
                    head.get("model", arguments.model), stream.delay_ms, source.name
                ),
                n_before=0 if resumed is None else resumed.n_samples,
            )
        )
        if isinstance(source, Microphone):
            source.notify = display.notice
        if isinstance(stream, RemoteStream):
            stream.notify = display.notice
        for sentence in waiting:
            display.notice(sentence)
        is_replaced = arguments.replace is not None
        # First of all: where it cannot be written, there are no results either.
        shown = elsewhere.listeners(lambda: CaptionText(has_final_words=is_replaced))
        files = _open_files(arguments, head, resumed, stack)
        listeners: list[Listener] = [
            *files,
            *shown,
            display,
            LagWarning(display.notice, arguments.server),
            RecoveryWarning(display.notice, arguments.dtype),
        ]
        is_recorded = arguments.record is not None
        captions = Captions(source, stream, listeners, metrics, is_recorded=is_recorded)
        if commands is not None:
            assert isinstance(display, JsonDisplay)
            changing = stream if isinstance(stream, ChangingStream) else None
            runner = CommandRunner(
                commands,
                display,
                captions,
                [source],
                changing,
                pause_ms=arguments.pause,
            )
            listeners.append(runner)
        stack.enter_context(ended_by_first_signal(captions.stop))
        if resumed is not None and journal is not None:
            assert isinstance(stream, Session | ChangingStream)
            pieces, n = resumed.pieces(), resumed.n_samples
            captions.replay(stream.replay_pieces(pieces, n, journal.tokens))
            for file in files:
                if isinstance(file, CaptionFile):
                    file.cut()
        captions.run()
    _print_summary(metrics.figures(), arguments)
    return 0


def _open_stream(
    arguments: argparse.Namespace, stack: ExitStack, commands: CommandReader | None
) -> tuple[LiveStream, StreamMetrics, Mapping[str, Any]]:
    """What decodes, here or there, what it is measured with, and what jsonl says of it."""
    if arguments.server is not None:
        return *_open_remote(arguments, stack), {}
    local = open_sessions(arguments, has_confidence=_has_confidence(arguments))
    stream: LiveStream = local.sessions[0]
    if commands is not None:
        stream = ChangingStream(local.sessions[0], local.open_session)
    return stream, StreamMetrics(), local.head


def _has_confidence(arguments: argparse.Namespace) -> bool:
    """Probabilities cost a little and only jsonl shows them."""
    is_shown = arguments.format == JSON_LINES
    return is_shown or any(path.suffix == ".jsonl" for path in arguments.output)


def _open_resumed(arguments: argparse.Namespace) -> RecordedSound | None:
    return None if arguments.resume is None else RecordedSound(arguments.resume)


def _read_journal(arguments: argparse.Namespace, head: Mapping[str, Any]) -> Journal:
    """The ids of the stream that is resumed. Raises OutputError if it was another."""
    for path in arguments.output:
        if path.suffix == ".jsonl":
            journal = read_journal(path)
            if journal.head and journal.head != {"type": "stream", **head}:
                raise OutputError(
                    f"{path} is of {dict(journal.head)}, this command of {head}; "
                    "resume with the model and options of the first run"
                )
            return journal
    return Journal({}, [])


def _open_remote(
    arguments: argparse.Namespace, stack: ExitStack
) -> tuple[RemoteStream, RemoteMetrics]:
    options = word_options(arguments)
    metrics = RemoteMetrics()
    # A file that is sent as fast as it can be lags by what is on its way.
    is_live = arguments.input in (None, STANDARD_INPUT) or arguments.realtime
    has_confidence = _has_confidence(arguments)
    is_default = arguments.model == default_model()
    stream = RemoteStream(
        server_url(arguments.server),
        lambda: RemoteEvents(options["replacements"], arguments.pause),
        # Beyond the model's name, what our own server takes; vLLM's overlooks it.
        session={
            "model": BASE_MODEL if is_default else arguments.model,
            "pause_ms": arguments.pause,
            "hotwords": list(options["hotwords"]),
            "include": ["words", "lag", *(["confidence"] if has_confidence else [])],
        },
        delay_ms=arguments.delay,
        draft_delay_ms=arguments.draft_delay,
        key=server_key(arguments),
        metrics=metrics if is_live else None,
        reconnect_s=reconnect_s(arguments),
    )
    stack.callback(stream.close)
    return stream, metrics


def _open_file(
    arguments: argparse.Namespace, resumed: RecordedSound | None
) -> FileSource | None:
    if arguments.input is None:
        return None
    audio = open_audio(
        arguments.input,
        raw_rate=raw_rate(arguments),
        channel=arguments.channel,
        track=arguments.track,
    )
    # A file goes on where its recording ends, a pipe with what comes.
    n_skipped = 0 if resumed is None or audio.is_pipe else resumed.n_samples
    speed = 1.0 if arguments.realtime else None
    return FileSource(audio, speed=speed, n_skipped=n_skipped)


def _open_microphone(
    arguments: argparse.Namespace,
    portaudio: PortAudio | None,
    notify: Callable[[str], None],
) -> Microphone | FileSource:
    try:
        return Microphone(
            _device(arguments), notify, channel=arguments.channel, portaudio=portaudio
        )
    except DeviceError as error:
        if not _may_play_the_sample(arguments):
            raise
        reason = str(error).partition(";")[0]
        notify(f"{reason}: hearing the demo's sample instead")
        return FileSource(open_audio(demo.SAMPLE), speed=1.0)


def _device(arguments: argparse.Namespace) -> str | int | None:
    """Return --device as the Microphone takes it."""
    return device_of(arguments.devices[0]) if arguments.devices else None


def _may_play_the_sample(arguments: argparse.Namespace) -> bool:
    """Return whether --demo plays its sample where there is no microphone."""
    is_chosen = bool(arguments.devices) or arguments.channel is not None
    return arguments.model == demo.NAME and not is_chosen


def _display(
    arguments: argparse.Namespace,
    source: SoundSource,
    stream: LiveStream,
    json_head: Mapping[str, Any],
    *,
    n_before: int,
) -> PlainDisplay | TerminalDisplay | JsonDisplay:
    if arguments.format == JSON_LINES:
        has_tokens = arguments.alternatives > 0
        return JsonDisplay(json_head, has_tokens=has_tokens, n_before=n_before)
    if sys.stdout is None and (arguments.output or arguments.record is not None):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- as long as the process
    is_plain = arguments.plain or arguments.format is not None
    if is_plain or sys.stdout is None or not sys.stdout.isatty():
        return PlainDisplay()
    return TerminalDisplay(
        source.name,
        stream.delay_ms,
        has_final_words=arguments.replace is not None,
    )


def _open_files(
    arguments: argparse.Namespace,
    head: Mapping[str, Any],
    resumed: RecordedSound | None,
    stack: ExitStack,
) -> list[CaptionFile[Event] | Recording]:
    files: list[CaptionFile[Event] | Recording] = []
    for path in arguments.output:
        options = FormatOptions(
            cues=cue_rules(arguments),
            has_word_times=arguments.word_times,
            has_tokens=arguments.alternatives > 0,
            has_ids=arguments.record is not None,
        )
        writer = make_writer(path.suffix.removeprefix("."), options, head)
        files.append(CaptionFile(path, writer, is_resumed=resumed is not None))
        stack.callback(files[-1].close)
    if arguments.record is not None:
        files.append(Recording(arguments.record, resumed=resumed))
        stack.callback(files[-1].close)
    return files


def _print_summary(figures: Figures, arguments: argparse.Namespace) -> None:
    sys.stderr.write(f"voxmlx: {summary(figures)}\n")
    if arguments.stats:
        rounded = {name: round(value, 2) for name, value in asdict(figures).items()}
        sys.stderr.write(json.dumps(rounded) + "\n")
