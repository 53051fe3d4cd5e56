"""What the pictures show, beside the model's own public answers; masks and rotary angles by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.studio import looking
from norma.text.tokenizer import Tokenizer, train_tokenizer

TEXT = "What does `json.dumps` do?"


@pytest.fixture(scope="module")
def masked_tokenizer() -> Tokenizer:
    return train_tokenizer(["What does `json.dumps` do? It writes text."] * 5, 320, ["masked", "pairs"])


def tiny(family: str, tokenizer: Tokenizer, **sizes: Any) -> LanguageModel:
    config = preset(family, vocab_size=len(tokenizer), width=16, layers=2, attention_heads=2, max_positions=64, **sizes)
    return LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(3)).eval(), tokenizer)


def test_tokens_and_their_probabilities_are_the_models(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(1)
    found = looking.next_tokens(model, TEXT, count=5)
    ids = [t["id"] for t in found["tokens"]]
    assert ids[0] == model.tokenizer.bos_id and model.tokenizer.decode(ids[1:]) == TEXT
    product = math.prod(t["p"] for t in found["tokens"][1:])
    assert math.log(product) == pytest.approx(model.logprob("", TEXT), rel=1e-3)
    best = model.logits(torch.tensor([ids]))[0, -1].softmax(-1)
    assert [t["id"] for t in found["next"]] == best.topk(5).indices.tolist()
    flat = looking.next_tokens(model, TEXT, temperature=5.0)
    assert flat["entropy"] > found["entropy"] and flat["next"][0]["p"] < found["next"][0]["p"]


def test_attention_is_what_the_model_gives_and_every_row_is_a_distribution(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(2)
    found = looking.attention(model, TEXT, "decoder", 1)
    weights = torch.tensor(found["weights"])
    ids = torch.tensor([t["id"] for t in found["rows"]])
    assert torch.allclose(weights, model.attention(ids, layers=[1])[0], atol=1e-4)
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:2]), atol=2e-3) and float(weights.triu(1).abs().max()) == 0
    with pytest.raises(NormaError, match="no layer 7"):
        looking.attention(model, TEXT, "decoder", 7)


def test_the_lens_ends_with_what_the_model_says(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model(3)
    found = looking.lens(model, TEXT)
    ids = torch.tensor([[t["id"] for t in found["tokens"]]])
    assert len(found["rows"]) == model.config.layers + 1
    assert [t["id"] for t in found["rows"][-1]] == model.logits(ids)[0].argmax(-1).tolist()
    assert not model.transformer.stack.blocks[0]._forward_hooks and not model.transformer.stack.blocks[0]._forward_pre_hooks


def test_an_encoder_fills_the_blank_and_has_no_next_token(masked_tokenizer: Tokenizer) -> None:
    model = tiny("bert", masked_tokenizer)
    assert looking.describe(model)["masked"]
    found = looking.masked(model, "What ___ `json.dumps` do?")
    (place,) = found["places"]
    assert found["tokens"][place["at"]]["text"] == "<|mask|>" and found["tokens"][0]["special"] and found["tokens"][-1]["special"]
    # The model reads the text with one token replaced, that of the word and the space before it.
    whole = looking.masked(model, "What does ___")["tokens"][1:-2]
    assert [t["id"] for t in whole] == masked_tokenizer.encode("What does") and found["tokens"][place["at"] - 1]["text"] == "What"
    assert sum(t["p"] for t in place["top"]) <= 1.001
    with pytest.raises(NormaError, match="no word is masked"):
        looking.masked(model, TEXT)
    with pytest.raises(NormaError, match="foretells no next token"):
        looking.next_tokens(model, TEXT)
    assert torch.tensor(looking.attention(model, TEXT, "encoder", 0)["weights"]).triu(1).abs().max() > 0


def test_two_stacks_have_three_kinds_of_attention(masked_tokenizer: Tokenizer) -> None:
    model = tiny("bart", masked_tokenizer, encoder_layers=2)
    assert looking.describe(model)["stacks"] == ["encoder", "decoder", "cross"]
    shapes = {}
    for stack in ("encoder", "decoder", "cross"):
        found = looking.attention(model, TEXT, stack, 0, "It writes")
        shapes[stack] = len(found["rows"]), len(found["columns"])
        assert (len(found["weights"][0]), len(found["weights"][0][0])) == shapes[stack]
    assert shapes["cross"] == (shapes["decoder"][0], shapes["encoder"][0]) and shapes["encoder"] != shapes["decoder"]
    assert looking.next_tokens(model, TEXT, "It writes")["source"]
    # Where nothing is written the decoder has read its first token alone, not the source: in every picture.
    assert [len(looking.attention(model, TEXT, stack, 0)["rows"]) for stack in ("decoder", "cross")] == [1, 1]
    assert len(looking.next_tokens(model, TEXT)["tokens"]) == 1


def test_the_lens_of_two_stacks_looks_through_the_decoder(masked_tokenizer: Tokenizer) -> None:
    model = tiny("bart", masked_tokenizer, encoder_layers=1)
    found = looking.lens(model, TEXT, "It writes")
    source, read = (torch.tensor([ids]) for ids in (looking.encode(model, TEXT), [t["id"] for t in found["tokens"]]))
    assert len(found["rows"]) == model.config.layers + 1 and read.shape != source.shape
    assert [t["id"] for t in found["rows"][-1]] == model.logits(source, decoder_ids=read)[0].argmax(-1).tolist()


def test_experts_are_the_routers_choice_and_nothing_stays_recorded(masked_tokenizer: Tokenizer) -> None:
    from norma.nn.experts import ExpertFeedForward

    model = tiny("qwen3-moe", masked_tokenizer, experts=4, per_token=2, expert_width=8)
    found = looking.experts(model, TEXT)
    assert found["layers"]
    for layer in found["layers"]:
        p = torch.tensor(layer["probabilities"])
        assert torch.allclose(p.sum(-1), torch.ones(len(p)), atol=1e-3) and layer["tokens"] is not None
        assert [sorted(c) for c in layer["chosen"]] == [sorted(r) for r in p.topk(2).indices.tolist()]
    assert all(m.routing is None and not m.record for m in model.transformer.modules() if isinstance(m, ExpertFeedForward))


def test_experts_of_two_stacks_stand_beside_the_tokens_of_their_stack(masked_tokenizer: Tokenizer) -> None:
    model = tiny("switch", masked_tokenizer, encoder_layers=2, experts=3)
    found = {layer["layer"].partition(".")[0]: layer for layer in looking.experts(model, TEXT, "It writes")["layers"]}
    source, read = looking.encode(model, TEXT), looking.written(model, "It writes")
    assert len(source) != len(read)
    for stack, ids in (("encoder", source), ("decoder", read)):
        assert [t["id"] for t in found[stack]["tokens"]] == ids and len(found[stack]["probabilities"]) == len(ids)


def test_a_part_of_a_character_shows_as_its_bytes(masked_tokenizer: Tokenizer) -> None:
    model = tiny("llama", masked_tokenizer)
    shown = looking.words(model, masked_tokenizer.encode("a 好"))  # the tokenizer has seen no Chinese: three tokens of a byte each
    assert [(w["text"], w["part"]) for w in shown] == [("a", False), (" ", False), ("\\xe5", True), ("\\xa5", True), ("\\xbd", True)]
    assert looking._bytes("<0xE4>") == "\\xe4" and looking._bytes("Ġå¥½Ã") == " 好\\xc3"


def test_two_stacks_write_what_is_the_most_probable_each_time(masked_tokenizer: Tokenizer) -> None:
    model = tiny("t5", masked_tokenizer)
    said = looking.write(model, TEXT)
    source, ids = torch.tensor([looking.encode(model, TEXT)]), looking.written(model, "")
    assert source[0, -1] == masked_tokenizer.eos_id
    for _ in range(looking.WRITTEN):
        best = int(model.logits(source, decoder_ids=torch.tensor([ids]))[0, -1].argmax())
        if best == masked_tokenizer.eos_id:
            break
        ids.append(best)
    assert said == masked_tokenizer.decode(ids[1:])
    with pytest.raises(NormaError, match="one stack"):
        looking.write(tiny("llama", masked_tokenizer), TEXT)


def test_masks_by_hand(make_model: Callable[..., LanguageModel]) -> None:
    found = {m["kind"]: m for m in looking.masks(make_model(), 6)["masks"]}
    assert found["causal"]["allowed"][2] == [1, 1, 1, 0, 0, 0] and found["causal"]["own"]
    assert found["prefix"]["allowed"][0] == [1, 1, 0, 0, 0, 0]  # the first third is seen from everywhere
    assert found["window"]["allowed"][4] == [0, 0, 0, 1, 1, 0]
    assert found["documents"]["allowed"][4] == [0, 0, 0, 1, 1, 0]
    assert all(all(r) for r in found["bidirectional"]["allowed"])


def test_rotary_angles_by_hand(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model()  # heads of 6 features: three pairs, base 10000
    found = looking.rotary(model, 4)
    assert len(found["cos"]) == 3
    for pair in range(3):
        angle = 10000 ** (-2 * pair / 6)
        assert found["wavelengths"][pair] == pytest.approx(2 * math.pi / angle, abs=0.01)
        assert found["cos"][pair] == pytest.approx([math.cos(n * angle) for n in range(4)], abs=1e-4)


def test_a_long_text_is_cut_and_an_empty_one_refused(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model()
    assert len(looking.next_tokens(model, "word " * 400)["tokens"]) == looking.MOST
    model.tokenizer.bos_id, kept = None, model.tokenizer.bos_id
    try:
        with pytest.raises(NormaError, match="nothing to look at"):
            looking.next_tokens(model, "")
    finally:
        model.tokenizer.bos_id = kept
