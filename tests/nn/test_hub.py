"""Models go to the hub and come back, and errors name the cause and the fix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForAudioTokenization

from makers.audio import make_tone
from makers.codecs import make_dac, make_stft_codec
from makers.hub import TOKEN, LocalHub, local_hub
from tokgen.modelling.masked import MaskedTransformer
from tokgen.nn.cards import ModelCardFacts
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.networks.stft import StftCodecModel
from tokgen.zoo.recorded import codec_of
from tokgen.zoo.stft import StftCodec

SIZES = {"dim": 32, "depth": 2, "heads": 2, "dim_head": 16}
WAVEFORM = make_tone(0.4, 0)[None]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with local_hub(tmp_path / "hf", monkeypatch) as running:
        yield running


def test_a_codec_goes_to_the_hub_and_back(hub: LocalHub) -> None:
    codec = make_stft_codec()
    url = codec.push_to_hub("me/codec", card=ModelCardFacts(licence="MIT", summary="s"))
    files = hub.files("models", "me/codec")
    expected = {"README.md", "config.json", "model.safetensors", "preprocessor_config.json"}
    assert expected <= set(files)
    loaded = load_codec("me/codec")
    assert loaded.spec.name == "me/codec" and loaded.spec.licence == "MIT"
    assert loaded.spec.revision is not None and loaded.spec.revision in url
    network = StftCodecModel.from_pretrained("me/codec")
    same = StftCodec.from_pretrained("me/codec", revision=loaded.spec.revision)
    for other in (StftCodec.from_model(network), same):
        assert other.spec.weight_hash == loaded.spec.weight_hash
        assert torch.equal(other.encode(WAVEFORM), loaded.encode(WAVEFORM))
    model = AutoModelForAudioTokenization.from_pretrained("me/codec", token=TOKEN)
    assert torch.equal(model.encode(WAVEFORM).audio_codes, loaded.encode(WAVEFORM))
    model.push_to_hub("me/again")
    assert load_codec("me/again").spec.weight_hash == loaded.spec.weight_hash
    network.push_to_hub("me/network")
    assert load_codec("me/network").spec.weight_hash == loaded.spec.weight_hash


def test_a_codec_of_transformers_goes_to_the_hub(hub: LocalHub) -> None:
    codec = make_dac("dac-even")
    codec.push_to_hub("me/dac")
    assert load_codec("me/dac").spec.weight_hash == codec.spec.weight_hash
    assert b"library_name: transformers" in hub.files("models", "me/dac")["README.md"]


def test_a_token_model_goes_to_the_hub_and_back(hub: LocalHub, tiny_codec: StftCodec) -> None:
    model = MaskedTransformer.for_codec(tiny_codec, conditioning_dim=0, **SIZES).eval()
    model.push_to_hub("me/model", commit_message="First", private=True, token=TOKEN)
    loaded = MaskedTransformer.from_pretrained("me/model")
    tokens = torch.full((1, 4, 5), model.mask_id)
    assert torch.equal(loaded(tokens), model(tokens))
    model.push_to_hub("me/model", revision="try", card=ModelCardFacts(corpus="corpus x"))
    assert b"corpus x" in hub.files("models", "me/model", "try")["README.md"]
    assert b"corpus x" not in hub.files("models", "me/model")["README.md"]
    assert MaskedTransformer.from_pretrained("me/model", revision="try").config == model.config


def test_a_card_on_the_hub_is_kept(hub: LocalHub, tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "README.md").write_text("---\nlicense: mit\n---\nBy hand.\n")
    hub.add("models", "me/codec", tmp_path / "page")
    make_stft_codec().push_to_hub("me/codec")
    assert b"By hand." in hub.files("models", "me/codec")["README.md"]
    codec = load_codec("me/codec")
    codec.push_to_hub("me/copy")  # with the card of its weights
    assert b"By hand." in hub.files("models", "me/copy")["README.md"]


def test_a_subfolder_of_a_repository(hub: LocalHub, tmp_path: Path) -> None:
    codec = make_stft_codec(seed=3)
    codec.save_pretrained(tmp_path / "both" / "small")
    make_dac("dac-even").save_pretrained(tmp_path / "both" / "dac")
    hub.add("models", "me/both", tmp_path / "both")
    loaded = load_codec("me/both", subfolder="small", cache_dir=tmp_path / "cache")
    assert loaded.spec.name == "me/both/small" and loaded.spec.revision is not None
    assert not any("dac" in path for path in hub.requests if "resolve" in path)
    assert (tmp_path / "cache" / "models--me--both").is_dir()
    local = load_codec(tmp_path / "both", subfolder="small")
    assert loaded.spec.weight_hash == local.spec.weight_hash
    recorded = codec_of(loaded.spec, None, device="cpu")
    assert recorded.spec == loaded.spec
    outside = replace(loaded.spec, name="me/both/../../both/small")
    with pytest.raises(FileNotFoundError, match=r"no codec 'me/both/../../both/small'"):
        codec_of(outside, None)
    direct = StftCodec.from_pretrained("me/both", subfolder="small")
    assert direct.spec.name == "me/both/small"
    with pytest.raises(FileNotFoundError, match=r"huge holds no model: it has no config.json"):
        load_codec("me/both", subfolder="huge")


def test_errors_name_the_cause_and_the_fix(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_stft_codec().save_pretrained(tmp_path / "codec")
    hub.add("models", "private/codec", tmp_path / "codec")
    hub.add("models", "me/codec", tmp_path / "codec")
    assert load_codec("private/codec", token=TOKEN).spec.name == "private/codec"
    with pytest.raises(FileNotFoundError, match=r"\(401\).*set HF_TOKEN or pass `token`"):
        load_codec("private/codec", token="hf_wrong", cache_dir=tmp_path / "other")
    with pytest.raises(FileNotFoundError, match=r"no such model.*\(404\)"):
        load_codec("me/nothing")
    with pytest.raises(FileNotFoundError, match="no revision 'v9'"):
        load_codec("me/codec", revision="v9")
    with pytest.raises(FileNotFoundError, match=r"local_files_only=False.*`hf download me/codec`"):
        load_codec("me/codec", local_files_only=True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    command = "`hf download me/codec --revision main`"
    with pytest.raises(FileNotFoundError, match=f"unset HF_HUB_OFFLINE.*{command}.*HF_TOKEN"):
        MaskedTransformer.from_pretrained("me/codec", revision="main")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    loaded = load_codec("me/codec")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = load_codec("me/codec", local_files_only=True)  # now in the cache
    assert again.spec == loaded.spec


def test_a_hub_out_of_reach(hub: LocalHub) -> None:
    hub.close()
    with pytest.raises(
        FileNotFoundError, match=r"cannot be reached: .*`hf download me/codec`.*HF_TOKEN"
    ):
        load_codec("me/codec")
