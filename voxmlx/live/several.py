"""`voxmlx live` with several sources: devices, or the channels of a file."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from voxmlx.audio.devices import PortAudio, import_portaudio
from voxmlx.audio.file_source import FileSource
from voxmlx.audio.files import open_audio
from voxmlx.batch import Batch
from voxmlx.cli.arguments import raw_rate
from voxmlx.cli.channel_arguments import echo_notice
from voxmlx.cli.interruption import ended_by_first_signal
from voxmlx.cli.word_arguments import cue_rules, word_replacements
from voxmlx.file_transcript import channel_labels
from voxmlx.live.captions import SoundSource
from voxmlx.live.command_runner import CommandRunner, names_of
from voxmlx.live.json_display import JsonSplitDisplay
from voxmlx.live.lag_warning import LagWarning, RecoveryWarning
from voxmlx.live.local_sessions import open_sessions
from voxmlx.live.output_files import CaptionFile, refuse_existing
from voxmlx.live.several_captions import (
    LiveChannel,
    SeveralCaptions,
    SplitListener,
    WorstChannel,
)
from voxmlx.live.shown_elsewhere import (
    JSON_LINES,
    Elsewhere,
    open_commands,
    refuse_caption_file,
)
from voxmlx.live.sources import (
    ChannelSource,
    DeviceSource,
    channel_sources,
    device_labels,
    find_devices,
    open_devices,
)
from voxmlx.live.split_display import PlainSplitDisplay, TerminalSplitDisplay
from voxmlx.live.split_files import SplitRecording
from voxmlx.live.stream_metrics import Figures
from voxmlx.live.summary import summary
from voxmlx.text.caption_text import SplitCaptionText
from voxmlx.text.echo_filter import EchoFilter
from voxmlx.text.formats import FormatOptions
from voxmlx.text.split_writers import make_split_writer

__all__ = ["run_several"]


def run_several(arguments: argparse.Namespace, portaudio: PortAudio | None) -> int:
    """Run the command for arguments that name several sources; its exit status."""
    refuse_existing([*arguments.output, arguments.record])
    refuse_caption_file(arguments)
    with ExitStack() as stack:
        file: FileSource | None = None
        if arguments.input is not None:
            file, labels = _open_file(arguments, stack)
        else:
            portaudio = portaudio or import_portaudio()
            names = find_devices(portaudio, arguments.devices)
            labels = device_labels(names, arguments.labels)
        elsewhere = Elsewhere(arguments, stack)
        commands = open_commands(arguments, stack)
        # Confidence helps to tell an echo.
        local = open_sessions(
            arguments, has_confidence=True, n_sessions=len(labels), replaces=False
        )
        waiting: list[str] = []
        sources: Sequence[DeviceSource | ChannelSource]
        if file is None and commands is not None and commands.has_ended:
            return 0  # who wanted it has gone, and nobody listens
        if file is not None:
            sources = channel_sources(file, len(labels))
        else:

            def on_open(source: SoundSource) -> None:
                stack.callback(source.close)

            sources = open_devices(arguments, portaudio, waiting.append, on_open)
        delay_ms = local.sessions[0].delay_ms
        display = stack.enter_context(
            _display(
                arguments,
                labels,
                delay_ms,
                elsewhere.head(local.head["model"], delay_ms, names_of(sources)),
            )
        )
        _notify(sources, display.notice, waiting)
        channels = [
            LiveChannel(source, session)
            for source, session in zip(sources, local.sessions, strict=True)
        ]
        echo = EchoFilter(
            len(labels),
            keeps=arguments.keep_echo,
            has_drafts=True,
            replacements=word_replacements(arguments),
        )
        # First of all: where it cannot be written, there are no results either.
        shown = elsewhere.listeners(
            lambda: SplitCaptionText(
                labels, has_final_words=arguments.replace is not None
            )
        )
        listeners: list[SplitListener] = [
            *_open_files(arguments, labels, local.head, stack),
            *shown,
            display,
            WorstChannel(LagWarning(display.notice)),
            WorstChannel(RecoveryWarning(display.notice, arguments.dtype)),
        ]
        captions = SeveralCaptions(
            channels,
            Batch(local.checkpoint.model),
            echo,
            listeners,
            is_recorded=arguments.record is not None,
            take_warnings=tuple if file is None else file.take_warnings,
        )
        if commands is not None:
            assert isinstance(display, JsonSplitDisplay)
            runner = CommandRunner(
                commands, display, captions, sources, None, pause_ms=arguments.pause
            )
            listeners.append(runner)
        stack.enter_context(ended_by_first_signal(captions.stop))
        captions.run()
    if (sentence := echo_notice(echo)) is not None:
        sys.stderr.write(f"voxmlx: {sentence}\n")
    _print_summary(labels, [one.metrics.figures() for one in channels], arguments)
    return 0


def _open_file(
    arguments: argparse.Namespace, stack: ExitStack
) -> tuple[FileSource, list[str]]:
    audio = open_audio(
        arguments.input,
        raw_rate=raw_rate(arguments),
        channel=arguments.channel,
        track=arguments.track,
    )
    with ExitStack() as opened:
        opened.callback(audio.close)
        labels = channel_labels(audio, arguments.labels)
        opened.pop_all()
    file = FileSource(audio, speed=1.0 if arguments.realtime else None)
    stack.callback(file.close)
    return file, labels


def _display(
    arguments: argparse.Namespace,
    labels: Sequence[str],
    delay_ms: int,
    json_head: Mapping[str, Any],
) -> PlainSplitDisplay | TerminalSplitDisplay | JsonSplitDisplay:
    if arguments.format == JSON_LINES:
        has_tokens = arguments.alternatives > 0
        return JsonSplitDisplay(json_head, labels, has_tokens=has_tokens)
    if sys.stdout is None and (arguments.output or arguments.record is not None):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 -- as long as the process
    is_plain = arguments.plain or arguments.format is not None
    if is_plain or sys.stdout is None or not sys.stdout.isatty():
        return PlainSplitDisplay(labels)
    has_drafts = arguments.replace is None
    return TerminalSplitDisplay(labels, delay_ms, has_drafts=has_drafts)


def _notify(
    sources: Sequence[SoundSource],
    notify: Callable[[str], None],
    waiting: Sequence[str],
) -> None:
    """Have all devices say there what they have to say, after what waits."""
    for source in sources:
        if isinstance(source, DeviceSource):
            source.microphone.notify = notify
    for sentence in waiting:
        notify(sentence)


def _open_files(
    arguments: argparse.Namespace,
    labels: Sequence[str],
    head: Mapping[str, Any],
    stack: ExitStack,
) -> list[SplitListener]:
    files: list[SplitListener] = []
    options = FormatOptions(
        cues=cue_rules(arguments),
        has_word_times=arguments.word_times,
        has_tokens=arguments.alternatives > 0,
    )
    for path in arguments.output:
        name = path.suffix.removeprefix(".")
        file = CaptionFile(path, make_split_writer(name, labels, options, head))
        stack.callback(file.close)
        files.append(file)
    if arguments.record is not None:
        recording = SplitRecording(arguments.record, len(labels))
        stack.callback(recording.close)
        files.append(recording)
    return files


def _print_summary(
    labels: Sequence[str], figures: Sequence[Figures], arguments: argparse.Namespace
) -> None:
    for label, own in zip(labels, figures, strict=True):
        sys.stderr.write(f"voxmlx: {label}: {summary(own)}\n")
    if arguments.stats:
        by_label = [
            {"label": label} | {k: round(v, 2) for k, v in asdict(own).items()}
            for label, own in zip(labels, figures, strict=True)
        ]
        sys.stderr.write(json.dumps({"sources": by_label}) + "\n")
