"""Floor 7: the web studio. People annotate, look inside a model, talk to it, read the report, watch runs and edit the spec.

    browser ─→ security (host, size, session, CSRF, role) ─→ pages (jinja) and JSON ─→ Place: one run or one spec
                                                               ├─ labels.sqlite: norma.labels' tables and the studio's own (Alembic)
                                                               ├─ models, one thread          (opened when first asked for)
                                                               └─ `norma run` as a subprocess (started, stopped by SIGTERM)

FastAPI, jinja and plain JavaScript, with nothing from a network. Why not NiceGUI: its pages are Vue templates compiled in the browser,
which needs 'unsafe-eval' and inline scripts; every key press is a round trip over a websocket; and an answer typed while the line is
down lives on the server only. Here the next items are in the browser already, a key acts at once, and what is not acknowledged waits
in local storage.
"""

from __future__ import annotations

from norma.studio.app import build_app
from norma.studio.place import Place

__all__ = ["Place", "build_app"]
