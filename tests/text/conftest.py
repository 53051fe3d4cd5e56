"""Where the real data sets lie, when there are any: the folder NORMA_TEST_DATA, or ../shared/data beside the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    given = os.environ.get("NORMA_TEST_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not (folder / "alpaca").is_dir():
        pytest.skip("no real data sets here: set NORMA_TEST_DATA to a folder that holds them")
    return folder
