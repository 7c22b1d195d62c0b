"""What peers are given is what we read ourselves, and their process is asked in JSON."""

import json
import sys
from pathlib import Path

import pytest

from benchmarks.peer_models import (
    DENSE_BITS,
    clean_environment,
    mlx_audio_config,
    write_all,
    write_source,
)
from benchmarks.peers import Worker
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
    environment = {**clean_environment(), "PYTHONPATH": str(_ROOT)}
    worker = Worker(
        [sys.executable, "-m", "benchmarks.own_worker", source], environment
    )
    assert worker.load_s is not None
    for task in ("decoder_step", "encoder_step", "products"):
        assert len(worker.ask(task, n=3, warm=1)["ms"]) == 3
    assert "error" in worker.ask("file", path=str(tmp_path / "nothing.wav"))
    assert worker.ask("memory")["resident_peak_mb"] > 10
    worker.close()


def test_peers_do_not_see_our_package_by_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(_ROOT))
    assert "PYTHONPATH" not in clean_environment()


def test_sessions_streamed_together_are_timed_by_step_and_part(tmp_path: Path) -> None:
    checkpoint = load(TinyModel().write(tmp_path / "model"), "float32")
    sound = speech_like(10 * 1280, seed=1)
    run = stream(checkpoint, sound, 25, n_sessions=2, n_before=40)
    assert len(run.steps) == 25
    assert run.n_tokens == 2 * 25
    assert list(parts(checkpoint)) == ["mel", "encoder", "adapter", "decoder", "head"]
