"""What is kept of a client's sound: as much as its next stream may hear again."""

import numpy as np

from voxmlx.live.kept_sound import KeptSound
from voxmlx.live.restart_sound import RestartSound


def pushed(sound: RestartSound, n_samples: int) -> None:
    sound.push(np.zeros(n_samples, np.float32))


def test_what_is_kept_does_not_grow_with_the_stream() -> None:
    sound = RestartSound()
    most = 0
    for i in range(200):
        pushed(sound, 1600)
        sound.decoded(100 * i)
        most = max(most, sound.n_kept)
    assert most < 4 * 16_000


def test_what_is_kept_does_not_grow_with_the_sound_that_waits() -> None:
    sound = RestartSound()
    for _ in range(300):
        pushed(sound, 32_000)
    assert sound.n_kept <= 70 * 16_000
    assert not sound.may_rewind


def test_sound_is_heard_again_once_little_of_it_waits() -> None:
    sound = RestartSound()
    pushed(sound, 100 * 16_000)
    sound.decoded(41_000)
    assert not sound.may_rewind
    sound.decoded(42_000)
    assert sound.may_rewind
    sound.rewind()
    assert sound.n_again == 60 * 16_000


def test_a_pause_long_ago_is_no_sound_that_waits() -> None:
    sound = RestartSound()
    pushed(sound, 2 * 16_000)
    sound.paused(500, 1000)
    for i in range(2, 200):
        pushed(sound, 16_000)
        sound.decoded(1000 * i)
    assert sound.may_rewind
    sound.rewind()
    assert sound.n_again <= 4 * 16_000


def test_a_client_of_tiny_pieces_is_kept_as_densely_as_others() -> None:
    sound = KeptSound(16_000)
    rng = np.random.default_rng(3)
    pieces = rng.uniform(-1, 1, (5000, 1)).astype(np.float32)
    for piece in pieces:
        sound.push(piece)
    assert sound.n_pieces <= 2 + 5000 // 1280
    sound.rewind(0)
    whole = KeptSound(16_000)
    whole.push(np.concatenate(pieces))
    whole.rewind(0)
    assert sound.take(5000).tobytes() == whole.take(5000).tobytes()
