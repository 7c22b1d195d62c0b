"""DWQ lowers the distance to the source, by scales and biases alone."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from convert import distillation
from convert.__main__ import convert, main
from convert.distillation import distilled
from convert.model_reading import forced_together, heard
from convert.quality import Sound
from convert.rounding import RoundingName
from convert.student import Piece, Student, learnable, pieces_of
from tests.convert.interrupted import SHARD_BYTES, contents, killed_at
from tests.sounds import speech_like
from voxmlx import load
from voxmlx.kernels import kernel_switches
from voxmlx.layouts.recipes import DtypeName
from voxmlx.model import VoxtralRealtime


@pytest.fixture(scope="module")
def sounds() -> list[Sound]:
    return [
        Sound(str(i), speech_like(4000 + 1500 * i) * np.float32(1 - i / 8), None)
        for i in range(4)
    ]


@pytest.fixture(scope="module")
def pieces(source: Path, sounds: list[Sound]) -> list[Piece]:
    return pieces_of(load(source, "float32"), sounds)


@pytest.fixture(scope="module")
def rounded(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("rounded") / "ours"
    convert(str(source), directory, rounding="nearest")
    return directory


def test_the_listener_gives_the_logits_of_the_network(
    rounded: Path, sounds: list[Sound], pieces: list[Piece]
) -> None:
    checkpoint = load(rounded, "float32")
    expected: list[list[np.ndarray]] = [[] for _ in sounds]
    audio = heard(checkpoint, sounds)
    for i, rows in forced_together(checkpoint, audio, [p.ids for p in pieces]):
        expected[i].append(rows)
    learnable(checkpoint.model, "bfloat16")
    numbers = mx.array([[i] * 40 for i in range(len(pieces))])
    with kernel_switches().with_gradients():
        found = np.array(Student(checkpoint.model, pieces)(numbers))
    for of_one, parts in zip(found, expected, strict=True):
        rows = np.concatenate(parts)
        np.testing.assert_allclose(of_one[: len(rows)], rows, atol=1e-4)


def test_gradients_are_the_slopes_of_what_is_computed(
    source: Path, pieces: list[Piece], tmp_path: Path
) -> None:
    # Stored in float32 nothing is rounded, so a small step has an effect.
    convert(str(source), tmp_path / "ours", rounding="nearest", dtype="float32")
    network = load(tmp_path / "ours", "float32").model
    learnable(network, "float32")
    with kernel_switches().with_gradients():
        student = Student(network, pieces[:2])
        student.apply_to_modules(
            lambda _, m: m.unfreeze(keys=["scales", "biases"], recurse=False)
        )
        numbers = mx.array([[0] * 20, [1] * 20])
        pull = mx.random.normal(student(numbers).shape, key=mx.random.key(0))

        def pulled(parameters: dict) -> mx.array:
            student.update(parameters)
            return (student(numbers) * pull).sum()

        parameters = student.trainable_parameters()
        slopes = mx.grad(pulled)(parameters)
        along = tree_map(
            lambda x: mx.random.normal(x.shape, key=mx.random.key(x.size)), parameters
        )
        products: Any = tree_flatten(
            tree_map(lambda a, b: (a * b).sum(), slopes, along)
        )
        expected = sum(float(product) for _, product in products)
        high, low = (
            float(pulled(tree_map(lambda x, d: x + h * d, parameters, along)))  # noqa: B023
            for h in (2e-4, -2e-4)
        )
    assert (high - low) / 4e-4 == pytest.approx(expected, rel=0.02)


def test_what_is_learned_is_closer_to_the_source(
    rounded: Path, pieces: list[Piece]
) -> None:
    def divergence(network: VoxtralRealtime) -> float:
        with kernel_switches().with_gradients():
            learnable(network, "bfloat16")
            return Student(network, pieces).divergence(range(4), 2)

    before = load(rounded, "float32").model
    kept = {path: m.scales for path, m in before.named_modules() if "scales" in m}
    found = distilled(
        load(rounded, "float32").model,
        pieces,
        "bfloat16",
        {"decoder.layers.0.mlp.down_proj"},
        saves_memory=False,
        epochs=4,
        rate=1e-3,
        batch=3,
    )
    after = load(rounded, "float32").model
    modules = dict(after.named_modules())
    for path, (scales, biases) in found.items():
        assert scales.dtype == biases.dtype == mx.bfloat16
        modules[path].scales = scales.astype(mx.float32)
        modules[path].biases = biases.astype(mx.float32)
    moved = {
        path for path, (x, _) in found.items() if not mx.array_equal(x, kept[path])
    }
    assert moved == set(kept) - {"decoder.layers.0.mlp.down_proj"}
    assert divergence(after) < 0.8 * divergence(before)


def test_nothing_moves_where_nothing_is_gained(
    rounded: Path, pieces: list[Piece]
) -> None:
    network = load(rounded, "float32").model
    kept = {path: m.scales for path, m in network.named_modules() if "scales" in m}
    found = distilled(
        network, pieces, "bfloat16", saves_memory=True, epochs=1, rate=3.0, batch=2
    )
    assert found.keys() == kept.keys()
    for path, (scales, _) in found.items():
        assert mx.array_equal(scales, kept[path])


def test_a_killed_conversion_goes_on_to_the_same_bytes(
    source: Path,
    tmp_path: Path,
    sounds: list[Sound],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(name: str, rounding: RoundingName = "dwq") -> dict[str, bytes]:
        convert(
            str(source),
            tmp_path / name,
            rounding=rounding,
            calibration=sounds[:2],
            shard_bytes=SHARD_BYTES,
        )
        made = contents(tmp_path / name)
        return {k: v for k, v in made.items() if k.startswith(("model", "config"))}

    n_learned = 0

    def doubled(network: VoxtralRealtime, *_: object, **__: object) -> object:
        nonlocal n_learned
        n_learned += 1
        stored = {k: m.stored() for k, m in learnable(network, "bfloat16").items()}
        return {path: (2 * scales, biases) for path, (scales, biases) in stored.items()}

    monkeypatch.setattr("convert.dwq.distilled", doubled)
    whole = run("ours")
    assert b'"rounding": "dwq"' in whole["config.json"]
    assert not (tmp_path / "ours.partial").exists()
    # While GPTQ writes, while the result is written, and once more.
    for n in (40, 120, 30):
        with killed_at(monkeypatch, n):
            run("again")
    assert run("again") == whole
    assert n_learned == 2  # once for each of both
    # The codes are GPTQ's, and so are the biases.
    run("gptq", "gptq")
    ours, gptq = (load(tmp_path / name, "float32").model for name in ("ours", "gptq"))
    by_path = dict(gptq.named_modules())
    for path, module in ours.named_modules():
        if "scales" in module:
            for name, factor in (("weight", 1), ("scales", 2), ("biases", 1)):
                expected = factor * by_path[path][name]
                assert mx.array_equal(module[name], expected), (path, name)


def test_matrices_that_learn_nothing_stay_as_they_were_rounded(
    monkeypatch: pytest.MonkeyPatch,
    source: Path,
    tmp_path: Path,
    sounds: list[Sound],
) -> None:
    # awni/voxmlx has the delay's matrices quantized too, which run once per stream.
    def unchanged(
        network: VoxtralRealtime,
        _pieces: object,
        dtype: DtypeName,
        fixed: Collection[str],
        **_options: object,
    ) -> dict[str, tuple[mx.array, mx.array]]:
        products = learnable(network, dtype, fixed)
        return {path: product.stored() for path, product in products.items()}

    monkeypatch.setattr("convert.__main__.check_mlx_lm", lambda: None)
    monkeypatch.setattr("convert.dwq.distilled", unchanged)
    weights: list[bytes] = []
    roundings: tuple[RoundingName, ...] = ("gptq", "dwq")
    for rounding in roundings:
        made = tmp_path / rounding
        convert(
            str(source),
            made,
            rounding=rounding,
            calibration=sounds[:1],
            layout="awni",
        )
        load(made, "float32")
        (path,) = made.glob("*.safetensors")
        weights.append(path.read_bytes())
    assert weights[0] == weights[1]


def test_without_mlx_lm_there_is_one_line(
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(distillation, "find_spec", lambda _: None)
    destination = tmp_path / "ours"
    arguments = [str(source), str(destination), "--rounding", "dwq"]
    assert main([*arguments, "--calibrate", "demo"]) == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert 'pip install "voxmlx-realtime[convert]"' in text
    assert list(tmp_path.iterdir()) == []
