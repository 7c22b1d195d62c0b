"""Faults of the source and of the disk: one line, and nothing half-made."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from convert import disk, output, quality
from convert import source as source_module
from convert.__main__ import convert, main
from convert.output import Output
from convert.plan import make_plan
from convert.rounding import Nearest
from tests.convert.directories import read_tensors
from tests.convert.interrupted import SHARD_BYTES, contents, killed_at, refuses_to_load
from voxmlx.errors import CheckpointError, OutputError
from voxmlx.layouts import open_model
from voxmlx.layouts.recipes import RECIPES

WEIGHTS = "consolidated.safetensors"


@pytest.fixture
def copied(source: Path, tmp_path: Path) -> Path:
    """A source that may be spoilt."""
    return Path(shutil.copytree(source, tmp_path / "source"))


def planned(source: Path, destination: Path) -> Output:
    plan = make_plan(open_model(source), RECIPES["q4"], "bfloat16", "x", "1")
    return Output(destination, plan)


@pytest.mark.parametrize("name", [WEIGHTS, "tekken.json"])
def test_a_source_that_vanishes_is_named_and_not_the_destination(
    name: str, copied: Path, tmp_path: Path
) -> None:
    making = planned(copied, tmp_path / "ours")
    (copied / name).unlink()

    def make() -> None:
        with making.opened():
            making.write_weights(Nearest("bfloat16"), lambda _: None)
            making.write_description()

    with pytest.raises(CheckpointError, match=f"{name} cannot be read: No such file"):
        make()


def test_a_source_that_cannot_be_read_keeps_what_is_done(
    monkeypatch: pytest.MonkeyPatch,
    copied: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with killed_at(monkeypatch, 100):
        convert(str(copied), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    kept = contents(tmp_path / "ours.partial" / "model")
    with monkeypatch.context() as patch:
        patch.setattr(source_module.mmap, "mmap", broken)
        with pytest.raises(CheckpointError, match=f"{WEIGHTS} cannot be read: Input/"):
            convert(str(copied), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    left = contents(tmp_path / "ours.partial" / "model")
    assert left == {k: v for k, v in kept.items() if k.endswith("safetensors")}
    convert(str(copied), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    weights = {k: v for k, v in undisturbed.items() if k.startswith("model-")}
    assert contents(tmp_path / "ours").items() >= weights.items()


def cut_short(path: Path) -> None:
    os.truncate(path, 20_000)


def written_to(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\0\0")
    os.utime(path, ns=(0, 0))


@pytest.mark.parametrize("change", [cut_short, written_to])
def test_a_source_that_changes_meanwhile_is_one_line_and_leaves_nothing(
    change: Callable[[Path], None], copied: Path, tmp_path: Path
) -> None:
    making = planned(copied, tmp_path / "ours")
    with (
        pytest.raises(CheckpointError, match=f"{WEIGHTS} has changed since"),
        making.opened(),
    ):
        making.write_weights(Nearest("bfloat16"), lambda _: change(copied / WEIGHTS))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_source_cut_short_before_is_refused_before_anything_is_written(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_short(copied / WEIGHTS)
    assert main([str(copied), str(tmp_path / "ours")]) == 1
    assert "damaged or cut short" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_weights_that_are_no_numbers_are_refused_and_leave_nothing(
    copied: Path, tmp_path: Path
) -> None:
    tensors = read_tensors(copied / WEIGHTS)
    tensors["layers.0.attention.wq.weight"][3, 4] = float("nan")
    output.mx.save_safetensors(str(copied / WEIGHTS), tensors)
    with pytest.raises(
        CheckpointError, match=r"layers\.0\.attention\.q_proj holds NaN"
    ):
        convert(str(copied), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_another_tokenizer_makes_it_another_conversion(
    monkeypatch: pytest.MonkeyPatch, copied: Path, tmp_path: Path
) -> None:
    with killed_at(monkeypatch, 100):
        convert(str(copied), tmp_path / "ours")
    (copied / "tekken.json").touch()
    with pytest.raises(OutputError, match="beginning of another conversion"):
        convert(str(copied), tmp_path / "ours")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_too_little_room_is_said_in_fitting_units_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 0, 1500))
    with pytest.raises(
        OutputError, match=r" has 1\.50 kB free and 1\.\d\d MB are need"
    ):
        convert(str(source), tmp_path / "new" / "ours")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_place(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs here: run as root on Linux")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.slow
def test_a_small_file_system_is_refused_before_anything_is_written(
    source: Path, small_place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(source), str(small_place / "ours")]) == 1
    assert "kB free and" in capsys.readouterr().err
    assert not list(small_place.iterdir())


@pytest.mark.slow
def test_a_small_file_system_that_fills_up_leaves_nothing_that_loads(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    small_place: Path,
    undisturbed: dict[str, bytes],
) -> None:
    # Room is checked first; here something else fills the disk meanwhile.
    with monkeypatch.context() as patch:
        patch.setattr(output, "check_room", lambda *_: None)
        with pytest.raises(OutputError, match="No space left on device"):
            convert(str(source), small_place / "ours", shard_bytes=SHARD_BYTES)
    refuses_to_load(small_place / "ours.partial")
    remount = ["mount", "-o", "remount,size=8m", str(small_place)]
    subprocess.run(remount, check=True)
    convert(str(source), small_place / "ours", shard_bytes=SHARD_BYTES)
    assert contents(small_place / "ours") == undisturbed


def test_a_sound_of_the_same_name_is_another_sound() -> None:
    samples = np.ones(1280, np.float32)
    one, other = (quality.Sound("a.wav", gain * samples, None) for gain in (1, 0.5))
    assert one.digest != other.digest
    assert one.digest == quality.Sound("b.wav", samples, None).digest


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (12_345, "12.35 kB"), (2_490_000_000, "2.49 GB")],
)
def test_amounts_are_said_in_units_that_show_them(n_bytes: int, text: str) -> None:
    assert disk.amount(n_bytes) == text
