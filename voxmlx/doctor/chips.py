"""Apple's chips: published figures, and what is assumed of each."""

from dataclasses import dataclass

__all__ = ["ASSUMPTIONS", "CHIPS", "Chip", "chip_of"]


@dataclass(frozen=True, slots=True)
class Chip:
    """One size of a chip; where it has several, `n_cores` tells them apart.

    `generation` is that of the GPU: 13 is the M1. `share` is how much of the published
    bandwidth a step is assumed to get, `launch_us` what a launch is assumed to cost,
    `host_ms` how long the GPU is assumed to wait for Python in a step.
    """

    name: str
    n_cores: int
    gb_per_s: float
    ghz: float
    generation: int
    share: float
    launch_us: float
    host_ms: float

    @property
    def operations_per_ms(self) -> float:
        """Float32 operations of all lanes; a core has 128."""
        return self.n_cores * 128 * self.ghz * 1e6


ASSUMPTIONS = (
    "Bandwidth, cores and clock are published. The rest is assumed; nothing was measured.",
    "A step gets 86 % of the bandwidth of a base chip, 82 % of a Pro's, 80 % of a Max's.",
    "A launch costs 4.0 us on an M1, and less on later ones: 2.1 us on an M5 Max.",
    "The GPU waits 2.0 ms a step for Python on an M1, 1.2 ms on an M4 or M5.",
    "Four encoder frames take 13 operations a weight, 45 % of that from the M3 on.",
    "Of the encoder's reading and computing, 35 % of the shorter is not hidden.",
    "Attention to an 8-bit ring takes 32 operations for each of 14.4 million lane steps.",
    "Between steps 80 ms apart clocks drop: all but reading takes a tenth longer.",
)

# In the order of the assumptions: share, us a launch, ms of Python.
_M1, _M2, _M3, _M4, _M5 = (
    (0.86, 4.0, 2.0),
    (0.86, 3.5, 1.7),
    (0.86, 3.2, 1.4),
    (0.86, 3.0, 1.2),
    (0.86, 2.8, 1.2),
)


def _pro(base: tuple[float, float, float]) -> tuple[float, float, float]:
    return 0.82, base[1] * 0.8, base[2]


def _max(base: tuple[float, float, float]) -> tuple[float, float, float]:
    return 0.80, base[1] * 0.75, base[2]


# Of base chips and Pros the smallest GPU; of a Max both, for their bandwidths differ.
CHIPS = (
    Chip("M1", 7, 68.25, 1.278, 13, *_M1),
    Chip("M1 Pro", 14, 200, 1.296, 13, *_pro(_M1)),
    Chip("M1 Max", 24, 400, 1.296, 13, *_max(_M1)),
    Chip("M2", 8, 100, 1.398, 14, *_M2),
    Chip("M2 Pro", 16, 200, 1.398, 14, *_pro(_M2)),
    Chip("M2 Max", 30, 400, 1.398, 14, *_max(_M2)),
    Chip("M3", 8, 100, 1.38, 15, *_M3),
    Chip("M3 Pro", 14, 150, 1.38, 15, *_pro(_M3)),
    Chip("M3 Max", 30, 300, 1.38, 15, *_max(_M3)),
    Chip("M3 Max", 40, 400, 1.38, 15, *_max(_M3)),
    Chip("M4", 8, 120, 1.47, 16, *_M4),
    Chip("M4 Pro", 16, 273, 1.578, 16, *_pro(_M4)),
    Chip("M4 Max", 32, 410, 1.578, 16, *_max(_M4)),
    Chip("M4 Max", 40, 546, 1.578, 16, *_max(_M4)),
    Chip("M5", 8, 153, 1.6, 17, *_M5),
    Chip("M5 Pro", 16, 307, 1.6, 17, *_pro(_M5)),
    Chip("M5 Max", 32, 460, 1.6, 17, *_max(_M5)),
    Chip("M5 Max", 40, 614, 1.6, 17, *_max(_M5)),
)


def chip_of(device_name: str) -> Chip | None:
    """Return the chip that Metal calls "Apple M1 Pro"; of two sizes the smaller."""
    name = device_name.removeprefix("Apple ").strip()
    return next((chip for chip in CHIPS if chip.name == name), None)
