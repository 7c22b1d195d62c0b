"""The tied embedding's inputs, guessed: rows times the last norm, PAD and WORD most."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np
import pytest

from convert.__main__ import main
from convert.affine import Floats, dequantized
from convert.gptq import Inputs, gptq
from convert.model_reading import forced_together, free_ids, heard
from convert.products import replaced_weight
from convert.quality import read_sounds
from convert.search import search
from convert.tied_embedding import guessed_hessian
from voxmlx import demo, load
from voxmlx.config import STREAMING_PAD_ID, STREAMING_WORD_ID
from voxmlx.layouts.configs import Precision

THREE = Precision(3, 64)


def embedding(n_rows: int = 80, dim: int = 64) -> tuple[Floats, Floats]:
    """Random rows, and weights of a norm."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((n_rows, dim)).astype(np.float32) + np.float32(0.5)
    return rows, rng.uniform(0.1, 2, dim).astype(np.float32)


def blocks(rows: Floats, *ends: int) -> Iterator[mx.array]:
    return (mx.array(part) for part in np.split(rows, ends))


def test_rows_times_the_norm_and_twice_a_fifth_for_pad_and_word() -> None:
    rows, norm = embedding()
    expected = np.zeros((64, 64))
    normed = rows.astype(np.float64) * norm
    expected += normed.T @ normed / (normed**2).sum()
    for token_id in (STREAMING_PAD_ID, STREAMING_WORD_ID):
        direction = norm * (rows[token_id] - rows.mean(0, dtype=np.float64))
        expected += 0.2 * np.outer(direction, direction) / (direction @ direction)
    found = np.array(guessed_hessian(blocks(rows), norm))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("ends", [(1,), (32, 33, 34), (33,), (10, 79)])
def test_it_is_the_same_however_the_rows_come(ends: tuple[int, ...]) -> None:
    rows, norm = embedding()
    whole = np.array(guessed_hessian(blocks(rows), norm))
    cut = np.array(guessed_hessian(blocks(rows, *ends), norm))
    np.testing.assert_allclose(cut, whole, atol=1e-7)


@pytest.mark.parametrize("n_rows", [1, 33])
def test_a_vocabulary_without_pad_or_word_has_a_guess(n_rows: int) -> None:
    rows, norm = embedding(n_rows)
    assert np.isfinite(np.array(guessed_hessian(blocks(rows), norm))).all()


def test_rows_of_zeros_can_be_rounded_by_it() -> None:
    rows, norm = embedding()
    inputs = Inputs.guessed(blocks(0 * rows), norm)
    found = gptq(0 * rows, inputs, THREE, "bfloat16")
    assert not dequantized(found).any()


@pytest.mark.parametrize("factor", [1e20, 1e25, 1e35])
def test_rows_too_large_to_be_guessed_from_are_one_line_and_leave_nothing(
    factor: float,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    directory = tmp_path / "huge"
    shutil.copytree(source, directory)
    path = directory / "consolidated.safetensors"
    weights = dict(cast("dict[str, mx.array]", mx.load(str(path))))
    (name,) = (name for name in weights if name.endswith("tok_embeddings.weight"))
    huge = weights[name].astype(mx.float32) * factor
    weights[name] = huge.astype(mx.bfloat16)
    mx.eval(weights)
    mx.save_safetensors(str(path), weights)
    assert main([str(directory), str(tmp_path / "ours")]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "too large for float32; the source is damaged" in line
    assert not recwarn.list
    assert not (tmp_path / "ours").exists()


def test_it_costs_less_than_half_of_a_search_alone_on_the_demo() -> None:
    checkpoint = load(demo.NAME, "float32")
    decoder = checkpoint.model.decoder
    norm = np.array(decoder.norm.weight.astype(mx.float32))
    sounds = read_sounds([demo.SAMPLE], with_transcripts=False)
    audio = heard(checkpoint, sounds)
    ids = free_ids(checkpoint, audio)

    def log_probabilities() -> Floats:
        logits = np.concatenate(
            [block for _, block in forced_together(checkpoint, audio, ids)]
        )
        logits = logits - logits.max(1, keepdims=True)
        return logits - np.log(np.exp(logits).sum(1, keepdims=True))

    def by_guess(rows: Floats) -> Floats:
        inputs = Inputs.guessed([mx.array(rows)], norm)
        return dequantized(gptq(rows, inputs, THREE, "bfloat16"))

    def by_search(rows: Floats) -> Floats:
        return dequantized(search(rows, THREE, "bfloat16"))

    before = log_probabilities()
    costs: list[float] = []
    for change in (by_guess, by_search):
        with replaced_weight(decoder.embedding, change):
            after = log_probabilities()
        costs.append(float((np.exp(before) * (before - after)).sum(1).mean()))
    assert costs[0] < 0.5 * costs[1]
