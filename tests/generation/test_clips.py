"""Tests of `generate_clips` with a tiny random codec and model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.codecs import make_encodec, make_stft_codec
from tokgen.generation.clips import conditioning_for, generate_clips
from tokgen.generation.prompts import task_prompt
from tokgen.generation.settings import SamplingSettings, TaskSettings
from tokgen.modelling.masked import MaskedTransformer
from tokgen.runs.store import ClipStore
from tokgen.tokens.conditioning import ConditioningSettings
from tokgen.zoo.stft import StftCodec

SETTINGS = SamplingSettings(steps=(4, 1))
N_SAMPLES = [5000, 321, 9600, 1, 4321]


def make_codec(name: str = "little", seed: int = 0) -> StftCodec:
    """A random codec with 3 levels of 32 entries."""
    return make_stft_codec(seed, name, latent_dim=8, n_codebooks=3, codebook_size=32)


@pytest.fixture(scope="module")
def codec() -> StftCodec:
    return make_codec()


@pytest.fixture(scope="module")
def model(codec: StftCodec) -> MaskedTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedTransformer.for_codec(
            codec,
            dim=32,
            depth=1,
            heads=2,
            dim_head=32,
            conditioning=asdict(ConditioningSettings.for_codec(codec.spec)),
            conditioning_mean=[-10.0] + [0.0] * 29,
            conditioning_std=[10.0] * 30,
        ).eval()


@pytest.fixture(scope="module")
def waveforms() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [0.3 * torch.randn(1, n, generator=generator) for n in N_SAMPLES]


def test_lengths_order_and_range(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor]
) -> None:
    conditioning = conditioning_for(model, waveforms)
    out = generate_clips(model, codec, N_SAMPLES, SETTINGS, conditioning=conditioning, batch_size=2)
    for made, n in zip(out, N_SAMPLES, strict=True):
        assert made.codes.shape == (3, codec.spec.n_frames(n))
        assert 0 <= made.codes.min() <= made.codes.max() < 32
        assert made.waveform.shape == (1, n)
        assert repr(made).startswith(f"Generated(3 levels x {codec.spec.n_frames(n)} frames, {n} ")
        torch.testing.assert_close(made.waveform, codec.decode(made.codes[None], n)[0])


def test_batch_size_and_order_do_not_change_codes(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor]
) -> None:
    conditioning = conditioning_for(model, waveforms)
    one = generate_clips(
        model, codec, N_SAMPLES, SETTINGS, conditioning=conditioning, seed=3, batch_size=1
    )
    for size in (2, 5):
        many = generate_clips(
            model, codec, N_SAMPLES, SETTINGS, conditioning=conditioning, seed=3, batch_size=size
        )
        assert all(torch.equal(a.codes, b.codes) for a, b in zip(one, many, strict=True))
    back = generate_clips(
        model,
        codec,
        N_SAMPLES[::-1],
        SETTINGS,
        conditioning=conditioning[::-1],
        seed=3,
        item_ids=[4, 3, 2, 1, 0],
    )
    assert all(torch.equal(a.codes, b.codes) for a, b in zip(one, back[::-1], strict=True))


def test_conditioning_changes_the_codes(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor]
) -> None:
    conditioning = conditioning_for(model, waveforms)
    louder = [c + 20 for c in conditioning]
    plain, changed, floor = (
        generate_clips(model, codec, N_SAMPLES, SETTINGS, conditioning=c)
        for c in (conditioning, louder, None)
    )
    assert not torch.equal(plain[2].codes, changed[2].codes)
    assert not torch.equal(plain[2].codes, floor[2].codes)


def test_saved_model_generates_the_same(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor], tmp_path: Path
) -> None:
    loaded = MaskedTransformer.from_pretrained(model.save_pretrained(tmp_path / "model"))
    before = conditioning_for(model, waveforms[:2])
    after = conditioning_for(loaded, waveforms[:2])
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    a = generate_clips(model, codec, N_SAMPLES[:2], SETTINGS, conditioning=before)
    b = generate_clips(loaded, codec, N_SAMPLES[:2], SETTINGS, conditioning=after)
    assert all(torch.equal(x.waveform, y.waveform) for x, y in zip(a, b, strict=True))


def test_side_information_is_passed_on(waveforms: list[Tensor]) -> None:
    codec = make_encodec("encodec-48k")  # one scale per chunk of 8000 samples
    settings = asdict(ConditioningSettings.for_codec(codec.spec))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MaskedTransformer.for_codec(
            codec, dim=32, depth=1, heads=2, dim_head=32, conditioning=settings
        ).eval()
    conditioning = conditioning_for(model, waveforms)
    sides = [e.side for e in codec.encode_batch_with_side(waveforms)]
    with pytest.raises(ValueError, match=r"needs side information \['scales'\] of 5 utterances"):
        generate_clips(model, codec, N_SAMPLES, SETTINGS, conditioning=conditioning)
    with pytest.raises(ValueError, match="pass `sides`"):
        generate_clips(
            model, codec, N_SAMPLES, SETTINGS, conditioning=conditioning, sides=sides[:2]
        )
    out = generate_clips(
        model, codec, N_SAMPLES, SETTINGS, conditioning=conditioning, sides=sides, batch_size=2
    )
    for made, n, side in zip(out, N_SAMPLES, sides, strict=True):
        assert made.codes.shape == (3, codec.spec.n_frames(n))
        expected = codec.decode(made.codes[None], n, {"scales": side["scales"][None]})
        torch.testing.assert_close(made.waveform, expected[0])


def test_nothing_to_generate(model: MaskedTransformer, codec: StftCodec) -> None:
    assert generate_clips(model, codec, [], SETTINGS, conditioning=[]) == []


def test_generate_checks_the_conditioning(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor]
) -> None:
    conditioning = conditioning_for(model, waveforms[:1])
    with pytest.raises(ValueError, match=r"'little'.*'stranger'"):
        generate_clips(
            model, make_codec("stranger", seed=1), [5000], SETTINGS, conditioning=conditioning
        )
    with pytest.raises(ValueError, match=r"16 frames for 9999 samples.*32 frames"):
        generate_clips(model, codec, [9999], SETTINGS, conditioning=conditioning)
    bare = MaskedTransformer.for_codec(codec, dim=32, depth=1, heads=2, dim_head=32)
    with pytest.raises(ValueError, match="no conditioning settings"):
        conditioning_for(bare, waveforms)


def test_generate_keeps_codes(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor]
) -> None:
    codes = codec.encode_batch(waveforms)
    task = TaskSettings("infill", gap_seconds=0.1)
    keep = [task_prompt(task, codec.spec, n, seed=0, item=i) for i, n in enumerate(N_SAMPLES)]
    out = generate_clips(
        model, codec, N_SAMPLES, SETTINGS, codes=codes, keep=keep, seed=1, batch_size=2
    )
    again = generate_clips(
        model, codec, N_SAMPLES, SETTINGS, codes=codes, keep=keep, seed=2, batch_size=5
    )
    for made, other, before, kept in zip(out, again, codes, keep, strict=True):
        assert made.codes[kept].equal(before[kept]) and other.codes[kept].equal(before[kept])
    assert not out[2].codes.equal(again[2].codes)
    everything = [torch.ones_like(k) for k in keep]
    same = generate_clips(model, codec, N_SAMPLES, SETTINGS, codes=codes, keep=everything)
    assert all(s.codes.equal(c) for s, c in zip(same, codes, strict=True))


def test_generate_uses_the_conditioning_and_the_kept_codes(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor]
) -> None:
    codes = codec.encode_batch(waveforms[:1])
    keep = [
        task_prompt(TaskSettings("continue", prompt_seconds=0.2), codec.spec, 5000, seed=0, item=0)
    ]
    conditioning = conditioning_for(model, waveforms[:1])

    def made(codes: list[Tensor], conditioning: list[Tensor] | None) -> Tensor:
        given = {"conditioning": conditioning}
        return generate_clips(model, codec, [5000], SETTINGS, codes=codes, keep=keep, **given)[
            0
        ].codes[~keep[0]]

    alone = made(codes, None)
    assert not alone.equal(made(codes, conditioning))
    assert not alone.equal(made([(codes[0] + 7) % 32], None))


def test_continue_with_a_model_without_conditioning(
    codec: StftCodec, waveforms: list[Tensor]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bare = MaskedTransformer.for_codec(
            codec, dim=32, depth=1, heads=2, dim_head=32, conditioning_dim=0
        ).eval()
    codes = codec.encode_batch(waveforms)
    keep = [task_prompt(TaskSettings("continue", prompt_seconds=0.1), codec.spec, n, seed=0, item=0)
            for n in N_SAMPLES]  # fmt: skip
    out = generate_clips(bare, codec, N_SAMPLES, SETTINGS, codes=codes, keep=keep)
    assert [g.waveform.shape[-1] for g in out] == N_SAMPLES


def test_store_resumes_with_equal_codes(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor], tmp_path: Path
) -> None:
    conditioning = conditioning_for(model, waveforms)
    whole = generate_clips(
        model, codec, N_SAMPLES, SETTINGS, conditioning=conditioning, batch_size=2
    )
    store = ClipStore(tmp_path, "generated", "plan")
    generate_clips(
        model, codec, N_SAMPLES, SETTINGS, conditioning=conditioning, batch_size=2, store=store
    )
    files = sorted(store.folder.iterdir())
    for path in files[:2]:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in files[2:]}
    again = generate_clips(
        model, codec, N_SAMPLES, SETTINGS, conditioning=conditioning, batch_size=2, store=store
    )
    for a, b in zip(whole, again, strict=True):
        assert a.codes.equal(b.codes) and a.waveform.equal(b.waveform)
    assert sum(path.stat().st_mtime_ns == t for path, t in kept.items()) >= 1
    files[0].write_bytes(b"half a file")
    third = generate_clips(
        model, codec, N_SAMPLES, SETTINGS, conditioning=conditioning, batch_size=2, store=store
    )
    assert all(a.codes.equal(b.codes) for a, b in zip(whole, third, strict=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"batch_size": 0}, "batch_size = 0: must be at least 1"),
        ({"batch_size": -3}, "batch_size = -3: must be at least 1"),
        ({"seed": -1}, "seed = -1: must be at least 0"),
        ({"n_samples": [0]}, "n_samples = 0: every utterance must have at least 1 sample"),
    ],
)
def test_settings_out_of_range(
    model: MaskedTransformer, codec: StftCodec, given: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        generate_clips(model, codec, settings=SETTINGS, **{"n_samples": [5000], **given})


def test_generate_checks_its_input(
    model: MaskedTransformer, codec: StftCodec, waveforms: list[Tensor]
) -> None:
    codes = codec.encode_batch(waveforms[:1])
    keep = [torch.zeros_like(codes[0], dtype=torch.bool)]
    with pytest.raises(ValueError, match="codes of 16 frames for 99 samples: little makes 1"):
        generate_clips(model, codec, [99], SETTINGS, codes=codes, keep=keep)
    with pytest.raises(ValueError, match="one flag for each code"):
        generate_clips(model, codec, [5000], SETTINGS, codes=codes, keep=[keep[0][:, :3]])
    with pytest.raises(ValueError, match="conditioning of 3 frames for 5000 samples"):
        few = [torch.zeros(3, 30)]
        generate_clips(model, codec, [5000], SETTINGS, codes=codes, keep=keep, conditioning=few)
