"""README.md of a converted model: what it is, and what its bits cost."""

from typing import Any

from .disk import amount
from .plan import Plan

__all__ = ["model_card"]


_LIBRARIES = {"voxmlx": "voxmlx", "mlx-audio": "mlx-audio", "awni": "mlx"}
_READERS = {
    "voxmlx": "voxmlx reads it.",
    "mlx-audio": "mlx-audio and voxmlx-realtime read it.",
    "awni": "awni/voxmlx and voxmlx-realtime read it.",
}


def model_card(plan: Plan, name: str, quality: dict[str, Any] | None) -> str:
    """Markdown with the Hub's front matter."""
    library = _LIBRARIES[plan.layout]
    lines = ["---", "license: apache-2.0", f"library_name: {library}"]
    lines += ["pipeline_tag: automatic-speech-recognition"]
    if "/" in plan.source_name:
        lines.append(f"base_model: {plan.source_name}")
    lines += ["tags:", "- mlx", "- voxtral", "- streaming", "---", ""]
    lines += [
        f"# {name}",
        "",
        f"Voxtral Realtime converted from `{plan.source_name}` by voxmlx "
        f"{plan.version}: recipe `{plan.recipe.name}` ({plan.recipe.summary}), "
        f"{_rounding(plan)}other weights in {plan.dtype}. {_READERS[plan.layout]}",
        "",
        "```",
        "pip install voxmlx-realtime",
        f"voxmlx transcribe --model {name} sound.wav",
        "```",
        "",
        "| | |",
        "|---|---|",
        f"| size | {amount(plan.n_bytes)} |",
        f"| bits per weight | {plan.bits_per_weight:.3f} |",
        f"| bytes per audio token (80 ms) | {amount(plan.bytes_per_audio_token)} |",
    ]
    if quality is not None:
        lines += _quality_rows(quality)
    lines += ["", "`sha256sum -c SHA256SUMS` verifies the files.", ""]
    return "\n".join(lines)


def _quality_rows(quality: dict[str, Any]) -> list[str]:
    total = quality["total"]
    at_load = quality.get("embedding_bits_at_load")
    against = f"the source in {quality['reference_dtype']}"
    n = len(quality["sounds"])
    sounds = "1 sound" if n == 1 else f"{n} sounds"
    rows = [
        f"| measured against | {against}, {total['n_tokens']} tokens of "
        f"{sounds}, delay {quality['delay_ms']} ms |",
        f"| token agreement, same history | {total['token_agreement']:.2%} |",
        f"| token agreement, own history | {total['free_token_agreement']:.2%} |",
        f"| logit error, mean / max | {total['mean_logit_error']:.4f} / "
        f"{total['max_logit_error']:.4f} |",
        f"| KL divergence, mean / p99 | {total['mean_kl']:.6f} / "
        f"{total['p99_kl']:.6f} nats |",
        f"| PAD margin, mean (source) | {_number(total['pad_margin'])} "
        f"({_number(total['reference_pad_margin'])}) |",
    ]
    if at_load is not None:
        rows.append(f"| embedding, when loaded | {at_load} bits, in these figures |")
    if total["wer"] is not None:
        rows.append(
            f"| WER (source), {quality['normaliser']} | {total['wer']:.2%} "
            f"({total['reference_wer']:.2%}) |"
        )
        low, high = total["wer_interval"]
        rows.append(f"| WER, 95 % bootstrap interval | {low:.2%} to {high:.2%} |")
    if (found := quality.get("confidence")) is not None:
        after = found["calibration_error"]
        rows.append(
            "| error of words' confidence, mapped (raw) | "
            f"{'unknown' if after is None else f'{after:.3f}'} "
            f"({found['calibration_error_raw']:.3f}) |"
        )
    return rows


def _rounding(plan: Plan) -> str:
    return f"rounding `{plan.rounding}`, " if plan.rounding is not None else ""


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"
