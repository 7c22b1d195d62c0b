"""Measures a result against its source, and says so as it goes."""

import json
import os
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from voxmlx import Checkpoint, limit_memory, load
from voxmlx.layouts.recipes import DtypeName

from . import quality
from .confidence_fit import (
    MIN_WORDS,
    calibration_error,
    fit_confidence_map,
    word_outcomes,
)
from .disk import check_room, disk_errors
from .model_reading import read
from .output import SCRATCH_PREFIX
from .plan import Plan
from .products import dequantize

__all__ = ["References", "read_references", "roomy_dtype", "verify", "verify_against"]


@dataclass(frozen=True, slots=True)
class References:
    """The source's readings of sounds, for comparison with several results."""

    sounds: Sequence[quality.Sound]
    readings: Sequence[quality.ModelReading]
    dtype: DtypeName


def verify(
    plan: Plan,
    result: Path,
    sounds: Sequence[quality.Sound],
    reference_dtype: DtypeName | None = None,
) -> dict[str, Any]:
    """Return the certificate of `result`, the content of quality.json."""
    n_tokens = sum(sound.n_tokens for sound in sounds)
    n_bytes = 2 * 4 * n_tokens * plan.files.config.decoder.vocab_size
    check_room(result.parent, n_bytes, " to verify with: logits of both models")
    with _scratch(result.parent) as directory:
        references = read_references(plan, sounds, directory, reference_dtype)
        return verify_against(references, plan, result, directory, calibrates=True)


def read_references(
    plan: Plan,
    sounds: Sequence[quality.Sound],
    directory: Path,
    dtype: DtypeName | None = None,
) -> References:
    """Run the source over the sounds; logits are kept in `directory`."""
    chosen = dtype or roomy_dtype(plan)
    source = load(plan.files.directory, chosen, embedding_bits=16)
    limit_memory()
    readings = list(read(source, sounds, directory))
    return References(sounds, readings, chosen)


def verify_against(
    references: References,
    plan: Plan,
    result: Path,
    directory: Path,
    *,
    calibrates: bool = False,
) -> dict[str, Any]:
    """Return the certificate of `result`; prints a row per sound, then the total.

    With `calibrates` it has a map of confidence, if the transcripts have enough words.
    """
    # MLX's quantized products on a CPU are slow, and inaccurate in half precision.
    has_metal = mx.metal.is_available()
    made = load(result, plan.dtype if has_metal else "float32")
    limit_memory()
    if not has_metal and roomy_dtype(plan) == "float32":
        dequantize(made.model)
    ids = [reading.ids for reading in references.readings]
    results = read(made, references.sounds, directory, ids)
    print(quality.ROW_TITLES)
    content = quality.certificate(
        references.sounds,
        references.readings,
        results,
        references.dtype,
        made.dtype,
        lambda row: print(quality.table_row(row["name"], row), flush=True),
    )
    print(quality.table_row("all", content["total"]))
    certificate = {
        "recipe": plan.recipe.name,
        "rounding": plan.rounding,
        "bits_per_weight": plan.bits_per_weight,
        "bytes_per_audio_token": plan.bytes_per_audio_token,
        "n_bytes": plan.n_bytes,
        # The result was measured as it runs: where it keeps 16 bits, loading quantizes.
        "embedding_bits_at_load": made.embedding_bits,
        **content,
    }
    if calibrates:
        certificate["confidence"] = _calibrated(made, references.sounds)
    print(quality.summary_line(certificate))
    return certificate


def _calibrated(
    made: Checkpoint, sounds: Sequence[quality.Sound]
) -> dict[str, Any] | None:
    """Return the map of confidence, and what it mends; None for too few words.

    The error after it is of each half of the sounds with the map of the other half.
    """
    told = [sound for sound in sounds if sound.transcript]
    found = [
        word_outcomes(made, sound.samples, sound.transcript or "", quality.DELAY_MS)
        for sound in told
    ]
    outcomes = [one for words in found for one in words]
    if len(outcomes) < MIN_WORDS:
        return None
    halves = [[one for words in found[i::2] for one in words] for i in (0, 1)]
    errors = [
        calibration_error(tried, fit_confidence_map(others))
        for tried, others in (halves, halves[::-1])
        if tried and others
    ]
    fitted = fit_confidence_map(outcomes)
    return {
        "map": json.loads(fitted.to_json()),
        "calibration_error_raw": calibration_error(outcomes),
        "calibration_error": sum(errors) / len(errors) if errors else None,
    }


@contextmanager
def _scratch(place: Path) -> Generator[Path]:
    with disk_errors(place):
        directory = tempfile.TemporaryDirectory(
            dir=place, prefix=SCRATCH_PREFIX, ignore_cleanup_errors=True
        )
    with directory as name:
        yield Path(name)


def roomy_dtype(plan: Plan) -> DtypeName:
    """Return float32 where the source fits in memory so, else bfloat16."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    fits = 4 * plan.n_weights < 0.6 * memory
    return "float32" if fits else "bfloat16"
