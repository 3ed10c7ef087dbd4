"""Tests of the sampler: schedule, confidences, nucleus, guidance, and independence of the batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tokgen.codec.spec import CodecSpec
from tokgen.generation.nucleus import draw
from tokgen.generation.sampling import sample
from tokgen.generation.settings import SamplingSettings
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.masking import n_masked

K, V, C = 3, 16, 4
LENGTHS = torch.tensor([23, 11, 1])


class Recorder(nn.Module):
    """Stands in for a model: returns fixed logits and records every call."""

    def __init__(self, logits: Tensor | None = None, dropped: Tensor | None = None) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.n_codebooks, self.codebook_size, self.mask_id = K, V, V
        self.n_levels, self.variable_depth, self.level_sizes = K, False, ()
        self.logits, self.dropped = logits, dropped
        self.calls: list[tuple[int, Tensor]] = []
        self.asked: list[int] = []  # number of positions in each call

    def forward(
        self,
        tokens: Tensor,
        conditioning: Tensor | None = None,
        *,
        drop_conditioning: Tensor | None = None,
        lengths: Tensor | None = None,
        level: int,
        positions: Tensor | None = None,
    ) -> Tensor:
        self.calls.append((level, tokens.clone()))
        self.asked.append(
            tokens.shape[0] * tokens.shape[2] if positions is None else int(positions.sum())
        )
        out = torch.zeros(len(tokens), tokens.shape[-1], V)
        if self.logits is not None:
            out = out + self.logits
        if self.dropped is not None and drop_conditioning is not None:
            out = torch.where(drop_conditioning[:, None, None], self.dropped, out)
        return out if positions is None else out[positions]


@pytest.fixture(scope="module")
def model() -> MaskedTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MaskedTransformer(
            n_codebooks=K,
            codebook_size=V,
            conditioning_dim=C,
            embedding="learned",
            dim=32,
            depth=1,
            heads=2,
            dim_head=32,
        ).eval()


def make_conditioning(lengths: Tensor = LENGTHS) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 3 * torch.randn(len(lengths), C, int(lengths.max()), generator=generator)


def plain_sample(
    model: MaskedTransformer,
    conditioning: Tensor | None,
    n_frames: int,
    settings: SamplingSettings,
    item: int,
    codes: Tensor,
    keep: Tensor,
) -> Tensor:
    """Reference implementation of `sample` for one item, position by position."""
    tokens = torch.full((1, K, n_frames), V)
    for level in range(K):
        tokens[0, level] = torch.where(keep[level], codes[level], tokens[0, level])
        hidden = [t for t in range(n_frames) if not keep[level, t]]
        first = len(hidden)
        for step in range(settings.at(level)):
            if not hidden:
                break
            noise = np.random.default_rng((SEED, item, level, step)).random((n_frames, 2))
            noise = noise.clip(1e-7, 1 - 1e-7).astype(np.float32)
            with torch.no_grad():
                logits = model(tokens, None, level=level)[0]
                if conditioning is not None:
                    guided = model(tokens, conditioning, level=level)[0]
                    logits = logits + settings.guidance_scale * (guided - logits)
            confidence = {}
            for t in hidden:
                log_p, order = torch.log_softmax(logits[t] / settings.temperature, 0).sort(
                    descending=True
                )
                p = log_p.exp()
                p = torch.where(p.cumsum(0) - p < settings.top_p, p, 0.0)
                pick = int((p.cumsum(0) < noise[t, 0] * p.sum()).sum())
                pick = min(pick, int((p > 0).sum()) - 1)
                tokens[0, level, t] = order[pick]
                left = 1 - (step + 1) / settings.at(level)
                gumbel = -math.log(-math.log(noise[t, 1]))
                confidence[t] = log_p[pick].item() + settings.mask_temperature * left * gumbel
            count = torch.tensor([first]), torch.tensor([len(hidden)])
            stay = int(n_masked(step, settings.at(level), *count))
            hidden = sorted(hidden, key=lambda t: confidence[t])[:stay]
            tokens[0, level, hidden] = V
    return tokens[0]


SEED = 11
SHAPES = {"as it is": None, "padded": (5, 32)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("conditioned", [True, False])
@pytest.mark.parametrize("some_kept", [True, False])
def test_codes_equal_the_reference(
    model: MaskedTransformer, shape: tuple[int, int] | None, conditioned: bool, some_kept: bool
) -> None:
    """With and without padding, conditioning and given codes."""
    chosen = SamplingSettings(steps=(6, 2, 1), temperature=0.9)
    conditioning = make_conditioning() if conditioned else None
    codes = torch.randint(0, V, (3, K, 23), generator=torch.Generator().manual_seed(4))
    keep = (codes % 3 == 0) & some_kept
    given = {"codes": codes, "keep": keep} if some_kept else {}
    out = sample(
        model,
        conditioning,
        LENGTHS,
        chosen,
        seed=SEED,
        item_ids=[5, 6, 7],
        shape=shape,
        **given,
    )
    for i, n in enumerate(LENGTHS.tolist()):
        alone = None if conditioning is None else conditioning[i : i + 1, :, :n]
        plain = plain_sample(model, alone, n, chosen, 5 + i, codes[i, :, :n], keep[i, :, :n])
        assert torch.equal(out[i, :, :n], plain)
        assert (out[i, :, n:] == 0).all()


def test_only_hidden_positions_are_computed_unless_a_shape_is_given() -> None:
    lengths = torch.tensor([12])
    few, all_ = Recorder(), Recorder()
    chosen = SamplingSettings(steps=(3, 1))
    assert torch.equal(
        sample(few, None, lengths, chosen, seed=0),
        sample(all_, None, lengths, chosen, seed=0, shape=(2, 16)),
    )
    assert few.asked == [12, 10, 6, 12, 12]
    assert all_.asked == [32] * 5 and {t.shape for _, t in all_.calls} == {(2, K, 16)}


def test_draws_order_ties_as_torch_does() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 9, (500, 70), generator=generator).float()
    noise = torch.rand(500, generator=generator)
    codes, log_p = draw(logits, 0.8, noise)
    ordered, order = logits.log_softmax(-1).sort(dim=-1, descending=True)
    p = ordered.exp()
    p = p * (p.cumsum(-1) - p < 0.8)
    pick = (p.cumsum(-1) < noise[:, None] * p.sum(-1, keepdim=True)).sum(-1, keepdim=True)
    assert torch.equal(codes, order.gather(-1, pick)[:, 0])
    assert torch.equal(log_p, ordered.gather(-1, pick)[:, 0])


@pytest.mark.slow
def test_compiled_model_gives_equal_codes_with_few_graphs(model: MaskedTransformer) -> None:
    conditioning = make_conditioning()
    plain, compiled = SamplingSettings(steps=(4, 1)), SamplingSettings(steps=(4, 1), compile=True)
    torch._dynamo.utils.counters.clear()
    for seed in range(2):
        assert torch.equal(
            sample(model, conditioning, LENGTHS, compiled, seed=seed),
            sample(model, conditioning, LENGTHS, plain, seed=seed),
        )
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3


def test_levels_are_decoded_in_order() -> None:
    """Levels above the current one are all MASK in every call; levels below have no MASK."""
    recorder = Recorder()
    sample(recorder, None, LENGTHS, SamplingSettings(steps=(5, 3, 2)), seed=0)
    levels = [level for level, _ in recorder.calls]
    assert levels == [0] * 5 + [1] * 3 + [2] * 2
    for level, tokens in recorder.calls:
        assert (tokens[:, level + 1 :] == V).all()
        for item, n in zip(tokens, LENGTHS.tolist(), strict=True):
            assert (item[:level, :n] < V).all()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.integers(1, 12),
    st.integers(0, 100),
)
def test_counts_follow_the_schedule_of_each_item(lengths: list[int], steps: int, seed: int) -> None:
    """Each item follows the schedule of its own length, whatever the batch."""
    recorder = Recorder()
    sample(recorder, None, torch.tensor(lengths), SamplingSettings(steps=(steps, 1)), seed=seed)
    calls = [tokens for level, tokens in recorder.calls if level == 0]
    for b, n in enumerate(lengths):
        counts = [int((tokens[b, 0, :n] == V).sum()) for tokens in calls]
        expected = [n]
        for step in range(len(counts) - 1):
            wanted = math.floor(math.cos(math.pi / 2 * (step + 1) / steps) * n + 1e-9)
            expected.append(max(0, min(max(wanted, 1), expected[-1] - 1)))
        assert counts == expected


def test_revealed_tokens_never_change() -> None:
    recorder = Recorder()
    out = sample(recorder, None, LENGTHS, SamplingSettings(steps=(8, 8, 8)), seed=3)
    tokens = [t for _, t in recorder.calls]
    final = torch.where(torch.arange(23) < LENGTHS[:, None, None], out, V)
    for before, after in zip(tokens, [*tokens[1:], final], strict=True):
        known = before != V
        assert torch.equal(before[known], after[known])


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=3),
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(0, 1000),
)
def test_no_mask_survives_and_kept_codes_stay(
    lengths: list[int], steps: list[int], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), K, max(lengths))
    codes = torch.randint(0, V, shape, generator=generator)
    keep = torch.rand(shape, generator=generator) < 0.4
    recorder = Recorder()
    settings_ = SamplingSettings(steps=tuple(steps))
    out = sample(
        recorder, None, torch.tensor(lengths), settings_, seed=seed, codes=codes, keep=keep
    )
    assert out.shape == shape
    assert ((out >= 0) & (out < V)).all()
    inside = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None, None]
    assert torch.equal(out[keep & inside], codes[keep & inside])
    for level, tokens in recorder.calls:
        assert (tokens[:, level + 1 :] == V).all()  # kept codes of later levels too


def test_no_call_of_the_model_if_all_codes_are_kept() -> None:
    codes = torch.randint(0, V, (3, K, 23), generator=torch.Generator().manual_seed(0))
    recorder = Recorder()
    keep = torch.ones_like(codes, dtype=torch.bool)
    out = sample(recorder, None, LENGTHS, SamplingSettings(), seed=0, codes=codes, keep=keep)
    inside = torch.arange(23) < LENGTHS[:, None, None]
    assert torch.equal(out, codes * inside)
    assert not recorder.calls


def test_most_confident_is_revealed_first_without_noise() -> None:
    """With mask_temperature 0, positions are revealed in the order of their confidence."""
    n = 12
    certainty = torch.linspace(0.5, 12, n)[torch.randperm(n, generator=torch.Generator())]
    logits = torch.zeros(1, n, V)
    logits[0, :, 3] = certainty
    recorder = Recorder(logits)
    chosen = SamplingSettings(steps=(n, 1), mask_temperature=0, top_p=1e-6)
    sample(recorder, None, torch.tensor([n]), chosen, seed=0, n_codebooks=1)
    for _, tokens in recorder.calls[1:]:
        known = tokens[0, 0] != V
        assert certainty[known].min() > certainty[~known].max()


def test_mask_temperature_shuffles_the_order() -> None:
    n = 30
    logits = torch.zeros(1, n, V)
    logits[0, :, 3] = torch.linspace(6, 12, n)
    orders = []
    for seed in range(2):
        recorder = Recorder(logits)
        chosen = SamplingSettings(steps=(8, 1), mask_temperature=10.5, top_p=1e-6)
        sample(recorder, None, torch.tensor([n]), chosen, seed=seed, n_codebooks=1)
        orders.append(recorder.calls[1][1][0, 0] != V)
    assert not torch.equal(orders[0], orders[1])


def test_guidance_is_used() -> None:
    """u + w (c - u): code 1 is the most likely with w = 2, code 0 with w = 1."""
    conditional, unconditional = torch.full((V,), -50.0), torch.full((V,), -50.0)
    conditional[:2], unconditional[:2] = torch.tensor([1.0, 0.9]), torch.tensor([1.0, 0.0])
    conditioning = make_conditioning()
    results = {}
    for scale in (1.0, 2.0):
        recorder = Recorder(conditional, unconditional)
        chosen = SamplingSettings(guidance_scale=scale, top_p=1e-6)
        out = sample(recorder, conditioning, LENGTHS, chosen, seed=0)
        results[scale] = set(out[torch.arange(23).expand_as(out) < LENGTHS[:, None, None]].tolist())
        batch = {len(tokens) for _, tokens in recorder.calls}
        assert batch == {3 if scale == 1 else 6}  # guidance doubles the batch
    assert results == {1.0: {0}, 2.0: {1}}


def test_guidance_one_equals_conditional(model: MaskedTransformer) -> None:
    """Scale 1 computes one prediction. A scale just above 1 computes two; the codes are equal."""
    conditioning = make_conditioning()
    one = sample(model, conditioning, LENGTHS, SamplingSettings(guidance_scale=1.0), seed=0)
    near = SamplingSettings(guidance_scale=1.0 + 1e-7)
    assert torch.equal(one, sample(model, conditioning, LENGTHS, near, seed=0))
    two = sample(model, conditioning, LENGTHS, SamplingSettings(guidance_scale=3.0), seed=0)
    assert not torch.equal(one, two)


def test_guidance_by_weight_is_that_by_scale_plus_one(model: MaskedTransformer) -> None:
    """Ho and Salimans' (1 + w) c - w u is u + s (c - u) with s = 1 + w."""
    conditioning = make_conditioning()

    def codes(**guidance: Any) -> torch.Tensor:
        return sample(model, conditioning, LENGTHS, SamplingSettings(**guidance), seed=0)

    weight = {"guidance_form": "weight"}
    assert SamplingSettings(guidance_scale=2.0, **weight).scale == 3.0
    assert SamplingSettings(guidance_scale=2.0).scale == 2.0
    assert torch.equal(codes(guidance_scale=2.0, **weight), codes(guidance_scale=3.0))
    assert not torch.equal(codes(guidance_scale=2.0, **weight), codes(guidance_scale=2.0))
    assert torch.equal(codes(guidance_scale=0.0, **weight), codes(guidance_scale=1.0))
    conditional, unconditional = torch.randn(2, V)
    recorder = Recorder(conditional, unconditional)
    chosen = SamplingSettings(guidance_scale=2.0, top_p=1e-6, **weight)
    out = sample(recorder, conditioning, LENGTHS, chosen, seed=0)
    assert set(out[0, 0].tolist()) == {int((3 * conditional - 2 * unconditional).argmax())}


def test_guidance_zero_equals_unconditional(model: MaskedTransformer) -> None:
    off = SamplingSettings(guidance_scale=0.0)
    conditioning = make_conditioning()
    assert torch.equal(
        sample(model, conditioning, LENGTHS, off, seed=0),
        sample(model, None, LENGTHS, SamplingSettings(), seed=0),
    )


def test_batch_and_order_do_not_change_codes(model: MaskedTransformer) -> None:
    chosen = SamplingSettings(steps=(6, 2, 1))
    conditioning = make_conditioning()
    together = sample(model, conditioning, LENGTHS, chosen, seed=7, item_ids=[40, 41, 42])
    back = sample(
        model, conditioning.flip(0), LENGTHS.flip(0), chosen, seed=7, item_ids=[42, 41, 40]
    )
    assert torch.equal(back.flip(0), together)
    for i, n in enumerate(LENGTHS.tolist()):
        alone = sample(
            model,
            conditioning[i : i + 1, :, :n],
            LENGTHS[i : i + 1],
            chosen,
            seed=7,
            item_ids=[40 + i],
        )
        assert torch.equal(alone[0], together[i, :, :n])
        assert (together[i, :, n:] == 0).all()


def test_codes_depend_on_seed_and_id(model: MaskedTransformer) -> None:
    conditioning = make_conditioning()
    same = [sample(model, conditioning, LENGTHS, SamplingSettings(), seed=5) for _ in range(2)]
    assert torch.equal(*same)
    other = sample(model, conditioning, LENGTHS, SamplingSettings(), seed=6)
    assert not torch.equal(same[0], other)
    twins = conditioning[:1].expand(2, -1, -1)
    pair = sample(model, twins, LENGTHS[[0, 0]], SamplingSettings(), seed=5, item_ids=[1, 2])
    assert not torch.equal(pair[0], pair[1])


def test_fewer_levels_are_the_first_levels(model: MaskedTransformer) -> None:
    conditioning = make_conditioning()
    every = sample(model, conditioning, LENGTHS, SamplingSettings(), seed=5)
    two = sample(model, conditioning, LENGTHS, SamplingSettings(), seed=5, n_codebooks=2)
    assert two.shape == (3, 2, 23)
    assert torch.equal(two, every[:, :2])


def test_draw_follows_the_nucleus() -> None:
    """Frequencies are the renormalised probabilities of the smallest set with mass top_p."""
    p = torch.tensor([0.1, 0.5, 0.05, 0.3, 0.05])
    noise = (torch.arange(4000) + 0.5)[None] / 4000
    codes, log_p = draw(p.log().expand(1, 4000, 5), 0.85, noise)
    frequency = torch.bincount(codes[0], minlength=5) / 4000
    expected = torch.tensor([0.1, 0.5, 0, 0.3, 0]) / 0.9
    torch.testing.assert_close(frequency, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(log_p, p.log()[codes])
    everything = torch.bincount(draw(p.log().expand(1, 4000, 5), 1.0, noise)[0][0]) / 4000
    torch.testing.assert_close(everything, p, atol=1e-3, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 1.0), st.integers(0, 1000), st.sampled_from([1e-7, 0.3, 1 - 1e-7]))
def test_drawn_codes_lie_in_the_nucleus(top_p: float, seed: int, u: float) -> None:
    logits = 4 * torch.randn(1, 1, 20, generator=torch.Generator().manual_seed(seed))
    code, log_p = draw(logits, top_p, torch.tensor([[u]]))
    p = logits.softmax(-1)[0, 0]
    likelier = p[p > p[code[0, 0]]].sum().item()
    assert likelier < top_p + 1e-5
    assert log_p.item() == pytest.approx(p[code[0, 0]].log().item(), abs=1e-4)


def test_temperature_sharpens() -> None:
    logits = torch.randn(V, generator=torch.Generator().manual_seed(0))
    cold = SamplingSettings(temperature=1e-3, top_p=1.0)
    out = sample(Recorder(logits), None, torch.tensor([50]), cold, seed=0)
    assert (out == logits.argmax()).all()


def test_last_number_of_steps_repeats() -> None:
    chosen = SamplingSettings(steps=(20, 10))
    assert [chosen.at(k) for k in range(4)] == [20, 10, 10, 10]


def test_progress_bar_is_on_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokgen.generation.sampling.BAR_DELAY", 0.0)
    sample(Recorder(), None, LENGTHS, SamplingSettings(steps=(2, 1)), seed=0, progress=True)
    captured = capsys.readouterr()
    assert "4/4" in captured.err
    assert captured.out == ""


def test_bad_arguments_are_refused() -> None:
    recorder, chosen = Recorder(), SamplingSettings()
    codes = torch.zeros(3, K, 23, dtype=torch.int64)
    keep = torch.ones_like(codes, dtype=torch.bool)
    with pytest.raises(ValueError, match="`codes` and `keep` together"):
        sample(recorder, None, LENGTHS, chosen, seed=0, keep=keep)
    with pytest.raises(ValueError, match="a MASK among them"):
        sample(recorder, None, LENGTHS, chosen, seed=0, codes=codes + V, keep=keep)
    with pytest.raises(ValueError, match=r"expected \(3, 3, 23\)"):
        sample(recorder, None, LENGTHS, chosen, seed=0, codes=codes[..., :9], keep=keep)
    with pytest.raises(ValueError, match=r"3 items of 23 frames do not fit"):
        sample(recorder, None, LENGTHS, chosen, seed=0, shape=(3, 22))
    with pytest.raises(ValueError, match=r"levels 1\.\.3"):
        sample(recorder, None, LENGTHS, chosen, seed=0, n_codebooks=4)
    with pytest.raises(ValueError, match=r"seed = -1: must be at least 0"):
        sample(recorder, None, LENGTHS, chosen, seed=-1)
    for lengths in (torch.tensor([3, 0]), torch.zeros(0, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"lengths = .*: give at least one item, each of"):
            sample(recorder, None, lengths, chosen, seed=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 4}, r"steps per level, such as \(4,\)"),
        ({"steps": ()}, "at least one level"),
        ({"steps": (4, 0)}, "each at least 1"),
        ({"steps": (4, float("nan"))}, "each at least 1"),
        ({"temperature": 0.0}, "temperature = 0.0: must be above 0 and finite"),
        ({"temperature": float("nan")}, "temperature = nan: must be above 0 and finite"),
        ({"top_p": 1.5}, r"top_p = 1.5: must be above 0 and at most 1"),
        ({"top_p": float("nan")}, "top_p = nan: must be above 0 and at most 1"),
        ({"mask_temperature": -1.0}, "mask_temperature = -1.0: must be finite and at least 0"),
        ({"mask_temperature": float("nan")}, "mask_temperature = nan: must be finite"),
        ({"guidance_scale": float("nan")}, "guidance_scale = nan: must be finite; 1 turns"),
        ({"guidance_form": "both"}, "guidance_form 'both': must be one of scale, weight"),
        (
            {"guidance_scale": float("nan"), "guidance_form": "weight"},
            "guidance_scale = nan: must be finite; 0 turns guidance off",
        ),
        ({"guidance_scale": float("inf")}, "guidance_scale = inf: must be finite; 1 turns"),
    ],
)
def test_bad_settings_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingSettings(**wrong)


@pytest.mark.parametrize("all_positions", [False, True])
def test_codes_past_the_size_of_a_level_are_never_sampled(all_positions: bool) -> None:
    sizes = (V, 3, 5)
    codec = CodecSpec("x", 16000, 320, K, V, level_sizes=sizes).as_dict()
    tiny = {"dim": 16, "depth": 1, "heads": 2, "dim_head": 16}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MaskedTransformer(
            n_codebooks=K,
            codebook_size=V,
            conditioning_dim=C,
            embedding="learned",
            codec=codec,
            **tiny,  # type: ignore[arg-type]
        ).eval()
        for level, size in enumerate(sizes):  # the model would like to
            model.head_bias.data[level, size:] = 50.0
    conditioning = torch.randn(3, C, 23, generator=torch.Generator().manual_seed(1))
    wanted = SamplingSettings(guidance_scale=3.0, temperature=2.0, top_p=1.0)
    shape = (3, 30) if all_positions else None
    codes = sample(model, conditioning, LENGTHS, wanted, seed=0, shape=shape)
    for level, size in enumerate(sizes):
        assert codes[:, level].max() < size
        assert len(codes[:, level].unique()) > 2
    keep = torch.zeros(3, K, 23, dtype=torch.bool)
    keep[0, 1, 0] = True
    given = torch.full((3, K, 23), 3)
    with pytest.raises(ValueError, match=r"of level 1 lie outside 0\.\.2"):
        sample(model, conditioning, LENGTHS, wanted, seed=0, codes=given, keep=keep)
