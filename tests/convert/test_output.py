"""A destination is whole or absent, however a conversion ends."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import pytest

from convert import output
from convert.__main__ import convert
from convert.plan import make_plan
from convert.recipes import RECIPES
from tests.convert.directories import read_tensors
from voxmlx import load
from voxmlx.errors import CheckpointError, OutputError
from voxmlx.layouts import open_model

SHARD_BYTES = 30_000


class Killed(BaseException):
    """Ends a conversion where it stands: nothing of ours catches it."""


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def undisturbed(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    directory = tmp_path_factory.mktemp("undisturbed") / "ours"
    convert(str(source), directory, shard_bytes=SHARD_BYTES)
    return contents(directory)


def dies_at(monkeypatch: pytest.MonkeyPatch, n: int, error: BaseException) -> None:
    """Let the n-th write to a shard write half and raise `error`."""
    real: Callable[..., None] = output._Hashing.write
    count = 0

    def write(self: Any, content: Any) -> None:
        nonlocal count
        count += 1
        if count == n:
            real(self, memoryview(content)[: len(content) // 2])
            raise error
        real(self, content)

    monkeypatch.setattr(output._Hashing, "write", write)


def refuses_to_load(directory: Path) -> None:
    for path in (directory, directory / "model"):
        if path.exists():
            with pytest.raises(CheckpointError):
                load(path)


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
    with monkeypatch.context() as patch:
        dies_at(patch, n, Killed())
        with pytest.raises(Killed):
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
    with monkeypatch.context() as patch:
        dies_at(patch, 100, Killed())
        with pytest.raises(Killed):
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
    with monkeypatch.context() as patch:
        dies_at(patch, 100, Killed())
        with pytest.raises(Killed):
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


def test_too_little_room_is_said_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 0, 1000))
    with pytest.raises(OutputError, match=r"0\.00 GB free and 0\.00 GB are needed"):
        convert(str(source), tmp_path / "ours")
    assert not list((tmp_path / "ours.partial" / "model").iterdir())


@pytest.mark.slow
def test_a_small_file_system_that_fills_up_leaves_nothing_that_loads(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
) -> None:
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here: run as root on Linux")
    try:
        monkeypatch.setattr(output.Output, "_check_room", lambda _: None)
        with pytest.raises(OutputError, match="No space left on device"):
            convert(str(source), place / "ours", shard_bytes=SHARD_BYTES)
        refuses_to_load(place / "ours.partial")
        subprocess.run(["mount", "-o", "remount,size=8m", str(place)], check=True)
        convert(str(source), place / "ours", shard_bytes=SHARD_BYTES)
        assert contents(place / "ours") == undisturbed
    finally:
        subprocess.run(["umount", str(place)], check=True)


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


def test_a_run_cut_short_after_publishing_is_finished(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
) -> None:
    def killed(path: Path) -> None:
        raise Killed

    destination = tmp_path / "ours"
    with monkeypatch.context() as patch:
        patch.setattr(output.shutil, "rmtree", killed)
        with pytest.raises(Killed):
            convert(str(source), destination, shard_bytes=SHARD_BYTES)
    convert(str(source), destination, shard_bytes=SHARD_BYTES)
    assert contents(destination) == undisturbed
    assert not (tmp_path / "ours.partial").exists()


def test_an_existing_destination_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=f"{tmp_path} exists; remove it"):
        convert(str(source), tmp_path)


def test_the_beginning_of_another_conversion_is_not_thrown_away(
    monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        dies_at(patch, 100, Killed())
        with pytest.raises(Killed):
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


def test_weights_that_are_no_numbers_are_refused(source: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(source, tmp_path / "source"))
    path = directory / "consolidated.safetensors"
    tensors = read_tensors(path)
    tensors["layers.0.attention.wq.weight"][3, 4] = float("nan")
    mx.save_safetensors(str(path), tensors)
    with pytest.raises(
        CheckpointError, match=r"layers\.0\.attention\.q_proj holds NaN"
    ):
        convert(str(directory), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
