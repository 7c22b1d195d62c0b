"""The last `window` keys and values of a stream, in bounded memory.

An entry is the keys and values of one position, or of one encoder frame. A layer has one
ring, whose slots hold an entry each. All rings of a cache are written alike. So three
numbers say of a stream where they stand:

    head      the slot that the next entry goes to
    length    how many slots hold an entry, `capacity` at most
    offset    how many entries there were, for rotary angles; it wraps at 2^64

States:

    growing   fewer than `capacity` slots: entries lie in the order in which they came
    wrapped   all slots hold an entry: the next one goes over the oldest

A step is `advance(n)`, then `attend` or `attend_window` once for each layer. `advance`
chooses one of two forms:

    in place       entries are written first, and queries see the ring as it lies;
                   for steps up to `step` entries that need not wrap inside
    with history   queries see a copy of the window and then the step's own entries;
                   for larger steps, and for rows that stand at different places

With `attend_window` the entries wait beside the ring until the next step writes them.

In 8 bits, a row of D numbers is D of int8 and a scale. Entries are quantized before
anything sees them. So what a query sees does not depend on the step they came in. A row
of 128 numbers takes 132 bytes and not 256.

Invariants: an entry is not written over while a query may see it; memory is bounded by
`capacity`; a copy of a cache shares its rings until one of both is written; `trim` can
take `step` - 1 entries back, since what they went over had left every window.

Example, window 4 and step 2: there are 6 slots. Entries 1 to 6 fill them. Entries 7 and
8 go to slots 0 and 1, over 1 and 2. Query 7 sees entries 4 to 7, and query 8 sees 5 to
8. `trim(1)` takes 8 back: head is 1 again, and entry 2 is lost, which no query misses.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from voxmlx.kernels import (
    SCALE_BYTES,
    attention,
    dequantize_rows,
    has_ring_attention_q8,
    has_window_attention,
    quantize_rows,
    ring_attention_q8,
    window_attention,
)
from voxmlx.kernels.evaluation import as_numpy
from voxmlx.model.ring_step import RingStep, updated, written

__all__ = ["FIRST_SLOTS", "KV_BITS", "RingKVCache"]

KV_BITS = (8, 16)
"""How many bits a ring can keep of a number; 16 stands for the model's dtype."""

# Named here: what annotates an inner function is computed whenever that is made.
_Mask = NDArray[np.bool_] | None
_Positions = NDArray[np.int32]

FIRST_SLOTS = 64
"""Slots that a ring has before anything is written."""


@dataclass(slots=True)
class RingKVCache:
    """Rings of one transformer, [B, 2 H, slots, D] per layer: keys, then values.

    In 8 bits a ring holds rows [B, 2 H, slots, D + 4] of int8, as `quantize_rows`
    makes them.

    A query sees `window` entries, itself included. Softmax does not mind the order of
    slots, and RoPE is already in the keys. The copy of the window is what a step larger
    than `step` costs.

    Memory follows use. A ring starts with few slots and grows by at least a factor
    of two, up to `capacity`; only then do entries wrap. Growing copies the ring.

    `waiting` are a step's entries [1, 2 H, n, D], one array per layer, that the
    next step writes into the rings, from `waiting_slot` on, before anything else (see
    `attend_window`). `head` and `length` count them.

    `head` and `length` [B] wrap at `capacity`, `offset` [B] at 2^64.
    """

    window: int
    step: int
    capacity: int
    bits: int
    rings: list[mx.array]
    head: NDArray[np.int64]
    length: NDArray[np.int64]
    offset: NDArray[np.uint64]
    waiting: list[mx.array] = field(default_factory=list[mx.array])
    waiting_slot: int = 0
    _is_sole_owner: bool = False

    @classmethod
    def make(
        cls,
        *,
        n_layers: int,
        batch: int,
        n_kv_heads: int,
        head_dim: int,
        window: int,
        step: int,
        dtype: mx.Dtype,
        offset: int = 0,
        bits: int = 16,
    ) -> "RingKVCache":
        """An empty ring. `step` is the size of the common step, in entries.

        `bits` is one of KV_BITS; 16 keeps numbers in `dtype`.
        """
        assert bits in KV_BITS
        capacity = _capacity(window, step)
        if bits == 8:
            head_dim, dtype = head_dim + SCALE_BYTES, mx.int8
        shape = (batch, 2 * n_kv_heads, min(FIRST_SLOTS, capacity), head_dim)
        return cls(
            window=window,
            step=step,
            capacity=capacity,
            bits=bits,
            rings=[mx.zeros(shape, dtype) for _ in range(n_layers)],
            head=np.zeros(batch, np.int64),
            length=np.zeros(batch, np.int64),
            offset=np.full(batch, offset % 2**64, np.uint64),
        )

    @property
    def n_slots(self) -> int:
        """Slots that have memory, `capacity` at most."""
        return self.rings[0].shape[2]

    def copy(self, step: int | None = None) -> "RingKVCache":
        """An independent cache; rings are shared until either of them is written.

        A larger `step` makes room for larger steps, in a ring that is not full yet.
        """
        capacity = self.capacity
        if step is None or step <= self.step:
            step = self.step
        else:
            assert self.length.max() < capacity
            capacity = _capacity(self.window, step)
        self._is_sole_owner = False
        return RingKVCache(
            self.window,
            step,
            capacity,
            self.bits,
            list(self.rings),
            self.head.copy(),
            self.length.copy(),
            self.offset.copy(),
            list(self.waiting),
            self.waiting_slot,
        )

    def packed(self) -> "RingKVCache":
        """A copy without the slots that nothing was written to yet, for safe-keeping."""
        cache = self.copy()
        cache.write_waiting()
        held = int(self.length.max())
        cache.rings = [mx.contiguous(ring[:, :, :held]) for ring in cache.rings]
        return cache

    def advance(self, n: int) -> RingStep:
        """Make room for n entries per row; then `attend` in each layer once."""
        self.write_waiting()
        self.grow(int(self.length.max()) + n)
        C = self.capacity
        in_step = len(self.head) == 1 or bool(
            (self.head == self.head[0]).all() and (self.length == self.length[0]).all()
        )
        head = int(self.head[0])
        keeps_windows = n <= C - self.window + 1
        if in_step and keeps_windows and head + n <= C:
            plan = self._plan_in_place(n, head)
            plan.older = self._positions_after(0)
            self.waiting_slot = head
        else:
            plan = self._plan_with_history(n)
        if keeps_windows:
            plan.positions = self._positions_after(n)
        self.head = (self.head + n) % C
        self.length = np.minimum(self.length + n, C)
        self.offset = self.offset + np.uint64(n)
        return plan

    def arrays(self) -> list[mx.array]:
        """All that is computed on the device."""
        return [*self.rings, *self.waiting]

    def write_waiting(self) -> None:
        """Put the last step's entries into the rings, if they are not there yet."""
        if self.waiting:
            for layer, rows in enumerate(self.waiting):
                self.rings[layer] = written(self.rings[layer], rows, self.waiting_slot)
            self.waiting = []
            self._is_sole_owner = False

    def writable_rings(self) -> list[NDArray[np.float32]]:
        """Return NumPy's views [2 H, slots, D] of the rings of one row, to write into.

        Rings that a copy of this cache shares are copied first.
        """
        self.write_waiting()
        if not self._is_sole_owner:
            self.rings = [mx.array(as_numpy(ring)) for ring in self.rings]
            self._is_sole_owner = True
        return [as_numpy(ring)[0] for ring in self.rings]

    def fill(self) -> None:
        """Have every slot in use, as after hours; what they hold is left open."""
        self.grow(self.capacity)
        self.length[:] = self.capacity
        self.head[:] = 0

    def grow(self, n_entries: int) -> None:
        """Have slots for so many entries, or for all that are ever kept."""
        n_slots = self.n_slots
        needed = min(n_entries, self.capacity)
        if needed > n_slots:
            n_free = min(max(needed, 2 * n_slots), self.capacity) - n_slots
            room = [(0, 0), (0, 0), (0, n_free), (0, 0)]
            self.rings = [mx.pad(ring, room) for ring in self.rings]

    def trim(self, n: int) -> None:
        """Take the last n entries back; n is less than `step`.

        What they were written over had left every window before, and what is left
        of them now is older than any: no query sees either.
        """
        assert 0 <= n < self.step
        C = self.capacity
        self.head = (self.head - n) % C
        self.length = np.where(self.length == C, C, self.length - n)
        self.offset = self.offset - np.uint64(n)

    def _plan_in_place(self, n: int, head: int) -> RingStep:
        held = int(min(self.length[0] + n, self.capacity))

        def visible() -> _Mask:
            if n == 1 and held <= self.window:
                return None
            # Age of a slot: how many entries were written after it.
            age = (head + n - 1 - np.arange(held)) % self.capacity
            mask = self._visible(age, n)
            return None if mask.all() else mask[None, None]

        return RingStep(
            slots=head,
            n_visible=held,
            visible=visible,
            history=None,
            n_written=n,
            positions=None,
        )

    def _plan_with_history(self, n: int) -> RingStep:
        C = self.capacity
        n_old = int(min(self.length.max(), self.window - 1))
        back = np.arange(n_old, 0, -1)  # the oldest first
        age = np.concatenate([back + n - 1, np.arange(n)[::-1]])
        mask = self._visible(age, n)[None]
        if n_old:
            missing = np.zeros((len(self.head), 1, n_old + n), bool)
            missing[:, 0, :n_old] = back > self.length[:, None]
            if missing.any():
                mask = mask & ~missing
        n_written = min(n, C)
        written = np.arange(n - n_written, n)
        return RingStep(
            slots=(self.head[:, None] + written) % C,
            n_visible=n_old + n,
            visible=lambda: None if mask.all() else mask[:, None],
            history=(self.head[:, None] - back) % C if n_old else None,
            n_written=n_written,
            positions=None,
        )

    def _positions_after(self, n: int) -> Callable[[], NDArray[np.int32]]:
        head, length, capacity = self.head, self.length, self.capacity

        def computed() -> _Positions:
            positions = np.empty((len(head), 3), np.int32)
            positions[:, 0] = (head + n) % capacity
            positions[:, 1] = np.minimum(length + n, capacity)
            positions[:, 2] = self.window
            return positions

        return computed

    def _visible(self, key_age: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
        """Which keys [S] each of the n newest entries, as queries, may see."""
        distance = key_age[None] - np.arange(n)[::-1, None]
        return (distance >= 0) & (distance < self.window)

    def rotates_entries(self, plan: RingStep, n: int) -> bool:
        """Return whether `attend_window` takes n entries as the matrix product left them."""
        return (
            self.bits == 16
            and plan.older is not None
            and has_window_attention(n, self.rings[0].shape[3], self.capacity)
        )

    def attend_window(
        self,
        layer: int,
        qkv: mx.array,
        angles: mx.array,
        bias: mx.array | None,
        plan: RingStep,
        scale: float,
    ) -> mx.array:
        """Rotate a step's entries [1, n, (Hq + 2 H) D], keep them, and attend.

        The ring is written before the next step: a kernel that reads it and the
        entries beside it saves launches, and a ring that a kernel of this step has
        read could not be written in place. Returns [1, n, Hq, D].
        """
        meta = plan.meta_of_older
        ring = self.rings[layer]
        out, rows = window_attention(qkv, angles, bias, ring, meta, scale)
        self.waiting.append(rows)
        return out

    def attend(
        self,
        layer: int,
        queries: mx.array,
        kv: mx.array,
        plan: RingStep,
        scale: float,
    ) -> mx.array:
        """Store `kv` [B, 2 H, n, D], keys first; each query sees its window.

        `queries` are [B, Hq, n, D]. Returns [B, Hq, n, D].
        """
        _, _, n, D = queries.shape
        keys, values = self.update(layer, kv, plan)
        is_8_bits = self.bits == 8 and plan.positions is not None
        if is_8_bits and has_ring_attention_q8(n, D):
            return ring_attention_q8(queries, self.rings[layer], plan.meta, scale)
        return attention(queries, keys, values, plan.mask, scale)

    def update(
        self, layer: int, kv: mx.array, plan: RingStep
    ) -> tuple[mx.array, mx.array]:
        """Store `kv` [B, 2 H, n, D]; returns what to attend to, each [B, H, S, D]."""
        self._is_sole_owner = False  # what MLX has yet to compute may read the ring
        # The old ring must have no owner left when the new one is computed, or it
        # is copied instead of written in place.
        if self.bits == 16:
            seen, self.rings[layer] = updated(self.rings[layer], kv, plan)
            return _keys_and_values(seen)
        # A step's own entries too are seen as they are stored: what a query sees
        # does not depend on the step they came in.
        rows = quantize_rows(kv)
        seen, self.rings[layer] = updated(self.rings[layer], rows, plan)
        return dequantize_rows(seen, kv.dtype)


def _keys_and_values(kv: mx.array) -> tuple[mx.array, mx.array]:
    """[B, 2 H, n, D] -> its two halves, as views."""
    keys, values = mx.split(kv, 2, axis=1)
    return keys, values


def _capacity(window: int, step: int) -> int:
    """Slots for steps of `step` entries: whole ones, so that none need wrap inside."""
    return -(-(window + step - 1) // step) * step
