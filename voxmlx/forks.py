"""Refuses to compute in a forked child of the process that loaded a model."""

import os

from voxmlx.errors import SessionError

__all__ = ["refuse_fork"]

_owner: int | None = None


def refuse_fork() -> None:
    """Note this process as the one that computes; raise SessionError in its children.

    MLX's threads do not survive a fork, so a child would wait for them for ever. A
    child that was forked before the first call may compute.
    """
    global _owner
    if _owner is None:
        _owner = os.getpid()
    elif _owner != os.getpid():
        raise SessionError(
            "this process was forked after voxmlx had loaded a model, and MLX cannot "
            'compute in it; start it with multiprocessing.get_context("spawn"), and '
            "load the model there"
        )
