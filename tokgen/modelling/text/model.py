"""The text model: durations of symbols, and features of frames from text alone.

    frames = model.frames(["Press two."])     # conditioning [T, C] of each text

An aligner learns from speech with transcripts which symbol sounds in which frame. From the symbols
and their durations the model predicts the frames' features (MFCC or log-mel). `frames` puts the
symbol of each frame and the predicted features side by side: the conditioning of a masked
transformer that speaks. After FastSpeech (Ren et al. 2019), with the aligner of Badlani et al.
(2021) in place of a teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.modelling.text.alignment import alignment_loss, best_durations, diagonal_prior, expand
from tokgen.modelling.text.layers import ConvolutionStack
from tokgen.modelling.text.settings import TextModelSettings, check_speed
from tokgen.modelling.text.symbols import Symbols
from tokgen.nn.cards import ModelCardFacts, write_card
from tokgen.nn.pretrained import Pretrained
from tokgen.tokens.columns import compute_statistics
from tokgen.tokens.conditioning import ConditioningSettings
from tokgen.tokens.dataset import TokenDataset, check_codec

__all__ = ["TextLosses", "TextModel"]

_PLACES = 3  # values that say where a frame lies in its symbol
_ALIGNMENT_DIM = 64
_TEMPERATURE = 0.05


@dataclass(frozen=True)
class TextLosses:
    """Losses of a batch.

    Attributes:
        alignment: nats per symbol of the aligner, see `alignment_loss`.
        durations: squared error of log(1 + frames), mean over symbols.
        features: absolute error of the standardised features, mean over frames and features.
    """

    alignment: Tensor
    durations: Tensor
    features: Tensor

    @property
    def total(self) -> Tensor:
        """Sum of the losses."""
        return self.alignment + self.durations + self.features


class TextModel(Pretrained):
    """Predicts durations and features of frames from the symbols of a text.

    Args:
        symbols: names of the symbols, see `Symbols`.
        unit: "characters" or "phonemes".
        n_features: features F of a frame.
        dim, encoder_depth, decoder_depth, kernel, dropout: see `TextModelSettings`.
        codec: the `CodecSpec.as_dict()` of the codec whose frames these are.
        conditioning: the `ConditioningSettings` of the features as a dict.
        features_mean, features_std: [F] each, to standardise the features.
    Attributes:
        conditioning_dim: values C per frame of `frames`.
    """

    model_type = "tokgen_text_model"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        symbols: Sequence[str],
        unit: str = "characters",
        n_features: int = 30,
        dim: int = 128,
        encoder_depth: int = 3,
        decoder_depth: int = 4,
        kernel: int = 5,
        dropout: float = 0.0,
        codec: dict[str, Any] | None = None,
        conditioning: dict[str, Any] | None = None,
        features_mean: Sequence[float] | None = None,
        features_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__({k: v for k, v in locals().items() if k not in ("self", "__class__")})
        self.symbols, self.n_features = Symbols(symbols, unit), n_features
        if conditioning is not None:
            ConditioningSettings(**conditioning)  # raises if it is wrong
        self.conditioning_dim = len(self.symbols) + _PLACES + n_features
        self.register_buffer("mean", torch.tensor(features_mean or [0.0] * n_features))
        self.register_buffer("std", torch.tensor(features_std or [1.0] * n_features))
        self.embed = nn.Embedding(len(self.symbols), dim)
        self.encoder = ConvolutionStack(dim, encoder_depth, kernel, dropout)
        # The aligner sees a symbol with its neighbours, and a frame with its neighbours.
        self.align_symbols = ConvolutionStack(dim, 1, 3, dropout)
        self.align_frames = ConvolutionStack(dim, 2, 3, dropout)
        self.embed_features = nn.Linear(n_features, dim)
        self.symbol_key = nn.Linear(dim, _ALIGNMENT_DIM)
        self.frame_query = nn.Linear(dim, _ALIGNMENT_DIM)
        self.duration_layers = ConvolutionStack(dim, 2, 3, dropout)
        self.duration_head = nn.Linear(dim, 1)
        self.embed_place = nn.Linear(_PLACES, dim)
        self.decoder = ConvolutionStack(dim, decoder_depth, kernel, dropout)
        self.head = nn.Linear(dim, n_features)

    @classmethod
    def for_tokens(
        cls,
        codec: Codec,
        tokens: TokenDataset,
        settings: TextModelSettings,
        unit: str = "characters",
    ) -> Self:
        """Create a model for a token dataset with texts and a conditioning.

        Raises:
            ValueError: the tokens are of another codec, or have no conditioning or no texts.
        """
        check_codec(tokens.provenance, codec.spec)
        sizes, train = tokens.provenance.conditioning_sizes, tokens.splits["train"]
        texts = [text for text in train["text"] if text]
        if not sizes or not texts:
            what = "conditioning" if not sizes else "texts"
            raise ValueError(f"the tokens have no {what}, which a text model learns from")
        mean, std = compute_statistics(train)
        return cls(
            symbols=Symbols.of_texts(texts, unit).names,
            unit=unit,
            n_features=next(iter(sizes.values())),
            codec=codec.spec.as_dict(),
            conditioning=tokens.provenance.conditioning,
            features_mean=mean,
            features_std=std,
            **settings.arguments(),
        )

    def forward(
        self, symbols: Tensor, n_symbols: Tensor, features: Tensor, n_frames: Tensor
    ) -> TextLosses:
        """Compute the losses of a batch of speech with texts.

        Args:
            symbols: int64 [B, L], and `n_symbols` int64 [B] of them.
            features: float32 [B, T, F], and `n_frames` int64 [B] of them.
        """
        standard = (features - self.mean) / self.std
        scores = self._scores(symbols, n_symbols, standard, n_frames)
        durations = best_durations(scores, n_symbols, n_frames).to(symbols.device)
        hidden, inside = self._encode(symbols, n_symbols)
        wrong = (self._log_durations(hidden, inside) - durations.float().log1p()).square()
        heard = torch.arange(features.shape[1], device=features.device) < n_frames[:, None]
        error = (self._decode(hidden, durations, heard) - standard).abs().mean(-1)
        return TextLosses(
            alignment_loss(scores, n_symbols, n_frames),
            (wrong * inside).sum() / inside.sum(),
            (error * heard).sum() / heard.sum(),
        )

    @torch.inference_mode()
    def align(self, text: str, features: Tensor) -> Tensor:
        """Number of frames of each symbol of a text in speech, int64 [L].

        Args:
            features: [T, F] of the speech.
        Raises:
            ValueError: there are fewer frames than symbols.
        """
        symbols = self.symbols.encode(text)[None].to(self.mean.device)
        n_symbols = torch.tensor([symbols.shape[1]], device=symbols.device)
        n_frames = torch.tensor([len(features)], device=symbols.device)
        standard = (features.to(self.mean) - self.mean) / self.std
        scores = self._scores(symbols, n_symbols, standard[None], n_frames)
        return best_durations(scores, n_symbols, n_frames)[0]

    @torch.inference_mode()
    def durations(self, text: str, speed: float = 1.0) -> Tensor:
        """Predict the number of frames of each symbol of a text, int64 [L], at least 1 each.

        Args:
            speed: above 1 is faster than the training speech.
        """
        check_speed(speed)
        symbols = self.symbols.encode(text)[None].to(self.mean.device)
        n_symbols = torch.tensor([symbols.shape[1]], device=symbols.device)
        wanted = self._log_durations(*self._encode(symbols, n_symbols))[0].expm1() / speed
        return wanted.round().long().clamp(min=1).cpu()

    @torch.inference_mode()
    def frames(
        self, texts: Sequence[str], durations: Sequence[Tensor] | None = None, speed: float = 1.0
    ) -> list[Tensor]:
        """Compute the conditioning of texts.

        Args:
            texts: texts.
            durations: int64 [L] each, such as `align` returns; None predicts them.
            speed: see `durations`.
        Returns:
            float32 [T, C] each on the CPU: the symbol as one of `symbols` (0 or 1), the place in
            the symbol, and the features.
        """
        found = []
        for i, text in enumerate(texts):
            frames = (self.durations(text, speed) if durations is None else durations[i])[None]
            symbols = self.symbols.encode(text)[None].to(self.mean.device)
            n_symbols = torch.tensor([symbols.shape[1]], device=symbols.device)
            hidden, _ = self._encode(symbols, n_symbols)
            frames = frames.to(symbols.device)
            heard = torch.ones(1, int(frames.sum()), dtype=torch.bool, device=symbols.device)
            features = self._decode(hidden, frames, heard)[0] * self.std + self.mean
            index, _ = expand(frames, heard.shape[1])
            one_hot = F.one_hot(symbols.gather(-1, index)[0], len(self.symbols))
            places = _places(frames, heard.shape[1])[0]
            found.append(torch.cat([one_hot.float(), places, features], -1).float().cpu())
        return found

    def write_card(self, folder: str | Path, facts: ModelCardFacts) -> None:
        """Write the card (README.md) of a saved model, unless there is one written by hand."""
        codec = self.config["codec"] or {}
        name = str(codec.get("name") or "codec")
        about = {
            "parameters": f"{sum(p.numel() for p in self.parameters()) / 1e6:.2f}M",
            "symbols": f"{len(self.symbols)} ({self.symbols.unit})",
            "frames": f"those of `{name}`, {self.n_features} features each",
        }
        example = """
from tokgen.modelling.text.model import TextModel

model = TextModel.from_pretrained("folder or hub id of this model")
[frames] = model.frames(["Press two."])  # conditioning [T, C] of a masked transformer
"""
        title = f"Text model for frames of {name}"
        write_card(Path(folder), title, about, example, facts, tags=["codec-tokens", name])

    def _encode(self, symbols: Tensor, n_symbols: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states [B, L, dim] of symbols, and which of them are real, bool [B, L]."""
        inside = torch.arange(symbols.shape[1], device=symbols.device) < n_symbols[:, None]
        return self.encoder(self.embed(symbols), inside), inside

    def _scores(
        self, symbols: Tensor, n_symbols: Tensor, standard: Tensor, n_frames: Tensor
    ) -> Tensor:
        """Logits [B, T, L] of the symbols in each frame."""
        inside = torch.arange(symbols.shape[1], device=symbols.device) < n_symbols[:, None]
        heard = torch.arange(standard.shape[1], device=symbols.device) < n_frames[:, None]
        keys = self.symbol_key(self.align_symbols(self.embed(symbols), inside))
        queries = self.frame_query(self.align_frames(self.embed_features(standard), heard))
        keys, queries = keys.float(), queries.float()
        with torch.autocast(keys.device.type, enabled=False):  # a difference of large numbers
            products = queries @ keys.mT
        lengths = queries.square().sum(-1)[:, :, None] + keys.square().sum(-1)[:, None]
        scores = (-_TEMPERATURE * (lengths - 2 * products)).masked_fill(
            ~inside[:, None], -torch.inf
        )
        shape = (standard.shape[1], symbols.shape[1])
        return scores.log_softmax(-1) + diagonal_prior(n_symbols, n_frames, shape)

    def _log_durations(self, hidden: Tensor, inside: Tensor) -> Tensor:
        """log(1 + frames) of each symbol, [B, L]."""
        return self.duration_head(self.duration_layers(hidden, inside))[..., 0]

    def _decode(self, hidden: Tensor, durations: Tensor, heard: Tensor) -> Tensor:
        """Standardised features [B, T, F] of hidden states [B, L, dim] with durations [B, L]."""
        index, _ = expand(durations, heard.shape[1])
        x = hidden.gather(1, index[..., None].expand(-1, -1, hidden.shape[-1]))
        x = x + self.embed_place(_places(durations, heard.shape[1]))
        return self.head(self.decoder(x * heard[..., None], heard))


def _places(durations: Tensor, n_frames: int) -> Tensor:
    """Places of frames in their symbols, [B, T, 3]: share passed, share left, log of the length."""
    index, before = expand(durations, n_frames)
    length = durations.gather(-1, index).float().clamp(min=1)
    passed = ((before + 0.5) / length).clamp(max=1)
    return torch.stack([passed, 1 - passed, length.log()], -1)
