"""Blocks come out as they went in, and a full queue waits or counts."""

import threading
import time

import numpy as np

from voxmlx.audio.block_queue import Block, BlockQueue


def block(n_samples: int, time: float = 0.0) -> Block:
    return Block(np.zeros(n_samples, np.float32), time)


def test_blocks_come_out_in_order_all_at_once() -> None:
    queue = BlockQueue(100)
    blocks = [block(10, time) for time in (1.0, 2.0, 3.0)]
    for one in blocks:
        assert queue.put(one, wait=False)
    assert queue.get(0) == blocks
    assert queue.get(0) == []


def test_a_full_queue_counts_what_does_not_fit() -> None:
    queue = BlockQueue(25)
    assert [queue.put(block(10), wait=False) for _ in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    assert queue.n_lost == 2
    queue.get(0)
    assert queue.put(block(10), wait=False)


def test_a_block_larger_than_the_queue_still_passes() -> None:
    assert BlockQueue(5).put(block(10), wait=True)


def test_putting_waits_until_there_is_room() -> None:
    queue = BlockQueue(10)
    queue.put(block(10), wait=True)
    thread = threading.Thread(
        target=queue.put, args=(block(10, 2.0),), kwargs={"wait": True}
    )
    thread.start()
    taken = queue.get(1)
    while len(taken) < 2:
        taken += queue.get(1)
    thread.join(1)
    assert [one.time for one in taken] == [0.0, 2.0]


def test_closing_frees_who_waits_and_keeps_what_is_there() -> None:
    queue = BlockQueue(10)
    queue.put(block(10), wait=True)
    results: list[bool] = []
    thread = threading.Thread(
        target=lambda: results.append(queue.put(block(1), wait=True))
    )
    thread.start()
    queue.close()
    thread.join(60)
    assert results == [False]
    assert len(queue.get(0)) == 1
    assert not queue.put(block(1), wait=False)


def test_a_queue_holds_exactly_as_many_samples_as_it_may() -> None:
    queue = BlockQueue(20)
    for _ in range(2):
        puts = [queue.put(block(n), wait=False) for n in (10, 10, 1)]
        assert puts == [True, True, False]
        assert len(queue.get(0)) == 2
    assert queue.n_lost == 2


def test_getting_waits_only_while_an_open_queue_is_empty() -> None:
    queue = BlockQueue(10)
    queue.put(block(1), wait=False)
    begin = time.monotonic()
    assert len(queue.get(200)) == 1
    queue.close()
    assert queue.get(200) == []
    assert time.monotonic() - begin < 100
    other = BlockQueue(10)
    thread = threading.Timer(0.2, lambda: other.put(block(1), wait=False))
    thread.start()
    assert len(other.get(100)) == 1
    thread.join()
