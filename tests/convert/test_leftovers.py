"""What earlier runs left: taken up, finished, or out of the way."""

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from convert import output, verify
from convert.__main__ import convert, main
from tests.convert.interrupted import (
    SHARD_BYTES,
    Killed,
    contents,
    killed_at,
    refuses_to_load,
)
from tests.sounds import speech_like
from voxmlx.errors import OutputError


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
    with killed_at(monkeypatch, 100):
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
    with killed_at(monkeypatch, 100):
        convert(str(source), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    scratch = tmp_path / "ours.partial" / f"{output.SCRATCH_PREFIX}abc"
    scratch.mkdir()
    (scratch / "x.logits").write_bytes(b"0" * 100)
    with killed_at(monkeypatch, 1):
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


@pytest.mark.parametrize("has_destination", [False, True])
def test_a_folder_of_somebodys_own_is_not_taken_for_a_conversions(
    has_destination: bool, source: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "ours.partial" / "photographs" / "one.jpg"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"1")
    if has_destination:
        (tmp_path / "ours").mkdir()
    expected = "exists; remove it" if has_destination else "holds photographs"
    with pytest.raises(OutputError, match=expected):
        convert(str(source), tmp_path / "ours")
    assert [path.name for path in kept.parent.parent.iterdir()] == ["photographs"]
    assert kept.read_bytes() == b"1"


def a_file(partial: Path) -> Path:
    return partial


def a_file_for_model(partial: Path) -> Path:
    return partial / "model"


def a_file_in_model(partial: Path) -> Path:
    return partial / "model" / "notes.txt"


def a_folder_in_model(partial: Path) -> Path:
    return partial / "model" / "config.json" / "notes.txt"


def a_folder_for_plan(partial: Path) -> Path:
    return partial / "plan" / "notes.txt"


def a_link_for_model(partial: Path) -> Path:
    elsewhere = partial.with_name("elsewhere")
    elsewhere.mkdir()
    partial.mkdir()
    (partial / "model").symlink_to(elsewhere)
    return elsewhere / "config.json"


@pytest.mark.parametrize(
    ("place", "named"),
    [
        (a_file, "is no directory"),
        (a_file_for_model, "holds model, which"),
        (a_file_in_model, "holds model/notes.txt, which"),
        (a_folder_in_model, "holds model/config.json, which"),
        (a_folder_for_plan, "holds plan, which"),
        (a_link_for_model, "holds model, which"),
    ],
)
def test_files_of_somebodys_own_in_a_conversions_place_are_left_and_named(
    place: Callable[[Path], Path], named: str, source: Path, tmp_path: Path
) -> None:
    kept = place(tmp_path / "ours.partial")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(b"1")
    with pytest.raises(OutputError, match=f"{named}.*move it away"):
        convert(str(source), tmp_path / "ours")
    assert kept.read_bytes() == b"1"


def test_a_plan_that_is_no_text_is_another_conversions(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "ours.partial").mkdir()
    (tmp_path / "ours.partial" / "plan").write_bytes(b"\xff\xfe")
    with pytest.raises(OutputError, match="beginning of another conversion"):
        convert(str(source), tmp_path / "ours")


def test_a_list_of_shards_that_is_no_text_lists_none(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
) -> None:
    with killed_at(monkeypatch, 100):
        convert(str(source), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    (tmp_path / "ours.partial" / "done").write_bytes(b"\xff\xfe")
    convert(str(source), tmp_path / "ours", shard_bytes=SHARD_BYTES)
    assert contents(tmp_path / "ours") == undisturbed


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
    monkeypatch.setattr(verify, "read", killed)
    assert main(arguments) == 0
    assert contents(tmp_path / "ours") == before
