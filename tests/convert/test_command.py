"""The command: one line for every mistake, and what it says when it works."""

from importlib import metadata
from pathlib import Path
from typing import Any

import huggingface_hub
import mlx.core as mx
import pytest
from huggingface_hub.errors import HFValidationError

from convert.__main__ import convert, main
from tests.convert.directories import read_tensors
from voxmlx.layouts.recipes import RECIPES


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    return text


def refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2


def test_an_unknown_recipe_lists_the_known_ones(
    capsys: pytest.CaptureFixture[str], source: Path, tmp_path: Path
) -> None:
    refused([str(source), str(tmp_path / "ours"), "--recipe", "q5"])
    line = one_line(capsys)
    assert "no recipe 'q5'" in line
    assert ", ".join(RECIPES) in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "SOURCE and DEST are required"),
        (["a"], "SOURCE and DEST are required"),
        (["a", "--check", "b"], "takes no SOURCE"),
        (["a", "b", "--recipe", "bf16", "--dtype", "float16"], "stores bfloat16"),
        (["a", "b", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["a", "b", "--shard-size", "0MB"], "'0MB' is nothing"),
        (["a", "b", "--shard-size", "much"], "'much' is no size"),
        (["a", ""], "the name is empty; name a directory"),
        (["--check", ""], "the name is empty; name a directory"),
        (["a", "b", "--rounding", "gptq", "--calibrate", ""], "the name is empty"),
        (["a", "b", "--reference-dtype", "float32"], "is for --verify"),
        (["--check", "a", "--recipe", "q8"], "leave --recipe out"),
        (["--check", "a", "--verify", "b.wav"], "leave --verify out"),
    ],
)
def test_wrong_arguments_are_one_line_and_status_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(arguments)
    assert expected in one_line(capsys)


def test_a_directory_that_is_no_model_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty"), str(tmp_path / "ours")]) == 1
    assert "params.json is missing" in one_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_an_existing_destination_is_one_line(
    capsys: pytest.CaptureFixture[str], source: Path, tmp_path: Path
) -> None:
    assert main([str(source), str(tmp_path)]) == 1
    assert "exists; remove it" in one_line(capsys)


@pytest.mark.parametrize("destination", [".", "..", "/", "~"])
def test_a_destination_without_a_name_is_one_line(
    destination: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(source), destination]) == 1
    assert "exists; remove it" in one_line(capsys)
    assert not list(tmp_path.iterdir())


def test_a_place_where_nothing_can_be_made_is_one_line(
    capsys: pytest.CaptureFixture[str], source: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(source), str(tmp_path / "file" / "ours")]) == 1
    line = one_line(capsys)
    assert "Not a directory; name another destination" in line


TOO_LONG = "a" * 300


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["{source}", TOO_LONG], "File name too long; name another destination"),
        # With ".partial" behind it, it is too long.
        (["{source}", TOO_LONG[:250]], "File name too long; name another destination"),
        ([TOO_LONG, "ours"], "File name too long; name another model directory"),
        (["~nobody-of-that-name/model", "ours"], "no directory '~nobody-of-that-name"),
        (["--check", TOO_LONG], "File name too long"),
        (["--check", "~nobody-of-that-name/model"], "SHA256SUMS is missing"),
        (["--check", "{source}/params.json"], "wants a directory that convert has"),
        (
            ["{source}", "ours", "--rounding", "gptq", "--calibrate", TOO_LONG],
            "File name too long",
        ),
        (
            ["{source}", "ours", "--rounding", "gptq", "--calibrate", "./generated"],
            "generated does not exist",
        ),
    ],
)
def test_a_path_that_cannot_be_is_one_line(
    arguments: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([text.format(source=source) for text in arguments]) == 1
    assert expected in one_line(capsys)
    assert not list(tmp_path.iterdir())


def test_a_destination_in_the_home_of_nobody_is_a_folder_of_that_name(
    monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([str(source), "~nobody-of-that-name"]) == 0
    assert main(["--check", "./~nobody-of-that-name"]) == 0


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty; fetch"),
        (b"\xff\xfe", "is no text, expected digests and names; fetch"),
        (b"0\n", "has the line '0', expected a digest and a name; fetch"),
        (b"0" * 64 + b"  " + TOO_LONG.encode() + b"\n", "File name too long"),
        (b"0" * 64 + b"  ..\n", ".. is missing"),
    ],
)
def test_checksums_that_are_damaged_are_one_line(
    content: bytes,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "SHA256SUMS").write_bytes(content)
    assert main(["--check", str(tmp_path)]) == 1
    assert expected in one_line(capsys)


def test_check_accepts_what_was_written_and_names_what_changed(
    capsys: pytest.CaptureFixture[str], source: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "ours"
    assert main([str(source), str(directory)]) == 0
    capsys.readouterr()
    assert main(["--check", str(directory)]) == 0
    assert "5 files agree" in capsys.readouterr().out
    shard = next(directory.glob("model-*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert main(["--check", str(directory)]) == 1
    assert f"{shard.name} is damaged" in one_line(capsys)
    shard.unlink()
    assert main(["--check", str(directory)]) == 1
    assert f"{shard.name} is missing" in one_line(capsys)
    assert main(["--check", str(source)]) == 1
    assert "SHA256SUMS is missing" in one_line(capsys)


class FakeApi:
    """Stands in for HfApi: a Hub that remembers, or refuses."""

    calls: list[tuple[str, Any]] = []  # noqa: RUF012 -- shared on purpose
    error: Exception | None = None

    def create_repo(self, repo_id: str, *, exist_ok: bool) -> str:
        if FakeApi.error is not None:
            raise FakeApi.error
        assert exist_ok
        FakeApi.calls.append(("create", repo_id))
        return f"https://hub/{repo_id}"

    def upload_folder(
        self, *, repo_id: str, folder_path: Path, commit_message: str
    ) -> None:
        assert commit_message
        names = sorted(path.name for path in Path(folder_path).iterdir())
        FakeApi.calls.append((repo_id, names))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    FakeApi.calls, FakeApi.error = [], None
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    return FakeApi


def test_an_upload_creates_the_repository_and_sends_every_file(
    hub: type[FakeApi], source: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "ours"
    assert main([str(source), str(directory), "--upload", "me/model"]) == 0
    names = sorted(path.name for path in directory.iterdir())
    assert hub.calls == [("create", "me/model"), ("me/model", names)]
    assert "config.json" in names


def test_without_a_token_nothing_is_converted(
    hub: type[FakeApi],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert main([str(source), str(tmp_path / "ours"), "--upload", "me/model"]) == 1
    assert "hf auth login" in one_line(capsys)
    assert not list(tmp_path.iterdir())
    assert not hub.calls


def test_a_failed_upload_keeps_the_model_and_says_how_to_go_on(
    hub: type[FakeApi],
    capsys: pytest.CaptureFixture[str],
    source: Path,
    tmp_path: Path,
) -> None:
    hub.error = HFValidationError("bad name\nsecond line")
    assert main([str(source), str(tmp_path / "ours"), "--upload", "me//x"]) == 1
    line = capsys.readouterr().err
    assert "failed: bad name; the model is whole" in line
    assert main(["--check", str(tmp_path / "ours")]) == 0


def test_the_card_names_a_hub_source_and_hides_a_local_path(
    monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    convert(str(source), tmp_path / "local")
    card = (tmp_path / "local" / "README.md").read_text()
    assert str(source.parent) not in card
    assert "base_model" not in card
    monkeypatch.setattr("convert.__main__.locate", lambda _: source)
    convert("mistralai/Voxtral", tmp_path / "hub")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "base_model: mistralai/Voxtral\n" in card


def test_a_folder_that_pip_does_not_know_converts_and_says_so(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    assert main([str(source), str(tmp_path / "ours")]) == 0
    card = (tmp_path / "ours" / "README.md").read_text("utf-8")
    assert "0+unknown" in card


def test_files_of_weights_are_as_small_as_asked_for(
    source: Path, tmp_path: Path
) -> None:
    n_files: list[int] = []
    weights: list[dict[str, mx.array]] = []
    for size in ("1GB", "20KB"):
        result = tmp_path / size
        assert main([str(source), str(result), "--shard-size", size]) == 0
        files = sorted(result.glob("*.safetensors"))
        n_files.append(len(files))
        weights.append({k: v for f in files for k, v in read_tensors(f).items()})
    assert n_files[0] == 1 < n_files[1]
    one, many = weights
    assert one.keys() == many.keys()
    assert all(mx.array_equal(one[name], many[name]) for name in one)
