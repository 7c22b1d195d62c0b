"""Hub ids: the cache first, then the network, then one clear line."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from voxmlx.errors import CheckpointError
from voxmlx.hub import MISTRAL_FILES, locate
from voxmlx.text.confidence_map import MAP_NAME


class FakeHub:
    """Stands in for snapshot_download: a cache, and what the network answers."""

    def __init__(self, cached: Path | None, online: Path | Exception) -> None:
        self.cached, self.online = cached, online
        self.n_network = 0

    def __call__(
        self,
        repo_id: str,
        *,
        allow_patterns: list[str],
        local_files_only: bool = False,
    ) -> str:
        assert sorted(allow_patterns) == sorted([*MISTRAL_FILES, MAP_NAME])
        if local_files_only:
            if self.cached is None:
                raise LocalEntryNotFoundError(repo_id)
            return str(self.cached)
        self.n_network += 1
        if isinstance(self.online, Exception):
            raise self.online
        return str(self.online)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    for name in MISTRAL_FILES:
        (tmp_path / name).touch()
    return tmp_path


def use(monkeypatch: pytest.MonkeyPatch, hub: FakeHub) -> FakeHub:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    return hub


def without_response(kind: type[Exception]) -> Exception:
    """These errors want an HTTP response; none of it is read here."""
    return kind.__new__(kind)  # pyright: ignore[reportCallIssue]


def test_a_directory_is_itself(tmp_path: Path) -> None:
    assert locate(tmp_path) == tmp_path


def test_an_empty_name_is_not_the_working_directory(
    tiny_checkpoint_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_checkpoint_dir)
    assert locate(".") == Path()
    with pytest.raises(CheckpointError, match="no directory '', and it is no Hub id"):
        locate("")


def test_a_complete_cached_copy_needs_no_network(
    monkeypatch: pytest.MonkeyPatch, snapshot: Path
) -> None:
    hub = use(monkeypatch, FakeHub(snapshot, OSError("no network")))
    assert locate("some/model") == snapshot
    assert hub.n_network == 0


def test_an_incomplete_cached_copy_is_completed(
    monkeypatch: pytest.MonkeyPatch, snapshot: Path, tmp_path_factory: Any
) -> None:
    hub = use(monkeypatch, FakeHub(tmp_path_factory.mktemp("partial"), snapshot))
    assert locate("some/model") == snapshot
    assert hub.n_network == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (without_response(RepositoryNotFoundError), "neither a directory here nor"),
        (without_response(GatedRepoError), "asks for consent"),
        (LocalEntryNotFoundError("offline"), "the Hub cannot be reached"),
        (
            OSError("disk full\nsecond line"),
            "downloading some/model failed: disk full$",
        ),
    ],
)
def test_each_failure_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, answer: Exception, expected: str
) -> None:
    use(monkeypatch, FakeHub(None, answer))
    with pytest.raises(CheckpointError, match=expected) as raised:
        locate("some/model")
    assert "\n" not in str(raised.value)


def test_a_repository_of_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, FakeHub(None, tmp_path))
    with pytest.raises(CheckpointError, match=r"has no params\.json, consolidated"):
        locate("some/model")
