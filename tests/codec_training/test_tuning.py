"""Tuning as a function: rates, averages, shifts, resuming, and the control without a loss."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from makers.audio import codec_tone, make_tone
from makers.codecs import MAKERS, BlockCodec, make_dac
from makers.recipes import ROOT
from tokgen.codec.identity import encodes_like
from tokgen.codec_training.ablation import run_ablation
from tokgen.codec_training.ablation_settings import AblationSettings
from tokgen.codec_training.crops import open_crops
from tokgen.codec_training.discriminators.ensemble import Discriminator
from tokgen.codec_training.loop import CodecTraining
from tokgen.codec_training.settings import TuningSettings, tuning_folder
from tokgen.codec_training.tuning import make_reencoder, mix, tune_codec
from tokgen.runs.settings import parse_settings
from tokgen.zoo.lookup import load_codec


@pytest.fixture
def settings(tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path) -> TuningSettings:
    return TuningSettings(
        name="run", runs=str(tmp_path), codec=str(tiny_codec_folder), corpora=[str(tiny_corpus)],
        discriminator={"periods": [], "windows": [256], "channels": 2}, discriminator_warmup=0,
        weight=1.0, passes=2, steps=4, batch_size=2, seconds=0.25, learning_rate=0.01,
        adversarial_share=0.5, validation_passes=2, validation_min_seconds=0.0, validate_every=4,
        checkpoint_every=1, mixed_precision="no",
    )  # fmt: skip


def weights_of(settings: TuningSettings) -> dict[str, torch.Tensor]:
    return load_file(tuning_folder(settings) / "codec" / "model.safetensors")


def training_of(settings: TuningSettings, folder: Path, steps: int, first: int = 0):
    """A training without the loop around it."""
    torch.manual_seed(0)
    base = load_codec(settings.codec)
    return CodecTraining(
        Accelerator(cpu=True),
        make_reencoder(settings, base),
        Discriminator(**settings.discriminator),
        open_crops(settings, base.spec.sample_rate, folder),
        settings,
        folder,
        steps=steps,
        first=first,
    )


def step_through(training: CodecTraining, first: int = 0) -> list[torch.Tensor]:
    """Take the steps and return one weight after each."""
    weight, seen = next(p for p in training.model.parameters() if p.requires_grad), []
    for step in training.steps():
        if step >= first:
            audio, _ = training.audio(step)
            training.descend(training.network(audio).drift)
            seen.append(weight.detach().clone())
    return seen


def test_a_network_that_cannot_be_copied_is_refused_by_name(settings):
    base = load_codec(settings.codec)
    weight = next(p for p in base.model.parameters() if p.requires_grad)
    base.model.normed = 2 * weight  # as torch's old weight norm keeps it
    with pytest.raises(ValueError, match="cannot be tuned, because its network cannot be copied"):
        make_reencoder(settings, base)


REFUSED = {
    "mimi": "does not expose its stages.*use tokgen's STFT codec, DAC, .*WavTokenizer",
    "snac": "does not expose its stages",
    "encodec-48k": "does not expose its stages",
    "speechtokenizer": "speechtokenizer cannot be tuned, because its network cannot be saved: use",
}


@pytest.mark.parametrize("name", REFUSED)
def test_codecs_that_cannot_be_tuned_are_refused_before_audio_and_folders(
    settings, tmp_path, monkeypatch, name
):
    codec = MAKERS[name]()
    monkeypatch.setattr("tokgen.codec_training.tuning.load_codec", lambda _: codec)
    for module in ("tuning", "ablation"):
        for opening in ("open_crops", "open_validation"):
            monkeypatch.setattr(f"tokgen.codec_training.{module}.{opening}", read_too_early)
    monkeypatch.setattr("tokgen.codec_training.ablation.open_corpus", read_too_early)
    for loss in ("code", "margin"):
        tuning = replace(settings, runs=str(tmp_path / "runs"), loss=loss)
        plan = AblationSettings(loss=["none", loss], tuning=tuning, runs=str(tmp_path / "runs"))
        for run in (lambda: tune_codec(tuning), lambda: run_ablation(plan)):  # noqa: B023
            with pytest.raises(ValueError, match=REFUSED[name]):
                run()
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_the_codec_lacks_is_refused_before_audio_and_folders(
    settings, tmp_path, monkeypatch
):
    """One condition of an ablation is enough."""
    codec = BlockCodec()
    monkeypatch.setattr("tokgen.codec_training.tuning.load_codec", lambda _: codec)
    monkeypatch.setattr("tokgen.codec_training.ablation.open_corpus", read_too_early)
    tuning = replace(settings, runs=str(tmp_path / "runs"), passes=2)
    plan = AblationSettings(loss=["code", "margin"], tuning=tuning, runs=str(tmp_path / "runs"))
    with pytest.raises(ValueError, match="loss 'margin': block does not expose its codebooks"):
        run_ablation(plan)
    assert not (tmp_path / "runs").exists()


def read_too_early(*args, **named):
    raise AssertionError("audio was opened for a codec that cannot be tuned")


@pytest.mark.parametrize(("average", "first", "n"), [(0.5, 0, 3), (1.0, 2, 4), (0.25, 2, 1)])
def test_the_average_is_the_mean_of_the_last_weights(settings, tmp_path, average, first, n):
    s = replace(settings, average=average, ema=0.9)
    training = training_of(s, tmp_path / "a", steps=6, first=first)
    seen = step_through(training, first)
    assert len(seen) == 6 - first
    found = next(p for p in training.averaged().parameters() if p.requires_grad)
    torch.testing.assert_close(found.detach(), torch.stack(seen[-n:]).mean(0))
    assert not torch.allclose(seen[-1], seen[-2], rtol=1e-4)


def test_rates_of_both_optimisers_go_on_from_an_earlier_training(settings, tmp_path):
    s = replace(settings, lr_decay=0.9, rate_steps_before=5, discriminator_learning_rate=0.2)
    training = training_of(s, tmp_path / "a", steps=1)
    assert training.set_rates(3, factor=0.5) == pytest.approx(0.01 * 0.9**8 * 0.5)
    assert training.optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * 0.9**8 * 0.5)
    critic = training.adversary.optimizer.param_groups[0]
    assert critic["lr"] == pytest.approx(0.2 * 0.9**8)
    assert training.set_rates(0, peak=1.0) == pytest.approx(0.9**5)


def test_the_papers_tuning_goes_on_at_the_rate_of_its_pretraining():
    before = ROOT / "recipes/train_codec.paper48k.yaml"
    tuning = parse_settings(TuningSettings, ROOT / "recipes/tune_idempotence.paper48k.yaml", [])
    assert f"steps: {tuning.rate_steps_before}\n" in before.read_text()
    assert tuning.lr_decay**tuning.rate_steps_before == pytest.approx(0.1353, abs=1e-4)
    assert not tuning.detach_target and not tuning.hold_first  # the paper's gradient
    assert tuning.mixed_precision == "no"


@pytest.mark.parametrize(("share", "last"), [(0.0, 2), (0.5, 5)])
def test_a_discriminator_that_no_step_uses_does_not_train(settings, share, last):
    s = replace(settings, steps=2, discriminator_warmup=3, adversarial_share=share)
    s = replace(s, validate_every=2)
    assert tune_codec(s) is not None
    found = [p.name for p in tuning_folder(s).glob("checkpoints/step-*")]
    assert max(int(name.removeprefix("step-")) for name in found) == last


def test_shifts_and_averages_survive_an_interruption(settings, tmp_path):
    s = replace(settings, shift=100, average=0.75, later_weight=0.3, drifted_passes=1)
    whole = replace(s, name="whole")
    scores = tune_codec(whole)
    assert scores is not None and scores.n > 0
    # The same run, stopped after two steps.
    cut = replace(s, name="cut")
    assert tune_codec(cut) == scores
    checkpoints = tuning_folder(cut) / "checkpoints"
    assert sorted(p.name for p in checkpoints.iterdir()) == ["step-3", "step-4"]
    for path in sorted((checkpoints / "step-4").iterdir()):
        path.unlink()
    (checkpoints / "step-4").rmdir()
    (tuning_folder(cut) / "codec" / "model.safetensors").unlink()
    assert tune_codec(cut) == scores  # from step 3
    assert all(weights_of(whole)[k].equal(w) for k, w in weights_of(cut).items())
    still = replace(s, name="still", shift=0)
    tune_codec(still)
    assert any(not weights_of(whole)[k].equal(w) for k, w in weights_of(still).items())


def test_a_dac_is_mixed_without_its_weight_norm():
    base, tuned = make_dac("dac-even"), make_dac("dac-even")
    tuned.prepare_training()
    with torch.no_grad():
        for weight in tuned.model.decoder.parameters():
            weight *= 1.5
    name = "decoder.conv1.weight"
    before, after = base.model.state_dict()[name], tuned.model.decoder.conv1.weight.detach().clone()
    assert not torch.allclose(before, after)
    mixed = mix(tuned, base, 0.25).model.state_dict()
    torch.testing.assert_close(mixed[name], 0.25 * before + 0.75 * after)
    assert mixed.keys() == base.model.state_dict().keys()


def test_a_share_of_the_untuned_weights_is_mixed_into_what_is_saved(settings):
    tune_codec(settings)
    tuned, base = weights_of(settings), load_file(Path(settings.codec) / "model.safetensors")
    mixed = replace(settings, name="mixed", untuned_share=0.25)
    tune_codec(mixed)
    name = max(tuned, key=lambda n: float((tuned[n].float() - base[n].float()).abs().max()))
    assert not tuned[name].equal(base[name])
    for name, weight in weights_of(mixed).items():
        wanted = 0.75 * tuned[name].float() + 0.25 * base[name].float()
        torch.testing.assert_close(weight.float(), wanted, rtol=2e-3, atol=2e-5)
    # It is no part of the training, so a run may go on with another
    tune_codec(replace(mixed, untuned_share=0.5))
    with pytest.raises(ValueError, match=r"untuned_share is 1\.5, but must be between 0 and 1"):
        replace(settings, untuned_share=1.5)


def test_a_run_without_a_loss_has_no_sweep_and_shares_the_audio(settings, tmp_path):
    none = replace(settings, name="none", loss="none", weight=None)
    assert tune_codec(none, audio=tmp_path / "shared") is not None
    folder = tuning_folder(none)
    assert not (folder / "sweep.json").exists() and not (folder / "cache").exists()
    assert list((tmp_path / "shared" / "cache").glob("*.i16"))
    assert json.loads((folder / "metrics.json").read_text())["weight"] == 0
    zero = replace(settings, name="zero", loss="code", weight=0.0)
    tune_codec(zero)
    for name, weight in weights_of(zero).items():
        torch.testing.assert_close(weights_of(none)[name], weight, atol=1e-3, rtol=1e-2)


@pytest.mark.parametrize("name", ["bigcodec", "wavtokenizer", "xcodec"])
def test_codecs_whose_quantizer_lies_elsewhere_are_tuned(settings, tmp_path, name):
    base = MAKERS[name]()
    base.save_pretrained(tmp_path / "base")
    more = {"loss": "margin", "steps": 2, "validate_every": 2, "average": 0.5}
    more["untuned_share"] = 0.25
    s = replace(settings, codec=str(tmp_path / "base"), **more)
    assert tune_codec(s) is not None
    tuned = load_codec(tuning_folder(s) / "codec")
    assert type(tuned) is type(base)
    for before, after in zip(base.quantizer_modules(), tuned.quantizer_modules(), strict=True):
        weights = after.state_dict()
        assert weights and all(w.equal(weights[k]) for k, w in before.state_dict().items())
    pairs = zip(base.encoder_modules(), tuned.encoder_modules(), strict=True)
    assert any(changed(*pair) for pair in pairs)
    parts = base.decoder_parts
    assert any(
        changed(base.model.get_submodule(p[:-1]), tuned.model.get_submodule(p[:-1])) for p in parts
    )
    tuned.save_pretrained(tmp_path / "again")
    audio = codec_tone(tuned, 4000)
    codes = tuned.encode(audio)
    again = load_codec(tmp_path / "again")
    assert again.encode(audio).equal(codes) and again.decode(codes).equal(tuned.decode(codes))
    assert not base.encode_latents(audio).equal(tuned.encode_latents(audio))


def changed(before: torch.nn.Module, after: torch.nn.Module) -> bool:
    weights = after.state_dict()
    return any(not w.equal(weights[k]) for k, w in before.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_frozen_encoder_keeps_all_codes(settings, tmp_path, dtype):
    """Only the decoder learns, so token datasets of the untuned codec remain valid."""
    load_codec(settings.codec).save_pretrained(tmp_path / "base", dtype=dtype)
    s = replace(
        settings, codec=str(tmp_path / "base"), loss="margin", freeze_encoder=True,
        hold_first=True, later_weight=0.3, ema=0.9, average=0.5, weight_decay=0.1,
    )  # fmt: skip
    assert tune_codec(s) is not None
    before, after = load_file(tmp_path / "base" / "model.safetensors"), weights_of(s)
    assert before.keys() == after.keys()
    changed = {name for name, weight in before.items() if not weight.equal(after[name])}
    assert changed and all(name.startswith("decoder") for name in changed)
    assert all(weight.dtype == dtype for weight in after.values())
    base, tuned = load_codec(s.codec), load_codec(tuning_folder(s) / "codec")
    audio = torch.stack([make_tone(1.0, seed) for seed in range(2)])
    codes = base.encode(audio)
    assert torch.equal(tuned.encode(audio), codes)
    assert not torch.allclose(tuned.decode(codes), base.decode(codes), atol=1e-3)
    assert encodes_like(tuned.spec, base.spec)
