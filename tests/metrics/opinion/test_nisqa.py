"""NISQA: equal to torchmetrics with the same weights, and never a download."""

from __future__ import annotations

import math

import pytest
import torch

from makers.speech import five_clips
from tokgen.metrics.opinion.nisqa import Nisqa, weights_file

pytest.importorskip("librosa")
module = pytest.importorskip("torchmetrics.functional.audio.nisqa")

ARGS = {  # of the published file, with a smaller network
    "ms_sr": None, "ms_fmax": 20000, "ms_n_fft": 4096, "ms_hop_length": 0.01,
    "ms_win_length": 0.02, "ms_n_mels": 48, "ms_seg_length": 15, "ms_seg_hop_length": 4,
    "ms_max_segments": 1300, "cnn_c_out_1": 4, "cnn_c_out_2": 4, "cnn_c_out_3": 4,
    "cnn_kernel_size": (3, 3), "cnn_dropout": 0.2, "cnn_pool_1": [24, 7], "cnn_pool_2": [12, 5],
    "cnn_pool_3": [6, 3], "cnn_fc_out_h": None, "td_sa_d_model": 8, "td_sa_nhead": 1,
    "td_sa_pos_enc": None, "td_sa_num_layers": 1, "td_sa_h": 8, "td_sa_dropout": 0.1,
    "pool_att_h": 8, "pool_att_dropout": 0.1,
}  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    module._load_nisqa_model.cache_clear()
    yield tmp_path
    module._load_nisqa_model.cache_clear()


def test_without_the_weights_it_says_where_to_get_them(home, monkeypatch):
    monkeypatch.setattr(module, "_download_weights", lambda: pytest.fail("downloaded"))
    with pytest.raises(FileNotFoundError, match=r"download https://.*nisqa\.tar to .*/NISQA"):
        Nisqa()


def test_five_clips_equal_the_reference_to_1e_6(home):
    weights_file().parent.mkdir(parents=True)
    torch.manual_seed(0)
    network = module._NISQADIM(ARGS)
    torch.save({"args": ARGS, "model_state_dict": network.state_dict()}, weights_file())
    judge = Nisqa()
    for _, noisy in five_clips():
        wanted = module.non_intrusive_speech_quality_assessment(noisy[0], 16000)[0]
        assert judge.measure(noisy, 16000).value == pytest.approx(float(wanted), abs=1e-6)
    assert judge.measure(0 * noisy, 16000).reason == "silent"
    assert math.isnan(judge.measure(noisy[:, :100], 16000).value)
