"""An application with an event loop that does what is said: voice commands.

    python examples/async_commands.py               hears the microphone
    python examples/async_commands.py talk.wav      hears a file

One task listens, with `voxmlx.stream`; another one acts, and may take its time. Neither
waits for the other. The bundled tiny model knows a few household commands in English.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress

import numpy as np

import voxmlx

Say = Callable[[str], None]


class Home:
    """Lamps and a heating, as far as a command can switch them."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self.state = {"lights": "off", "heating": "off"}

    async def act(self, utterance: str) -> None:
        """Do what an utterance asks for, if it asks for anything."""
        words = utterance.split()
        for name in self.state:
            for wanted in ("on", "off"):
                if name in words and wanted in words:
                    await asyncio.sleep(0.1)  # a lamp is far away
                    self.state[name] = wanted
                    self._say(f"the {name}: {wanted}")


async def utterances(
    source: Iterable[np.ndarray], checkpoint: voxmlx.Checkpoint
) -> AsyncIterator[str]:
    """Yield what is said between two pauses."""
    words: list[str] = []
    async with voxmlx.stream(source, checkpoint, pause_ms=400) as events:
        async for event in events:
            match event:
                case voxmlx.WordFinal(word):
                    words.append(word.text)
                case voxmlx.UtteranceEnd():
                    yield " ".join(words)
                    words = []
                case _:
                    pass


async def run(
    source: Iterable[np.ndarray], checkpoint: voxmlx.Checkpoint, say: Say
) -> Home:
    """Listen until the source ends; return what has become of the home."""
    home = Home(say)
    waiting: asyncio.Queue[str | None] = asyncio.Queue()

    async def act() -> None:
        while (utterance := await waiting.get()) is not None:
            await home.act(utterance)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(act())
        async for utterance in utterances(source, checkpoint):
            say(f"heard: {utterance}")
            waiting.put_nowait(utterance)
        waiting.put_nowait(None)
    return home


def main(names: list[str]) -> None:
    """Hear a file, or the microphone until Ctrl-C."""
    checkpoint = voxmlx.load("demo")
    if names:
        with voxmlx.open_audio(names[0]) as audio:
            asyncio.run(run(audio.pieces(0.1), checkpoint, print))
        return
    with voxmlx.Microphone() as microphone, suppress(KeyboardInterrupt):
        asyncio.run(run(microphone, checkpoint, print))


if __name__ == "__main__":
    main(sys.argv[1:])
