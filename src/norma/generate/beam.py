"""Beam search: the likeliest whole answers, not the likeliest next tokens.

    beams of a prompt ─→ their V continuations each ─→ the best 2K ─┬→ with an end token, if among the first K: finished
                                                                    └→ the best K without: the beams of the next step

A finished answer counts log p / tokens ^ length_penalty (Wu et al., 1609.08144, eq. 14, in the form without its constant), the end
token being one of the tokens. A prompt is done when it has K finished answers and no beam can overtake the worst of them as long as
it is now: the rule that transformers calls ``early_stopping=False``.

Letters: N prompts, K beams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from norma.base.platform import working_dtype
from norma.generate.engine import end_ids, finish
from norma.generate.reading import Reader, check_prompts
from norma.generate.sampling import Completion, Sampling
from norma.lm import LanguageModel
from norma.nn.layers import packed, working_weights
from norma.nn.stack import Memory

BATCH = 16  # prompts that are searched side by side


@torch.no_grad()
def beam_search(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int = 4,
    max_new_tokens: int = 64,
    length_penalty: float = 1.0,
    batch: int = BATCH,
    dtype: torch.dtype | None = None,
) -> list[list[Completion]]:
    """The ``beams`` best answers found for every prompt, best first. ``length_penalty``: above 0 longer answers gain, 0: log p alone."""
    if beams < 1 or max_new_tokens < 1:
        raise ValueError("beams >= 1 and max_new_tokens >= 1 are needed")
    check_prompts(model, prompts)
    dtype = dtype or working_dtype()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    results: list[list[Completion]] = [[] for _ in prompts]
    model.transformer.eval()
    with working_weights(model.transformer, dtype):
        reader = Reader(model, dtype)
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            search = _Search(reader, [prompts[i] for i in part], beams, max_new_tokens, length_penalty)
            for i, found in zip(part, search.run(), strict=True):
                results[i] = [replace(finish(model, ids, Sampling()), logprobs=tuple(each)) for _, ids, each in found]
    return results


Finished = tuple[float, list[int], list[float]]
"""Score, ids, log p of each."""


class _Search:
    def __init__(self, reader: Reader, prompts: Sequence[Sequence[int]], beams: int, new: int, penalty: float) -> None:
        self.reader, self.beams, self.penalty = reader, beams, penalty
        self.network = reader.model.transformer
        self.room = [min(new, reader.room(p)) for p in prompts]
        self.ends = torch.tensor(sorted(end_ids(reader.model)), dtype=torch.int64, device=reader.device)
        read = reader.read(prompts, room=max(self.room))
        rows = read.which.repeat_interleave(beams)
        self.cache = read.cache
        self.cache.keep(rows)
        self.last, self.position = read.last[rows], read.after[rows]
        self.weight = packed(self.network.head_weight().detach().to(reader.dtype))
        self.ids: list[list[list[int]]] = [[[] for _ in range(beams)] for _ in prompts]  # of each prompt's beams, best first
        self.each: list[list[list[float]]] = [[[] for _ in range(beams)] for _ in prompts]
        self.score = torch.full((len(prompts), beams), -torch.inf, device=reader.device)
        self.score[:, 0] = 0.0  # at first all beams are alike: only one may continue
        self.finished: list[list[Finished]] = [[] for _ in prompts]
        self.done = [False] * len(prompts)

    def run(self) -> list[list[Finished]]:
        for length in range(1, max(self.room) + 1):
            rows, tokens = self._grow(length)
            if all(self.done):
                break
            self.cache.keep(rows)
            self.position = self.position[rows]
            memory = Memory(self.cache.keys[:0, 0, 0]) if self.reader.two_stacks else None
            hidden = self.network.hidden(
                tokens[:, None], positions_BT=self.position[:, None], cache=self.cache, dtype=self.reader.dtype, memory=memory
            )
            self.last, self.position = hidden[:, -1], (self.position + 1).clamp(max=self.network.config.max_positions - 1)
        return self.finished

    def _grow(self, length: int) -> tuple[Tensor, Tensor]:
        """Continue all beams by a token: (N K,) the rows that go on, and what each wrote."""
        N, K = self.score.shape
        scores = self.network.scores(self.network.features(self.last), self.weight)
        logp_NKV = scores.log_softmax(dim=-1).view(N, K, -1)
        V = logp_NKV.shape[-1]
        total = (logp_NKV + self.score[:, :, None]).view(N, K * V)
        most = min(K * (1 + max(1, len(self.ends))), K * V)  # however many of the best end, K go on
        best, place = total.topk(most, dim=-1)
        beam, token = place // V, place % V
        own = logp_NKV.view(N, K * V).gather(1, place)
        ended = torch.isin(token, self.ends)
        rows, tokens = torch.zeros(N, K, dtype=torch.int64), torch.zeros(N, K, dtype=torch.int64)
        for n in range(N):
            candidates = list(zip(best[n].tolist(), beam[n].tolist(), token[n].tolist(), own[n].tolist(), ended[n].tolist(), strict=True))
            rows[n], tokens[n] = self._turn(n, length, candidates)
        return (rows + K * torch.arange(N)[:, None]).flatten().to(self.last.device), tokens.flatten().to(self.last.device)

    def _turn(self, n: int, length: int, candidates: list[tuple[float, int, int, float, bool]]) -> tuple[Tensor, Tensor]:
        """One prompt's step, from its continuations, best first; (K,) the beams that go on and their tokens."""
        K = self.beams
        cut = length >= self.room[n]  # every answer ends here, with or without an end token
        if not self.done[n]:
            for rank, (score, beam, token, own, ended) in enumerate(candidates[:K]):
                if (ended or cut) and score > -torch.inf and rank < K:
                    ids, each = [*self.ids[n][beam], token], [*self.each[n][beam], own]
                    self.finished[n].append((score / length**self.penalty, ids, each))
            self.finished[n] = sorted(self.finished[n], key=lambda f: -f[0])[:K]
        going = [c for c in candidates if not c[4]][:K]
        self.ids[n] = [[*self.ids[n][beam], token] for _, beam, token, _, _ in going]
        self.each[n] = [[*self.each[n][beam], own] for _, beam, _, own, _ in going]
        self.score[n] = torch.tensor([c[0] for c in going])
        full = len(self.finished[n]) == K
        if cut or (full and going[0][0] / length**self.penalty <= self.finished[n][-1][0]):
            self.done[n] = True
        return torch.tensor([c[1] for c in going]), torch.tensor([c[2] for c in going])
