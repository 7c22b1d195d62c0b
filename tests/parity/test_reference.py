"""The reference is what transformers and mistral-common themselves compute."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="parity needs torch: install .[parity]")
pytest.importorskip("transformers", reason="parity needs it: install .[parity]")

import torch
from mistral_common.tokens.tokenizers.audio import AudioEncoder, SpecialAudioIDs
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from transformers import VoxtralRealtimeFeatureExtractor, VoxtralRealtimeProcessor
from transformers.tokenization_mistral_common import MistralCommonBackend

from tests.padding import n_new_tokens, pad_sound, prompt
from tests.reference import Reference
from tests.sounds import speech_like
from tests.tiny import PAD, TinyModel
from voxmlx import LEGAL_DELAYS_MS

SOUND = speech_like(4 * 16_000 + 77, seed=6)


@pytest.fixture(scope="module")
def reference(tiny_checkpoint_dir: Path) -> Reference:
    return Reference(tiny_checkpoint_dir)


@pytest.mark.parametrize("delay_ms", LEGAL_DELAYS_MS)
def test_padding_and_prompt_are_those_of_mistral_common(
    tiny_checkpoint_dir: Path, delay_ms: int
) -> None:
    config = Tekkenizer.from_file(tiny_checkpoint_dir / "tekken.json").audio
    assert config is not None
    encoder = AudioEncoder(config, SpecialAudioIDs(24, 25, PAD, None, None))
    assert encoder.encode_streaming_tokens(delay_ms) == prompt(delay_ms)[1:]
    for n_samples in (0, 1, 1279, 1280, 1281, 20_000):
        theirs = encoder.pad(SOUND[:n_samples], 16_000, delay_ms)
        np.testing.assert_array_equal(pad_sound(SOUND[:n_samples], delay_ms), theirs)


@pytest.mark.parametrize("delay_ms", LEGAL_DELAYS_MS)
def test_inputs_are_those_of_the_processor_of_transformers(
    reference: Reference, tmp_path: Path, delay_ms: int
) -> None:
    tekken = TinyModel().tekken()
    tekken["audio"]["transcription_delay_ms"] = float(delay_ms)
    (tmp_path / "tekken.json").write_text(json.dumps(tekken), encoding="utf-8")
    processor = VoxtralRealtimeProcessor(
        VoxtralRealtimeFeatureExtractor(),
        MistralCommonBackend(tmp_path / "tekken.json"),
    )
    inputs = processor(SOUND, return_tensors="pt")  # pyright: ignore[reportCallIssue] -- passed on
    assert inputs["input_ids"].tolist() == [prompt(delay_ms)]
    assert inputs["num_delay_tokens"] == delay_ms // 80
    mel = reference.log_mel(pad_sound(SOUND, delay_ms))
    np.testing.assert_array_equal(mel.T, inputs["input_features"][0])


@pytest.mark.parametrize("delay_ms", [80, 480, 2400])
def test_generate_equals_a_loop_and_one_pass_without_caches(
    reference: Reference, delay_ms: int
) -> None:
    generated = reference.greedy_tokens(SOUND, delay_ms)
    assert len(generated) == n_new_tokens(len(SOUND))
    by_loop, leads = reference.greedy_tokens_by_loop(SOUND, delay_ms)
    assert by_loop == generated
    choices, leads_of_choices = reference.greedy_choices(SOUND, delay_ms, generated)
    assert choices == generated
    np.testing.assert_allclose(leads, leads_of_choices, rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    "other",
    [{"attention": "eager"}, {"exact_angles": True}, {"dtype": torch.float64}],
    ids=["eager", "exact_angles", "float64"],
)
def test_rounding_is_far_below_the_tolerance_of_parity(
    reference: Reference, tiny_checkpoint_dir: Path, other: dict[str, object]
) -> None:
    token_ids = prompt(480) + reference.greedy_tokens_by_loop(SOUND, 480)[0]
    expected = reference.logits(SOUND, 480, token_ids)
    precise = Reference(tiny_checkpoint_dir, **other)  # pyright: ignore[reportArgumentType] -- one of several
    got = precise.logits(SOUND, 480, token_ids)
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-5)
