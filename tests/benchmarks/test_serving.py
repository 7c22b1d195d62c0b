"""The server's benchmarks measure what they say, on a small scale."""

import json

import pytest

from benchmarks import serve_load, sessions


def test_clients_are_let_in_up_to_the_limit_and_lag_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert serve_load.main(["--demo", "--sessions", "2", "--seconds", "3"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["n_refused"] == 0
    assert figures["one_too_many"] == "at_capacity"
    assert figures["n_texts"] >= 4
    assert min(figures["words_per_client"]) >= 2
    assert 0 < figures["lag_ms"]["p50"] <= figures["lag_ms"]["p95"] < 10_000
    assert figures["tokens_per_step"] > 0.5


def test_lag_is_measured_alone_and_beside_uploads_in_one_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_load, "_UPLOAD_S", 60.0)
    arguments = ["--sessions", "1", "--uploads", "2", "--seconds", "2", "--rounds", "2"]
    assert serve_load.main(["--demo", *arguments]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    for place in ("alone", "beside"):
        assert len(figures["p95_ms"][place]) == 2
        assert 0 < figures["lag_ms"][place]["p50"] <= figures["lag_ms"][place]["p95"]
    ratio = figures["p95_ratio"]
    assert 0 < ratio["min"] <= ratio["median"] <= ratio["max"]
    pairs = zip(figures["p95_ms"]["beside"], figures["p95_ms"]["alone"], strict=True)
    assert ratio["max"] == pytest.approx(max(b / a for b, a in pairs))
    assert len(figures["uploads_speed"]) == 2
    assert min(figures["uploads_speed"]) > 0


def test_both_ways_of_stepping_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--sessions", "3", "--turns", "2", "--steps", "3"]
    assert sessions.main(["--demo", *arguments]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["sessions"] == 3
    assert figures["together_per_s"] > 0
    assert figures["ratio"]["min"] <= figures["ratio"]["median"]
