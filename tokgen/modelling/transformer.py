"""Base class of token transformers: embeddings, conditioning, heads, creation and saving.

The embeddings of a frame's tokens and of its conditioning are summed. Attention mixes the frames,
and one head per level predicts the codes of that level.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from x_transformers import Decoder, Encoder

from tokgen.codec.base import Codec
from tokgen.codec.depth import Rate
from tokgen.codec.identity import check_made_for
from tokgen.codec.spec import CodecSpec
from tokgen.modelling.depths import DepthLevel, limit_sizes, live_levels, rate_setting
from tokgen.modelling.settings import ModelSettings
from tokgen.nn.cards import ModelCardFacts, write_card
from tokgen.nn.dense import use_onednn
from tokgen.nn.pretrained import Pretrained
from tokgen.tokens.columns import compute_statistics
from tokgen.tokens.conditioning import ConditioningSettings
from tokgen.tokens.dataset import TokenDataset, check_codec

__all__ = ["TokenTransformer"]


class TokenTransformer(Pretrained):
    """Base class of transformers that predict codes from other codes and a conditioning.

    Subclasses say what attention sees, and which tokens they predict from which.

    Args:
        n_codebooks: number of levels K.
        codebook_size: number of codes V per level; token V is MASK.
        conditioning_dim: coefficients C per frame; 0 for no conditioning.
        dim, depth, heads, dim_head: sizes of the transformer; the whole head is rotary.
        dropout: in attention and feed-forward layers.
        embedding: "codes" maps the codec's own code vectors linearly, "learned" has one table per
            level.
        code_dim: width d of the code vectors, for "codes".
        codec: the codec's `CodecSpec.as_dict()`; the model refuses codecs with other codes.
        conditioning: `ConditioningSettings` as a dict; None if there is no conditioning.
        conditioning_mean, conditioning_std: [C] each, to standardise the conditioning.
        rate: the codec's level or bitrate, such as {"bitrate": 2.5}, if frames have a depth (see
            `tokgen.modelling.depths`); None if all frames have all levels.
    Attributes:
        n_levels: levels of the tokens: K, or K + 1 with the depth.
        level_sizes: entries of each level, if the codec's levels differ; else empty. Codes past
            the size of a level have the logit -inf, or none.
    """

    layers: ClassVar[type[Encoder] | type[Decoder]] = Encoder
    title: ClassVar[str] = "Transformer"  # of its card
    takes_rate: ClassVar[bool] = True  # frames may have a depth
    code_vectors: Tensor | None
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        n_codebooks: int,
        codebook_size: int,
        conditioning_dim: int = 30,
        dim: int = 512,
        depth: int = 12,
        heads: int = 8,
        dim_head: int = 64,
        dropout: float = 0.0,
        embedding: str = "codes",
        code_dim: int = 8,
        codec: dict[str, Any] | None = None,
        conditioning: dict[str, Any] | None = None,
        conditioning_mean: Sequence[float] | None = None,
        conditioning_std: Sequence[float] | None = None,
        rate: dict[str, Any] | None = None,
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        if rate is None:
            del settings["rate"]  # older versions do not know it
        elif not self.takes_rate:
            raise ValueError(
                f"{type(self).__name__} with a rate {rate}: frames of variable depth are not "
                "supported; use a MaskedTransformer, or a codec without a bitrate or level"
            )
        else:
            Rate(**rate)  # raises if it is wrong
        super().__init__(settings)
        self.level_sizes: tuple[int, ...] = ()
        if codec is not None:  # raises if it is wrong
            self.level_sizes = CodecSpec(**codec).level_sizes[:n_codebooks]
        if conditioning is not None:
            ConditioningSettings(**conditioning)
        if embedding not in ("codes", "learned"):
            raise ValueError(f"embedding {embedding!r}: known are 'codes' and 'learned'")
        if heads < 2:
            raise ValueError(
                f"heads = {heads}: x-transformers has no output projection for one head; "
                "use 2 or more"
            )
        if rate is not None and n_codebooks > codebook_size:
            raise ValueError(
                f"a rate with {n_codebooks} levels of {codebook_size} codes: needs at most as many "
                "levels as codes"
            )
        self.n_codebooks, self.codebook_size = n_codebooks, codebook_size
        self.n_levels = n_codebooks + (rate is not None)
        self.conditioning_dim, self.mask_id = conditioning_dim, codebook_size
        vectors = (
            torch.zeros(n_codebooks, codebook_size, code_dim) if embedding == "codes" else None
        )
        self.register_buffer("code_vectors", vectors)
        if vectors is not None:
            self.embed_codes = nn.Linear(n_codebooks * code_dim, dim)
        else:
            self.embed_table = nn.Embedding(n_codebooks * codebook_size, dim)
            nn.init.normal_(self.embed_table.weight, std=0.02)
        self.embed_mask = nn.Parameter(torch.randn(n_codebooks, dim) * 0.02)
        if conditioning_dim:
            mean, std = conditioning_mean, conditioning_std
            self.register_buffer("mean", torch.tensor(mean or [0.0] * conditioning_dim))
            self.register_buffer("std", torch.tensor(std or [1.0] * conditioning_dim))
            self.embed_conditioning = nn.Linear(conditioning_dim, dim)
            self.no_conditioning = nn.Parameter(torch.randn(dim) * 0.02)
        self.transformer = self.layers(
            dim=dim,
            depth=depth,
            heads=heads,
            attn_dim_head=dim_head,
            attn_flash=True,
            rotary_pos_emb=True,
            rotary_emb_dim=dim_head,
            attn_dropout=dropout,
            ff_dropout=dropout,
        )
        self.head_weight = nn.Parameter(torch.empty(n_codebooks, codebook_size, dim))
        self.head_bias = nn.Parameter(torch.zeros(n_codebooks, codebook_size))
        nn.init.normal_(self.head_weight, std=0.02)
        self.depth_level = None if rate is None else DepthLevel(n_codebooks, dim)
        use_onednn(self)

    @classmethod
    def for_codec(cls, codec: Codec, preset: str = "small", **overrides: Any) -> Self:
        """Create a model for a codec's tokens.

        Args:
            codec: codec with the sizes, weight hash and code vectors for the model.
            preset: a name in `PRESETS`.
            overrides: arguments of the constructor that replace the preset's.
        Raises:
            ValueError: unknown preset, or embedding "codes" with a codec that hides its vectors.
        """
        vectors = codec.code_vectors()
        arguments = {
            **ModelSettings(preset).arguments(),
            "embedding": "learned" if vectors is None else "codes",
            "n_codebooks": codec.spec.n_codebooks,
            "codebook_size": codec.spec.codebook_size,
            "code_dim": 8 if vectors is None else vectors.shape[-1],
            "codec": codec.spec.as_dict(),
            "rate": rate_setting(codec.rate),
            **overrides,
        }
        model = cls(**arguments)
        if model.code_vectors is not None:
            if vectors is None:
                raise ValueError(
                    f"{codec.spec.name} does not expose its code vectors: use embedding='learned'"
                )
            vectors = vectors[: model.n_codebooks]
            n_codes = torch.tensor([model.size_of(k) for k in range(len(vectors))])
            n_values = (n_codes.to(vectors) * vectors.shape[-1])[:, None, None]
            scale = (vectors.square().sum((1, 2), keepdim=True) / n_values).sqrt().clamp(min=1e-8)
            model.code_vectors.copy_((vectors / scale).detach().to(model.code_vectors))
        return model

    @classmethod
    def for_tokens(cls, codec: Codec, tokens: TokenDataset, settings: ModelSettings) -> Self:
        """Create a model for a token dataset, with the dataset's conditioning if it has one.

        The conditioning is standardised with its mean and deviation over the train split.

        Raises:
            ValueError: see `for_codec`; or the tokens are of another codec.
        """
        sizes = tokens.provenance.conditioning_sizes
        about: dict[str, Any] = {"conditioning_dim": 0}
        if sizes:
            mean, std = compute_statistics(tokens.splits["train"])
            about = {
                "conditioning": tokens.provenance.conditioning,
                "conditioning_dim": next(iter(sizes.values())),
                "conditioning_mean": mean,
                "conditioning_std": std,
            }
        check_codec(tokens.provenance, codec.spec)
        about["n_codebooks"] = tokens.provenance.n_codebooks
        about["rate"] = rate_setting(tokens.provenance.rate)
        return cls.for_codec(codec, **{**settings.arguments(), **about})

    def check_codec(self, spec: CodecSpec) -> None:
        """Raise a ValueError if the model was made for another codec."""
        check_made_for(self.config["codec"], spec, "the model")

    def write_card(self, folder: str | Path, facts: ModelCardFacts) -> None:
        """Write the card (README.md) of a saved model, unless there is one written by hand.

        Args:
            folder: folder of `save_pretrained`.
            facts: data, training settings, scores, command.
        """
        codec, size = self.config["codec"] or {}, self.config
        n_parameters = sum(p.numel() for p in self.parameters())
        kind = "mfcc" if size["conditioning"] is None else size["conditioning"].get("kind", "mfcc")
        speaks = size["conditioning"] is None and self.conditioning_dim > 0
        conditioning = f"{'text' if speaks else kind}, {self.conditioning_dim} values per frame"
        name = str(codec.get("name") or "codec")
        about = {
            "parameters": f"{n_parameters / 1e6:.2f}M, {size['depth']} layers of {size['dim']}",
            "codec": f"`{name}`, weights `{codec.get('weight_hash') or 'not stated'}`, licence "
            f"{codec.get('licence') or 'not stated'}",
            "levels": f"{self.n_codebooks} of {self.codebook_size} entries"
            + (", as many as the depth of a frame says" if self.variable_depth else ""),
            "conditioning": conditioning if self.conditioning_dim else "none",
        }
        audio = "like" if self.conditioning_dim else "prompt"
        call = f'generated = tokgen.generate(model, codec, {audio}="speech.wav")'
        model = 'model = "folder or hub id of this model"'
        imports = "import tokgen"
        if speaks:
            imports += "\nfrom tokgen.generation.speech import Speaker"
            model = 'speaker = Speaker.from_pretrained("folder of this model")'
            call = '[generated] = speaker.speak(codec, ["Press two."])'
        example = f"""
{imports}

{model}
codec = tokgen.load_codec({name!r})
{call}
tokgen.write_audio("generated.wav", generated.waveform, codec.spec.sample_rate)
"""
        title = f"{self.title} on tokens of {name}"
        write_card(Path(folder), title, about, example, facts, tags=["codec-tokens", name])

    @property
    def variable_depth(self) -> bool:
        """True if frames have a depth, which is then level 0 of the tokens."""
        return self.depth_level is not None

    def _heads(self) -> tuple[Tensor, Tensor]:
        """Weights [L, V, dim] and biases [L, V] of the heads of all levels."""
        bias = limit_sizes(self.head_bias, self.level_sizes)
        if self.depth_level is None:
            return self.head_weight, bias
        return self.depth_level.beside(self.head_weight, bias)

    def size_of(self, level: int) -> int:
        """Return the number of codes of a level, 0..K - 1."""
        return self.level_sizes[level] if self.level_sizes else self.codebook_size

    def _embed(self, tokens: Tensor) -> Tensor:
        """Embed tokens [B, L, T] as [B, T, dim], summed over levels."""
        if self.depth_level is None:
            return self._embed_codes(tokens, None)
        depth = self.depth_level.embed(tokens, self.mask_id)
        return self._embed_codes(tokens[:, 1:], live_levels(tokens)[:, 1:]) + depth

    def _embed_codes(self, tokens: Tensor, live: Tensor | None) -> Tensor:
        """Embed codes or MASK [B, K, T] where they are live; None means everywhere."""
        masked = tokens == self.mask_id
        none = masked if live is None else masked | ~live
        shown = masked if live is None else masked & live
        codes = tokens.masked_fill(none, 0)
        hidden = shown.mT.to(self.embed_mask.dtype) @ self.embed_mask
        levels = torch.arange(self.n_codebooks, device=tokens.device)[None, :, None]
        if self.code_vectors is None:
            rows = self.embed_table(codes + levels * self.codebook_size)  # [B, K, T, dim]
            return rows.masked_fill(none[..., None], 0.0).sum(1) + hidden
        rows = self.code_vectors[levels, codes].masked_fill(none[..., None], 0.0)
        return self.embed_codes(rows.permute(0, 2, 1, 3).flatten(2)) + hidden

    def _condition(
        self, tokens: Tensor, conditioning: Tensor | None, drop: Tensor | None
    ) -> Tensor | float:
        """Embed the conditioning as [B, T, dim]; hidden items get the learned null vector."""
        if not self.conditioning_dim:
            return 0.0
        if conditioning is None:
            return self.no_conditioning
        wanted = (len(tokens), self.conditioning_dim, tokens.shape[-1])
        if conditioning.shape != wanted:
            raise ValueError(
                f"conditioning of shape {tuple(conditioning.shape)}: expected {wanted}, "
                "one column per frame"
            )
        standard = (conditioning.mT - self.mean) / self.std
        out = self.embed_conditioning(standard.to(self.embed_conditioning.weight.dtype))
        if drop is None:
            return out
        return torch.where(drop[:, None, None], self.no_conditioning.to(out.dtype), out)
