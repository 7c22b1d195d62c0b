"""Ids of recorded speech, at every delay, equal transformers'."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("torch", reason="parity needs torch: install .[parity]")
pytest.importorskip("transformers", reason="parity needs it: install .[parity]")

from tests.reference import Reference
from tests.stages import session_ids
from voxmlx import LEGAL_DELAYS_MS, Checkpoint

_BESIDE_THE_REPOSITORY = Path(__file__).parents[2].parent / "shared" / "audio"
# Where the two best logits are closer than float32 rounding moves either of them
# (test_reference.py measures up to 5e-5), neither is the better one.
TIE = 1e-5

DIRECTORY = Path(os.environ.get("VOXMLX_AUDIO", _BESIDE_THE_REPOSITORY))
FILES = sorted(DIRECTORY.glob("*.wav"), key=lambda path: path.stat().st_size)
if not FILES:
    pytest.skip(
        f"no *.wav in {DIRECTORY}; name a directory of 16 kHz recordings in VOXMLX_AUDIO",
        allow_module_level=True,
    )


@pytest.fixture(scope="module")
def reference(tiny_checkpoint_dir: Path) -> Reference:
    # Recordings are long: see Reference on what float32 angles cost there.
    return Reference(tiny_checkpoint_dir, exact_angles=True)


def _cases() -> list[object]:
    """Every file at every delay; one of them by default."""
    return [
        pytest.param(
            path,
            delay_ms,
            id=f"{path.stem}-{delay_ms}",
            marks=[] if path == FILES[0] and delay_ms == 480 else [pytest.mark.slow],
        )
        for path in FILES
        for delay_ms in LEGAL_DELAYS_MS
    ]


@cache
def _sound(path: Path) -> np.ndarray:
    pcm, rate = soundfile.read(path, dtype="int16")
    if rate != 16_000 or pcm.ndim != 1:
        pytest.skip(f"{path} is {rate} Hz, shape {pcm.shape}; expected 16 kHz mono")
    return pcm.astype(np.float32) / np.float32(32768)


@pytest.mark.parametrize(("path", "delay_ms"), _cases())
def test_session_ids_equal_the_greedy_choices_of_transformers(
    tiny_checkpoint: Checkpoint, reference: Reference, path: Path, delay_ms: int
) -> None:
    sound = _sound(path)
    ids = session_ids(tiny_checkpoint, sound, delay_ms)
    choices, leads = reference.greedy_choices(sound, delay_ms, ids)
    differing = np.flatnonzero(np.array(ids) != choices)
    assert all(leads[differing] < TIE), f"{differing}: leads {leads[differing]}"
    assert len(differing) <= 1  # ties are rarer than one in ten thousand


def test_session_ids_of_the_shortest_file_equal_transformers_generate(
    tiny_checkpoint: Checkpoint, reference: Reference
) -> None:
    sound = _sound(FILES[0])
    expected = reference.greedy_tokens(sound, 480)
    assert session_ids(tiny_checkpoint, sound, 480) == expected
