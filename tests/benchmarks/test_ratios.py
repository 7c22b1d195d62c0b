"""Ratios, percentiles, the lag that steps come to, and what a closing line holds."""

import json
from pathlib import Path

from benchmarks.hour import Minute, lags_at_pace, plot
from benchmarks.peers import compared
from benchmarks.provenance import closing_line
from benchmarks.ratios import Ratio, Spread
from benchmarks.realtime import Run


def test_ratios_are_of_pairs_that_followed_each_other() -> None:
    # The machine was half as fast in the second turn, for both.
    ratio = Ratio.of([2.0, 4.0, 3.0], [1.0, 2.0, 1.0])
    assert (ratio.median, ratio.min, ratio.max) == (2, 2, 3)


def test_percentiles_are_values_that_occurred() -> None:
    spread = Spread.of([float(i) for i in range(1, 101)])
    assert (spread.p50, spread.p95, spread.p99, spread.max) == (50, 95, 99, 100)


def test_a_slow_step_delays_those_after_it_until_it_is_made_up_for() -> None:
    assert list(lags_at_pace([10, 200, 10, 10, 10])) == [10, 200, 130, 60, 10]


def test_a_peer_that_breaks_is_reported_and_not_compared() -> None:
    figures = compared(
        {"ours": [1.0, 1.0], "a": [2.0, 3.0], "b": [5.0]},
        {
            "ours": {"n_tokens": 7},
            "a": {"n_tokens": 6},
            "b": {"error": "out of memory"},
        },
        "s",
    )
    assert figures["median"] == {"ours": 1, "a": 2.5}
    assert figures["ratio"]["a"] == {"median": 2.5, "min": 2, "max": 3}
    assert figures["error"] == {"b": "out of memory"}
    assert figures["n_tokens"] == {"ours": 7, "a": 6}


def test_speed_is_of_steps_alone() -> None:
    run = Run(steps=[20.0, 60.0], lags=[20.0, 60.0])
    assert run.figures()["tokens_per_s"] == 25
    assert run.figures(1)["tokens_per_s"] == 50


def test_a_closing_line_names_commit_chip_system_and_mlx() -> None:
    line = json.loads(closing_line("some", figure=1))
    assert line["benchmark"] == "some"
    assert line["figure"] == 1
    for key in ("commit", "machine", "chip", "system", "mlx"):
        assert line[key]


def test_an_hour_becomes_a_small_picture(tmp_path: Path) -> None:
    spread = Spread(5.0, 6.0, 7.0, 9.0)
    plot([Minute(spread, spread, 90.0, 20.0)] * 60, tmp_path / "hour.png")
    content = (tmp_path / "hour.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) < 100_000
