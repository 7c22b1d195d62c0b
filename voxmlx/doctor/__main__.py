"""python -m voxmlx.doctor: this machine, its kernels, and what it can hold."""

import sys

if __name__ == "__main__":
    # Before all else is imported: Ctrl-C meanwhile should show no traceback.
    from voxmlx.cli.start import doctor

    sys.exit(doctor())


import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import TextIO

import mlx.core as mx
import numpy as np

from voxmlx import demo
from voxmlx.checkpoint import Checkpoint, best_dtype, load
from voxmlx.cli.arguments import (
    DEFAULT_MODEL,
    CommandParser,
    add_embedding_argument,
    check_delay,
    run_command,
)
from voxmlx.config import DEFAULT_DELAY_MS, SAMPLES_PER_AUDIO_TOKEN
from voxmlx.doctor.chips import chip_of
from voxmlx.doctor.estimate import FULL_SIZE, estimates, measured_speed
from voxmlx.doctor.full_report import full_report
from voxmlx.doctor.inventory import cached_models, microphones
from voxmlx.doctor.kernel_report import measure_kernels
from voxmlx.doctor.machine import this_machine
from voxmlx.doctor.report import Report, StepTimes
from voxmlx.errors import OutputError
from voxmlx.kernels.switches import VARIABLE, kernel_switches
from voxmlx.layouts.embedding import DEFAULT_EMBEDDING_BITS
from voxmlx.memory import limit_memory
from voxmlx.session import Session

__all__ = ["examine", "main", "make_parser", "step_times"]

_N_STEPS = 40

# Twenty seconds of sound for each kind of step that --full times.
_N_FULL_STEPS = 250
_FULL_FILE = Path("voxmlx-doctor.json")

_EPILOG = """\
Nothing leaves this machine, and the page names no person, file or device: paste it
into a bug report. Without --model nothing is loaded: kernels are tried at the sizes of
the full model, with random numbers.

exit status: 0 no faults   1 a kernel fails, or an error was reported   2 wrong arguments
"""


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(lambda: _run(make_parser().parse_args(argv)))


def make_parser() -> CommandParser:
    """Return the parser of `voxmlx doctor`."""
    parser = CommandParser(
        "voxmlx doctor",
        description="What a bug report should say: machine, versions, kernels' errors "
        "and times, microphones, models, and which recipes can hold real time here.",
        epilog=_EPILOG,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    models = parser.add_mutually_exclusive_group()
    models.add_argument(
        "--model",
        metavar="DIR_OR_ID",
        help="also load this model, try kernels at its sizes and time its steps",
    )
    models.add_argument(
        "--demo",
        dest="model",
        action="store_const",
        const=demo.NAME,
        help="the same with the tiny model that comes with the package",
    )
    parser.add_argument(
        "--full",
        metavar="FILE",
        nargs="?",
        const=_FULL_FILE,
        type=Path,
        help="also write one JSON file with everything: kernels, steps paced and "
        "unpaced, memory, power source; without --model it takes the default model "
        f"if that is on this machine, else the demo (default: {_FULL_FILE})",
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=_steps,
        default=_N_FULL_STEPS,
        help="steps of each of the four kinds that --full times (default: %(default)s)",
    )
    add_embedding_argument(parser)
    parser.add_argument(
        "--kv-bits",
        type=int,
        choices=(8, 16),
        default=16,
        help="bits of the model's rings (default: %(default)s)",
    )
    parser.add_argument(
        "--delay",
        metavar="MS",
        type=int,
        help="delay to reckon with (default: the model's own)",
    )
    return parser


def _run(arguments: argparse.Namespace) -> int:
    check_delay(arguments)
    if arguments.full is not None:
        return _run_full(arguments)
    report = examine(
        arguments.model,
        arguments.kv_bits,
        embedding_bits=arguments.embedding_bits,
        delay_ms=arguments.delay,
    )
    return _show(report, as_json=arguments.json)


def _run_full(arguments: argparse.Namespace) -> int:
    path: Path = arguments.full
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        raise OutputError(
            f"{path} exists; name another file: --full FILE, or remove it"
        ) from None
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        try:
            status = _write_full(arguments, file)
        except BaseException:  # nothing half-written stays, whatever stops it
            path.unlink(missing_ok=True)
            raise
    sys.stderr.write(f"voxmlx: written to {path}\n")
    return status


def _write_full(arguments: argparse.Namespace, file: TextIO) -> int:
    name = arguments.model
    if name is None:
        is_here = any(m.repository == DEFAULT_MODEL for m in cached_models())
        name = DEFAULT_MODEL if is_here else demo.NAME
    kernel_switches()
    checkpoint = load(name, embedding_bits=arguments.embedding_bits)
    limits = limit_memory()
    report = examine(
        name, arguments.kv_bits, delay_ms=arguments.delay, checkpoint=checkpoint
    )
    content = full_report(
        report,
        checkpoint,
        limits,
        kv_bits=arguments.kv_bits,
        n_steps=arguments.steps,
    )
    json.dump(content, file, indent=2)
    file.write("\n")
    return _show(report, as_json=arguments.json)


def _steps(text: str) -> int:
    if text.isdecimal() and int(text) > 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 1")


def _show(report: Report, *, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps(report.as_json()) + "\n")
    else:
        sys.stdout.write(report.text())
    return 1 if report.faults else 0


def examine(
    model: str | None = None,
    kv_bits: int = 16,
    *,
    embedding_bits: int = DEFAULT_EMBEDDING_BITS,
    delay_ms: int | None = None,
    checkpoint: Checkpoint | None = None,
) -> Report:
    """Examine this machine, and a model if one is named. Raises VoxmlxError.

    `checkpoint` is the named model, where it has been loaded already.
    """
    kernel_switches()  # a wrong VOXMLX_KERNELS is refused before any work
    machine = this_machine()
    if model is not None and checkpoint is None:
        checkpoint = load(model, embedding_bits=embedding_bits)
        limit_memory()
    if delay_ms is None:
        delay_ms = DEFAULT_DELAY_MS if checkpoint is None else checkpoint.delay_ms
    config = FULL_SIZE if checkpoint is None else checkpoint.config
    name = "the full model" if model is None else Path(model).name
    dtype = best_dtype()
    speed = measured_speed()
    return Report(
        machine=machine,
        kernel_choice=os.environ.get(VARIABLE, "on"),
        dtype=str(dtype).removeprefix("mlx.core."),
        sizes=name,
        kernels=measure_kernels(
            config, dtype, kernel_switches(), has_metal=machine.gpu is not None
        ),
        microphones=microphones(),
        models=cached_models(),
        speed=speed,
        estimates=estimates(
            speed,
            machine.gpu_memory_bytes or machine.memory_bytes,
            chip=chip_of(machine.processor),
        ),
        delay_ms=delay_ms,
        steps=None if checkpoint is None else step_times(checkpoint, name, kv_bits),
    )


def step_times(checkpoint: Checkpoint, name: str, kv_bits: int) -> StepTimes:
    """Time single steps; the first ones, which compile kernels, do not count."""
    session = Session(checkpoint, kv_bits=kv_bits)
    rng = np.random.default_rng(0)
    taken: list[float] = []
    for _ in range(_N_STEPS + 10):
        sound = rng.normal(0, 0.05, SAMPLES_PER_AUDIO_TOKEN).astype(np.float32)
        start = time.perf_counter()
        session.push(sound)
        mx.synchronize()
        taken.append((time.perf_counter() - start) * 1000)
    steady = taken[-_N_STEPS:]
    return StepTimes(name, len(steady), median(steady), quantiles(steady, n=20)[-1])
