"""EleutherAI's lm-evaluation-harness over a Norma folder: the same numbers as ``--model hf`` on it, without transformers.

    pip install 'norma-lm[harness]'
    python -m norma.evaluate.harness run --model norma --model_args pretrained=FOLDER --tasks hellaswag ...

Options are lm-eval's own; only the model's kind, ``norma``, is added to its registry. In Python: import this module, then
``lm_eval.simple_evaluate(model="norma", model_args={"pretrained": FOLDER}, ...)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from norma.base.errors import NormaError
from norma.evaluate.reading import continuation_scores, rolling_windows

try:
    import lm_eval.models  # noqa: F401  # lm-eval lists its own models only where none is listed yet
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
except ImportError:
    raise NormaError("lm-evaluation-harness is not installed", mend="pip install 'norma-lm[harness]'") from None


@register_model("norma")
class NormaLM(TemplateLM):  # type: ignore[misc]
    """A model folder as lm-eval asks for it: loglikelihood, loglikelihood_rolling, generate_until.

    Args:
        pretrained: the folder.
        max_length: of context and continuation in tokens (default: what the model reads).
        batch_size, device: taken for lm-eval's sake; rows are put together by their length, on the CPU or the GPU that there is.
    """

    def __init__(self, pretrained: str, max_length: int | None = None, batch_size: Any = None, device: Any = None, **unknown: Any) -> None:
        super().__init__()
        if unknown:
            raise NormaError(f"the model 'norma' has no argument {', '.join(unknown)}", mend="pretrained, max_length")
        import norma
        from norma.base.platform import working_device

        self.norma = norma.load(pretrained)
        self.norma.transformer.to(working_device())
        self.max_length = min(max_length or self.norma.config.max_positions, self.norma.config.max_positions)
        self.folder = pretrained
        self.backend = "causal" if self.norma.config.kind == "decoder" else "seq2seq"

    @property
    def eot_token_id(self) -> int:
        eos = self.norma.tokenizer.eos_id
        if eos is None:
            raise NormaError("this tokenizer has no end token", where=self.folder)
        return eos

    @property
    def prefix_token_id(self) -> int:
        bos = self.norma.tokenizer.bos_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        return self.folder.replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self.norma.tokenizer.chat_template if chat_template else None

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        from norma.text.chat import render

        return "".join(text for text, _ in render(self.norma.tokenizer, chat_history, generation=add_generation_prompt))

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids as the tokenizer's own frame makes them, special tokens of the text read as such: what transformers does."""
        tokenizer = self.norma.tokenizer
        tokenizer.backend.encode_special_tokens = False
        bos = tokenizer.special("bos_token")
        framed = add_special_tokens is not False and not (bos and string.startswith(bos))
        found: list[int] = tokenizer.backend.encode(string, add_special_tokens=framed).ids
        return found

    def _loglikelihood_tokens(self, requests: Sequence[tuple[Any, list[int], list[int]]], **kwargs: Any) -> list[tuple[float, bool]]:
        scored = continuation_scores(self.norma, [(context, answer) for _, context, answer in requests])
        found = [(s.log_p, s.greedy) for s in scored]
        for (key, _, _), value in zip(requests, found, strict=True):
            if key is not None:
                self.cache_hook.add_partial("loglikelihood", key, value)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        out = []
        for (text,) in [request.args for request in requests]:
            windows = list(rolling_windows(self.tok_encode(text), self.prefix_token_id, self.max_length))
            total = sum(s.log_p for s in continuation_scores(self.norma, windows))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
            out.append(total)
        return out

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        from norma.generate import generate

        out: list[str] = [""] * len(requests)
        asked = [request.args for request in requests]
        for settings in {repr(how): how for _, how in asked}.values():
            part = [i for i, (_, how) in enumerate(asked) if how == settings]
            sampling = self._sampling(settings)
            room = self.max_length - sampling.max_new_tokens
            if room < 1:
                raise NormaError(f"{sampling.max_new_tokens} new tokens leave no room for a prompt: the model reads {self.max_length}")
            prompts = [self.tok_encode(asked[i][0])[-room:] for i in part]
            for i, made in zip(part, generate(self.norma, prompts, sampling, dtype=_fp32()), strict=True):
                out[i] = made.text
                self.cache_hook.add_partial("generate_until", asked[i], made.text)
        return out

    def _sampling(self, settings: Mapping[str, Any]) -> Any:
        from norma.generate import Sampling

        until = settings.get("until") or []
        until = [until] if isinstance(until, str) else list(until)
        longest = next(
            (settings[k] for k in ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens") if k in settings), 256
        )
        greedy = not settings.get("do_sample", False)
        return Sampling(
            max_new_tokens=int(longest),
            temperature=0.0 if greedy else float(settings.get("temperature", 1.0)),
            top_k=int(settings.get("top_k", 0)),
            top_p=float(settings.get("top_p", 1.0)),
            stop=tuple(s for s in until if s),
        )


def _fp32() -> Any:
    import torch

    return torch.float32


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
