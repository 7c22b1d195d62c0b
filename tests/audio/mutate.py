"""Bytes flipped, cut and spliced, the same ones for the same seed."""

import random

__all__ = ["mutated"]


def mutated(content: bytes, seed: int) -> bytes:
    """Return the content with one kind of damage, chosen by the seed."""
    chance = random.Random(seed)
    broken = bytearray(content)
    match chance.choice(["flip", "header", "cut", "splice"]):
        case "flip":
            for _ in range(chance.choice([1, 3, 30])):
                broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        case "header":
            for _ in range(chance.choice([1, 3])):
                at = chance.randrange(min(200, len(broken)))
                broken[at] = chance.randrange(256)
        case "cut":
            at = chance.randrange(len(broken))
            del broken[at : at + chance.choice([1, 100, len(broken)])]
        case _:
            first, last = sorted(chance.randrange(len(broken)) for _ in range(2))
            at = chance.randrange(len(broken))
            broken[at:at] = broken[first:last]
    return bytes(broken)
