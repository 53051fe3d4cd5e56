"""Windows over long texts: beside transformers' fast tokenizer; the best span by trying all; when to be silent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import transformers

from norma.base.errors import NormaError
from norma.lm import LanguageModel
from norma.tasks.encode import backend
from norma.tasks.spans import answers_of, null_threshold, targets, windows

CONTEXT = "The entry says what json.dumps does: it writes an object as text. " * 6 + "It was added in 2008. 您好，世界。"
ROW = {"id": "q", "question": "When was it added?", "context": CONTEXT, "answers": [{"text": "2008", "start": CONTEXT.index("2008")}]}


def test_windows_equal_those_of_transformers(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model()
    length, stride = 60, 20
    made = windows(model, [ROW], length=length, stride=stride)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=backend(model.tokenizer), pad_token="<|pad|>")
    asked = len(theirs(ROW["question"], add_special_tokens=False)["input_ids"])
    overlap = length - 3 - asked - stride
    found = theirs(
        ROW["question"], CONTEXT, truncation="only_second", max_length=length, stride=overlap,
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    assert [list(w.reading.ids) for w in made] == found["input_ids"] and len(made) > 3
    for window, offsets in zip(made, found["offset_mapping"], strict=True):
        place = window.first
        assert list(window.offsets) == offsets[place : place + len(window.offsets)]


def test_every_character_of_the_text_is_in_some_window(make_model: Callable[..., LanguageModel]) -> None:
    made = windows(make_model(), [ROW], length=48, stride=16)
    seen = {i for w in made for a, b in w.offsets for i in range(a, b)}
    assert seen == set(range(len(CONTEXT)))


def test_targets_are_places_of_the_answer_or_the_null_span(make_model: Callable[..., LanguageModel]) -> None:
    model = make_model()
    made = windows(model, [ROW], length=60, stride=20)
    placed = [targets(w, ROW["answers"]) for w in made]
    assert placed[0] == (0, 0) and placed[-1] != (0, 0)
    first, last = placed[-1]
    assert model.tokenizer.decode(made[-1].reading.ids[first : last + 1]).strip() == "2008"
    assert targets(made[0], []) == (0, 0) == targets(made[0], [{"text": "nowhere", "start": -1}])


def test_a_question_that_leaves_no_room_is_refused(make_model: Callable[..., LanguageModel]) -> None:
    with pytest.raises(NormaError, match=r"the question has .* tokens"):
        windows(make_model(), [ROW | {"question": "why " * 60}], length=60, stride=20)


def test_the_best_span_by_trying_all(make_model: Callable[..., LanguageModel]) -> None:
    made = windows(make_model(), [ROW], length=60, stride=20)
    random = np.random.default_rng(0)
    scores = [random.normal(size=(len(w.reading.ids), 2)) for w in made]
    best = (-np.inf, "")
    for w, s in zip(made, scores, strict=True):
        for i in range(len(w.offsets)):
            for j in range(i, min(i + 5, len(w.offsets))):
                value = s[w.first + i, 0] + s[w.first + j, 1]
                if value > best[0]:
                    best = (value, CONTEXT[w.offsets[i][0] : w.offsets[j][1]].strip())
    (found,) = answers_of([ROW], made, scores, longest=5)
    assert found.text == best[1] and CONTEXT[found.start :].startswith(found.text)
    assert found.margin == pytest.approx(best[0] - min(s[0].sum() for s in scores))


def test_the_threshold_of_silence() -> None:
    """Margins 1, 2, 3: the first has no answer, the others are answered rightly: silent below 1.5 is right three times."""
    assert null_threshold([1.0, 2.0, 3.0], [0.0, 1.0, 1.0], [1.0, 0.0, 0.0]) == pytest.approx(1.5)
    assert null_threshold([1.0, 2.0], [1.0, 1.0], [0.0, 0.0]) < 1.0
    assert null_threshold([1.0, 2.0], [0.0, 0.0], [1.0, 1.0]) > 2.0
