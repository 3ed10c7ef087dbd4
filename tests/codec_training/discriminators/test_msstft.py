"""The MS-STFT discriminator: the reference's outputs, sizes, stereo, saving and errors."""

from __future__ import annotations

import json

import pytest
import torch

from makers.vectors import load_vectors
from tokgen.codec_training.discriminators.msstft import MultiScaleStftDiscriminator

FIVE = (1024, 2048, 512, 256, 128)


def test_outputs_and_gradient_of_the_reference():
    """Met to 1e-5: encodec's MultiScaleSTFTDiscriminator with its weights."""
    v = load_vectors("encodec_msstftd")
    critic = MultiScaleStftDiscriminator(windows=(256, 512, 128), width=4)
    state = {}
    for key, value in v.items():
        if not key.startswith("w.") or key.endswith("window"):
            continue
        _, _, scale, *layer, _, name = key.split(".")
        path = "output" if layer[0] == "conv_post" else f"layers.{layer[1]}"
        plain = {"weight_g": "original0", "weight_v": "original1"}
        name = f"parametrizations.weight.{plain[name]}" if name in plain else name
        state[f"parts.{scale}.{path}.{name}"] = value
    critic.load_state_dict(state, strict=True)
    x = v["x"].clone().requires_grad_()
    outs = critic(x)
    for i, maps in enumerate(outs):
        assert len(maps) == 6
        for j, feature in enumerate(maps[:-1]):
            torch.testing.assert_close(feature, v[f"fmap{i}_{j}"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(maps[-1], v[f"logit{i}"], atol=1e-5, rtol=1e-5)
    torch.stack([maps[-1].mean() for maps in outs]).sum().backward()
    torch.testing.assert_close(x.grad, v["grad_x"], atol=1e-10, rtol=1e-5)


@pytest.mark.parametrize(("windows", "n"), [((1024, 2048, 512), 283_398), (FIVE, 472_330)])
def test_number_of_parameters(windows, n):
    critic = MultiScaleStftDiscriminator(windows=windows)
    assert sum(p.numel() for p in critic.parameters()) == n


def test_frames_of_a_second_without_padding():
    outs = MultiScaleStftDiscriminator(width=2)(torch.randn(1, 1, 24_000))
    assert [maps[-1].shape[2] for maps in outs] == [90, 43, 184]


def test_stereo_enters_as_all_reals_then_all_imaginary_parts():
    torch.manual_seed(0)
    stereo = MultiScaleStftDiscriminator(windows=[64], width=3, channels=2)
    mono = MultiScaleStftDiscriminator(windows=[64], width=3)
    state = stereo.state_dict()
    weight = state["parts.0.layers.0.weight"]  # real L, real R, imaginary L, imaginary R
    weight[:, 1::2] = 0
    left = state | {"parts.0.layers.0.weight": weight[:, ::2]}
    stereo.load_state_dict(state)
    mono.load_state_dict(left)
    audio = torch.randn(2, 2, 200)
    for a, b in zip(stereo(audio)[0], mono(audio[:, :1])[0], strict=True):
        torch.testing.assert_close(a, b)


def test_saves_and_loads(tmp_path):
    critic = MultiScaleStftDiscriminator(windows=[64, 32], width=2, channels=2)
    critic.save_pretrained(tmp_path)
    again = MultiScaleStftDiscriminator.from_pretrained(tmp_path)
    audio = torch.randn(1, 2, 128)
    for a, b in zip(critic(audio), again(audio), strict=True):
        assert a[-1].equal(b[-1])


def test_each_bandwidth_has_its_own_discriminator(tmp_path):
    torch.manual_seed(0)
    critic = MultiScaleStftDiscriminator(windows=[64, 32], width=2, bandwidths=3)
    critic.save_pretrained(tmp_path)
    again = MultiScaleStftDiscriminator.from_pretrained(tmp_path)
    audio = torch.randn(1, 1, 128)
    outputs = [[maps[-1] for maps in critic(audio, i)] for i in range(3)]
    assert all(len(found) == 2 for found in outputs)
    assert not outputs[0][0].equal(outputs[1][0]) and not outputs[1][0].equal(outputs[2][0])
    assert again(audio)[0][-1].equal(outputs[2][0])  # without a bandwidth, the highest
    sum(maps[-1].sum() for maps in critic(audio, 1)).backward()
    trained = {name.split(".")[1] for name, p in critic.named_parameters() if p.grad is not None}
    assert trained == {"2", "3"}


def test_a_discriminator_saved_before_there_were_bandwidths_loads(tmp_path):
    critic = MultiScaleStftDiscriminator(windows=[64], width=2)
    critic.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("bandwidths") == 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    again = MultiScaleStftDiscriminator.from_pretrained(tmp_path)
    audio = torch.randn(1, 1, 128)
    assert again(audio)[0][-1].equal(critic(audio, 3)[0][-1])


def test_wrong_audio_is_refused():
    critic = MultiScaleStftDiscriminator(windows=[64], width=2)
    with pytest.raises(ValueError, match="2 channels, but the discriminator 1"):
        critic(torch.zeros(1, 2, 100))
    with pytest.raises(ValueError, match="63 samples is shorter than the window of 64"):
        critic(torch.zeros(1, 1, 63))
    with pytest.raises(ValueError, match="bandwidths = 0: must be at least 1"):
        MultiScaleStftDiscriminator(bandwidths=0)
    with pytest.raises(ValueError, match="windows is empty"):
        MultiScaleStftDiscriminator(windows=[])
