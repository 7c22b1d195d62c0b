"""Sound that a server does not read is decoded here, and nothing of it is lost."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from voxmlx.audio.files import open_audio
from voxmlx.client import sound_upload
from voxmlx.client.sound_upload import flac_pieces, is_read_by_all


def noise(n_samples: int) -> np.ndarray:
    values = np.random.default_rng(3).integers(-9000, 9000, n_samples)
    return values.astype(np.int16)


@pytest.mark.parametrize("is_whole", [True, False])
@pytest.mark.parametrize("n_samples", [1, 16_000, 16_000 * 7 + 1, 16_000 * 20])
def test_pieces_together_are_the_sound(
    n_samples: int, is_whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_upload, "_PIECE_SAMPLES", 8 * 16_000)
    monkeypatch.setattr(sound_upload, "_CUT_SAMPLES", 2 * 16_000)
    path = tmp_path / "noise.wav"
    soundfile.write(path, noise(n_samples), 16_000)
    parts: list[np.ndarray] = []
    ends = [0]
    with open_audio(path) as audio:
        for piece in flac_pieces(audio, is_whole=is_whole):
            assert piece.start_ms == ends[-1]
            ends.append(piece.end_ms)
            piece.file.seek(0)
            samples, rate = soundfile.read(piece.file, dtype="int16")
            assert rate == 16_000
            assert is_whole or len(samples) <= 8 * 16_000
            parts.append(samples)
    np.testing.assert_array_equal(np.concatenate(parts), noise(n_samples))
    assert ends[-1] == n_samples // 16
    assert len(parts) == 1 or not is_whole
    assert len(parts) == 1 or n_samples > 8 * 16_000


def test_a_piece_ends_where_it_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_upload, "_PIECE_SAMPLES", 8 * 16_000)
    monkeypatch.setattr(sound_upload, "_CUT_SAMPLES", 2 * 16_000)
    sound = noise(12 * 16_000)
    sound[7 * 16_000 : 7 * 16_000 + 3200] = 0
    path = tmp_path / "noise.wav"
    soundfile.write(path, sound, 16_000)
    with open_audio(path) as audio:
        first, _ = [(p.start_ms, p.end_ms) for p in flac_pieces(audio, is_whole=False)]
    assert 7000 <= first[1] <= 7200


def test_only_what_all_servers_read_goes_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(100), 16_000)
    assert is_read_by_all(path)
    renamed = path.rename(tmp_path / "a.m4a")
    assert not is_read_by_all(renamed)
    film = tmp_path / "film.wav"
    film.write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    assert not is_read_by_all(film)
