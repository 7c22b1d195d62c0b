"""Writes a planned model: shard by shard, resumable, in place only when whole."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import mlx.core as mx
import numpy as np

from convert.card import model_card
from convert.manifest import digest_of, write_manifest
from convert.plan import INDEX_NAME, Plan, Shard
from convert.source import Source
from voxmlx.errors import OutputError
from voxmlx.layouts import Module
from voxmlx.layouts.configs import Precision

__all__ = ["Output", "check_room", "disk_errors"]

Advance = Callable[[int], object]

# Room for the tokenizer, the card and the file system's own bookkeeping.
_SLACK_BYTES = 2**20


class Output:
    """DEST in the making: DEST.partial holds its files and what is done of them.

    `model/` inside it gets config.json last, so nothing before that loads, and is
    renamed to DEST at the very end. `plan` says which conversion it belongs to,
    `done` which shards are whole, with their digests.
    """

    def __init__(self, destination: Path, plan: Plan) -> None:
        self.destination = destination
        self.plan = plan
        self.partial = destination.with_name(destination.name + ".partial")
        self.model = self.partial / "model"
        self._plan_path = self.partial / "plan"
        self._done_path = self.partial / "done"
        self._digests: dict[str, str] = {}

    def finish_interrupted(self) -> bool:
        """Whether DEST is there and whole, and only the cleaning up was cut short."""
        is_ours = (
            self.destination.is_dir()
            and self._plan_path.is_file()
            and not self.model.exists()
            and self._plan_path.read_text(encoding="utf-8") == self.plan.identity
        )
        if is_ours:
            shutil.rmtree(self.partial)
        return is_ours

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold DEST.partial for this process; take up what an earlier run left.

        Raises OutputError when DEST exists, when DEST.partial belongs to another
        conversion or is in use, and when there is no room.
        """
        if self.destination.exists() or self.destination.is_symlink():
            raise OutputError(
                f"{self.destination} exists; remove it, or name another destination"
            )
        with disk_errors(self.destination):
            self.model.mkdir(parents=True, exist_ok=True)
            with (self.partial / "lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise OutputError(
                        f"{self.partial} is being written by another process; wait for "
                        "it, or name another destination"
                    ) from None
                self._adopt()
                self._check_room()
                yield

    def _adopt(self) -> None:
        identity = self.plan.identity
        if not self._plan_path.exists():
            _write_whole(self._plan_path, identity.encode())
        elif self._plan_path.read_text(encoding="utf-8") != identity:
            raise OutputError(
                f"{self.partial} holds the beginning of another conversion (another "
                "source, recipe, type or version); finish that one or remove it"
            )
        recorded: dict[str, str] = {}
        if self._done_path.exists():
            for line in self._done_path.read_text(encoding="utf-8").splitlines():
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
        for path in self.model.iterdir():
            if path.name not in self._digests:
                path.unlink()

    @property
    def n_missing_bytes(self) -> int:
        """What is still to be written."""
        return sum(s.n_bytes for s in self.plan.shards if s.name not in self._digests)

    def _check_room(self) -> None:
        tokenizer = self.plan.files.tokenizer_path.stat().st_size
        check_room(self.partial, self.n_missing_bytes + tokenizer + _SLACK_BYTES)

    def write_weights(self, advance: Advance) -> None:
        """Write the shards that are missing; `advance` hears of source bytes."""
        source = Source(self.plan.files)
        with disk_errors(self.destination):
            for shard in self.plan.shards:
                if shard.name in self._digests:
                    for module in _modules(shard):
                        advance(source.n_bytes(module))
                    continue
                self._write_shard(shard, source, advance)

    def _write_shard(self, shard: Shard, source: Source, advance: Advance) -> None:
        path = self.model / shard.name
        temporary = path.with_name(path.name + ".part")
        with temporary.open("wb", buffering=0) as raw:
            file = _Hashing(raw)
            file.write(shard.header)
            for module in _modules(shard):
                target = self.plan.precisions.get(module.path)
                for array in _converted(source, module, target, self.plan.mx_dtype):
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
        with disk_errors(self.destination):
            # What loads is whole, also while a certificate is being added to it.
            config_path.unlink(missing_ok=True)
            shutil.copyfile(plan.files.tokenizer_path, self.model / "tekken.json")
            _write_whole(self.model / INDEX_NAME, _json(plan.index))
            card = model_card(plan, self.destination.name, quality)
            _write_whole(self.model / "README.md", card.encode())
            if quality is not None:
                _write_whole(self.model / "quality.json", _json(quality))
            digest = hashlib.sha256(config).hexdigest()
            write_manifest(self.model, {**self._digests, config_path.name: digest})
            _write_whole(config_path, config)

    def publish(self) -> None:
        """Make DEST appear."""
        with disk_errors(self.destination):
            for path in self.model.iterdir():
                _sync(path)
            _sync(self.model)
            if self.destination.exists():
                raise OutputError(
                    f"{self.destination} has appeared meanwhile; the result is in "
                    f"{self.model}"
                )
            self.model.rename(self.destination)
            _sync(self.destination.parent)
            shutil.rmtree(self.partial)


def _modules(shard: Shard) -> list[Module]:
    return list(
        {tensor.module.path: tensor.module for tensor in shard.tensors}.values()
    )


def _converted(
    source: Source, module: Module, target: Precision | None, dtype: mx.Dtype
) -> Iterator[mx.array]:
    """The module's tensors in file order, some rows at a time."""
    if target is None:
        yield from source.blocks(module, dtype)
    elif source.files.precisions.get(module.path) == target:
        for suffix in ("weight", "scales", "biases"):
            yield source.whole(module, suffix, dtype)
    else:
        # Scales are a sixteenth of a matrix or less; they wait until it is written.
        scales: list[mx.array] = []
        biases: list[mx.array] = []
        for block in source.blocks(module, dtype):
            weight, scale, bias = mx.quantize(
                block, group_size=target.group_size, bits=target.bits
            )
            mx.eval(weight, scale, bias)
            scales.append(scale)
            biases.append(bias)
            yield weight
        yield from scales
        yield from biases
    if module.has_bias:
        yield source.whole(module, "bias", dtype)


def _bytes_of(array: mx.array) -> memoryview:
    if array.dtype == mx.bfloat16:
        array = array.view(mx.uint16)
    return np.ascontiguousarray(np.array(array, copy=False)).data.cast("B")


class _Hashing:
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


def check_room(place: Path, n_bytes: int, purpose: str = "") -> None:
    """Raises OutputError unless `n_bytes` fit where `place` is."""
    free = shutil.disk_usage(place).free
    if free < n_bytes:
        raise OutputError(
            f"{place} has {free / 1e9:.2f} GB free and {n_bytes / 1e9:.2f} GB are "
            f"needed{purpose}; make room, or name another place"
        )


@contextmanager
def disk_errors(destination: Path) -> Iterator[None]:
    """What the file system refuses, as one line. Raises OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{destination} cannot be written: {error.strerror or error}; what is done "
            "is kept, so the same command goes on from here"
        ) from None


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    _sync(temporary)
    temporary.rename(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with suppress(PermissionError):  # some file systems sync no directories
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
