"""Jobs of transcribe: its inputs, and the outputs of each."""

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from voxmlx.audio.channels import SPLIT
from voxmlx.audio.files import AudioFile, open_audio
from voxmlx.cli.arguments import raw_rate, report_error
from voxmlx.cli.outputs import check_output, name_one_file_twice, plan_outputs
from voxmlx.errors import AudioError
from voxmlx.file_transcript import channel_labels
from voxmlx.text.formats import FORMATS

__all__ = [
    "Job",
    "add_output_arguments",
    "check_output_arguments",
    "open_jobs",
    "with_folders",
]


# What is looked for in a folder; a file that is named may have any other name.
# fmt: off
_SOUND_SUFFIXES = frozenset((
    ".3g2", ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".asf",
    ".au", ".avi", ".caf", ".flac", ".flv", ".m2ts", ".m4a", ".m4b", ".m4v", ".mka",
    ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpeg", ".mpg", ".mts", ".oga", ".ogg",
    ".ogv", ".opus", ".snd", ".spx", ".w64", ".wav", ".weba", ".webm", ".wma", ".wmv",
    ".wv",
))
# fmt: on


@dataclass(frozen=True, slots=True)
class Job:
    """One input on its way to its results: pairs of a format and a file.

    A file that is None is standard output. `audio` is open already where the input
    cannot be opened twice.
    """

    name: str
    outputs: tuple[tuple[str, Path | None], ...]
    audio: AudioFile | None


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --format, --output, --output-dir and --skip-existing."""
    group = parser.add_argument_group("results")
    group.add_argument(
        "--format",
        choices=FORMATS,
        action="append",
        dest="formats",
        help="form of the result; may be given several times with --output-dir "
        "(default: txt)",
    )
    group.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="write the result of the one input there; the suffix says the form; may "
        "be given several times",
    )
    group.add_argument(
        "--output-dir",
        metavar="DIR",
        type=Path,
        help="write a file per input and format there, made if need be. Inputs of one "
        "name from several folders keep their folders",
    )
    group.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out an input whose results are all there",
    )


def check_output_arguments(
    parser: argparse.ArgumentParser, arguments: argparse.Namespace
) -> None:
    """Refuse what does not go together, and set `formats` to what is asked for."""
    for path in arguments.output:
        if path.suffix.removeprefix(".") not in FORMATS:
            parser.error(
                f"--output {path}: expected a name that ends in .{', .'.join(FORMATS)}"
            )
    if name_one_file_twice(arguments.output):
        parser.error("--output names one file twice; give it once")
    if arguments.output and arguments.output_dir is not None:
        parser.error("--output and --output-dir are two places; give one")
    is_folder = any(os.path.isdir(name) for name in arguments.files)
    if arguments.output and (len(arguments.files) > 1 or is_folder):
        parser.error("--output is for one FILE; use --output-dir for several")
    if arguments.skip_existing and not (arguments.output or arguments.output_dir):
        parser.error("--skip-existing needs --output-dir or --output")
    if arguments.output:
        named = [path.suffix.removeprefix(".") for path in arguments.output]
        if arguments.formats and set(arguments.formats) != set(named):
            parser.error("the suffix of --output says the format; leave --format out")
        arguments.formats = named
    arguments.formats = list(dict.fromkeys(arguments.formats or ["txt"]))
    if len(arguments.formats) > 1 and not (arguments.output or arguments.output_dir):
        parser.error("several formats need --output-dir or --output")


def open_jobs(arguments: argparse.Namespace, pipes: ExitStack) -> tuple[list[Job], int]:
    """Return the inputs to transcribe, and how many cannot be read; these are reported.

    Looks at every header before the model is loaded, which may take minutes. Pipes
    stay open until `pipes` is closed. `files` of the arguments names the files in
    folders afterwards. Raises OutputError.
    """
    arguments.files = with_folders(arguments.files)
    planned = list(zip(arguments.files, _outputs(arguments), strict=True))
    left = [
        (name, outputs)
        for name, outputs in planned
        if not (arguments.skip_existing and _are_there(outputs))
    ]
    if n_skipped := len(planned) - len(left):
        sys.stderr.write(
            f"voxmlx: {n_skipped} of {len(planned)} inputs skipped: their results are "
            "there\n"
        )
    jobs: list[Job] = []
    for name, outputs in left:
        if os.path.isdir(name):
            report_error(_no_sound_in(name))
            continue
        try:
            audio = open_audio(
                name,
                raw_rate=raw_rate(arguments),
                channel=arguments.channel,
                track=arguments.track,
            )
            if arguments.channel == SPLIT:
                channel_labels(audio, arguments.labels)
        except AudioError as error:
            report_error(error)
            continue
        if audio.is_pipe:
            jobs.append(Job(name, outputs, pipes.enter_context(audio)))
        else:
            # Closed until its turn: a thousand files are more than may be open.
            audio.close()
            jobs.append(Job(name, outputs, None))
    return jobs, len(left) - len(jobs)


def with_folders(names: Sequence[str]) -> list[str]:
    """Return the names, each folder replaced by the sound and film files below it.

    Files whose name begins with a dot are left out, and so are such folders. A folder
    without any, or with one that may not be read, stays as it is.
    """
    found: list[str] = []
    for name in names:
        errors: list[OSError] = []
        inside = [
            os.path.join(folder, file)
            for folder, folders, files in os.walk(name, onerror=errors.append)
            if not _hide(folders)
            for file in files
            if not file.startswith(".")
            and os.path.splitext(file)[1].lower() in _SOUND_SUFFIXES
        ]
        found += sorted(inside)
        if not inside or errors:
            found.append(name)
    return found


def _no_sound_in(folder: str) -> AudioError:
    return AudioError(
        f"{folder} is a directory without sound or film files, or with one that may not "
        "be read; name the files in it"
    )


def _hide(folders: list[str]) -> None:
    """Take folders out of a walk whose name begins with a dot."""
    folders[:] = [folder for folder in folders if not folder.startswith(".")]


def _outputs(
    arguments: argparse.Namespace,
) -> Sequence[tuple[tuple[str, Path | None], ...]]:
    """Of each input, its pairs of a format and a file."""
    formats: list[str] = arguments.formats
    if arguments.output:
        for path in arguments.output:
            check_output(path, arguments.files)
        named = [(p.suffix.removeprefix("."), p) for p in arguments.output]
        return [tuple(named)]
    if arguments.output_dir is None:
        return [tuple((name, None) for name in formats)] * len(arguments.files)
    per_format = [
        plan_outputs(arguments.files, arguments.output_dir, f".{name}")
        for name in formats
    ]
    return [
        tuple(zip(formats, paths, strict=True))
        for paths in zip(*per_format, strict=True)
    ]


def _are_there(outputs: Sequence[tuple[str, Path | None]]) -> bool:
    return all(path is not None and path.exists() for _, path in outputs)
