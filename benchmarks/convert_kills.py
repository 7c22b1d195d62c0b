"""python -m benchmarks.convert_kills SOURCE PLACE: kills and resumes give the same bytes.

It converts once undisturbed, and once with as many kills (SIGKILL) as asked for, each
followed by the same command. The kills come when random shares of the weights have been
written, so that they fall into all of the conversion. Both results stay in PLACE. All but
the card, which holds the folder's name, must be equal; else the exit status is 1.
"""

import argparse
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.provenance import closing_line
from benchmarks.resident_memory import resident
from convert.calibration import calibration_path
from convert.disk import disk_errors
from convert.manifest import MANIFEST_NAME, digest_of
from convert.rounding import ROUNDINGS
from voxmlx.cli.arguments import CommandParser, run_command, whole_number
from voxmlx.layouts.recipes import RECIPES

__all__ = ["main"]

_CARD = {"README.md", MANIFEST_NAME}
_POLL_SECONDS = 0.05


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what happens, then one line of JSON; returns the exit status."""
    parser = CommandParser("python -m benchmarks.convert_kills", description=__doc__)
    parser.add_argument("source")
    parser.add_argument("place", type=Path)
    parser.add_argument("--recipe", choices=RECIPES, default="q4")
    parser.add_argument("--rounding", choices=ROUNDINGS, help="default: the recipe's")
    parser.add_argument("--calibrate", nargs="+", type=calibration_path, default=[])
    parser.add_argument("--kills", type=whole_number(0, 10_000), default=20)
    parser.add_argument("--shard-size", default="128MB", help="default: %(default)s")
    options = parser.parse_args(arguments)
    return run_command(lambda: _compare(options))


def _compare(options: argparse.Namespace) -> int:
    with disk_errors(options.place, is_begun=False):
        options.place.mkdir(parents=True, exist_ok=True)
    whole, killed = (options.place / name for name in ("whole", "killed"))

    started = time.monotonic()
    peak = _run(options, whole, None)
    if peak is None:
        raise SystemExit("the undisturbed conversion failed")
    seconds = time.monotonic() - started
    print(f"undisturbed: {seconds:.0f} s, {peak / 1e6:.0f} MB anonymous", flush=True)

    rng, total = random.Random(0), _written(whole)
    n_kills = 0
    for limit in sorted(rng.randrange(total) for _ in range(options.kills)):
        if killed.exists():
            break
        if _run(options, killed, limit) is None:
            n_kills += 1
            print(f"kill {n_kills} at {limit / total:.0%}", flush=True)
    if not killed.exists():
        _run(options, killed, None)
    is_equal = _digests(whole) == _digests(killed)
    print(f"{n_kills} kills, {'the same' if is_equal else 'OTHER'} bytes")
    print(
        closing_line(
            "convert_kills",
            recipe=options.recipe,
            rounding=options.rounding,
            seconds=seconds,
            peak_anonymous_bytes=peak,
            n_kills=n_kills,
            is_equal=is_equal,
        )
    )
    return 0 if is_equal else 1


def _run(options: argparse.Namespace, result: Path, limit: int | None) -> int | None:
    """Convert; return the peak of anonymous memory, or None where it was killed.

    It is killed once `limit` bytes of weights have been written.
    """
    command = [sys.executable, "-m", "convert", options.source, str(result)]
    command += ["--recipe", options.recipe, "--shard-size", options.shard_size]
    if options.rounding is not None:
        command += ["--rounding", options.rounding]
    if options.calibrate:
        command += ["--calibrate", *map(str, options.calibrate)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    partial, peak = result.with_name(f"{result.name}.partial"), 0
    while process.poll() is None:
        if found := resident(process.pid):
            peak = max(peak, found.anonymous)
        if limit is not None and _written(partial) >= limit:
            process.kill()
        time.sleep(_POLL_SECONDS)
    if process.returncode > 0:
        raise SystemExit(process.returncode)
    return peak if process.returncode == 0 else None


def _written(directory: Path) -> int:
    """Return the bytes of weights in a result, or in what is to become one."""
    n_bytes = 0
    with suppress(FileNotFoundError):  # a file, or the directory, is renamed meanwhile
        for path in directory.rglob("model-*"):
            n_bytes += path.stat().st_size
    return n_bytes


def _digests(directory: Path) -> dict[str, str]:
    names = {path.name for path in directory.iterdir()} - _CARD
    return {name: digest_of(directory / name) for name in sorted(names)}


if __name__ == "__main__":
    sys.exit(main())
