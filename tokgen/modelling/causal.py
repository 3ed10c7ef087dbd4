"""Causal models of codes, for entropy coding: the language model of EnCodec, and their base class.

    model = CausalTransformer.for_tokens(codec, tokens)
    logits = model(codes)       # [B, K, T, V]; those of a code depend on the codes before it only
    bits = code_bits(model(codes), codes)

Codes are ordered as in a stream: frame by frame, and in a frame level by level, coarse first.
`tokgen.modelling.causal_depth` has a smaller model that compresses better.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.codec.identity import check_made_for
from tokgen.codec.spec import CodecSpec
from tokgen.nn.cards import ModelCardFacts, write_card
from tokgen.nn.pretrained import Pretrained
from tokgen.tokens.dataset import TokenDataset, check_codec
from tokgen.tokens.provenance import describe_rate

__all__ = ["CausalModel", "CausalTransformer", "check_all_levels", "code_bits", "sinusoids"]


def check_all_levels(tokens: TokenDataset) -> None:
    """Raise a ValueError if the tokens have a variable bitrate, which causal models do not."""
    name, rate = tokens.provenance.spec.name, tokens.provenance.rate
    if rate is not None:
        raise ValueError(
            f"the tokens of {name!r} have a variable bitrate ({describe_rate(rate)}), which causal "
            f"models do not support: tokenize with {name.split(':')[0]!r}, without a bitrate or "
            "level"
        )


def code_bits(logits: Tensor, codes: Tensor) -> Tensor:
    """Bits that an ideal coder spends on each code.

    Args:
        logits: [B, K, T, V].
        codes: int64 [B, K, T].
    Returns:
        float32 [B, K, T].
    """
    by_level, wanted = (
        logits.transpose(0, 1),
        codes.transpose(0, 1),
    )  # without a copy, if K is first
    nats = F.cross_entropy(by_level.flatten(0, 2).float(), wanted.flatten(), reduction="none")
    return nats.view(wanted.shape).transpose(0, 1) / math.log(2)


class CausalModel(Pretrained):
    """Base class of models that predict each code from the codes before it in the stream.

    `forward` maps codes int64 [B, n, T], the first n of K levels, to logits [B, n, T, V]. Those of
    level k in frame t depend on the codes of earlier frames, and on levels below k of frame t if
    the class says so.

    Args:
        config: arguments of the subclass's constructor, with at least n_codebooks, codebook_size
            and codec.
    Attributes:
        n_codebooks: levels K.
        codebook_size: codes V per level.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.n_codebooks: int = config["n_codebooks"]
        self.codebook_size: int = config["codebook_size"]
        if config["codec"] is not None:
            CodecSpec(**config["codec"])  # raises if it is wrong

    @classmethod
    def for_tokens(cls, codec: Codec, tokens: TokenDataset, **sizes: Any) -> Self:
        """Create a model for a token dataset.

        Args:
            codec: codec that made the tokens.
            tokens: token dataset.
            sizes: arguments of the constructor.
        Raises:
            ValueError: the tokens are of another codec, or have a variable bitrate.
        """
        check_codec(tokens.provenance, codec.spec)
        check_all_levels(tokens)
        arguments: dict[str, Any] = {
            "n_codebooks": tokens.provenance.n_codebooks,
            "codebook_size": tokens.provenance.codebook_size,
            "codec": codec.spec.as_dict(),
        }
        return cls(**arguments, **sizes)

    def check_codec(self, spec: CodecSpec) -> None:
        """Raise a ValueError if the model was made for another codec."""
        check_made_for(self.config["codec"], spec, "the entropy model")

    def check_codes(self, codes: Tensor) -> None:
        """Raise a ValueError unless codes have the shape [B, n, T] with 1 <= n <= K."""
        if codes.ndim != 3 or not 1 <= codes.shape[1] <= self.n_codebooks:
            raise ValueError(
                f"codes of shape {tuple(codes.shape)}: expected [B, n, T] with n in "
                f"1..{self.n_codebooks}"
            )

    @torch.no_grad()
    def bits(self, codes: Tensor) -> Tensor:
        """Bits of each code, float32 [B, n, T], for an ideal coder that starts at the first frame.

        Args:
            codes: int64 [B, n, T].
        """
        return code_bits(self(codes), codes)

    def write_card(self, folder: str | Path, facts: ModelCardFacts) -> None:
        """Write the card (README.md) of a saved model, unless there is one written by hand."""
        codec = self.config["codec"] or {}
        name, kind = str(codec.get("name") or "codec"), type(self).__name__
        n_parameters = sum(t.numel() for t in self.state_dict().values())  # integers are buffers
        about = {
            "parameters": f"{n_parameters:,}",
            "codec": f"`{name}`, weights `{codec.get('weight_hash') or 'not stated'}`, licence "
            f"{codec.get('licence') or 'not stated'}",
            "levels": f"{self.n_codebooks} of {self.codebook_size} entries",
        }
        example = f"""
from tokgen.{type(self).__module__.removeprefix("tokgen.")} import {kind}

model = {kind}.from_pretrained("folder or hub id of this model")
bits = model.bits(codes)  # codes [B, K, T] of {name}
"""
        title = f"Entropy model of {name}'s codes"
        write_card(Path(folder), title, about, example, facts, tags=["codec-tokens", name])


class CausalTransformer(CausalModel):
    """The language model of EnCodec (Défossez et al. 2022): all levels of a frame at once.

    The embeddings of a frame's codes are summed. The distributions of all levels of frame t come
    from the frames before t; they do not depend on each other.

    Args:
        n_codebooks: levels K.
        codebook_size: codes V per level.
        dim: width.
        heads: attention heads.
        depth: layers.
        context: frames before the newest that a layer sees.
        codec: the codec's `CodecSpec.as_dict()`.
    """

    model_type = "tokgen_causal_transformer"

    def __init__(
        self,
        *,
        n_codebooks: int,
        codebook_size: int,
        dim: int = 200,
        heads: int = 8,
        depth: int = 5,
        context: int = 175,
        codec: dict[str, Any] | None = None,
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(settings)
        if dim % heads or dim % 2:
            raise ValueError(f"dim = {dim}: must be even and a multiple of heads = {heads}")
        self.dim, self.context = dim, context
        # Row 0 of each level is the frame before the first.
        self.embed = nn.Embedding(n_codebooks * (codebook_size + 1), dim)
        nn.init.normal_(self.embed.weight, std=dim**-0.5)
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(_Layer(dim, heads) for _ in range(depth))
        self.head = nn.Linear(dim, n_codebooks * codebook_size)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def for_tokens(cls, codec: Codec, tokens: TokenDataset, **sizes: Any) -> Self:
        """Create a model for a token dataset, with 3.5 s of context unless `context` is given."""
        frames = math.floor(3.5 * tokens.provenance.spec.frame_rate)
        return super().for_tokens(codec, tokens, **{"context": frames, **sizes})

    def forward(self, codes: Tensor) -> Tensor:
        """Compute the logits of all codes.

        Args:
            codes: int64 [B, n, T] with the first n levels, n at most K.
        Returns:
            [B, n, T, V]. Those of frame t depend on frames before t.
        Raises:
            ValueError: wrong number of levels.
        """
        self.check_codes(codes)
        before = F.pad(codes[..., :-1] + 1, (1, 0))
        levels, rows = codes.shape[1], self.codebook_size + 1
        first = torch.arange(levels, device=codes.device) * rows
        x = self.norm(self.embed(before + first[:, None]).sum(1))
        frame = torch.arange(x.shape[1], device=x.device)
        x = x + sinusoids(frame, self.dim).to(x.dtype)
        # Key 0 is a zero vector before the first frame.
        distance = frame[:, None] + 1 - torch.arange(x.shape[1] + 1, device=x.device)
        mask = (distance >= 0) & (distance <= self.context)
        for layer in self.layers:
            x = layer(x, mask)
        most = levels * self.codebook_size
        logits = F.linear(x, self.head.weight[:most], self.head.bias[:most])
        return logits.unflatten(-1, (levels, -1)).transpose(1, 2)


def sinusoids(frame: Tensor, dim: int) -> Tensor:
    """Sinusoidal positions [T, dim] of frames int64 [T], cosines first."""
    half = dim // 2
    steps = torch.arange(half, device=frame.device) / max(half - 1, 1)
    phase = frame[:, None] / 10000**steps
    return torch.cat([phase.cos(), phase.sin()], -1)


class _Layer(nn.Module):
    """A transformer layer with the norm after each part, and a zero vector before the keys."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attend = nn.Linear(dim, 3 * dim)
        self.merge = nn.Linear(dim, dim)
        self.widen, self.narrow = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x [B, T, dim]; mask [T, T + 1] says which keys a frame sees."""
        every = self.attend(F.pad(x, (0, 0, 1, 0))).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = every.permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(queries[:, :, 1:], keys, values, attn_mask=mask)
        x = self.norm1(x + self.merge(found.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.narrow(F.gelu(self.widen(x))))
