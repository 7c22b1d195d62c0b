"""Writes a planned model: shard by shard, resumable, in place only when whole."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Container, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import mlx.core as mx
import numpy as np

from voxmlx.errors import CheckpointError, OutputError
from voxmlx.kernels.evaluation import as_numpy
from voxmlx.layouts import Module
from voxmlx.layouts.configs import Precision
from voxmlx.text.confidence_map import MAP_NAME

from .card import model_card
from .disk import check_room, disk_errors, sync, write_whole
from .manifest import MANIFEST_NAME, digest_of, write_manifest
from .plan import INDEX_NAME, Plan, Shard
from .rounding import Rounder
from .source import Source

__all__ = ["SCRATCH_PREFIX", "Advance", "HashingFile", "Output"]

Advance = Callable[[int], object]

# Room for the tokenizer, the card and the file system's own bookkeeping.
_SLACK_BYTES = 2**20

# Directories in DEST.partial for the logits of a --verify.
SCRATCH_PREFIX = "verify-"
# What else may be there: ours, and what a Mac puts where somebody has looked.
_DIRECTORIES = {"model", "rounded", "rounded.partial"}
_FILES = {
    *("plan", "plan.part", "done", "lock", ".DS_Store"),
    *("learned.safetensors", "begun-learned.safetensors"),
}
# The same in model/.
_DESCRIPTIONS = {
    *("config.json", "tekken.json", "README.md", "quality.json", ".DS_Store"),
    *(INDEX_NAME, MAP_NAME, MANIFEST_NAME),
}
_SHARD = re.compile(r"model-\d{5,}-of-\d{5,}\.safetensors")


class Output:
    """DEST in the making: DEST.partial holds its files and what is done of them.

    `model/` inside it gets config.json last, so nothing before that loads, and is
    renamed to DEST at the very end. `plan` says which conversion it belongs to,
    `done` which shards are whole, with their digests, `lock` who is at it.
    """

    def __init__(self, destination: Path, plan: Plan) -> None:
        self.destination = destination
        self.plan = plan
        # A path such as "." has no name of its own.
        whole = destination.absolute()
        self.partial = whole.parent / (whole.name + ".partial")
        self.model = self.partial / "model"
        # What DWQ makes before: see `dwq.py`.
        self.rounded = self.partial / "rounded"
        self.learned = self.partial / "learned.safetensors"
        self._plan_path = self.partial / "plan"
        self._done_path = self.partial / "done"
        self._lock_path = self.partial / "lock"
        self._digests: dict[str, str] = {}

    def finish_interrupted(self, is_wanted: Callable[[Path], bool]) -> bool:
        """Return whether DEST is whole and only the cleaning up was cut short.

        Where it is this conversion's and not what `is_wanted`, it is taken back, to be
        completed.
        """
        with disk_errors(self.destination, is_begun=False):
            if not self.destination.is_dir() or not self.partial.is_dir():
                return False
            if self._strangers():
                return False
        with disk_errors(self.destination), self._lock_path.open("w") as lock:
            if not _is_locked(lock) or self.model.exists():
                return False
            if not self._plan_path.is_file():
                self._clean_up()
                return False
            if self._plan_path.read_bytes() != self.plan.identity.encode():
                return False
            if is_wanted(self.destination):
                self._clean_up()
                return True
            self.destination.rename(self.model)
            return False

    def check_destination(self) -> None:
        """Raise OutputError when DEST exists."""
        with disk_errors(self.destination, is_begun=False):
            is_there = self.destination.exists() or self.destination.is_symlink()
        if is_there:
            raise OutputError(
                f"{self.destination} exists; remove it, or name another destination"
            )

    @contextmanager
    def opened(self) -> Generator[None]:
        """Hold DEST.partial for this process; take up what an earlier run left.

        Raises OutputError when DEST exists, when DEST.partial belongs to another
        conversion or is in use, and when there is no room. Where the source itself
        turns out to be unfit, nothing is left: nothing could be made of it.
        """
        self.check_destination()
        with disk_errors(self.destination, is_begun=False):
            is_begun = self.partial.exists()
            strangers = self._strangers()
            is_directory = self.partial.is_dir()
        if not is_begun:
            self._check_room()
        elif not is_directory:
            raise OutputError(
                f"{self.partial} is no directory; move it away, or name another "
                "destination"
            )
        elif strangers:
            raise OutputError(
                f"{self.partial} holds {min(strangers)}, which is not of a conversion; "
                "move it away, or name another destination"
            )
        with ExitStack() as stack:
            with disk_errors(self.destination, is_begun=is_begun):
                self.model.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context(self._lock_path.open("w"))
                if not _is_locked(lock):
                    raise OutputError(
                        f"{self.partial} is being written by another process; wait for "
                        "it, or name another destination"
                    )
                self._adopt()
            self._check_room()
            try:
                yield
            except CheckpointError as error:
                if not isinstance(error.__cause__, OSError):  # which may pass
                    shutil.rmtree(self.partial, ignore_errors=True)
                raise

    def _adopt(self) -> None:
        identity = self.plan.identity
        if not self._plan_path.exists():
            # Whose files these are, if there are any, nobody can tell.
            self._done_path.unlink(missing_ok=True)
            self._remove_all_but(())
            write_whole(self._plan_path, identity.encode())
        elif self._plan_path.read_bytes() != identity.encode():
            raise OutputError(
                f"{self.partial} holds the beginning of another conversion (another "
                "source, recipe, type or version); finish that one or remove it"
            )
        recorded: dict[str, str] = {}
        if self._done_path.exists():
            done = self._done_path.read_text(encoding="utf-8", errors="replace")
            for line in done.splitlines():
                digest, _, name = line.partition("  ")
                recorded[name] = digest
        for shard in self.plan.shards:
            path = self.model / shard.name
            if (
                shard.name in recorded
                and path.is_file()
                and path.stat().st_size == shard.n_bytes
                and digest_of(path) == recorded[shard.name]
            ):
                self._digests[shard.name] = recorded[shard.name]
        self._remove_all_but(self._digests)

    def _strangers(self) -> set[str]:
        """What DEST.partial and its model/ hold that we do not put there."""
        if not self.partial.is_dir():
            return set()
        found = {path.name for path in self.partial.iterdir() if not _is_ours(path)}
        if self.model.exists() and self.model.name not in found:
            inside = (path for path in self.model.iterdir() if not _is_of_model(path))
            found |= {f"{self.model.name}/{path.name}" for path in inside}
        return found

    def _remove_all_but(self, shards: Container[str]) -> None:
        for path in self.model.iterdir():
            if path.name not in shards:
                path.unlink()
        for path in self.partial.iterdir():
            if path.name.startswith(SCRATCH_PREFIX):
                shutil.rmtree(path)

    def _clean_up(self) -> None:
        """Remove DEST.partial; its plan last, which tells what is still to do."""
        for path in (self._done_path, self._lock_path, self._plan_path):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.partial)

    @property
    def n_missing_bytes(self) -> int:
        """Return the number of bytes still to be written."""
        return sum(s.n_bytes for s in self.plan.shards if s.name not in self._digests)

    def _check_room(self) -> None:
        n_bytes = self.n_missing_bytes + self.plan.tokenizer.n_bytes + _SLACK_BYTES
        check_room(self.partial, n_bytes)

    def write_weights(self, rounder: Rounder, advance: Advance) -> None:
        """Write the shards that are missing; `advance` hears of source bytes."""
        with (
            disk_errors(self.destination),
            Source(self.plan.files, self.plan.weights) as source,
        ):
            for shard in self.plan.shards:
                if shard.name in self._digests:
                    for module in _modules(shard):
                        advance(source.n_bytes(module))
                    continue
                self._write_shard(shard, source, rounder, advance)

    def _write_shard(
        self, shard: Shard, source: Source, rounder: Rounder, advance: Advance
    ) -> None:
        path = self.model / shard.name
        temporary = path.with_name(path.name + ".part")
        with temporary.open("wb", buffering=0) as raw:
            file = HashingFile(raw)
            file.write(shard.header)
            for module in _modules(shard):
                target = self.plan.precisions.get(module.path)
                for array in _converted(
                    source, module, target, self.plan.mx_dtype, rounder
                ):
                    file.write(_bytes_of(array))
                advance(source.n_bytes(module))
                source.release(module)
            os.fsync(raw.fileno())
        assert temporary.stat().st_size == shard.n_bytes
        temporary.rename(path)
        with self._done_path.open("a", encoding="utf-8") as done:
            done.write(f"{file.digest}  {shard.name}\n")
            done.flush()
            os.fsync(done.fileno())
        self._digests[shard.name] = file.digest

    def write_description(self, quality: dict[str, Any] | None = None) -> None:
        """Write everything but the weights; config.json, which makes it load, last."""
        plan = self.plan
        config_path = self.model / "config.json"
        config = _json(plan.config)
        tokenizer = plan.tokenizer.read()
        with disk_errors(self.destination):
            # What loads is whole, also while a certificate is being added to it.
            config_path.unlink(missing_ok=True)
            write_whole(self.model / "tekken.json", tokenizer)
            write_whole(self.model / INDEX_NAME, _json(plan.index))
            card = model_card(plan, self.destination.name, quality)
            write_whole(self.model / "README.md", card.encode())
            if quality is not None:
                write_whole(self.model / "quality.json", _json(quality))
                if (found := quality.get("confidence")) is not None:
                    write_whole(self.model / MAP_NAME, _json(found["map"]))
            digest = hashlib.sha256(config).hexdigest()
            write_manifest(self.model, {**self._digests, config_path.name: digest})
            write_whole(config_path, config)

    def publish(self) -> None:
        """Make DEST appear."""
        with disk_errors(self.destination):
            for path in self.model.iterdir():
                sync(path)
            sync(self.model)
            if self.destination.exists():
                raise OutputError(
                    f"{self.destination} has appeared meanwhile; the result is in "
                    f"{self.model}"
                )
            self.model.rename(self.destination)
            sync(self.destination.parent)
            self._clean_up()


def _is_ours(path: Path) -> bool:
    """Whether what lies in DEST.partial may be of a conversion."""
    is_directory = path.name in _DIRECTORIES or path.name.startswith(SCRATCH_PREFIX)
    if is_directory:
        return path.is_dir() and not path.is_symlink()
    return path.name in _FILES and path.is_file()


def _is_of_model(path: Path) -> bool:
    """Whether what lies in model/ may be of a conversion."""
    name = path.name.removesuffix(".part")
    is_named = name in _DESCRIPTIONS or _SHARD.fullmatch(name) is not None
    return is_named and path.is_file()


def _is_locked(lock: IO[str]) -> bool:
    """Whether this process has the lock, now that it has asked for it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _modules(shard: Shard) -> list[Module]:
    return list(
        {tensor.module.path: tensor.module for tensor in shard.tensors}.values()
    )


def _converted(
    source: Source,
    module: Module,
    target: Precision | None,
    dtype: mx.Dtype,
    rounder: Rounder,
) -> Iterator[mx.array]:
    """The module's tensors in file order, some rows at a time."""
    if target is None:
        yield from source.blocks(module, dtype)
    elif source.files.precisions.get(module.path) == target:
        for suffix in target.suffixes:
            yield source.whole(module, suffix, dtype)
    else:
        # Scales are a sixteenth of a matrix or less; they wait until it is written.
        scales: list[mx.array] = []
        biases: list[mx.array] = []
        round_rows = rounder.begin(module, target, source)
        for block in source.blocks(module, mx.float32):
            quantized = round_rows(block)
            scales.append(quantized.scales)
            if quantized.biases is not None:
                biases.append(quantized.biases)
            yield quantized.weight
        yield from scales
        yield from biases
    if module.has_bias:
        yield source.whole(module, "bias", dtype)


def _bytes_of(array: mx.array) -> memoryview:
    if array.dtype == mx.bfloat16:
        array = array.view(mx.uint16)
    return np.ascontiguousarray(as_numpy(array)).data.cast("B")


class HashingFile:
    """A file that remembers the digest of what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def write(self, content: bytes | memoryview) -> None:
        self._hash.update(content)
        rest = memoryview(content)
        while rest:
            rest = rest[self._file.write(rest) :]

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
