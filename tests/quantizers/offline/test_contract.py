"""What every offline quantizer promises: one set of tests over `QUANTIZERS`."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tokgen.quantizers.offline import base
from tokgen.quantizers.offline.base import OfflineQuantizer, share_left
from tokgen.quantizers.offline.registry import QUANTIZERS, load_quantizer, make_quantizer
from tokgen.quantizers.offline.settings import KINDS, QincoTraining

SIZES = {"dim": 10, "n_codebooks": 3, "codebook_size": 16}
SMALL: dict[str, dict[str, Any]] = {  # settings that make a fit short
    "lsq": {"n_rounds": 3},
    "opq": {"n_rounds": 4},
    "fsq": {"steps": 60},
    "rfsq": {"steps": 60},
    "qinco2": {
        "preset": None,
        "n_blocks": 1,
        "embedding_dim": 8,
        "hidden_dim": 8,
        "preselect": 4,
    },
}


def clustered_frames(n: int = 600, seed: int = 0) -> Tensor:
    """Frames [n, 10] around 12 centres, off zero and with axes of unequal spread."""
    g = torch.Generator().manual_seed(1)
    spread = torch.linspace(3, 0.3, SIZES["dim"])
    centres = 2 * torch.randn(12, SIZES["dim"], generator=g) * spread + 5
    g.manual_seed(seed)
    noise = torch.randn(n, SIZES["dim"], generator=g) * spread
    return centres[torch.randint(12, (n,), generator=g)] + 0.3 * noise


FRAMES, UNSEEN = clustered_frames(), clustered_frames(200, seed=2)
_fitted: dict[str, OfflineQuantizer] = {}


def make(name: str, **settings: Any) -> OfflineQuantizer:
    return make_quantizer(name, **{**SIZES, **SMALL.get(name, {}), **settings})


@pytest.fixture(params=QUANTIZERS)
def name(request) -> str:
    return request.param


@pytest.fixture(autouse=True)
def train_few_steps(monkeypatch):
    """Make `fit` of QINCo2 short."""
    few = partial(QincoTraining, steps=4, batch_size=32, warmup=1)
    monkeypatch.setattr("tokgen.quantizers.offline.qinco2.QincoTraining", few)


@pytest.fixture
def quantizer(name: str) -> OfflineQuantizer:
    if name not in _fitted:
        _fitted[name] = make(name)
        _fitted[name].fit(FRAMES, progress=False)
    return _fitted[name]


@pytest.fixture
def two_threads():
    """Set the number of threads back after a test."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_decoded_frames_are_near(quantizer):
    codes = quantizer.encode(UNSEEN)
    decoded = quantizer.decode(codes)
    assert codes.dtype == torch.int64 and decoded.dtype == torch.float32
    assert codes.shape == (len(UNSEEN), 3) and decoded.shape == UNSEEN.shape
    assert share_left(UNSEEN, decoded) < 0.25


def test_a_saved_quantizer_codes_alike(quantizer, name, tmp_path):
    quantizer.save_pretrained(tmp_path)
    loaded = load_quantizer(tmp_path)
    codes = quantizer.encode(UNSEEN)
    assert type(loaded) is QUANTIZERS[name] and loaded.config == quantizer.config
    assert torch.equal(loaded.encode(UNSEEN), codes)
    assert torch.equal(loaded.decode(codes), quantizer.decode(codes))


@pytest.mark.parametrize("beam", [None, 4])
def test_codes_depend_on_the_frame_alone(quantizer, beam, monkeypatch, two_threads):
    beam = beam if quantizer.searches else 1
    frames = UNSEEN[:33]
    torch.set_num_threads(1)
    codes = quantizer.encode(frames, beam=beam)
    decoded = quantizer.decode(codes)
    alone = torch.cat([quantizer.encode(frame[None], beam=beam) for frame in frames])
    assert torch.equal(alone, codes)
    assert torch.equal(torch.cat([quantizer.decode(row[None]) for row in codes]), decoded)
    torch.set_num_threads(2)
    assert torch.equal(quantizer.encode(frames, beam=beam), codes)
    assert torch.equal(quantizer.decode(codes), decoded)
    monkeypatch.setattr(base, "CHUNK", 9)
    assert torch.equal(quantizer.encode(frames, beam=beam), codes)
    assert torch.equal(quantizer.decode(codes), decoded)


def test_nested_codes_have_prefixes(quantizer):
    codes = quantizer.encode(UNSEEN)
    if not quantizer.nested:
        for refuse in (lambda: quantizer.encode(UNSEEN, 2), lambda: quantizer.decode(codes[:, :2])):
            with pytest.raises(ValueError, match=r"n_codebooks = 2: .* not nested.* all 3"):
                refuse()
        return
    shares = []
    for k in (1, 2, 3):
        assert torch.equal(quantizer.encode(UNSEEN, k), codes[:, :k])
        shares.append(share_left(UNSEEN, quantizer.decode(codes[:, :k])))
    assert shares[0] > shares[1] > shares[2]


def test_a_beam_is_never_worse(quantizer):
    if not quantizer.searches:
        with pytest.raises(ValueError, match=r"beam = 4 .*no beam search; use 1"):
            quantizer.encode(UNSEEN, beam=4)
        return
    greedy, beam = quantizer.encode(UNSEEN), quantizer.encode(UNSEEN, beam=8)
    errors = [(quantizer.decode(c) - UNSEEN).square().sum(1) for c in (greedy, beam)]
    assert bool((errors[1] <= errors[0] * (1 + 1e-4) + 1e-5).all())
    assert float(errors[1].sum()) < float(errors[0].sum())
    with pytest.raises(ValueError, match=r"beam = 0 .*use 1\.\."):
        quantizer.encode(UNSEEN, beam=0)


def test_a_seed_gives_the_same_fit(quantizer, name, two_threads):
    again = make(name)
    torch.manual_seed(5)
    torch.set_num_threads(2)
    again.fit(FRAMES, seed=0, progress=False)
    assert torch.equal(again.encode(UNSEEN), quantizer.encode(UNSEEN))
    for key, weight in again.state_dict().items():
        assert torch.equal(weight, quantizer.state_dict()[key]), key


def test_wrong_frames(name):
    quantizer, hole = make(name), FRAMES.clone()
    hole[3, 3] = torch.nan
    wrong = [
        (FRAMES[:15], ValueError, "15 frames: at least 16"),
        (hole, ValueError, "NaN"),
        (FRAMES[:, :9], ValueError, r"\(600, 9\): expected \[n, 10\]"),
        (FRAMES.T, ValueError, "pass frames.T"),
        (FRAMES.long(), TypeError, "torch.int64"),
        (FRAMES.numpy(), TypeError, "not a tensor"),
    ]
    for frames, kind, message in wrong:
        with pytest.raises(kind, match=message):
            quantizer.fit(frames, progress=False)
    for use in (lambda: quantizer.encode(FRAMES), lambda: quantizer.decode(FRAMES[:, :3].long())):
        with pytest.raises(ValueError, match="is not fitted: call fit"):
            use()


def test_wrong_codes(quantizer):
    codes = quantizer.encode(UNSEEN[:4])
    for wrong, kind, message in [
        (codes + 16, ValueError, r"entries are 0\.\.15"),
        (codes - 16, ValueError, r"entries are 0\.\.15"),
        (codes.float(), TypeError, "float32"),
        (codes[0], ValueError, r"expected \[n, k\]"),
        (torch.cat([codes, codes], 1), ValueError, r"levels 1\.\.3"),
    ]:
        with pytest.raises(kind, match=message):
            quantizer.decode(wrong)
    for frames in (UNSEEN[:4].double() * torch.inf, UNSEEN[:4, :2]):
        with pytest.raises(ValueError, match="frames"):
            quantizer.encode(frames)
    assert quantizer.decode(codes[:0]).shape == (0, 10)


def test_wrong_settings(name):
    for settings, message in [
        ({"speed": 3}, f"{name}: .*speed"),
        ({"n_codebooks": 0}, "n_codebooks = 0: must be at least 1"),
        ({"dim": 0}, "dim = 0: must be at least 1"),
        ({"codebook_size": 1}, "codebook_size = 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(name, **settings)


def test_unknown_quantizers(tmp_path):
    with pytest.raises(ValueError, match=r"'means': known are kmeans"):
        make_quantizer("means")
    (tmp_path / "config.json").write_text('{"model_type": "other"}')
    with pytest.raises(ValueError, match="holds 'other', which is no offline quantizer"):
        load_quantizer(tmp_path)


def test_the_settings_name_every_quantizer():
    assert tuple(QUANTIZERS) == KINDS
