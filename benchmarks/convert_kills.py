"""python -m benchmarks.convert_kills SOURCE PLACE: kills and resumes give the same bytes.

It converts once undisturbed, and once with as many kills (SIGKILL) as asked for, each
after a random time, each followed by the same command. Both results stay in PLACE. All
but the card, which holds the folder's name, must be equal; else the exit status is 1.
"""

import argparse
import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.provenance import closing_line
from convert.rounding import ROUNDINGS
from voxmlx.layouts.recipes import RECIPES

__all__ = ["main"]

_CARD = {"README.md", "SHA256SUMS"}
_POLL_SECONDS = 0.05


def main() -> int:
    """Print what happens, then one line of JSON; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("source")
    parser.add_argument("place", type=Path)
    parser.add_argument("--recipe", choices=RECIPES, default="q4")
    parser.add_argument("--rounding", choices=ROUNDINGS, default="search")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--most-seconds", type=float, default=180, help="before a kill")
    options = parser.parse_args()
    options.place.mkdir(parents=True, exist_ok=True)
    whole, killed = (options.place / name for name in ("whole", "killed"))

    started = time.monotonic()
    peak = _run(options, whole, None)
    if peak is None:
        raise SystemExit("the undisturbed conversion failed")
    seconds = time.monotonic() - started
    print(f"undisturbed: {seconds:.0f} s, {peak / 1e6:.0f} MB anonymous", flush=True)

    rng = random.Random(0)
    n_kills = 0
    while n_kills < options.kills and not killed.exists():
        # Short times as often as long ones: a kill may come at the very beginning.
        limit = options.most_seconds ** rng.random()
        if _run(options, killed, limit) is None:
            n_kills += 1
            print(f"kill {n_kills} after {limit:.0f} s", flush=True)
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


def _run(options: argparse.Namespace, result: Path, limit: float | None) -> int | None:
    """Convert; return the peak of anonymous memory, or None where it was killed."""
    command = [sys.executable, "-m", "convert", options.source, str(result)]
    command += ["--recipe", options.recipe, "--rounding", options.rounding]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    started, peak = time.monotonic(), 0
    while process.poll() is None:
        peak = max(peak, _anonymous_bytes(process.pid))
        if limit is not None and time.monotonic() - started > limit:
            process.kill()
        time.sleep(_POLL_SECONDS)
    if process.returncode > 0:
        raise SystemExit(process.returncode)
    return peak if process.returncode == 0 else None


def _anonymous_bytes(pid: int) -> int:
    """What Linux says of it; 0 on other systems and of an ended process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith("RssAnon")]
    return 1024 * int(found[0]) if found else 0


def _digests(directory: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(directory.iterdir()):
        if path.name not in _CARD:
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


if __name__ == "__main__":
    sys.exit(main())
