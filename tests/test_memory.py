"""What MLX may wire and keep, and what loading takes."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import psutil
import pytest
from mlx.utils import tree_flatten

import convert.verify
from convert.__main__ import convert as make
from tests.tiny import TinyModel
from voxmlx import MemoryLimits, demo, limit_memory, load
from voxmlx.checkpoint import DtypeName
from voxmlx.cli import arguments as cli
from voxmlx.doctor import __main__ as doctor
from voxmlx.memory import give_back_memory, peak_bytes

GB = 10**9
MB = 2**20


class FakeMetal:
    """Metal with so many usable bytes, as far as `limit_memory` asks and sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, usable: int, held: int) -> None:
        self.calls: list[tuple[str, int]] = []
        monkeypatch.setattr(mx.metal, "is_available", lambda: True)
        monkeypatch.setattr(
            mx, "device_info", lambda: {"max_recommended_working_set_size": usable}
        )
        monkeypatch.setattr(mx, "get_active_memory", lambda: held)
        for name in ("set_wired_limit", "set_cache_limit"):
            monkeypatch.setattr(mx, name, self._noting(name))

    def _noting(self, name: str) -> Callable[[int], int]:
        def note(limit: int) -> int:
            self.calls.append((name, limit))
            return 0

        return note


@pytest.mark.parametrize(
    ("usable", "held", "cache"),
    [
        (5_726_000_000, 2_700_000_000, 3_026_000_000 // 8),  # 8 GB
        (5_726_000_000, 5_700_000_000, 128 * MB),  # hardly room
        (5_726_000_000, 8_900_000_000, 128 * MB),  # no room
        (96 * GB, 3 * GB, 1024 * MB),
    ],
)
def test_limits_follow_from_the_machine_and_from_what_is_loaded(
    monkeypatch: pytest.MonkeyPatch, usable: int, held: int, cache: int
) -> None:
    metal = FakeMetal(monkeypatch, usable, held)
    assert limit_memory() == MemoryLimits(usable, cache)
    assert metal.calls == [("set_wired_limit", usable), ("set_cache_limit", cache)]


def test_without_metal_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    metal = FakeMetal(monkeypatch, GB, 0)
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    assert limit_memory() is None
    assert metal.calls == []


def test_every_command_sets_them_after_it_has_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[str] = []
    for module in (cli, doctor, convert.verify):
        monkeypatch.setattr(module, "limit_memory", lambda: steps.append("limit"))
        real = module.load

        def noted(*names: Any, real: Any = real, **options: Any) -> Any:
            steps.append("load")
            return real(*names, **options)

        monkeypatch.setattr(module, "load", noted)
    parser = cli.CommandParser("x")
    cli.add_model_arguments(parser)
    cli.load_model(parser.parse_args(["--demo"]))
    assert steps == ["load", "limit"]
    monkeypatch.setattr(doctor, "measure_kernels", lambda *_, **__: [])
    monkeypatch.setattr(doctor, "step_times", lambda *_: None)
    doctor.examine(demo.NAME)
    assert steps == ["load", "limit"] * 2


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated model of many layers, so that no tensor is a tenth of it."""
    directory = tmp_path_factory.mktemp("models")
    model = TinyModel(
        encoder_layers=16, decoder_layers=24, decoder_hidden_dim=512, vocab_size=1240
    )
    return model.write(directory / "deep")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("recipe", [None, "q4"])
def test_loading_takes_a_tenth_more_than_the_weights_at_most(
    deep: Path, tmp_path: Path, dtype: DtypeName, recipe: str | None
) -> None:
    source = deep
    if recipe is not None:
        source = tmp_path / "made"
        make(str(deep), source, recipe=recipe, rounding="nearest")
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    checkpoint = load(source, dtype)
    peak = mx.get_peak_memory() - before
    flat: Any = tree_flatten(checkpoint.model.parameters())
    kept = sum(array.nbytes for _, array in flat)
    assert kept <= peak <= 1.1 * kept


def test_little_is_kept_of_what_is_freed_while_weights_are_read(
    tiny_checkpoint_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []

    def note(limit: int) -> int:
        limits.append(limit)
        return 5 * GB

    monkeypatch.setattr(mx, "set_cache_limit", note)
    load(tiny_checkpoint_dir, "float32")
    assert limits == [64 * MB, 5 * GB]


@pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this C library is not glibc"
)
def test_the_system_gets_back_what_lies_between_what_is_used() -> None:
    process = psutil.Process()
    # Small enough for the C library's heap, too large for Python's own.
    blocks = [bytes(2000) for _ in range(30_000)]
    kept = blocks[::1000]
    blocks.clear()
    before = process.memory_info().rss
    give_back_memory()
    assert process.memory_info().rss < before - 40 * MB
    assert all(len(block) == 2000 for block in kept)


def test_a_process_is_not_told_the_memory_of_who_started_it() -> None:
    """Linux hands `ru_maxrss` down to programs that a large process starts."""
    large = np.ones(50_000_000)
    code = "from voxmlx.memory import peak_bytes; print(peak_bytes())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 10e6 < int(done.stdout) < large.nbytes
    assert peak_bytes() > large.nbytes
