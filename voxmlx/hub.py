"""A model's name -> a local directory, downloaded from the Hub if need be."""

import os
import re
from pathlib import Path
from typing import Any

from voxmlx import demo
from voxmlx.errors import CheckpointError
from voxmlx.layouts import weight_paths
from voxmlx.text.confidence_map import MAP_NAME

__all__ = ["MISTRAL_FILES", "MLX_FILES", "locate"]

MISTRAL_FILES = ("params.json", "consolidated.safetensors", "tekken.json")

# The other layouts', asked for only where there is no consolidated.safetensors: the
# original repository holds the weights twice.
MLX_FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tekken.json",
    MAP_NAME,
)

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def locate(model: str | Path) -> Path:
    """The directory of `model`: itself, a Hub id's snapshot, or "demo"'s.

    "demo" is the tiny model in the package; a directory of that name is "./demo".
    A snapshot that is already in the cache is used without a network; a download
    shows huggingface_hub's progress bars and resumes where it broke off.
    Raises CheckpointError when there is neither.
    """
    if model == demo.NAME:
        return demo.DIRECTORY
    # Unlike Path's, this leaves the name of an unknown user as it is.
    path = Path(os.path.expanduser(model))
    try:
        # Path makes the working directory of "", which a script's empty variable gives.
        is_there = model != "" and path.exists()
        is_directory = is_there and path.is_dir()
    except OSError as error:
        raise CheckpointError(
            f"{model} cannot be read: {error.strerror}; name another model directory"
        ) from None
    if is_directory:
        return path
    if is_there:
        raise CheckpointError(
            f"{model} is a file; name the directory that holds {', '.join(MISTRAL_FILES)}"
        )
    if not _HUB_ID.fullmatch(str(model)):
        raise CheckpointError(
            f"no directory {str(model)!r}, and it is no Hub id either; give a model "
            "directory, an id such as mlx-community/Voxtral-Mini-4B-Realtime-2602-4bit, "
            "or demo"
        )
    return _download(str(model))


def _download(repo_id: str) -> Path:
    # Local imports: the network client must not load with the package.
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    # Not all of its parameters have types.
    hub: Any = huggingface_hub
    files: list[str] = list(MISTRAL_FILES)
    wanted = [*files, MAP_NAME]
    try:
        cached = Path(
            hub.snapshot_download(repo_id, allow_patterns=wanted, local_files_only=True)
        )
        if _is_complete(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise CheckpointError(f"{repo_id!r} is no Hub id: {error}") from None
    try:
        found = Path(hub.snapshot_download(repo_id, allow_patterns=wanted))
        if not (found / files[1]).is_file() and (found / "tekken.json").is_file():
            found = Path(hub.snapshot_download(repo_id, allow_patterns=list(MLX_FILES)))
    except GatedRepoError:
        raise CheckpointError(
            f"{repo_id} asks for consent: accept its terms on its Hub page, then run "
            "`hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise CheckpointError(
            f"{repo_id} is neither a directory here nor a repository on the Hub; check "
            "the spelling, or run `hf auth login` if it is private"
        ) from None
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{repo_id} is no directory here, is not in the Hub cache, and the Hub "
            "cannot be reached; check the network, or name a model directory"
        ) from None
    except (HfHubHTTPError, OSError) as error:
        reason = (
            str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        )
        raise CheckpointError(f"downloading {repo_id} failed: {reason}") from None
    if _is_complete(found):
        return found
    missing = [name for name in files if not (found / name).is_file()]
    raise CheckpointError(
        f"{repo_id} has no {', '.join(missing)}, nor config.json, model.safetensors and "
        "tekken.json; it is no Voxtral Realtime model"
    )


def _is_complete(directory: Path) -> bool:
    """Whether every file of some layout is there."""
    if not (directory / "tekken.json").is_file():
        return False
    if (directory / MISTRAL_FILES[1]).is_file():
        return (directory / MISTRAL_FILES[0]).is_file()
    if not (directory / "config.json").is_file():
        return False
    try:
        return bool(weight_paths(directory))
    except CheckpointError:
        return False
