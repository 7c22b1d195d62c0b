"""Requests of a stream to the network, whoever drives it."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxmlx.model.choosing import DecodeRequest
from voxmlx.model.state import VoxtralState

__all__ = ["EncodeRequest", "Request", "Requests"]


@dataclass(frozen=True, slots=True)
class EncodeRequest:
    """Samples [1, n] of one stream, to become audio embeddings."""

    samples: NDArray[np.float32]
    state: VoxtralState


# A stream yields requests, and is sent embeddings [1, k, dim] for an EncodeRequest, ids [k]
# for a DecodeRequest. A generator, so that its driver may serve many streams in one pass.
Request = EncodeRequest | DecodeRequest
Requests = Generator[Request, Any, None]
