"""Floor 7: an OpenAI-compatible server for one model, or a spec in front of another server; with verdicts where there is a spec.

HTTP ─→ Recorder, Guard, Admission ─→ routes (chat, completions, embeddings, feedback) ─→ protocol (request checked) ─→ Job ─→ Backend
                                        └─ ruling, deciding: rules shown, judged, enforced ─→ audit ─→ loop (label store)
Backends: local (batching: one thread, many requests), one_by_one (any author), upstream (another server).
"""

from __future__ import annotations

from norma.serve.answering import Backend
from norma.serve.app import build_app
from norma.serve.author import Author, ModelAuthor
from norma.serve.run import run_server

__all__ = ["Author", "Backend", "ModelAuthor", "build_app", "run_server"]
