"""The delay acts through the state alone."""

import mlx.core as mx
import numpy as np

from voxmlx.checkpoint import Checkpoint
from voxmlx.model.decoder import time_embedding


def logits(checkpoint: Checkpoint, delays: list[int], rows: np.ndarray) -> np.ndarray:
    decoder = checkpoint.model.decoder
    return np.array(decoder.step(mx.array(rows), decoder.make_state(delays)))


def test_two_delays_share_one_model_undisturbed(tiny_checkpoint: Checkpoint) -> None:
    decoder = tiny_checkpoint.model.decoder
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 40, decoder.config.dim)).astype(np.float32)
    alone = {delay: logits(tiny_checkpoint, [delay], x) for delay in (1, 30)}
    assert np.abs(alone[1] - alone[30]).max() > 0.1
    states = {delay: decoder.make_state([delay]) for delay in (1, 30)}
    parts: dict[int, list[np.ndarray]] = {1: [], 30: []}
    for t in range(40):
        for delay, state in states.items():
            parts[delay].append(
                np.array(decoder.step(mx.array(x[:, t : t + 1]), state))
            )
    for delay, expected in alone.items():
        got = np.concatenate(parts[delay], axis=1)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def test_a_batch_of_delays_equals_each_alone(tiny_checkpoint: Checkpoint) -> None:
    dim = tiny_checkpoint.config.decoder.dim
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 50, dim)).astype(np.float32)
    together = logits(tiny_checkpoint, [1, 6, 30], x)
    for row, delay in enumerate((1, 6, 30)):
        alone = logits(tiny_checkpoint, [delay], x[row : row + 1])
        np.testing.assert_allclose(together[row], alone[0], rtol=0, atol=1e-4)


def test_time_embedding_is_cosines_then_sines() -> None:
    table = np.array(time_embedding([6], 8))[0]
    rates = 10_000.0 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(table[:4], np.cos(6 * rates), atol=1e-6)
    np.testing.assert_allclose(table[4:], np.sin(6 * rates), atol=1e-6)
