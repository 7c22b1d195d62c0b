"""Sound files -> transcripts: `python -m voxmlx.transcribe FILE...`."""

import sys

if __name__ == "__main__":
    # Before all else is imported: Ctrl-C meanwhile should show no traceback.
    from voxmlx.cli.start import transcribe

    sys.exit(transcribe())


import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import voxmlx
from voxmlx.audio.channels import SPLIT
from voxmlx.audio.files import AudioFile, open_audio
from voxmlx.batch import Batch
from voxmlx.cli.arguments import (
    check_delay,
    chosen_delay_ms,
    default_model,
    load_model,
    raw_rate,
    report_error,
    report_warning,
    run_command,
)
from voxmlx.cli.channel_arguments import echo_notice
from voxmlx.cli.interruption import Interruption
from voxmlx.cli.jobs import Job, open_jobs
from voxmlx.cli.progress import SoundProgress, clock
from voxmlx.cli.recovery_notice import RecoveryNotice
from voxmlx.cli.results import Results
from voxmlx.cli.server_arguments import (
    reconnect_s,
    server_key,
)
from voxmlx.cli.transcribe_arguments import (
    N_JOBS,
    make_parser,
    parse_arguments,
)
from voxmlx.cli.word_arguments import (
    cue_rules,
    word_options,
    word_replacements,
)
from voxmlx.config import DEFAULT_DELAY_MS
from voxmlx.errors import AudioError
from voxmlx.events import ChannelEvent, Event, SoundWarning, TokenDecoded
from voxmlx.file_transcript import (
    Stream,
    channel_labels,
    file_events,
    split_events,
)
from voxmlx.session import Session
from voxmlx.text.echo_filter import EchoFilter
from voxmlx.text.formats import FormatOptions
from voxmlx.text.journal import settings_key

__all__ = [
    "Recognizer",
    "load_recognizer",
    "main",
    "make_parser",
]


@dataclass(frozen=True, slots=True)
class Recognizer:
    """A loaded model; `start` opens one stream, for one file or one channel of it."""

    model_name: str
    start: Callable[[], Stream]
    delay_ms: int = DEFAULT_DELAY_MS
    # What steps the streams of one file's channels together.
    open_batch: Callable[[], Batch] | None = None
    dtype: str | None = None  # of its arithmetic


def main(
    argv: Sequence[str] | None = None,
    *,
    recognizer: Callable[[argparse.Namespace], Recognizer] | None = None,
) -> int:
    """Run the command; its exit status. `recognizer` stands in for the model."""
    return run_command(
        lambda: _run(parse_arguments(argv), recognizer or load_recognizer)
    )


def load_recognizer(arguments: argparse.Namespace) -> Recognizer:
    """The model that --model, --dtype and --delay ask for."""
    checkpoint = load_model(arguments)
    options = word_options(arguments, checkpoint.tokenizer)
    if arguments.channel == SPLIT:
        options["replacements"] = {}  # the EchoFilter's
    delay_ms = chosen_delay_ms(arguments, checkpoint)
    # Probabilities cost a little and only these formats show them.
    has_confidence = _has_confidence(arguments)
    return Recognizer(
        checkpoint.name,
        lambda: Session(
            checkpoint,
            delay_ms=delay_ms,
            confidence=has_confidence,
            speculate=not arguments.no_speculation,
            kv_bits=arguments.kv_bits,
            **options,
        ),
        delay_ms,
        lambda: Batch(checkpoint.model),
        checkpoint.dtype,
    )


def _has_confidence(arguments: argparse.Namespace) -> bool:
    if arguments.channel == SPLIT:
        return True  # it helps to tell an echo
    return not {"json", "jsonl"}.isdisjoint(arguments.formats)


def _run(
    arguments: argparse.Namespace,
    recognizer: Callable[[argparse.Namespace], Recognizer],
) -> int:
    check_delay(arguments)
    word_options(arguments)
    interruption = Interruption()
    with ExitStack() as pipes, interruption.watch():
        jobs, n_failed = open_jobs(arguments, pipes)
        if jobs and arguments.server is not None:
            n_failed += _do_there(jobs, arguments, interruption)
        elif jobs:
            model = recognizer(arguments)
            for job in jobs:
                try:
                    _do(job, model, arguments, interruption)
                except AudioError as error:
                    report_error(error)
                    n_failed += 1
    return 1 if n_failed else 0


def _do_there(
    jobs: Sequence[Job], arguments: argparse.Namespace, interruption: Interruption
) -> int:
    """Have a server transcribe all jobs; return how many could not be read.

    Raises ServerError and OutputError.
    """
    # Local: who transcribes here needs no client of the network.
    from voxmlx.client.http_server import HttpServer, base_url
    from voxmlx.client.jobs_at_once import run_jobs
    from voxmlx.client.remote_files import RemoteFiles, Settings, find_model
    from voxmlx.client.upload_progress import UploadProgress

    server = HttpServer(base_url(arguments.server), server_key(arguments))
    is_default = arguments.model == default_model()
    served = find_model(server, None if is_default else arguments.model)
    options = word_options(arguments)
    settings = Settings(
        needs_times=arguments.formats != ["txt"],
        has_confidence=_has_confidence(arguments),
        delay_ms=arguments.delay,
        hotwords=options["hotwords"],
        replacements=options["replacements"],
        pause_ms=arguments.pause,
        raw_rate=raw_rate(arguments),
        channel=arguments.channel,
        reconnect_s=reconnect_s(arguments),
        track=arguments.track,
    )
    if not served.is_ours and (arguments.delay is not None or options["hotwords"]):
        sys.stderr.write(
            "voxmlx: this server takes no --delay and no --hotwords; they are left out\n"
        )
    # Nobody but a server of ours is known to have taken the delay.
    delay = {"delay_ms": arguments.delay} if served.is_ours and arguments.delay else {}

    def write(job: Job, events: Sequence[Event]) -> None:
        version = {"package_version": voxmlx.__version__}
        head = {"file": job.name, "model": served.name, **delay, **version}
        with interruption.held(), _results(job, arguments, head, None) as results:
            _begin_print(job, arguments, results)
            for event in events:
                if isinstance(event, SoundWarning):
                    report_warning(event)
                results.feed(event)
            results.end()

    with UploadProgress() as progress:
        files = RemoteFiles(server, served, settings, progress.notice)
        return run_jobs(jobs, files, arguments.jobs or N_JOBS, progress, write)


def _begin_print(job: Job, arguments: argparse.Namespace, results: Results) -> None:
    """Write the input's name above text that is printed, where there are several."""
    if job.outputs[0] == ("txt", None) and len(arguments.files) > 1:
        results.write(f"==> {job.name} <==\n")


def _do(
    job: Job,
    model: Recognizer,
    arguments: argparse.Namespace,
    interruption: Interruption,
) -> None:
    """Transcribe one input to its results. Raises AudioError or OutputError.

    An interruption leaves what was written so far, valid in each format.
    """
    format_name, path = job.outputs[0]
    is_printed = path is None and format_name != "json"
    with ExitStack() as stack:
        audio = stack.enter_context(
            job.audio
            or open_audio(
                job.name,
                raw_rate=raw_rate(arguments),
                channel=arguments.channel,
                track=arguments.track,
            )
        )
        with interruption.held():
            head = _head(job, model, arguments)
            settings = _settings(job, arguments)
            labels: list[str] = []
            if arguments.channel == SPLIT:
                labels = channel_labels(audio, arguments.labels)
            results = stack.enter_context(
                _results(job, arguments, head, settings, labels)
            )
        _begin_print(job, arguments, results)
        progress = stack.enter_context(
            # On a terminal, text that is being printed shows the progress itself.
            SoundProgress(
                audio.name,
                audio.duration_s,
                is_hidden=is_printed and sys.stdout.isatty(),
            )
        )
        notice = RecoveryNotice(arguments.dtype)
        try:
            tokens = results.tokens
            if tokens:
                at = clock(tokens[-1].time_ms / 1000)
                sys.stderr.write(
                    f"voxmlx: {audio.name}: going on at {at}, where an earlier run was "
                    "ended\n"
                )
            echo = None
            if labels:
                echo = EchoFilter(
                    audio.n_channels,
                    keeps=arguments.keep_echo,
                    replacements=word_replacements(arguments),
                )
            for event in _events(audio, model, progress, tokens, echo):
                if isinstance(event, SoundWarning):
                    report_warning(event)
                with interruption.held():
                    results.feed(event)
                own = event.event if isinstance(event, ChannelEvent) else event
                if (sentence := notice.observe(own)) is not None:
                    sys.stderr.write(f"voxmlx: {audio.name}: {sentence}\n")
        except KeyboardInterrupt:
            results.keep()
            raise
        with interruption.held():
            results.end()
        if echo is not None and (sentence := echo_notice(echo)) is not None:
            sys.stderr.write(f"voxmlx: {audio.name}: {sentence}\n")


def _events(
    audio: AudioFile,
    model: Recognizer,
    progress: SoundProgress,
    known: Sequence[TokenDecoded],
    echo: EchoFilter | None,
) -> Iterator[Event | ChannelEvent]:
    """Events of the file; those of its channels, through `echo`, if they are split."""
    if echo is None:
        return file_events(audio, model.start(), progress.follow, known)
    assert model.open_batch is not None
    streams = [model.start() for _ in range(audio.n_channels)]
    sessions = [stream for stream in streams if isinstance(stream, Session)]
    return split_events(audio, sessions, model.open_batch(), progress.follow, echo)


def _head(
    job: Job, model: Recognizer, arguments: argparse.Namespace
) -> Mapping[str, Any]:
    delay_ms = model.delay_ms if arguments.delay is None else arguments.delay
    return {
        "file": job.name,
        "model": model.model_name,
        "delay_ms": delay_ms,
        "dtype": model.dtype,
        "package_version": voxmlx.__version__,
    }


def _results(
    job: Job,
    arguments: argparse.Namespace,
    head: Mapping[str, Any],
    settings: str | None,
    labels: Sequence[str] = (),
) -> Results:
    options = FormatOptions(
        cues=cue_rules(arguments),
        has_word_times=arguments.word_times,
        has_tokens=arguments.alternatives > 0,
    )
    return Results(job.outputs, options, head, settings, labels)


def _settings(job: Job, arguments: argparse.Namespace) -> str | None:
    """What tells runs apart whose ids or events differ; None for a pipe."""
    if job.audio is not None:
        return None
    status = os.stat(job.name)
    return settings_key(
        {
            **word_options(arguments),
            "sound": [
                status.st_size,
                status.st_mtime_ns,
                arguments.channel,
                arguments.track,
            ],
            "model": [
                arguments.dtype,
                arguments.kv_bits,
                arguments.embedding_bits,
            ],
            "confidence": _has_confidence(arguments),
        }
    )
