"""Product quantization: slices of uneven width, and OPQ's rotation."""

import pytest
import torch

from tokgen.quantizers.offline.base import share_left
from tokgen.quantizers.offline.product import ProductQuantizer, RotatedProductQuantizer


def correlated_frames(n=500, dim=10):
    g = torch.Generator().manual_seed(0)
    mixing = torch.randn(dim, dim, generator=g) * torch.linspace(2, 0.1, dim)[:, None]
    return torch.randn(n, dim, generator=g) @ mixing + 1


FRAMES = correlated_frames()


def test_uneven_slices():
    quantizer = ProductQuantizer(dim=10, n_codebooks=4, codebook_size=12)
    quantizer.fit(FRAMES, progress=False)
    codes, decoded = quantizer.encode(FRAMES), quantizer.decode(quantizer.encode(FRAMES))
    assert quantizer.widths == [3, 3, 2, 2]
    rows = quantizer.codebooks.split([3, 3, 2, 2], 1)
    for k, part in enumerate(FRAMES.split([3, 3, 2, 2], 1)):
        distances = torch.cdist(part.double(), rows[k].double())
        torch.testing.assert_close(
            distances.gather(1, codes[:, k : k + 1])[:, 0], distances.amin(1), atol=1e-5, rtol=0
        )
    assert torch.equal(decoded, torch.cat([rows[k][codes[:, k]] for k in range(4)], 1))


@pytest.mark.parametrize("n_codebooks", [2, 4])
def test_the_rotation_is_orthogonal(n_codebooks):
    sizes = {"dim": 10, "n_codebooks": n_codebooks, "codebook_size": 12}  # 12 frames wide for 4
    quantizer = RotatedProductQuantizer(**sizes, n_rounds=6)
    quantizer.fit(FRAMES, progress=False)
    rotation = quantizer.rotation.double()
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(10).double(), atol=1e-5, rtol=0)
    plain = ProductQuantizer(**sizes)
    plain.fit(FRAMES, progress=False)
    left = [share_left(FRAMES, q.decode(q.encode(FRAMES))) for q in (quantizer, plain)]
    assert left[0] < left[1]


def test_wrong_settings():
    with pytest.raises(ValueError, match="n_codebooks = 5: frames of 4 numbers"):
        ProductQuantizer(dim=4, n_codebooks=5)
    with pytest.raises(ValueError, match="n_rounds = 0"):
        RotatedProductQuantizer(dim=4, n_codebooks=2, n_rounds=0)
