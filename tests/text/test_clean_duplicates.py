"""Copies: exact ones by digest, near ones by MinHash, beside the exact Jaccard similarity of planted pairs."""

from __future__ import annotations

import random
import subprocess
import sys
import tracemalloc
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from norma.text.clean import Aside, Document, Exact, ExactOptions, NearOptions
from norma.text.clean.duplicates import Near, bands, shingles, text_digest


def kept(step: Exact | Near, texts: list[str]) -> list[int]:
    return [document.line for document in step(Document("f", i, text) for i, text in enumerate(texts))]


def test_exact_copies_by_hand() -> None:
    texts = ["Caf\u00e9 is\topen", "Cafe\u0301  is\n open ", "caf\u00e9 is open", "Caf\u00e9 isopen", "你好 世界", "你好\u3000世界", ""]
    step = Exact(ExactOptions())
    assert kept(step, texts) == [0, 2, 3, 4, 6]
    assert step.counts.reasons["the same text came before"].documents == 2


@given(st.text(max_size=30), st.text(max_size=30))
def test_digests_are_equal_exactly_when_the_normal_forms_are(a: str, b: str) -> None:
    def normal(text: str) -> list[str]:
        return unicodedata.normalize("NFC", text).split()

    assert len(text_digest(a)) == 16
    assert (text_digest(a) == text_digest(b)) == (normal(a) == normal(b))
    assert text_digest(a) == text_digest(f"\n {unicodedata.normalize('NFD', a)}\t ")


def test_memory_of_exact_is_what_its_docstring_says() -> None:
    texts = [f"text number {i}" for i in range(20_000)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        step = Exact(ExactOptions())
        for i, text in enumerate(texts):
            step.judge(Document("f", i, text))
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert used / len(texts) < 170


def test_shingles_by_hand() -> None:
    assert shingles("One, two: THREE four five six.", 5) == ["one two three four five", "two three four five six"]
    assert shingles("他在北京工作。", 5) == ["他 在 北 京 工", "在 北 京 工 作"]
    assert shingles("他用 Python 3 写", 3) == ["他 用 python", "用 python 3", "python 3 写"]
    assert shingles("Only two", 5) == ["only two"] and shingles("... !", 5) == []
    assert shingles("one two three four five", 5) == ["one two three four five"]


def test_bands_leave_few_pairs_at_the_threshold_unseen() -> None:
    # By hand: 32 bands of 8 rows miss (1 - 0.8^8)^32 = 0.83223^32 = 0.0028 of the pairs at 0.8; 16 bands of 16 miss 0.63.
    assert bands(0.8, 256) == 32
    for threshold in (0.3, 0.5, 0.7, 0.9, 0.95):
        for permutations in (64, 100, 128, 256):
            count = bands(threshold, permutations)
            assert permutations % count == 0
            assert (1 - threshold ** (permutations // count)) ** count <= 0.01 or count == permutations


def edited(rng: random.Random, words: list[str], vocabulary: list[str], rate: float) -> list[str]:
    """``words`` with each one, at ``rate``, left out, replaced or followed by another."""
    found: list[str] = []
    for word in words:
        kind = rng.choice(["leave out", "replace", "insert"]) if rng.random() < rate else "keep"
        found += [word] * (kind in ("keep", "insert")) + [rng.choice(vocabulary)] * (kind in ("replace", "insert"))
    return found


def jaccard(a: str, b: str, joint: str) -> float:
    """Exact, on sets of 5-grams written out here; planted words hold no punctuation, so that splitting is enough."""
    one, two = ([*text] if joint == "" else text.split(" ") for text in (a, b))
    left, right = ({tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in (one, two))
    return len(left & right) / len(left | right)


@pytest.mark.parametrize(("joint", "vocabulary"), [(" ", [f"w{i}" for i in range(3000)]), ("", [chr(0x4E00 + i) for i in range(3000)])])
def test_near_copies_beside_exact_jaccard(joint: str, vocabulary: list[str]) -> None:
    pytest.importorskip("rensa")
    rng = random.Random(5)
    pairs = []
    for _ in range(500):
        words = rng.choices(vocabulary, k=rng.randint(60, 300))
        rate = rng.choice([0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.1])
        pairs.append((joint.join(words), joint.join(edited(rng, words, vocabulary, rate))))
    step = Near(NearOptions())
    originals = [Document("a", i, a) for i, (a, _) in enumerate(pairs)]
    assert list(step(originals)) == originals  # random texts have nothing in common
    true = false = missed = 0
    for i, (a, b) in enumerate(pairs):
        exact, judged = jaccard(a, b, joint), step.judge(Document("b", i, b))
        aside = isinstance(judged, Aside)
        if aside:
            assert judged.detail == f"like a:{i}"
        # Five standard errors of an estimate from 256 permutations, sqrt(0.16 / 256) = 0.025, decide nothing.
        assert aside if exact > 0.925 else True
        assert not aside if exact < 0.675 else True
        true, false, missed = true + (aside and exact >= 0.8), false + (aside and exact < 0.8), missed + (not aside and exact >= 0.8)
    assert true > 150
    # Errors are made near the threshold only, and about as many pairs lie there on either side.
    assert true / (true + missed) > 0.95 and true / (true + false) > 0.93


def test_the_first_of_a_cluster_is_kept_and_a_chain_is_not_one() -> None:
    pytest.importorskip("rensa")
    words = [f"w{i}" for i in range(400)]
    chain = [" ".join([*words[40 * k :], *(f"v{i}" for i in range(40 * k))]) for k in range(5)]
    # Neighbours share 356 of 436 runs of five words (J = 0.817, 0.77 further on); the ends of the chain share fewer by far.
    step = Near(NearOptions(threshold=0.7))
    found = kept(step, [chain[0], chain[1], chain[4], chain[0], chain[4] + " end"])
    assert found == [0, 2]
    details = [e["detail"] for e in step.counts.reasons["nearly the same text came before"].examples]
    assert details == ["like f:0", "like f:0", "like f:2"]
    reverse = kept(Near(NearOptions(threshold=0.7)), [chain[1], chain[0]])
    assert reverse == [0]


def test_texts_without_words_are_no_copies_of_each_other() -> None:
    pytest.importorskip("rensa")
    assert kept(Near(NearOptions()), ["...", "!!!", "", "a b", "A, b."]) == [0, 1, 2, 3]


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=30).map(" ".join), max_size=10))
def test_what_near_keeps_it_keeps_again_unchanged_in_order(texts: list[str]) -> None:
    pytest.importorskip("rensa")
    first = list(Near(NearOptions())(Document("f", i, text) for i, text in enumerate(texts)))
    assert [d.text for d in first] == [texts[d.line] for d in first] and [d.line for d in first] == sorted(d.line for d in first)
    again = Near(NearOptions())
    assert list(again(first)) == first and not again.counts.reasons
    exact_copies = {text_digest(d.text) for d in first if shingles(d.text, 5)}
    assert len(exact_copies) == sum(bool(shingles(d.text, 5)) for d in first)  # an exact copy is a near copy


def test_sketches_are_alike_in_every_process() -> None:
    pytest.importorskip("rensa")
    code = (
        "from norma.text.clean.duplicates import *; n = Near(NearOptions()); s = n._sketch(256, SEED);"
        " s.update(shingles('one two three four five six 他在北京工作', 5)); print(sum(s.digest()))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
