"""What peers are given is what we read ourselves, and their process is asked in JSON."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peer_findings import first_difference
from benchmarks.peer_models import (
    DENSE_BITS,
    clean_environment,
    mlx_audio_config,
    write_all,
    write_source,
)
from benchmarks.peer_process import Worker
from benchmarks.peer_report import EXPLANATION, write_report
from benchmarks.peers import compared
from benchmarks.realtime import parts, stream
from tests.sounds import speech_like
from tests.tiny import EOS, TinyModel
from voxmlx import load

_ROOT = Path(__file__).parent.parent.parent


def test_every_format_holds_the_same_weights(tmp_path: Path) -> None:
    source = write_source(TinyModel(), tmp_path / "source")
    pythons = {"mlx-audio": Path("unused"), "voxmlx": Path("unused")}
    made = write_all(source, tmp_path / "models", DENSE_BITS, pythons)
    contents = {
        (directory / "consolidated.safetensors").read_bytes()
        for directory in made.values()
    }
    assert len(contents) == 1
    assert (load(made["ours"]).model.decoder.embedding.weight[EOS] == 0).all()
    config = json.loads((made["mlx-audio"] / "config.json").read_text())
    assert config == mlx_audio_config(TinyModel().params())
    assert config["decoder"]["dim"] == TinyModel().decoder_dim
    assert config["encoder_args"]["downsample_factor"] == 4


def test_a_vocabulary_of_any_length_is_written(tmp_path: Path) -> None:
    model = TinyModel(vocab_size=4096)
    checkpoint = load(write_source(model, tmp_path / "source"), "float32")
    assert checkpoint.config.decoder.vocab_size == 4096


def test_a_worker_answers_and_reports_what_it_cannot_do(tmp_path: Path) -> None:
    source = write_source(TinyModel(), tmp_path / "source")
    environment = {**clean_environment(1), "PYTHONPATH": str(_ROOT)}
    worker = Worker(
        [sys.executable, "-m", "benchmarks.own_worker", source], environment
    )
    assert worker.load_s is not None
    for task in ("decoder_step", "encoder_step", "products"):
        assert len(worker.ask(task, n=3, warm=1)["ms"]) == 3
    assert 0 < worker.load_s < worker.ready_s
    assert set(worker.versions) == {"mlx"}
    np.save(tmp_path / "sound.npy", speech_like(16_000, seed=1))
    heard = worker.ask("stream", sound=str(tmp_path / "sound.npy"), delay_tokens=1)
    assert heard["n_tokens"] >= 12
    assert isinstance(heard["text"], str)
    assert "error" in worker.ask("file", path=str(tmp_path / "nothing.wav"))
    assert worker.ask("memory")["resident_peak_mb"] > 10
    worker.close()


def test_a_worker_that_takes_too_long_is_stopped() -> None:
    script = "print('{}', flush=True); import time; time.sleep(60)"
    with Worker([sys.executable, "-c", script], clean_environment(1), 0.5) as worker:
        assert worker.ask("file") == {"error": "stopped after 0.5 s"}
        assert worker.ask("file") == {"error": "the process has ended"}


def test_peers_do_not_see_our_package_by_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    environment = clean_environment(2, "libopenblas.so.0")
    assert "PYTHONPATH" not in environment
    assert environment["OMP_NUM_THREADS"] == "2"
    assert environment["LD_PRELOAD"] == "libopenblas.so.0"


def test_texts_are_compared_and_the_first_difference_is_named() -> None:
    said = {
        "ours": {"text": "the low of forty nine"},
        "same": {"text": " the low of forty nine\n"},
        "other": {"text": "the of forty nine"},
        "mute": {"text": None},
    }
    row = compared({who: [1.0, 2.0] for who in said}, said, "s")
    assert row["ratio"]["mute"]["median"] == 1
    assert row["text"] == {
        "same": "equal",
        "other": "differs at character 4: 'the of forty nin', not 'the low of forty'",
    }


def test_a_text_that_stops_early_differs_where_it_stops() -> None:
    assert first_difference("one two", "one") == (
        "stops at character 3 of 7, before ' two'"
    )
    assert first_difference("one", " one ") is None


def test_a_report_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "peers.md"
    path.write_text(f"old tables\n\n{EXPLANATION}\n\nBy hand.\n")
    times = {"ours": [2.0, 2.0], "transcribe-cpp": [1.0, 3.0], "voxmlx": [1.0]}
    said = {
        "ours": {"text": "a"},
        "transcribe-cpp": {"text": "b"},
        "voxmlx": {"error": "not asked"},
    }
    regime = {
        "versions": {"ours": {"mlx": "1"}, "transcribe-cpp": {"x": "2"}, "voxmlx": {}},
        "stream": compared(times, said, "s"),
        "peak, file, 60 s": {"unit": "MB", "median": {"ours": 100.0}},
    }
    finding = {"finding": "It stops.", "case": "A stream.", "seen": "Nothing."}
    conditions = {
        "commit": "abc",
        "chip": "chip",
        "n_cores": 2,
        "n_threads": 1,
        "blas": None,
    }
    write_report(path, {"demo": regime, "findings": [finding]}, conditions)
    text = path.read_text()
    assert "old tables" not in text
    assert text.endswith(f"{EXPLANATION}\n\nBy hand.\n")
    assert "| stream in pieces of 80 ms | 2 s | 1.00 (0.50-1.50) | not asked |" in text
    assert "| peak, file, 60 s | 100 MB | - | - |" in text
    assert "- stream in pieces of 80 ms, transcribe-cpp: differs at character 0" in text
    assert "**It stops.**" in text


def test_sessions_streamed_together_are_timed_by_step_and_part(tmp_path: Path) -> None:
    checkpoint = load(TinyModel().write(tmp_path / "model"), "float32")
    sound = speech_like(10 * 1280, seed=1)
    run = stream(checkpoint, sound, 25, n_sessions=2, n_before=40)
    assert len(run.steps) == 25
    assert run.n_tokens == 2 * 25
    assert list(parts(checkpoint)) == ["mel", "encoder", "adapter", "decoder", "head"]
