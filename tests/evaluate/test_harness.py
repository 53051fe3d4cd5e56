"""The model class of lm-evaluation-harness, where that is installed: beside transformers on the folder that Norma wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from norma.lm import LanguageModel

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is an extra: pip install 'norma-lm[harness]'")
transformers = pytest.importorskip("transformers")
Make = Callable[..., LanguageModel]


def asked(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


def test_the_three_questions_beside_transformers(make_model: Make, tmp_path: Path) -> None:
    from norma.evaluate.harness import NormaLM

    make_model(7, 0.25).save(tmp_path)
    ours, theirs = NormaLM(str(tmp_path)), transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)

    def log_p(context: list[int], answer: list[int]) -> float:
        with torch.no_grad():
            scores = theirs(torch.tensor([context + answer])).logits[0].double().log_softmax(-1)
        return float(sum(scores[len(context) - 1 + i, t] for i, t in enumerate(answer)))

    whole, context = tokenizer.encode("math.floor rounds down"), tokenizer.encode("math.floor")
    ((found, greedy),) = ours.loglikelihood([asked("math.floor", " rounds down")], disable_tqdm=True)
    assert found == pytest.approx(log_p(context, whole[len(context) :]), abs=1e-4) and greedy in (True, False)
    ids = tokenizer.encode("It writes text.")
    (rolled,) = ours.loglikelihood_rolling([asked("It writes text.")])
    assert rolled == pytest.approx(log_p([tokenizer.bos_token_id], ids), abs=1e-4)
    how = {"until": ["\n"], "max_gen_toks": 6, "do_sample": False}
    (said,) = ours.generate_until([asked("What does", how)])
    made = theirs.generate(torch.tensor([tokenizer.encode("What does")]), max_new_tokens=6, do_sample=False, pad_token_id=0)
    text = tokenizer.decode(made[0, len(tokenizer.encode("What does")) :], skip_special_tokens=True)
    assert said == text.split("\n")[0]


def test_lm_evals_own_models_stay_listed() -> None:
    from lm_eval.api.registry import model_registry

    import norma.evaluate.harness  # noqa: F401

    assert "norma" in model_registry and "hf" in model_registry
