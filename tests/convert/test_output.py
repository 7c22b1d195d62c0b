"""A destination is whole or absent, however a conversion ends."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convert import output
from convert.__main__ import convert
from convert.plan import make_plan
from tests.convert.directories import read_tensors
from tests.convert.interrupted import (
    SHARD_BYTES,
    contents,
    dies_at,
    killed_at,
    refuses_to_load,
)
from voxmlx import load
from voxmlx.errors import CheckpointError, OutputError
from voxmlx.layouts import open_model
from voxmlx.layouts.recipes import RECIPES


def loads_only_if_whole(directory: Path, whole: dict[str, bytes]) -> None:
    try:
        load(directory)
    except CheckpointError:
        return
    assert contents(directory) == whole


def test_there_are_several_shards_to_be_killed_between(
    undisturbed: dict[str, bytes],
) -> None:
    assert sum(name.startswith("model-") for name in undisturbed) > 3


@pytest.mark.parametrize("n", [1, 2, 40, 77, 100, 118])
def test_a_run_after_a_killed_one_gives_the_same_bytes(
    n: int,
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
) -> None:
    destination = tmp_path / "ours"
    with killed_at(monkeypatch, n):
        convert(str(source), destination, shard_bytes=SHARD_BYTES)
    assert not destination.exists()
    refuses_to_load(tmp_path / "ours.partial")
    convert(str(source), destination, shard_bytes=SHARD_BYTES)
    assert contents(destination) == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_whole_shards_are_not_written_again(
    monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    destination = tmp_path / "ours"
    with killed_at(monkeypatch, 100):
        convert(str(source), destination, shard_bytes=SHARD_BYTES)
    whole = list((tmp_path / "ours.partial" / "model").glob("*.safetensors"))
    stamps = {path.name: path.stat().st_mtime_ns for path in whole}
    assert stamps
    convert(str(source), destination, shard_bytes=SHARD_BYTES)
    for name, stamp in stamps.items():
        assert (destination / name).stat().st_mtime_ns == stamp


def test_a_damaged_shard_of_an_earlier_run_is_written_again(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
) -> None:
    destination = tmp_path / "ours"
    with killed_at(monkeypatch, 100):
        convert(str(source), destination, shard_bytes=SHARD_BYTES)
    shard = min((tmp_path / "ours.partial" / "model").glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    convert(str(source), destination, shard_bytes=SHARD_BYTES)
    assert contents(destination) == undisturbed


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
) -> None:
    destination = tmp_path / "ours"
    with monkeypatch.context() as patch:
        dies_at(patch, 100, OSError(28, "No space left on device"))
        with pytest.raises(OutputError, match="No space left on device; what is done"):
            convert(str(source), destination, shard_bytes=SHARD_BYTES)
    assert not destination.exists()
    convert(str(source), destination, shard_bytes=SHARD_BYTES)
    assert contents(destination) == undisturbed


KILLABLE = """
import sys
from pathlib import Path
from convert.__main__ import convert
convert(sys.argv[1], Path(sys.argv[2]), shard_bytes=int(sys.argv[3]))
"""


@pytest.mark.slow
def test_sigkill_at_any_moment_leaves_nothing_half_made(
    source: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    destination = tmp_path / "ours"
    command = [sys.executable, "-c", KILLABLE, str(source), str(destination)]
    partial = tmp_path / "ours.partial"
    rng = random.Random(0)
    n_cut_short = 0

    def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
        while not path.exists() and process.poll() is None:
            time.sleep(0.0005)

    # How long it takes here to start and to write, for kills all along that way.
    launched = time.monotonic()
    process = subprocess.Popen([*command, str(SHARD_BYTES)])
    wait_for(partial / "plan", process)
    started = time.monotonic()
    wait_for(destination, process)
    starting_s, writing_s = started - launched, time.monotonic() - started
    process.wait()
    shutil.rmtree(destination)

    for _ in range(24):
        is_resumed = (partial / "plan").exists()
        process = subprocess.Popen([*command, str(SHARD_BYTES)])
        wait_for(partial / "plan", process)
        if is_resumed:
            time.sleep(starting_s)
        time.sleep(rng.uniform(0, writing_s))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if destination.exists():
            assert contents(destination) == undisturbed
            shutil.rmtree(destination)
        else:
            n_cut_short += 1
            loads_only_if_whole(partial / "model", undisturbed)
        if rng.random() < 0.3:
            shutil.rmtree(partial, ignore_errors=True)
    assert n_cut_short > 3
    subprocess.run([*command, str(SHARD_BYTES)], check=True)
    assert contents(destination) == undisturbed


def test_an_existing_destination_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"{tmp_path} exists; remove it"):
        convert(str(source), tmp_path)


def test_the_beginning_of_another_conversion_is_not_thrown_away(
    monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    with killed_at(monkeypatch, 100):
        convert(str(source), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    before = contents(tmp_path / "ours.partial" / "model")
    with pytest.raises(OutputError, match="beginning of another conversion"):
        convert(str(source), tmp_path / "ours", recipe="q8")
    assert contents(tmp_path / "ours.partial" / "model") == before


def test_two_conversions_to_one_place_do_not_meet(source: Path, tmp_path: Path) -> None:
    files = open_model(source)
    plan = make_plan(files, RECIPES["q4"], "bfloat16", "x", "1")
    first = output.Output(tmp_path / "ours", plan)
    second = output.Output(tmp_path / "ours", plan)
    with (
        first.opened(),
        pytest.raises(OutputError, match="another process"),
        second.opened(),
    ):
        pytest.fail("both hold the destination")


def test_the_files_are_those_the_plan_foretold(
    source: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    plan = convert(str(source), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    for shard in plan.shards:
        assert len(undisturbed[shard.name]) == shard.n_bytes
    index = json.loads(undisturbed["model.safetensors.index.json"])
    for name, shard_name in index["weight_map"].items():
        assert name in read_tensors(tmp_path / "ours" / shard_name)
