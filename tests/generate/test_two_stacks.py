"""Encoder-decoders, and beam search, against transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from norma.base.errors import NormaError
from norma.generate import Sampling, beam_search, generate
from norma.lm import LanguageModel
from norma.nn import Transformer
from norma.train.scoring import Group, answer_logprobs

transformers = pytest.importorskip("transformers")

V, PAD, END = 37, 1, 2
ENDS = [END, 5, 11, 17]  # several, so that answers of random weights do end
BART = {
    "vocab_size": V, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 60, "init_std": 0.3,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 22, "decoder_ffn_dim": 22,
    "pad_token_id": PAD, "bos_token_id": 0, "eos_token_id": END, "forced_eos_token_id": None,
}  # fmt: skip
T5 = {"vocab_size": V, "d_model": 12, "d_kv": 5, "d_ff": 20, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 3}
PEERS = {
    "marian": ("MarianConfig", "MarianMTModel", {**BART, "decoder_start_token_id": PAD, "scale_embedding": True}),
    "bart": ("BartConfig", "BartForConditionalGeneration", {**BART, "decoder_start_token_id": END}),
    "t5": ("T5Config", "T5ForConditionalGeneration", {**T5, "pad_token_id": 0, "eos_token_id": END, "decoder_start_token_id": 0}),
}
Pair = tuple[LanguageModel, Any]


@pytest.fixture(params=PEERS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    """Our model and theirs: the same random weights, no tokenizer."""
    config_class, model_class, sizes = PEERS[request.param]
    torch.manual_seed(0)
    theirs = getattr(transformers, model_class)._from_config(getattr(transformers, config_class)(**sizes), attn_implementation="eager")
    with torch.no_grad():  # so that answers differ by what the encoder reads
        for name, parameter in theirs.named_parameters():
            crossing = "encoder_attn" in name or "EncDecAttention" in name
            spread = 0.1 if parameter.dim() == 1 else 1.0 if "embed" in name or "shared" in name else 1.6 if crossing else 0.4
            if "embed_positions" not in name or request.param == "bart":
                parameter.copy_(torch.randn_like(parameter) * spread + (parameter.dim() == 1 and name.endswith("norm.weight")))
    theirs.eval().save_pretrained(tmp_path)
    ours = LanguageModel.load(tmp_path)
    ours.kept["eos_token_id"] = ENDS
    return ours, theirs


def sources(count: int = 9) -> list[list[int]]:
    random = torch.Generator().manual_seed(2)
    return [[*torch.randint(3, V, (n,), generator=random).tolist(), END] for n in torch.randint(1, 14, (count,), generator=random).tolist()]


def theirs_of(theirs: Any, source: list[int], **how: Any) -> list[list[int]]:
    out = theirs.generate(torch.tensor([source]), attention_mask=torch.ones(1, len(source)), do_sample=False, eos_token_id=ENDS, **how)
    rows = [row[1:].tolist() for row in out]
    lengths = [next((i + 1 for i, token in enumerate(row) if token in ENDS), len(row)) for row in rows]
    return [row[:n] for row, n in zip(rows, lengths, strict=True)]


@pytest.mark.parametrize("batch", [2, 64])
def test_greedy_equals_transformers(pair: Pair, batch: int) -> None:
    """The batch of two is refilled: memories of several lengths join and leave."""
    ours, theirs = pair
    texts = sources()
    texts[4] = texts[7]
    made = generate(ours, texts, Sampling(max_new_tokens=16), batch=batch)
    for source, mine in zip(texts, made, strict=True):
        assert theirs_of(theirs, source, max_new_tokens=16) == [list(mine.ids)]
        assert mine.finish_reason == ("stop" if mine.ids[-1] in ENDS else "length") and mine.text == ""
    assert len({c.ids for c in made}) > 2, "the answers differ: the comparison says something"


def test_a_source_is_read_once_for_its_group(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = pair
    one, other = sources(2)
    read: list[int] = []
    encode = Transformer.encode
    monkeypatch.setattr(Transformer, "encode", lambda self, ids, *a, **k: (read.append(len(ids)), encode(self, ids, *a, **k))[1])
    how = Sampling(max_new_tokens=8, temperature=1, seed=3)
    made = generate(ours, [one] * 8 + [other] * 8, how)
    assert sum(read) == 2 and len({c.ids for c in made}) > 4
    read.clear()
    refilled = generate(ours, [one] * 8 + [other] * 8, how, batch=4)
    assert [c.ids for c in refilled] == [c.ids for c in made]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_scores_of_answers_are_transformers(pair: Pair, temperature: float) -> None:
    """answer_logprobs packs a group into one row of the decoder; transformers scores one answer a row."""
    ours, theirs = pair
    texts = sources(3)
    groups = [Group(texts[0], [[5, 6, END], [7]]), Group(texts[1], [[8, 9, 10, 11, END]]), Group(texts[2], [[3], [4, 5], [6, 7, END]])]
    scored, owners = answer_logprobs(ours.transformer, groups, dtype=torch.float32, temperature=temperature)
    wanted, number = [], []
    for group in groups:
        for answer in group.answers:
            labels = torch.tensor([answer])
            log_p = (theirs(input_ids=torch.tensor([group.prompt]), labels=labels).logits[0] / temperature).log_softmax(-1)
            wanted.append(log_p.gather(1, labels.T).squeeze(1))
            number += [len(wanted) - 1] * len(answer)
    assert owners.tolist() == number
    torch.testing.assert_close(scored, torch.cat(wanted), rtol=1e-4, atol=1e-4)
    weight = torch.linspace(-1, 1, len(scored))
    mine = torch.autograd.grad((scored * weight).sum(), ours.transformer.embedding.weight)[0]
    shared = theirs.get_input_embeddings().weight
    other = torch.autograd.grad((torch.cat(wanted) * weight).sum(), shared)[0]
    assert (mine - other).abs().max() <= 1e-3 * other.abs().max()


def test_rollout_logprobs_are_the_trainers(pair: Pair) -> None:
    """In fp64: a random Marian is so ill-conditioned that in fp32 each of them is 2e-4 from the truth."""
    ours = copy.deepcopy(pair[0])
    ours.transformer.double()
    texts = sources(5)
    asked = [t for t in texts for _ in range(3)]
    made = generate(ours, asked, Sampling(max_new_tokens=9, temperature=1.3, seed=1), batch=4, dtype=torch.float64)
    groups = [Group(t, [c.ids for c in made[3 * i : 3 * i + 3]]) for i, t in enumerate(texts)]
    theirs, _ = answer_logprobs(ours.transformer, groups, dtype=torch.float64, temperature=1.3)
    found = torch.tensor([x for c in made for x in c.logprobs], dtype=torch.float64)
    torch.testing.assert_close(found, theirs.detach().double(), rtol=1e-5, atol=1e-5)


def score_by(theirs: Any, source: list[int], ids: list[int], penalty: float) -> float:
    """What transformers' own forward pass gives an answer: log p / tokens ^ penalty."""
    with torch.no_grad():
        log_p = theirs(input_ids=torch.tensor([source]), labels=torch.tensor([ids])).logits[0].log_softmax(-1)
    return float(log_p.gather(1, torch.tensor(ids)[:, None]).sum()) / len(ids) ** penalty


@pytest.mark.parametrize(("beams", "penalty"), [(1, 1.0), (2, 1.0), (4, 1.0), (3, 0.0), (3, 2.0)])
def test_beam_search_equals_transformers(pair: Pair, beams: int, penalty: float) -> None:
    """Where another answer stands in a place, it is as good by their scores: BART's answers here repeat two tokens, in any order equally
    likely, and rounding (another one on each CPU; transformers searches in fp32 even with fp64 weights) decides which order is found."""
    ours, theirs = pair
    theirs.double()
    texts = sources(6)
    made = beam_search(ours, texts, beams=beams, max_new_tokens=12, length_penalty=penalty, batch=4, dtype=torch.float64)
    more = {"early_stopping": False, "length_penalty": penalty, "num_return_sequences": beams} if beams > 1 else {}
    same = 0
    for source, mine in zip(texts, made, strict=True):
        wanted = theirs_of(theirs, source, max_new_tokens=12, num_beams=beams, **more)
        assert len({c.ids for c in mine}) == len(wanted) == beams
        for one, other in zip(mine, wanted, strict=True):
            score = score_by(theirs, source, list(one.ids), penalty)
            assert sum(one.logprobs) / len(one.ids) ** penalty == pytest.approx(score, abs=1e-4)
            assert score == pytest.approx(score_by(theirs, source, other, penalty), abs=1e-4)
            same += list(one.ids) == other
    assert same > len(texts) * beams / 2


def test_beam_search_of_a_decoder_equals_transformers(make_model: Callable[..., LanguageModel], tmp_path: Path) -> None:
    """Prompts of unequal length, an end token that does come."""
    model = make_model(3, spread=0.3)
    random = torch.Generator().manual_seed(0)
    prompts = [torch.randint(6, 300, (n,), generator=random).tolist() for n in (3, 14, 7, 22, 1)]
    with torch.no_grad():  # the likeliest token of all becomes the end
        free = [t for c in generate(model, prompts, Sampling(max_new_tokens=20)) for t in c.ids]
        often = int(torch.bincount(torch.tensor(free)).argmax())
        weight = model.transformer.embedding.weight
        weight[[often, model.tokenizer.eos_id]] = weight[[model.tokenizer.eos_id, often]]
    model.save(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    made = beam_search(model, prompts, beams=3, max_new_tokens=15)
    for prompt, mine in zip(prompts, made, strict=True):
        out = theirs.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=15, num_beams=3, num_return_sequences=3,
            do_sample=False, early_stopping=False,
        )  # fmt: skip
        rows = [row[len(prompt) :].tolist() for row in out]
        end = model.tokenizer.eos_id
        assert [list(c.ids) for c in mine] == [row[: row.index(end) + 1] if end in row else row for row in rows]
    assert any(c.finish_reason == "stop" and len(c.ids) < 15 for mine in made for c in mine)


def test_a_decoder_without_a_start_is_refused(pair: Pair) -> None:
    ours, _ = pair
    ours.transformer.start_id = None
    for ask in (
        lambda: generate(ours, [[5]], Sampling()),
        lambda: answer_logprobs(ours.transformer, [Group([5], [[6]])], dtype=torch.float32),
    ):
        with pytest.raises(NormaError, match="begins with"):
            ask()
