"""What the error page shows of a model's inside: attention as the model has it, shares of tokens by differences, a bound that holds."""

from __future__ import annotations

import base64
from collections.abc import Callable

import numpy as np
import pytest
import torch

from norma.lm import LanguageModel
from norma.nn import Transformer, preset
from norma.tasks import encode, heads
from norma.tasks.attending import look, looked
from norma.tasks.model import TaskModel
from norma.text.tokenizer import Tokenizer

ROWS = [{"text": "it writes text"}, {"text": "math rounds down " * 3}, {"text": "json"}]


@pytest.fixture(params=["bert", "llama"])
def task(request: pytest.FixtureRequest, tiny_tokenizer: Tokenizer, make_model: Callable[..., LanguageModel]) -> TaskModel:
    if request.param == "llama":
        base = make_model(2, 0.2)
    else:
        config = preset("bert", vocab_size=len(tiny_tokenizer), width=24, layers=2, head_size=8, max_positions=64)
        base = LanguageModel(Transformer(config).initialise(torch.Generator().manual_seed(3)), tiny_tokenizer)
    model = heads.begin(base, "labels", ["bad", "good"], dropout=None, seed=1)
    with torch.no_grad():
        for p in model.transformer.parameters():
            p += 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return TaskModel(model)


def test_attention_is_the_models_own(task: TaskModel) -> None:
    (read,) = encode.readings(task.model, [ROWS[0]["text"]], None, 64)
    found = look(task, read)
    T = len(read.ids)
    packed = np.frombuffer(base64.b64decode(found["weights"]), dtype=np.uint8).reshape(found["layers"], found["heads"], T, T) / 255
    config = task.model.config
    assert (found["layers"], found["heads"], len(found["tokens"])) == (config.layers, config.attention_heads, T)
    assert np.abs(packed - task.model.attention(torch.tensor(list(read.ids))).numpy()).max() <= 0.5 / 255 + 1e-6
    assert "".join(found["tokens"]).count("writes") == 1 and found["first"] == (T - 1 if config.kind == "decoder" else 0)


def test_a_tokens_share_is_the_change_of_the_score_when_its_vector_grows(task: TaskModel) -> None:
    (read,) = encode.readings(task.model, [ROWS[0]["text"]], None, 64)
    once = [t for t, i in enumerate(read.ids) if list(read.ids).count(i) == 1]
    weight, step, changes = task.model.transformer.embedding.weight, 1e-2, []
    best = int(task.label_logits([ROWS[0]])[0].argmax())
    for t in once:
        kept, ends = weight[read.ids[t]].detach().clone(), []
        for factor in (1 + step, 1 - step):
            with torch.no_grad():
                weight[read.ids[t]] = kept * factor
            ends.append(task.label_logits([ROWS[0]])[0][best])
        with torch.no_grad():
            weight[read.ids[t]] = kept
        changes.append((ends[0] - ends[1]) / (2 * step))
    shares = np.array(look(task, read)["saliency"])
    assert len(once) > 2 and np.abs(shares).max() == 1
    scale = np.dot(changes, shares[once]) / np.dot(shares[once], shares[once])
    np.testing.assert_allclose(shares[once] * scale, changes, atol=0.02 * np.abs(changes).max())


def test_the_bound_holds_and_short_texts_come_in_behind_long_ones(task: TaskModel) -> None:
    whole = looked(task, ROWS)
    assert all(x is not None for x in whole)
    sizes = [3 * len(x["weights"]) // 4 for x in whole if x is not None]
    assert sizes[1] > sizes[2]
    part = looked(task, ROWS, most_bytes=sizes[0] + sizes[2])
    assert [x is not None for x in part] == [True, False, True]
