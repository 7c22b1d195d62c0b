"""Ctrl-C while a command's modules load ends it in silence."""

import os
import random
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from voxmlx.__main__ import COMMANDS
from voxmlx.cli import start as starts
from voxmlx.cli.start import let_interrupt, start

ROOT = Path(__file__).parents[2]
MODULES = [
    "voxmlx",
    "voxmlx.live",
    "voxmlx.transcribe",
    "voxmlx.align",
    "voxmlx.serve",
    "voxmlx.doctor",
    "convert",
    "convert.sensitivity",
]
# Every command loads more than twice as many modules after `voxmlx.cli.start`.
N_MODULES = 120


def interrupted(
    module: str, n_modules: int, later_s: float = 0.0, *, ignored: bool = False
) -> tuple[int, str, list[str]]:
    """Status, stdout and lines of stderr of a command that gets SIGINT while it loads.

    Python tells of each module that is loaded: the signal comes after `n_modules`. The
    pipe holds some 60 lines, so the command waits for us, however late we read.
    """
    command = [sys.executable, "-X", "importtime", "-m", module, "--help"]
    if ignored:
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pipesize=4096,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.rstrip().endswith(" voxmlx.cli.start"):
                break
        for _ in range(n_modules):
            process.stderr.readline()
        time.sleep(later_s)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    lines = [line for line in err.splitlines() if not line.startswith("import time:")]
    return process.returncode, out, lines


def check_ends_in_silence(module: str, chance: random.Random) -> None:
    status, out, lines = interrupted(
        module, chance.randint(1, N_MODULES), chance.uniform(0, 0.01)
    )
    assert (status, out, lines) == (130, "", [])


@pytest.mark.parametrize("module", ["voxmlx", "voxmlx.live", "voxmlx.transcribe"])
def test_ctrl_c_while_modules_load_shows_no_traceback(module: str) -> None:
    check_ends_in_silence(module, random.Random())


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_ctrl_c_at_any_moment_of_loading_shows_no_traceback(module: str) -> None:
    chance = random.Random(module)
    for _ in range(12):
        check_ends_in_silence(module, chance)


def test_a_ctrl_c_that_is_ignored_does_not_end_a_command_that_loads() -> None:
    status, out, lines = interrupted("voxmlx", 10, ignored=True)
    assert (status, lines) == (0, [])
    assert out.startswith("usage: voxmlx ")


def test_ctrl_c_raises_again_once_a_command_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Command:
        @staticmethod
        def main() -> int:
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
            let_interrupt()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            return 7

    monkeypatch.setattr(starts, "import_module", lambda _: Command)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert start("a.command") == 7
    finally:
        signal.signal(signal.SIGINT, before)


def test_every_script_starts_its_command() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        scripts = tomllib.load(file)["project"]["scripts"]
    started = {
        name: getattr(starts, target.removeprefix("voxmlx.cli.start:")).args
        for name, target in scripts.items()
    }
    expected = {f"voxmlx-{name}": (module,) for name, (module, _) in COMMANDS.items()}
    assert started == {"voxmlx": ("voxmlx.__main__",), **expected}
