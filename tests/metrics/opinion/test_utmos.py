"""UTMOS: equal to utmos-pytorch with the same weights, and which files are refused."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from makers.speech import five_clips
from tokgen.metrics.opinion.utmos import FILE, Utmos
from tokgen.metrics.signals import at_16k


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of the network with one layer of its transformer."""
    patch = pytest.MonkeyPatch()
    package = __import__("utmos_pytorch.utmos_torch", fromlist=["UTMOSModel"])
    plain = package.Wav2Vec2Config
    patch.setattr(package, "Wav2Vec2Config", lambda: plain(encoder_layers=1))
    folder = tmp_path_factory.mktemp("utmos")
    torch.manual_seed(0)
    torch.save(package.UTMOSModel().state_dict(), folder / FILE)
    yield folder
    patch.undo()


def test_five_clips_equal_the_reference_to_1e_4(weights):
    from utmos_pytorch import UTMOSScoreTorch

    reference = UTMOSScoreTorch(ckpt_path=str(weights / FILE))
    judge = Utmos(str(weights))
    clips = [noisy[:, :24000] for _, noisy in five_clips()]
    wanted = [float(reference.score(at_16k(clip, 16000))) for clip in clips]
    assert judge.score_batch(clips, 16000) == pytest.approx(wanted, abs=1e-4)
    assert judge.score(clips[0], 16000) == pytest.approx(wanted[0], abs=1e-4)
    assert len(set(wanted)) == 5 and str(weights) in judge.backend
    assert math.isnan(judge.score(clips[0][:, :100], 16000))
    assert math.isnan(judge.score(0 * clips[0], 16000))


class Code:
    """Would run a command if it was unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


def test_files_with_code_or_other_weights_are_refused(weights, tmp_path, capsys):
    torch.save({"a": Code()}, tmp_path / "code.pt")
    with pytest.raises(OSError, match="no file of weights alone"):
        Utmos(str(tmp_path / "code.pt"))
    assert "unpickled" not in capsys.readouterr().out
    (tmp_path / "cut.pt").write_bytes((weights / FILE).read_bytes()[:5000])
    with pytest.raises(OSError, match="no file of weights alone"):
        Utmos(str(tmp_path / "cut.pt"))
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"of another network: \d+ are missing .*, 1 unknown"):
        Utmos(str(tmp_path / "other.pt"))


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "utmos_pytorch", None)
    monkeypatch.setitem(sys.modules, "utmos_pytorch.utmos_torch", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[quality\]'"):
        Utmos()
