"""Faults of the source, of the disk, and kills at awkward moments."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile

from convert import disk, output, quality
from convert import source as source_module
from convert.__main__ import convert, main
from convert.output import Output
from convert.plan import make_plan
from convert.recipes import RECIPES
from tests.convert.directories import read_tensors
from tests.convert.interrupted import (
    SHARD_BYTES,
    Killed,
    contents,
    dies_at,
    refuses_to_load,
)
from tests.sounds import speech_like
from voxmlx.errors import CheckpointError, OutputError
from voxmlx.layouts import open_model

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
            making.write_weights(lambda _: None)
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

    with monkeypatch.context() as patch:
        dies_at(patch, 100, Killed())
        with pytest.raises(Killed):
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
        making.write_weights(lambda _: change(copied / WEIGHTS))
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
    with monkeypatch.context() as patch:
        dies_at(patch, 100, Killed())
        with pytest.raises(Killed):
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


def half_a_plan(path: Path, content: bytes) -> None:
    path.with_name(path.name + ".part").write_bytes(content[:7])
    raise Killed


def killed(*_: Any) -> None:
    raise Killed


@pytest.mark.parametrize(
    ("place", "name", "substitute"),
    [
        (output.fcntl, "flock", killed),
        (output, "write_whole", killed),
        (output, "write_whole", half_a_plan),
    ],
)
def test_what_is_left_of_a_run_killed_before_it_had_a_plan_hinders_none(
    place: Any,
    name: str,
    substitute: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(place, name, substitute)
        with pytest.raises(Killed):
            convert(str(source), tmp_path / "ours", recipe="q8")
    partial = tmp_path / "ours.partial"
    assert not (partial / "plan").exists()
    assert not list((partial / "model").iterdir())
    refuses_to_load(partial)
    convert(str(source), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    assert contents(tmp_path / "ours") == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_shards_that_no_plan_speaks_for_are_not_taken(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
) -> None:
    with monkeypatch.context() as patch:
        dies_at(patch, 100, Killed())
        with pytest.raises(Killed):
            convert(str(source), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    partial = tmp_path / "ours.partial"
    shard = min((partial / "model").glob("*.safetensors"))
    changed = shard.read_bytes()[:-1] + b"?"
    shard.write_bytes(changed)
    line = f"{output.hashlib.sha256(changed).hexdigest()}  {shard.name}\n"
    (partial / "done").write_text(line)
    (partial / "plan").unlink()
    convert(str(source), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    assert contents(tmp_path / "ours") == undisturbed


def test_scratch_of_a_killed_verification_does_not_take_the_room(
    monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        dies_at(patch, 100, Killed())
        with pytest.raises(Killed):
            convert(str(source), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    scratch = tmp_path / "ours.partial" / "tmpabc"
    scratch.mkdir()
    (scratch / "x.logits").write_bytes(b"0" * 100)
    with monkeypatch.context() as patch:
        dies_at(patch, 1, Killed())
        with pytest.raises(Killed):
            convert(str(source), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    assert not scratch.exists()


def published_only(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], n_removed: int
) -> None:
    """Run the command; kill it when DEST is there and `n_removed` files are gone."""
    real, count = Path.unlink, 0
    destination = Path(arguments[1])

    def unlink(path: Path, missing_ok: bool = False) -> None:
        nonlocal count
        if destination.exists():
            count += 1
            if count > n_removed:
                raise Killed
        real(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(Killed):
            main(arguments)
    assert destination.exists()
    assert destination.with_name(destination.name + ".partial").exists()


@pytest.mark.parametrize("n_removed", [0, 1, 2])
def test_a_run_cut_short_after_publishing_is_finished(
    n_removed: int, monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    arguments = [str(source), str(tmp_path / "ours")]
    published_only(monkeypatch, arguments, n_removed)
    before = contents(tmp_path / "ours")
    assert main(arguments) == 0
    assert contents(tmp_path / "ours") == before
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_what_another_process_is_just_finishing_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [str(source), str(tmp_path / "ours")]
    published_only(monkeypatch, arguments, 0)
    partial = tmp_path / "ours.partial"
    with (partial / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(arguments) == 1
        assert (partial / "plan").exists()
    assert "exists; remove it" in capsys.readouterr().err


def test_an_empty_leftover_beside_a_whole_result_is_removed(
    source: Path, tmp_path: Path
) -> None:
    convert(str(source), tmp_path / "ours")
    (tmp_path / "ours.partial").mkdir()
    with pytest.raises(OutputError, match="exists; remove it"):
        convert(str(source), tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def sound(path: Path, seed: int) -> Path:
    soundfile.write(path, speech_like(16_000, seed=seed), 16_000, subtype="PCM_16")
    return path


@pytest.mark.parametrize("verified", [[], ["1.wav"], ["2.wav"]])
def test_a_certificate_asked_for_is_made_though_the_weights_are_finished(
    verified: list[str],
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("whisper_normalizer", reason="install voxmlx-realtime[convert]")
    _, second = (sound(tmp_path / f"{seed}.wav", seed) for seed in (1, 2))
    arguments = [str(source), str(tmp_path / "ours")]
    verify = ["--verify", *(str(tmp_path / name) for name in verified)]
    published_only(monkeypatch, [*arguments, *(verify if verified else [])], 0)
    second.with_suffix(".txt").write_text("what was said")
    assert main([*arguments, "--verify", str(second)]) == 0
    content = json.loads((tmp_path / "ours" / "quality.json").read_text())
    assert [row["name"] for row in content["sounds"]] == ["2.wav"]
    assert content["total"]["wer"] is not None
    assert main(["--check", str(tmp_path / "ours")]) == 0
    assert not (tmp_path / "ours.partial").exists()


def test_a_certificate_that_is_there_is_not_made_again(
    monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    heard = sound(tmp_path / "1.wav", 1)
    arguments = [str(source), str(tmp_path / "ours"), "--verify", str(heard)]
    published_only(monkeypatch, arguments, 0)
    before = contents(tmp_path / "ours")
    monkeypatch.setattr(quality, "read", killed)
    assert main(arguments) == 0
    assert contents(tmp_path / "ours") == before


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
