"""Answers from the user's own documents: a small index, and the passages that a question is answered from.

    files ─→ passages (paragraphs, at most so many characters) ─→ OUT/passages.jsonl
                 └─→ norma.lm.embedding.embed, where a model is given ─→ OUT/vectors.safetensors
    question ─→ BM25 (bm25s) and nearest vectors ─→ one ranking (reciprocal ranks) ─→ passages numbered [1], [2], ... before the question

BM25 is what vectors have to beat, and needs no model: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework", section 3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from norma.base.errors import NormaError
from norma.base.files import read_json, read_jsonl, write_json, write_jsonl
from norma.base.hashing import digest, folder_digest
from norma.spec import Message
from norma.text.quarantine import Quarantine
from norma.text.readers import read

if TYPE_CHECKING:
    from norma.lm import LanguageModel

How = Literal["bm25", "vectors", "both"]
FUSION = 60  # the constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)
_WORDS = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\\W_\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
TOLD = {
    "en": "Answer from the passages below and name the ones you use as [1], [2]. If they do not hold the answer, say so.",
    "zh": "请依据下面的段落回答，并用[1]、[2]标明所用的段落。若其中没有答案，请直接说明。",
}
ASKED = {"en": "Question: ", "zh": "问题："}


@dataclass(frozen=True)
class Passage:
    """A piece of a document: where it stands, and its text."""

    file: str
    line: int
    title: str
    text: str


@dataclass(frozen=True)
class Hit:
    """A passage that was found; the higher the score, the better. Scores of different ways do not compare."""

    number: int
    score: float
    passage: Passage


def passages(source: Path, characters: int = 800) -> list[Passage]:
    """Passages of a file or folder of documents: whole sentences, at most ``characters`` together where sentences allow."""
    found = []
    with Quarantine() as quarantine:
        for record in read(source, quarantine):
            text = record.fields.get("text") or record.fields.get("body") or record.fields.get("context")
            if not isinstance(text, str):
                mend = "Give texts, or rows with a column 'text'"
                raise NormaError("this row holds no text", where=f"{record.file}:{record.line}", mend=mend)
            title = str(record.fields.get("title") or "")
            found += [Passage(record.file, record.line, title, piece) for piece in pieces(text, characters)]
    return found


def pieces(text: str, characters: int) -> Iterator[str]:
    """``text`` in pieces of whole sentences; a sentence that is too long is cut at white space, or anywhere."""
    held = ""
    for sentence in _ENDS.split(text):
        sentence = sentence.strip()
        while len(sentence) > characters:
            if held:
                yield held
                held = ""
            cut = sentence.rfind(" ", 0, characters)
            cut = characters if cut <= 0 else cut
            yield sentence[:cut].strip()
            sentence = sentence[cut:].strip()
        if not sentence:
            continue
        if held and len(held) + 1 + len(sentence) > characters:
            yield held
            held = ""
        held = f"{held} {sentence}" if held else sentence
    if held:
        yield held


def build(source: Path, out: Path, *, model: Path | None = None, characters: int = 800, pooling: str = "mean") -> Index:
    """Write an index of documents. Without a model it is searched by words alone."""
    found = passages(source, characters)
    if not found:
        raise NormaError("no text in these documents", where=source)
    out.mkdir(parents=True, exist_ok=True)
    said: dict[str, Any] = {"version": 1, "passages": len(found), "digest": digest([asdict(p) for p in found])}
    write_jsonl(out / "passages.jsonl", (asdict(p) for p in found))
    if model is not None:
        import torch
        from safetensors.torch import save_file

        from norma.lm import LanguageModel
        from norma.lm.embedding import embed

        vectors: torch.Tensor = embed(LanguageModel.load(model), [_whole(p) for p in found], pooling=pooling)
        save_file({"vectors": vectors.contiguous()}, out / "vectors.safetensors")
        said |= {"model": str(model.resolve()), "weights": folder_digest(model), "pooling": pooling}
    else:
        (out / "vectors.safetensors").unlink(missing_ok=True)
    write_json(out / "index.json", said)  # last: an index without it is not whole
    return Index(out)


def _whole(passage: Passage) -> str:
    return f"{passage.title}\n{passage.text}" if passage.title else passage.text


def words(text: str) -> list[str]:
    """Words in lower case; Chinese by character and by pairs of neighbours, which stand for words."""
    found = [m.group().lower() for m in _WORDS.finditer(text)]
    pairs = [a + b for a, b in pairwise(found) if len(a) == len(b) == 1 and not (a + b).isascii()]
    return found + pairs


class Index:
    """An index folder, open. Raises NormaError for a folder that is none, or whose model has changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._asked: dict[str, npt.NDArray[np.float32]] = {}
        if not (folder / "index.json").is_file():
            raise NormaError("this is no index of documents", where=folder, mend="Make one: norma retrieve index DOCUMENTS FOLDER")
        self.said: dict[str, Any] = read_json(folder / "index.json")
        self.passages = [Passage(**row) for row in read_jsonl(folder / "passages.jsonl")]
        if digest([asdict(p) for p in self.passages]) != self.said["digest"]:
            raise NormaError("the passages have changed since the index was made", where=folder, mend="Make it again")

    @property
    def has_vectors(self) -> bool:
        return "model" in self.said

    @cached_property
    def _bm25(self) -> Any:
        try:
            import bm25s
        except ImportError:
            raise NormaError("searching by words needs the package bm25s", mend="pip install 'norma-lm[retrieval]'") from None
        made = bm25s.BM25()
        made.index([words(_whole(p)) or [""] for p in self.passages], show_progress=False)
        return made

    @cached_property
    def _vectors(self) -> npt.NDArray[np.float32]:
        from safetensors.numpy import load_file

        found: npt.NDArray[np.float32] = load_file(self.folder / "vectors.safetensors")["vectors"]
        return found

    @cached_property
    def _model(self) -> LanguageModel:
        from norma.lm import LanguageModel

        path = Path(self.said["model"])
        if not path.is_dir() or folder_digest(path) != self.said["weights"]:
            raise NormaError("the model that this index was made with is gone or has changed", where=path, mend="Make the index again")
        return LanguageModel.load(path)

    def scores(self, question: str, how: Literal["bm25", "vectors"]) -> npt.NDArray[np.float64]:
        """(N,) of each passage: BM25, or the cosine of the angle to the question."""
        if how == "bm25":
            known = [w for w in words(question) if w in self._bm25.vocab_dict]
            if not known:
                return np.zeros(len(self.passages))
            return np.asarray(self._bm25.get_scores(known), dtype=np.float64)
        if not self.has_vectors:
            raise NormaError("this index holds no vectors", where=self.folder, mend="Make it with --model, or search by bm25")
        if question not in self._asked:
            self.read([question])
        return np.asarray(self._vectors @ self._asked[question], dtype=np.float64)

    def read(self, questions: Sequence[str]) -> None:
        """Make the vectors of many questions at one time; they are kept as long as the index is open."""
        from norma.lm.embedding import embed

        new = [q for q in dict.fromkeys(questions) if q not in self._asked]
        found = embed(self._model, new, pooling=self.said["pooling"]).numpy()
        self._asked |= dict(zip(new, found, strict=True))

    def search(self, question: str, count: int = 4, how: How | None = None) -> list[Hit]:
        """The best passages for a question, at most ``count``; by both ways where there are vectors, else by BM25.

        ``both``: 1 / (60 + rank) of the two rankings added up. A passage that shares no word with the question has no rank by BM25.
        """
        how = how or ("both" if self.has_vectors else "bm25")
        if how == "both":
            total = np.zeros(len(self.passages))
            ways: tuple[Literal["bm25", "vectors"], ...] = ("bm25", "vectors")
            for way in ways:
                one = self.scores(question, way)
                ranks = np.empty(len(one))
                ranks[np.argsort(-one, kind="stable")] = np.arange(1, len(one) + 1)
                total += np.where((one > 0) | (way == "vectors"), 1.0 / (FUSION + ranks), 0.0)
        else:
            total = self.scores(question, how)
        best = [int(i) for i in np.argsort(-total, kind="stable")[:count] if how == "vectors" or total[i] > 0]
        return [Hit(i, float(total[i]), self.passages[i]) for i in best]


def grounded(
    messages: Sequence[Message], hits: Sequence[Hit], language: str = "en", fits: Callable[[list[Message]], bool] = lambda _: True
) -> tuple[list[Message], int]:
    """The messages with numbered passages before the last question, and how many: worse ones are left out until it all fits."""
    place = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
    if place < 0:
        return list(messages), 0
    tongue = "zh" if language.split("-")[0] == "zh" else "en"
    for kept in range(len(hits), 0, -1):
        listed = "\n\n".join(f"[{n}] {_whole(hit.passage)}" for n, hit in enumerate(hits[:kept], 1))
        content = f"{TOLD[tongue]}\n\n{listed}\n\n{ASKED[tongue]}{messages[place]['content']}"
        made = [Message(role="user", content=content) if i == place else m for i, m in enumerate(messages)]
        if fits(made):
            return made, kept
    return list(messages), 0


class Documents:
    """What ``norma chat`` and ``norma generate`` do with ``--documents``: passages before every question.

    ``room``: tokens that the answer needs; ``shown`` holds the passages of the last question.
    """

    def __init__(self, index: Index, model: LanguageModel, *, count: int = 4, room: int = 128) -> None:
        self.index, self.model, self.count, self.room = index, model, count, room
        self.shown: list[Hit] = []

    def before(self, messages: Sequence[Message], language: str) -> list[Message]:
        """The messages with passages for their last question, as many as the model has room for."""
        from norma.text.chat import prompt_ids

        question = next((m["content"] for m in reversed(messages) if m["role"] == "user"), "")
        hits = self.index.search(question, self.count)

        def fits(made: list[Message]) -> bool:
            return len(prompt_ids(self.model.tokenizer, made)) + self.room <= self.model.config.max_positions

        made, kept = grounded(messages, hits, language, fits)
        self.shown = hits[:kept]
        return made

    def sources(self) -> list[str]:
        """A line for each passage that was shown: ``[1] file:line title``."""
        return [f"[{n}] {h.passage.file}:{h.passage.line} {h.passage.title}".rstrip() for n, h in enumerate(self.shown, 1)]
