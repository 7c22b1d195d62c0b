"""What waits for a client that reads slowly: all messages, and one draft."""

import asyncio

from voxmlx.serve.outbox import Outbox
from voxmlx.serve.protocol import Close


def read_all(outbox: Outbox) -> list[str | bytes | Close]:
    async def read() -> list[str | bytes | Close]:
        found: list[str | bytes | Close] = []
        while len(outbox):
            found.append(await outbox.get())
        return found

    return asyncio.run(read())


def test_a_draft_that_waits_gives_way_to_the_next_behind_all_since() -> None:
    outbox = Outbox()
    outbox.put(" turn")
    outbox.put("draft: on the", is_draft=True)
    outbox.put(" on")
    outbox.put("draft: the", is_draft=True)
    assert read_all(outbox) == [" turn", " on", "draft: the"]


def test_what_waits_is_counted_until_it_is_sent() -> None:
    outbox = Outbox()
    for _ in range(10_000):
        outbox.put("x" * 100, is_draft=True)
    outbox.put(b"yy")
    assert (len(outbox), outbox.n_bytes) == (2, 102)
    first, second = read_all(outbox)
    assert outbox.n_bytes == 102
    for message in (first, second):
        assert not isinstance(message, Close)
        outbox.sent(message)
    assert outbox.n_bytes == 0


def test_a_draft_that_was_taken_is_not_taken_back() -> None:
    outbox = Outbox()
    outbox.put("one", is_draft=True)
    assert read_all(outbox) == ["one"]
    outbox.put("two", is_draft=True)
    assert read_all(outbox) == ["two"]


def test_the_goodbye_comes_after_all_messages_and_is_the_end() -> None:
    async def talk() -> list[str | bytes | Close]:
        outbox = Outbox()
        waiting = asyncio.create_task(outbox.get())
        await asyncio.sleep(0)
        outbox.put("one")
        first = await waiting
        outbox.put("two")
        outbox.close(Close(1001))
        outbox.close(Close(1008))
        outbox.put("three")
        return [first, *[await outbox.get() for _ in range(2)]]

    assert asyncio.run(talk()) == ["one", "two", Close(1001)]
