"""Train the demo model: python -m training.train --data DIR --out DIR."""

import argparse
import datetime
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from torch.nn import functional as F

from training.dataset import Dataset
from training.export import load_checkpoint
from training.features import Features
from training.feeder import Feeder
from training.grow import grow
from training.model import TinyConfig, TinyVoxtral
from training.muon import MuonAdam
from training.partner import Partner
from training.streams import IGNORED, Batch, StreamMaker
from training.targets import PAD_ID, word_encoder

WARM_UP_STEPS = 30
EMA_DECAY = 0.995

__all__ = ["main"]


@dataclass(slots=True)
class Progress:
    """What has been trained so far."""

    step: int = 0
    minutes: float = 0.0
    hours_heard: float = 0.0


class Trainer:
    """A model, its averaged weights, its optimiser and how far they are."""

    def __init__(self, model: TinyVoxtral, device: torch.device) -> None:
        self.model = model.to(device)
        self.device = device
        self.averaged = {k: v.clone() for k, v in model.state_dict().items()}
        self.optimiser = MuonAdam(model)
        self.progress = Progress()

    def begin_with(self, model: TinyVoxtral) -> None:
        self.model.load_state_dict(model.state_dict())
        self.averaged = {k: v.clone() for k, v in self.model.state_dict().items()}

    def save(self, path: Path) -> None:
        """Write everything needed to go on, whole or not at all."""
        state = {
            "config": self.model.config.to_dict(),
            "model": self.model.state_dict(),
            # As they are exported.
            "averaged": {k: v.bfloat16() for k, v in self.averaged.items()},
            "optimiser": self.optimiser.state_dict(),
            "step": self.progress.step,
            "minutes": self.progress.minutes,
            "hours_heard": self.progress.hours_heard,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.averaged = {k: v.float() for k, v in state["averaged"].items()}
        self.optimiser.load_state_dict(state["optimiser"])
        self.progress = Progress(state["step"], state["minutes"], state["hours_heard"])

    @torch.no_grad()
    def average(self) -> None:
        """Move the averaged weights towards the current ones."""
        decay = min(EMA_DECAY, (1 + self.progress.step) / (10 + self.progress.step))
        torch._foreach_lerp_(  # the only batched lerp there is
            list(self.averaged.values()),
            list(self.model.state_dict().values()),
            1 - decay,
        )


Loss = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def make_loss(model: TinyVoxtral, *, use_bfloat16: bool) -> Loss:
    """(log-mel, ids, targets, delay) -> cross entropy and argmax of each position."""

    def loss(
        log_mel: torch.Tensor,
        token_ids: torch.Tensor,
        targets: torch.Tensor,
        delay_tokens: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.autocast(log_mel.device.type, torch.bfloat16, enabled=use_bfloat16):
            audio = model.encode(log_mel)
            logits = model.decode(audio, token_ids, model.t_cond(delay_tokens))
        flat = logits.flatten(0, 1).float()
        entropy = F.cross_entropy(
            flat, targets.flatten(), reduction="none", ignore_index=IGNORED
        )
        return entropy, flat.argmax(-1)

    return loss


def _prepare_loss(
    model: TinyVoxtral, *, use_bfloat16: bool, use_compiler: bool
) -> Loss:
    loss = make_loss(model, use_bfloat16=use_bfloat16)
    return torch.compile(loss, dynamic=False) if use_compiler else loss


def _gradient_maker(
    model: TinyVoxtral, seed: int, *, use_bfloat16: bool, use_compiler: bool
) -> Callable[[Batch], int]:
    """Adds the gradient of a batch's summed loss; returns the tokens in it."""
    loss = _prepare_loss(model, use_bfloat16=use_bfloat16, use_compiler=use_compiler)

    features = Features("cpu", seed)

    def add_gradient(batch: Batch) -> int:
        log_mel = features(batch.samples)
        entropy, _ = loss(log_mel, batch.token_ids, batch.targets, batch.delay_tokens)
        entropy.sum().backward()
        return int((batch.targets != IGNORED).sum())

    return add_gradient


def learning_rate_factor(
    n_steps: int, minutes_left: float, decay_minutes: float
) -> float:
    """Warm up over the first steps, stay, then fall linearly to zero at the end."""
    warm = min(1.0, (n_steps + 1) / WARM_UP_STEPS)
    return warm * min(1.0, max(0.0, minutes_left) / decay_minutes)


def _make_streams(
    folder: Path, sources: list[str], tokenizer: Path, n_tokens: int, seed: int
) -> StreamMaker:
    """Rows of all data sets of each source that lie in `folder`, at any depth."""
    weighted = []
    for name, weight in (pair.split("=") for pair in sources):
        found = sorted(path.parent for path in folder.rglob(f"{name}/utterances.jsonl"))
        if not found:
            raise FileNotFoundError(f"no data set {name} in {folder}")
        sets = [Dataset(path) for path in found]
        n_all = sum(map(len, sets))
        weighted += [(float(weight) * len(one) / n_all, one) for one in sets]
    encode_word = word_encoder(Tekkenizer.from_file(tokenizer))
    return StreamMaker(weighted, encode_word, n_tokens, seed)


def _end(args: argparse.Namespace) -> float:
    """When the run ends, on time.time()'s clock."""
    if args.until is None:
        return time.time() + 60 * args.minutes
    now = datetime.datetime.now(datetime.UTC)
    clock = datetime.time.fromisoformat(args.until)
    end = datetime.datetime.combine(now.date(), clock, datetime.UTC)
    return end.timestamp()


@dataclass(slots=True)
class Meter:
    """Running means of the loss and of accuracy where something is due."""

    loss: float = float("nan")
    spoken_loss: float = float("nan")
    spoken_accuracy: float = float("nan")

    def update(self, entropy: torch.Tensor, ids: torch.Tensor, batch: Batch) -> None:
        targets = batch.targets.flatten().to(ids.device)
        spoken = (targets != IGNORED) & (targets != PAD_ID)
        new = (
            entropy[targets != IGNORED].mean().item(),
            entropy[spoken].mean().item(),
            (ids == targets)[spoken].float().mean().item(),
        )
        if self.loss != self.loss:  # the first one: NaN
            self.loss, self.spoken_loss, self.spoken_accuracy = new
            return
        old = (self.loss, self.spoken_loss, self.spoken_accuracy)
        mixed = [0.96 * a + 0.04 * b for a, b in zip(old, new, strict=True)]
        self.loss, self.spoken_loss, self.spoken_accuracy = mixed


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    tokenizer = Tekkenizer.from_file(args.tokenizer)
    config = TinyConfig(vocab_size=tokenizer.n_words)
    trainer = Trainer(TinyVoxtral(config), device)
    state_path = args.out / "state.pt"
    args.out.mkdir(parents=True, exist_ok=True)
    if state_path.exists():
        trainer.load(state_path)
    elif args.init is not None:
        trainer.begin_with(grow(load_checkpoint(args.init), config))
    progress = trainer.progress
    first_step = progress.step
    # Another seed after every resumption: no row is seen again.
    seed = args.seed + 1000 * first_step
    end = _end(args)
    make_streams = partial(
        _make_streams, args.data, args.sources, args.tokenizer, args.tokens
    )
    feeder = Feeder(
        make_streams,
        args.rows,
        args.feeders,
        seed=seed,
        core=args.feeder_core,
    )
    features = Features(device, seed)
    partner = None
    if args.partner_rows:
        partner = Partner(
            trainer.model,
            make_streams,
            partial(
                _gradient_maker,
                seed=seed + 251,
                use_bfloat16=args.bfloat16,
                use_compiler=args.compile,
            ),
            args.partner_rows,
            seed=seed + 250,
            core=args.feeder_core,
        )
    loss = _prepare_loss(
        trainer.model, use_bfloat16=args.bfloat16, use_compiler=args.compile
    )
    n_parameters = sum(w.numel() for w in trainer.model.parameters())
    print(f"{n_parameters / 1e6:.2f} M parameters, from step {first_step}", flush=True)
    meter = Meter()
    last_time = last_saved = time.monotonic()
    while (minutes_left := (end - time.time()) / 60) > 0:
        batch = feeder.batch()
        rest = (batch.token_ids, batch.targets, batch.delay_tokens)
        entropy, ids = loss(features(batch.samples), *(x.to(device) for x in rest))
        n_counted = int((batch.targets != IGNORED).sum())
        trainer.model.zero_grad()
        entropy.sum().backward()
        if partner is not None:
            n_counted += partner.join()
        for weight in trainer.model.parameters():
            weight.grad /= n_counted
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 5.0)
        factor = learning_rate_factor(
            progress.step - first_step, minutes_left, args.decay_minutes
        )
        trainer.optimiser.step(args.muon_lr * factor, args.adam_lr * factor)
        trainer.average()
        meter.update(entropy.detach(), ids, batch)
        now = time.monotonic()
        progress.minutes += (now - last_time) / 60
        last_time = now
        progress.step += 1
        progress.hours_heard += n_counted * 0.08 / 3600
        if progress.step % args.log_every == 0:
            print(
                f"step {progress.step} {progress.minutes:.1f} min "
                f"{progress.hours_heard:.1f} h lr x{factor:.2f} "
                f"loss {meter.loss:.4f} spoken {meter.spoken_loss:.3f} "
                f"accuracy {meter.spoken_accuracy:.3f} "
                f"batches made here {feeder.n_made_here}"
                + (f" joined {partner.n_joined}" if partner is not None else ""),
                flush=True,
            )
        if now - last_saved > 60 * args.save_minutes:
            trainer.save(state_path)
            last_saved = now
    trainer.save(state_path)
    feeder.close()
    if partner is not None:
        partner.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of data sets, or of such")
    add("--sources", nargs="+", default=["espeak=1", "flite=1", "rhvoice=1"])
    add("--out", type=Path, required=True, help="folder of state.pt; resumed if there")
    add("--tokenizer", type=Path, required=True, help="tekken.json")
    add("--init", type=Path, help="checkpoint folder to begin with")
    add("--minutes", type=float, default=60, help="length of this run")
    add("--until", help="end of this run instead, HH:MM UTC of today")
    add("--decay-minutes", type=float, default=40, help="of falling rates at the end")
    add("--rows", type=int, default=4)
    add("--tokens", type=int, default=192, help="audio tokens of a row")
    add("--muon-lr", type=float, default=0.02)
    add("--adam-lr", type=float, default=3e-3)
    add("--seed", type=int, default=1)
    add("--threads", type=int, default=1)
    add("--feeders", type=int, default=1, help="processes that make batches")
    add("--feeder-core", type=int, help="core of batches and of the partner")
    add("--partner-rows", type=int, default=0, help="rows on that core at each step")
    add("--device", default="cpu")
    add("--compile", action="store_true")
    add("--bfloat16", action="store_true")
    add("--log-every", type=int, default=10)
    add("--save-minutes", type=float, default=4)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
