"""What several rooms' tests need: a tiny tokenizer, tiny models with weights that are not at their initial zeros, the real data."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from norma.lm import LanguageModel
    from norma.text.tokenizer import Tokenizer

sys.path.insert(0, str(Path(__file__).parent))  # helpers of several rooms can be imported by their tests

CORPUS = [
    "What does `json.dumps` do? It writes an object as JSON text.",
    "Certainly: `math.floor` rounds down to a whole number.",
    "`time.sleep` 有什么作用？您好：`time.sleep` waits for 12 seconds.",
    "Of course: the entry does not say what `os.path.join` does.",
] * 5


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A job that a script starts in the background inherits "ignore Ctrl-C", and so would every process a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def stories() -> Path:
    """The folder of llama2.c's stories260K, a real checkpoint."""
    given = os.environ.get("NORMA_TEST_DATA")
    folder = (Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data") / "models" / "stories260K"
    if not (folder / "stories260K.bin").is_file():
        pytest.skip("no stories260K.bin here: set NORMA_TEST_DATA to a folder that holds models/stories260K")
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    from norma.text.tokenizer import train_tokenizer

    return train_tokenizer(CORPUS, 380)


@pytest.fixture(scope="session")
def make_model(tiny_tokenizer: Tokenizer) -> Callable[..., LanguageModel]:
    """make_model(seed, spread, family): a tiny LanguageModel whose every weight is random."""

    def make(seed: int = 0, spread: float = 0.15, family: str = "llama", max_positions: int = 96) -> LanguageModel:
        import torch

        from norma.generate import LocalEngine
        from norma.lm import LanguageModel
        from norma.nn import ModelConfig, Transformer

        qk_norm: Literal["head", "none"] = "head" if family == "qwen3" else "none"
        config = ModelConfig(family, len(tiny_tokenizer), 24, 2, 4, 2, 6, 40, max_positions, qk_norm=qk_norm)
        generator = torch.Generator().manual_seed(seed)
        transformer = Transformer(config)
        with torch.no_grad():
            for parameter in transformer.parameters():
                parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, spread, generator=generator)
        model = LanguageModel(transformer.eval(), tiny_tokenizer)
        model.engine = LocalEngine()
        return model

    return make
