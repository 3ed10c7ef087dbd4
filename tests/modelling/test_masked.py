"""The masked transformer: shapes, masks, conditioning, codec check, saving, training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokgen.codec.spec import CodecSpec
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.masking import (
    TrainingMask,
    level_accuracy,
    masked_cross_entropy,
    training_mask,
)
from tokgen.modelling.settings import PRESETS
from tokgen.zoo.networks.stft import StftCodecModel
from tokgen.zoo.stft import StftCodec

TINY: dict[str, Any] = {"dim": 32, "depth": 2, "heads": 2, "dim_head": 32}
K, V, C = 3, 32, 5


def make_model(seed: int = 0, **overrides: Any) -> MaskedTransformer:
    """A random model in eval mode."""
    arguments = {
        "n_codebooks": K,
        "codebook_size": V,
        "conditioning_dim": C,
        "embedding": "learned",
        **TINY,
        **overrides,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return MaskedTransformer(**arguments).eval()


def make_inputs(batch: int = 2, frames: int = 12, seed: int = 1) -> tuple[Tensor, Tensor]:
    """tokens, some of them MASK, and conditioning."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, V + 1, (batch, K, frames), generator=generator)
    return tokens, torch.randn(batch, C, frames, generator=generator)


@pytest.mark.parametrize("embedding", ["codes", "learned"])
def test_one_level_equals_that_level_of_all(embedding: str) -> None:
    model = make_model(embedding=embedding, code_dim=4)
    if model.code_vectors is not None:
        model.code_vectors.normal_(generator=torch.Generator().manual_seed(0))
    tokens, conditioning = make_inputs()
    every = model(tokens, conditioning)
    assert every.shape == (2, K, 12, V)
    for level in range(K):
        torch.testing.assert_close(model(tokens, conditioning, level=level), every[:, level])
    chosen = torch.tensor([2, 0])
    per_item = model(tokens, conditioning, level=chosen)
    torch.testing.assert_close(per_item, every[torch.arange(2), chosen])


@pytest.mark.parametrize("embedding", ["codes", "learned"])
def test_every_token_of_every_level_is_seen(embedding: str) -> None:
    """Changing or masking a token at any level changes the logits, at other frames too."""
    model = make_model(embedding=embedding, code_dim=4)
    if model.code_vectors is not None:
        model.code_vectors.normal_(generator=torch.Generator().manual_seed(0))
    tokens = make_inputs()[0].clamp(max=V - 1)
    before = model(tokens, level=0)
    for level in range(K):
        for value in (int(tokens[0, level, 3] + 1) % V, model.mask_id):
            changed = tokens.clone()
            changed[0, level, 3] = value
            after = model(changed, level=0)
            assert (after[0] - before[0]).abs().amax(-1).min() > 1e-6
            assert torch.equal(after[1], before[1])


def test_time_order_matters() -> None:
    model = make_model()
    tokens, conditioning = make_inputs()
    flipped = model(tokens.flip(-1), conditioning.flip(-1), level=0).flip(1)
    shuffled = model(tokens[..., [1, 0, *range(2, 12)]], conditioning, level=0)
    straight = model(tokens, conditioning, level=0)
    assert (flipped - straight).abs().max() > 1e-4
    assert (shuffled[:, 5:] - straight[:, 5:]).abs().max() > 1e-6


def test_padding_does_not_leak() -> None:
    """In a batch of unequal lengths each item has the same logits as alone."""
    model = make_model()
    tokens, conditioning = make_inputs(3, 20)
    lengths = torch.tensor([20, 7, 1])
    together = model(tokens, conditioning, lengths=lengths, level=1)
    noisy, noisy_conditioning = make_inputs(3, 20, seed=9)
    inside = (torch.arange(20) < lengths[:, None])[:, None]
    other = model(
        torch.where(inside, tokens, noisy),
        torch.where(inside, conditioning, 100 * noisy_conditioning),
        lengths=lengths,
        level=1,
    )
    for i, n in enumerate(lengths.tolist()):
        alone = model(tokens[i : i + 1, :, :n], conditioning[i : i + 1, :, :n], level=1)[0]
        torch.testing.assert_close(together[i, :n], alone, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together[i, :n], other[i, :n], atol=1e-5, rtol=1e-4)


def test_dropped_conditioning_equals_none() -> None:
    model = make_model()
    tokens, conditioning = make_inputs()
    drop = torch.tensor([True, False])
    mixed = model(tokens, conditioning, drop_conditioning=drop)
    torch.testing.assert_close(mixed[0], model(tokens)[0])
    torch.testing.assert_close(mixed[1], model(tokens, conditioning)[1])
    assert (mixed[0] - model(tokens, conditioning)[0]).abs().max() > 1e-4


def test_conditioning_is_standardised_inside() -> None:
    mean, std = [1.0, -2.0, 3.0, 0.0, 50.0], [2.0, 0.5, 1.0, 4.0, 10.0]
    plain, scaled = make_model(), make_model(conditioning_mean=mean, conditioning_std=std)
    tokens, conditioning = make_inputs()
    raw = conditioning * torch.tensor(std)[:, None] + torch.tensor(mean)[:, None]
    torch.testing.assert_close(
        scaled(tokens, raw), plain(tokens, conditioning), atol=1e-4, rtol=1e-4
    )


def test_without_conditioning() -> None:
    model = make_model(conditioning_dim=0)
    tokens, _ = make_inputs()
    assert model(tokens, level=0).shape == (2, 12, V)


def test_wrong_shapes_are_refused() -> None:
    model = make_model()
    tokens, conditioning = make_inputs()
    with pytest.raises(ValueError, match=r"expected \[B, 3, T\]"):
        model(tokens[:, :2], conditioning)
    with pytest.raises(ValueError, match="one column per frame"):
        model(tokens, conditioning[..., :5])
    with pytest.raises(ValueError, match="known are 'codes' and 'learned'"):
        make_model(embedding="onehot")
    with pytest.raises(ValueError, match="heads = 1"):
        make_model(heads=1)


def test_rotary_covers_the_whole_head() -> None:
    model = make_model()
    assert 2 * len(model.transformer.rotary_pos_emb.inv_freq) == TINY["dim_head"]


def test_paper_preset_has_the_papers_size() -> None:
    """42.6M parameters for DAC's 9 x 1024, 8-d (frozen code vectors do not count)."""
    with torch.device("meta"):
        model = MaskedTransformer(n_codebooks=9, codebook_size=1024, code_dim=8, **PRESETS["paper"])
    count = sum(p.numel() for p in model.parameters())
    assert count == pytest.approx(42.6e6, rel=0.01)
    assert model.transformer.rotary_pos_emb.inv_freq.shape == (32,)


class TestForCodec:
    def test_takes_over_the_codecs_numbers(self, tiny_codec: StftCodec) -> None:
        model = MaskedTransformer.for_codec(tiny_codec, **TINY)
        assert (model.n_codebooks, model.codebook_size, model.mask_id) == (4, 60, 60)
        vectors = tiny_codec.code_vectors()
        assert model.code_vectors is not None
        assert model.code_vectors.shape == vectors.shape
        assert not model.code_vectors.requires_grad
        cosine = torch.cosine_similarity(model.code_vectors, vectors, dim=-1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine))
        model.check_codec(tiny_codec.spec)

    def test_fewer_levels(self, tiny_codec: StftCodec) -> None:
        model = MaskedTransformer.for_codec(tiny_codec, n_codebooks=2, **TINY)
        tokens = torch.full((1, 2, 5), model.mask_id)
        assert model(tokens).shape == (1, 2, 5, 60)

    def test_another_codec_is_refused_by_both_names(self, tiny_codec: StftCodec) -> None:
        model = MaskedTransformer.for_codec(tiny_codec, **TINY)
        other = StftCodec.from_model(
            StftCodecModel(
                n_fft=640,
                width=8,
                encoder_depth=1,
                decoder_depth=1,
                latent_dim=8,
                n_codebooks=3,
                codebook_size=32,
            ),
            "stranger",
        )
        with pytest.raises(ValueError, match=r"'tiny'.*'stranger'"):
            model.check_codec(other.spec)

    def test_unknown_preset(self, tiny_codec: StftCodec) -> None:
        with pytest.raises(ValueError, match="known are small, paper"):
            MaskedTransformer.for_codec(tiny_codec, preset="huge")

    def test_hidden_code_vectors(
        self, tiny_codec: StftCodec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tiny_codec, "code_vectors", lambda: None)
        assert MaskedTransformer.for_codec(tiny_codec, **TINY).code_vectors is None
        with pytest.raises(ValueError, match="embedding='learned'"):
            MaskedTransformer.for_codec(tiny_codec, embedding="codes", **TINY)


def test_save_and_load_give_equal_logits(tiny_codec: StftCodec, tmp_path: Path) -> None:
    model = MaskedTransformer.for_codec(
        tiny_codec,
        conditioning_dim=C,
        conditioning={"sample_rate": 16000, "hop_length": 320},
        conditioning_mean=[1.0] * C,
        conditioning_std=[2.0] * C,
        **TINY,
    ).eval()
    model.save_pretrained(tmp_path / "model")
    loaded = MaskedTransformer.from_pretrained(tmp_path / "model")
    tokens = torch.randint(0, 61, (2, 4, 9), generator=torch.Generator().manual_seed(0))
    conditioning = make_inputs(2, 9)[1]
    assert torch.equal(loaded(tokens, conditioning), model(tokens, conditioning))
    assert loaded.config == model.config
    loaded.check_codec(tiny_codec.spec)


def test_loading_is_strict(tmp_path: Path) -> None:
    folder = make_model().save_pretrained(tmp_path)
    state = load_file(str(folder / "model.safetensors"))
    del state["head_bias"]
    save_file(state, str(folder / "model.safetensors"))
    with pytest.raises(ValueError, match="weights do not fit"):
        MaskedTransformer.from_pretrained(folder)


@pytest.mark.parametrize("level", [1, torch.tensor([2, 0, 2])])
def test_logits_at_positions_equal_those_of_all(level: int | Tensor) -> None:
    model = make_model()
    tokens, conditioning = make_inputs(3)
    positions = torch.rand(3, 12, generator=torch.Generator().manual_seed(0)) < 0.4
    every = model(tokens, conditioning, level=level)
    some = model(tokens, conditioning, level=level, positions=positions)
    torch.testing.assert_close(some, every[positions], atol=1e-6, rtol=1e-5)
    none = model(tokens, conditioning, level=level, positions=torch.zeros_like(positions))
    assert none.shape == (0, V)
    with pytest.raises(ValueError, match="positions without a level"):
        model(tokens, conditioning, positions=positions)


def test_packed_excerpts_have_the_same_logits_as_alone() -> None:
    model = make_model()
    tokens, conditioning = make_inputs(2, 20)
    documents = torch.tensor([[0] * 7 + [1] * 9 + [2] * 4, [0] * 12 + [1] * 5 + [-1] * 3])
    together = model(tokens, conditioning, documents=documents, level=1)
    for row, begin, end in [(0, 0, 7), (0, 7, 16), (0, 16, 20), (1, 0, 12), (1, 12, 17)]:
        part = (slice(row, row + 1), slice(None), slice(begin, end))
        alone = model(tokens[part], conditioning[part], level=1)[0]
        torch.testing.assert_close(together[row, begin:end], alone, atol=1e-5, rtol=0)


def test_loss_and_accuracy_are_the_same_from_hidden_positions_only() -> None:
    codes = torch.randint(0, V, (4, K, 20), generator=torch.Generator().manual_seed(0))
    mask = training_mask(codes, torch.tensor([20, 3, 9, 20]), V, torch.Generator().manual_seed(0))
    logits = torch.randn(4, 20, V, generator=torch.Generator().manual_seed(1))
    logits.scatter_(2, codes[torch.arange(4), mask.level][..., None], 4.0)
    some = logits[mask.target]
    loss = masked_cross_entropy(logits, codes, mask)
    torch.testing.assert_close(masked_cross_entropy(some, codes, mask), loss)
    for a, b in zip(
        level_accuracy(some, codes, mask, K), level_accuracy(logits, codes, mask, K), strict=True
    ):
        assert torch.equal(a, b) and a.sum() > 0
    mask.divisor = mask.target.sum() * 2.0
    torch.testing.assert_close(masked_cross_entropy(some, codes, mask), loss / 2)
    torch.testing.assert_close(masked_cross_entropy(logits, codes, mask), loss / 2)


def test_loss_counts_hidden_positions_only() -> None:
    codes = torch.randint(0, V, (2, K, 4), generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[True, False, False, False], [False, True, True, False]])
    mask = TrainingMask(codes, torch.tensor([1, 2]), target)
    logits = torch.zeros(2, 4, V)
    assert masked_cross_entropy(logits, codes, mask).item() == pytest.approx(math.log(V))
    for b, t in target.nonzero().tolist():
        logits[b, t, codes[b, mask.level[b], t]] = 50.0
    assert masked_cross_entropy(logits, codes, mask).item() == pytest.approx(0, abs=1e-6)
    logits[0, 1] = 99 * torch.randn(V)  # visible: does not count
    assert masked_cross_entropy(logits, codes, mask).item() == pytest.approx(0, abs=1e-6)
    hits, seen = level_accuracy(logits, codes, mask, K)
    assert seen.tolist() == [0, 1, 2]
    assert hits.tolist() == [0, 1, 2]
    logits[1, 2] = 0
    logits[1, 2, (codes[1, 2, 2] + 1) % V] = 1
    assert level_accuracy(logits, codes, mask, K)[0].tolist() == [0, 1, 1]


def test_bfloat16_autocast_trains_on_cpu() -> None:
    model = make_model().train()
    tokens, conditioning = make_inputs(4, 16)
    codes = tokens.clamp(max=V - 1)
    lengths = torch.tensor([16, 16, 9, 4])
    mask = training_mask(codes, lengths, model.mask_id, torch.Generator().manual_seed(0))
    drop = torch.tensor([True, False, False, False])

    def loss() -> Tensor:
        logits = model(
            mask.tokens, conditioning, drop_conditioning=drop, lengths=lengths, level=mask.level
        )
        return masked_cross_entropy(logits, codes, mask)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss()
    half.backward()
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss().item(), rel=0.02)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_learns_codes_that_follow_the_conditioning() -> None:
    """Codes are a function of the conditioning's largest coefficient: learned within a minute."""
    model = make_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(60):
        conditioning = torch.randn(8, C, 16, generator=generator)
        codes = conditioning.argmax(1)[:, None] + torch.tensor([0, 5, 10])[:, None]
        lengths = torch.full((8,), 16)
        mask = training_mask(codes, lengths, model.mask_id, generator)
        logits = model(mask.tokens, conditioning, lengths=lengths, level=mask.level)
        loss = masked_cross_entropy(logits, codes, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 3
    assert sum(losses[-5:]) / 5 < 1


SIZES = [V, 7, 9]


def sized_model() -> MaskedTransformer:
    """A model of a codec whose levels have `SIZES` entries."""
    codec = CodecSpec("x", 16000, 320, K, V, level_sizes=tuple(SIZES)).as_dict()
    return make_model(codec=codec)


@pytest.mark.parametrize("positions", [False, True])
def test_codes_past_the_size_of_a_level_have_no_logit(positions: bool) -> None:
    model = sized_model()
    tokens = torch.full((3, K, 12), V)
    every = model(tokens)
    for level, size in enumerate(SIZES):
        alone = model(tokens, level=level)
        assert alone.shape[-1] == size
        torch.testing.assert_close(alone, every[:, level, :, :size])
        assert (every[:, level, :, size:] == -torch.inf).all()
    levels = torch.tensor([2, 1, 0])
    where = torch.ones(3, 12, dtype=torch.bool) if positions else None
    mixed = model(tokens, level=levels, positions=where).reshape(3, 12, V)
    torch.testing.assert_close(mixed, every[torch.arange(3), levels])


def test_a_model_of_levels_of_different_sizes_trains_and_loads(tmp_path: Path) -> None:
    model = sized_model()
    generator = torch.Generator().manual_seed(0)
    codes = torch.stack([torch.randint(n, (4, 12), generator=generator) for n in SIZES], 1)
    mask = training_mask(codes, torch.full((4,), 12), V, generator)
    loss = masked_cross_entropy(model(mask.tokens, level=mask.level), codes, mask)
    loss.backward()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert loss.isfinite() and all(g.isfinite().all() for g in grads)
    for level, size in enumerate(SIZES):
        assert not model.head_weight.grad[level, size:].any()
    model.save_pretrained(tmp_path)
    again = MaskedTransformer.from_pretrained(tmp_path)
    assert again.level_sizes == tuple(SIZES)
    assert again(codes).equal(model(codes))
