"""Pictures to texts: sampling, beam search and CapLoss with a transformer that writes texts after pictures.

Letters of the shapes: b sequences, p pictures, w beams of each, v legal tokens, n pieces.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from cogview.errors import CogViewError, UsageError
from cogview.generation.cache import DecodingCache, SparseCache
from cogview.generation.caption_loss import caption_losses
from cogview.generation.config import SamplingConfig
from cogview.generation.decoder import Decoder
from cogview.generation.sampling import sample, seeded_uniforms
from cogview.sequence.captioning import CaptionTemplate
from cogview.sequence.template import Codes, Pieces
from cogview.transformer.model import Transformer


@dataclass(frozen=True, kw_only=True)
class WrittenText:
    """A text that was written for a picture.

    Args:
        pieces: numbered as the text tokenizer does; at least one.
        pieces_nats: -log p of the pieces.
        end_nats: -log p of the text's end after them.
    """

    pieces: tuple[int, ...]
    pieces_nats: float
    end_nats: float

    @property
    def caption_loss(self) -> float:
        """CapLoss of the picture and the text, in nats per piece."""
        return self.pieces_nats / len(self.pieces)

    def score(self, length_penalty: float = 1.0) -> float:
        """Return log p of pieces and end, divided by their number to the power of `length_penalty`."""
        return -(self.pieces_nats + self.end_nats) / (len(self.pieces) + 1) ** length_penalty


class Captioner:
    """Writes texts after pictures, and says how well texts fit them.

    Only pieces and the end of a text are ever written. A text has at least one piece, and one that has no room left
    is ended. As in `Engine`, on CPU the texts of a seed are the same whatever else is written at the same time.

    Args:
        transformer: learnt `template`; its weights are taken as they are now.
        template: picture first, then text.
        new_decoder: makes the decoder of legal tokens `template.legal_tokens`, when it is first needed; by default one
            of the transformer alone.
        max_batch: texts written or scored at once; more are done in turn.

    Raises:
        CogViewError: the transformer's attention is sparse, which is made for a text before a picture.
    """

    def __init__(
        self,
        transformer: Transformer,
        template: CaptionTemplate,
        new_decoder: Callable[[], Decoder] | None = None,
        max_batch: int = 16,
    ) -> None:
        if transformer.config.attention_pattern != "dense":
            raise CogViewError(
                "a transformer with three_region attention cannot caption: its regions are those of a text before a "
                "picture; finetune one with dense attention"
            )
        if max_batch < 1:
            raise UsageError(f"max_batch must be at least 1, got {max_batch}")
        self.transformer = transformer
        self.template = template
        self._new_decoder = new_decoder or (lambda: Decoder(transformer, template.legal_tokens))
        self._max_batch = max_batch
        self._made_decoder: Decoder | None = None
        self._lock = Lock()

    @property
    def _decoder(self) -> Decoder:
        with self._lock:
            if self._made_decoder is None:
                self._made_decoder = self._new_decoder()
            return self._made_decoder

    def losses(
        self, pairs: Sequence[tuple[Pieces, Codes]], *, counts_end: bool = False
    ) -> Float64[np.ndarray, "n"]:
        """Return CapLoss of each (pieces, codes), as `caption_losses` does."""
        return caption_losses(
            self.transformer, self.template, pairs, counts_end=counts_end, max_batch=self._max_batch
        )

    @torch.inference_mode()
    def sample(
        self,
        pictures: Sequence[Codes],
        seeds: Sequence[int],
        config: SamplingConfig,
        max_pieces: int | None = None,
        allowed: Bool[np.ndarray, "v"] | None = None,
    ) -> list[list[WrittenText]]:
        """Draw a text for each seed for each picture; with temperature 0 it is the greedy one.

        Args:
            pictures: codes of each.
            seeds: not negative; each draws the same text again.
            config: temperature, top-k and top-p; there is no guidance.
            max_pieces: of a text; as many as the template has room for by default.
            allowed: which pieces may be written; all by default. Probabilities stay those of the model.

        Raises:
            UsageError: `max_pieces` is impossible.
            CogViewError: the transformer's logits are not finite.
        """
        max_pieces = self._max_pieces(max_pieces)
        rows = [(number, seed) for number in range(len(pictures)) for seed in seeds]
        texts: list[list[WrittenText]] = [[] for _ in pictures]
        for start in range(0, len(rows), self._max_batch):
            part = rows[start : start + self._max_batch]
            read = {number: self._read(pictures[number]) for number in dict.fromkeys(row[0] for row in part)}
            begun = [read[number] for number, _ in part]
            written = self._sample(begun, [seed for _, seed in part], config, max_pieces, allowed)
            for (number, _), text in zip(part, written, strict=True):
                texts[number].append(text)
        return texts

    @torch.inference_mode()
    def beam_search(
        self,
        pictures: Sequence[Codes],
        num_beams: int,
        max_pieces: int | None = None,
        length_penalty: float = 1.0,
        allowed: Bool[np.ndarray, "v"] | None = None,
    ) -> list[list[WrittenText]]:
        """Return the `num_beams` best texts that were found for each picture, best first.

        In each step every beam may end, and the best `num_beams` of all their continuations go on. The texts that
        ended are ranked by `WrittenText.score`, until none that goes on can overtake them.

        Args:
            pictures: codes of each.
            num_beams: texts that go on at the same time.
            max_pieces: of a text; as many as the template has room for by default.
            length_penalty: 0 or more; 0 prefers short texts, 1 ranks by the mean of log p.
            allowed: which pieces may be written; all by default. Probabilities stay those of the model.

        Raises:
            UsageError: a number is impossible.
            CogViewError: the transformer's logits are not finite.
        """
        max_pieces = self._max_pieces(max_pieces)
        if num_beams < 1:
            raise UsageError(f"num_beams must be at least 1, got {num_beams}")
        if not 0 <= length_penalty < float("inf"):
            raise UsageError(f"length_penalty must be 0 or more, got {length_penalty}")
        at_once = max(1, self._max_batch // num_beams)
        texts: list[list[WrittenText]] = []
        for start in range(0, len(pictures), at_once):
            read = [self._read(codes) for codes in pictures[start : start + at_once]]
            texts += self._search(read, num_beams, max_pieces, length_penalty, allowed)
        return texts

    def _max_pieces(self, max_pieces: int | None) -> int:
        room = self.template.max_text_pieces
        if max_pieces is not None and not 1 <= max_pieces <= room:
            raise UsageError(
                f"max_pieces must be between 1 and {room}, what the model has room for, got {max_pieces}"
            )
        return max_pieces or room

    def _read(self, codes: Codes) -> tuple[DecodingCache, Float[Tensor, "d"]]:
        """Run a picture by itself, so that the bits of its keys do not depend on its company."""
        prefix = self.template.prefix(codes)
        cache = self._decoder.new_cache(1, len(prefix.tokens))
        tokens, positions = (
            torch.from_numpy(array)[None].to(self._decoder.device)
            for array in (prefix.tokens, prefix.positions)
        )
        return cache, self._decoder.prefill(tokens, positions, cache)[0]

    def _begin(
        self, read: Sequence[tuple[DecodingCache, Float[Tensor, "d"]]], max_pieces: int
    ) -> tuple[DecodingCache, Float[Tensor, "b d"], Int64[Tensor, "n"]]:
        """Return a cache of sequences that begin with pictures, the states of their ends, and the pieces' positions."""
        cache = self._decoder.new_cache(len(read), self.template.num_prefix_tokens + max_pieces)
        cache.copy_prompts([held for held, _ in read])
        positions = torch.from_numpy(self.template.text_positions).to(self._decoder.device)
        return cache, torch.stack([state for _, state in read]), positions

    def _sample(
        self,
        read: Sequence[tuple[DecodingCache, Float[Tensor, "d"]]],
        seeds: Sequence[int],
        config: SamplingConfig,
        max_pieces: int,
        allowed: Bool[np.ndarray, "v"] | None,
    ) -> list[WrittenText]:
        """Draw a text for each seed after the picture beside it."""
        cache, hidden, positions = self._begin(read, max_pieces)
        uniforms = seeded_uniforms(seeds, max_pieces).to(hidden.device)
        legal = self.template.legal_tokens
        end = len(legal) - 1
        forbidden = _forbidden(allowed, end, hidden.device)
        drawn: list[Tensor] = []
        nats: list[Tensor] = []
        for step in range(max_pieces + 1):
            logits = self._decoder.logits(hidden).float()
            _check_finite(logits)
            if step == max_pieces:
                token = torch.full((len(seeds),), end, device=hidden.device)
            else:
                choices = (
                    logits
                    if step
                    else logits.index_fill(1, torch.tensor([end], device=logits.device), -torch.inf)
                )
                token = sample(choices.masked_fill(forbidden, -torch.inf), config, uniforms[:, step])
            drawn.append(token)
            nats.append(-torch.log_softmax(logits, dim=-1).gather(1, token[:, None]).squeeze(1))
            if bool((torch.stack(drawn) == end).any(dim=0).all()):
                break
            hidden = self._decoder.decode(token + legal.start, positions[step].expand(len(seeds)), cache)
        return [
            _text(tokens, costs, end)
            for tokens, costs in zip(
                torch.stack(drawn, 1).tolist(), torch.stack(nats, 1).tolist(), strict=True
            )
        ]

    def _search(
        self,
        read: Sequence[tuple[DecodingCache, Float[Tensor, "d"]]],
        num_beams: int,
        max_pieces: int,
        length_penalty: float,
        allowed: Bool[np.ndarray, "v"] | None,
    ) -> list[list[WrittenText]]:
        """Search for the best texts of some pictures side by side."""
        num_pictures = len(read)
        cache, hidden, positions = self._begin([each for each in read for _ in range(num_beams)], max_pieces)
        assert not isinstance(cache, SparseCache), "sparse transformers are refused"
        legal, device = self.template.legal_tokens, hidden.device
        first_rows = num_beams * torch.arange(num_pictures, device=device)[:, None]
        # All beams are the same at first, so all but one of a picture's are out.
        totals: Float64[Tensor, "p w"] = torch.full(
            (num_pictures, num_beams), -torch.inf, dtype=torch.float64, device=device
        )
        totals[:, 0] = 0
        forbidden = _forbidden(allowed, len(legal) - 1, device)[:-1]
        pieces = torch.empty(num_pictures, num_beams, 0, dtype=torch.int64, device=device)
        ended: list[list[WrittenText]] = [[] for _ in read]
        for step in range(max_pieces + 1):
            logits = self._decoder.logits(hidden).double()
            _check_finite(logits)
            log_p = torch.log_softmax(logits, dim=-1).view(num_pictures, num_beams, -1)
            if step:
                ended = [
                    _best([*texts, *_endings(*each)], num_beams, length_penalty)
                    for texts, *each in zip(
                        ended, pieces.tolist(), totals.tolist(), log_p[:, :, -1].tolist(), strict=True
                    )
                ]
            if step == max_pieces:
                break
            num_pieces = log_p.shape[2] - 1
            going_on = log_p[:, :, :-1].masked_fill(forbidden, -torch.inf)
            totals, choice = (totals[:, :, None] + going_on).flatten(1).topk(num_beams)
            # A total only falls, so the longest text is the best that a beam can hope for.
            hopes = (totals.amax(dim=1) / (max_pieces + 1) ** length_penalty).tolist()
            if all(
                len(texts) == num_beams and texts[-1].score(length_penalty) >= hope
                for texts, hope in zip(ended, hopes, strict=True)
            ):
                break
            beam, piece = choice // num_pieces, choice % num_pieces
            pieces = torch.cat(
                [pieces.gather(1, beam[:, :, None].expand(-1, -1, step)), piece[:, :, None]], dim=2
            )
            cache.take_rows((first_rows + beam).flatten(), self.template.num_prefix_tokens)
            hidden = self._decoder.decode(
                piece.flatten() + legal.start, positions[step].expand(piece.numel()), cache
            )
        return ended


def _forbidden(
    allowed: Bool[np.ndarray, "v"] | None, num_pieces: int, device: torch.device
) -> Bool[Tensor, "n"]:
    """Return which legal tokens may not be written; the end of a text always may."""
    forbidden = torch.zeros(num_pieces + 1, dtype=torch.bool, device=device)
    if allowed is not None:
        forbidden[:-1] = torch.from_numpy(~allowed)
    return forbidden


def _text(tokens: list[int], nats: list[float], end: int) -> WrittenText:
    """Return the text of drawn tokens up to the first that ends it."""
    length = tokens.index(end)
    return WrittenText(pieces=tuple(tokens[:length]), pieces_nats=sum(nats[:length]), end_nats=nats[length])


def _endings(pieces: list[list[int]], totals: list[float], log_ends: list[float]) -> list[WrittenText]:
    """Return a picture's beams as they would be if they ended now."""
    return [
        WrittenText(pieces=tuple(each), pieces_nats=-total, end_nats=-log_end)
        for each, total, log_end in zip(pieces, totals, log_ends, strict=True)
        if total > -float("inf")
    ]


def _best(texts: list[WrittenText], num: int, length_penalty: float) -> list[WrittenText]:
    return sorted(texts, key=lambda text: -text.score(length_penalty))[:num]


def _check_finite(logits: Tensor) -> None:
    """Refuse logits that are not finite."""
    if not bool(torch.isfinite(logits).all()):
        raise CogViewError(
            "the captioning transformer's logits are infinite or NaN: its weights are damaged, or too large for this "
            "dtype; load it as float32, or copy or export the model again"
        )
