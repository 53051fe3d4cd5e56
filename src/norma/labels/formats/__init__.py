"""Other tools' files: read into labels, written from labels.

    tables.py         CSV and JSON lines with a mapping of columns (any crowd's export), and Norma's own rows
    argilla.py        records of Argilla 2 (``dataset.records.to_json``)
    label_studio.py   tasks of Label Studio with annotations and predictions
    trl.py            preference pairs, KTO rows, SFT rows in the columns of TRL and Hugging Face (``training`` writes them)
    files.py          which of these a file is

Every reader gives a ``Batch``; what a writer's format cannot hold is found by reading it back (``lost``), and said.
"""

from __future__ import annotations
