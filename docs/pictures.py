"""The pictures of the report in these pages, taken by headless Chromium: python docs/pictures.py RUN

RUN/report.html ─→ report-en.png, report-zh.png (the top), report-probe-en.png, report-probe-zh.png (steering, attack, fairness)

Needs chromium and a Chinese font (Debian: chromium, fonts-noto-cjk). ``--probe`` takes the second two alone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
TOP, PROBE = (1280, 1400), (1280, 1750)
ONLY = "<style>main > :not(#steer):not(#attack):not(#gaps) { display: none; }</style></head>"  # headless pictures begin at the top


def shoot(page: Path, target: Path, size: tuple[int, int], query: str) -> None:
    """One picture of a page; ``query`` chooses language and theme."""
    browser = next((b for name in ("chromium", "chromium-browser", "google-chrome") if (b := shutil.which(name))), None)
    if browser is None:
        sys.exit("no chromium here (Debian: apt-get install chromium fonts-noto-cjk)")
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000"]
        place = [f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", f"--screenshot={target}"]
        subprocess.run([browser, *options, *place, f"{page.resolve().as_uri()}?{query}"], check=True, capture_output=True, timeout=120)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--probe", action="store_true", help="only the sections of the probe")
    given = parser.parse_args()
    page = given.run / "report.html"
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "probe.html"
        part.write_text(page.read_text(encoding="utf-8").replace("</head>", ONLY, 1), encoding="utf-8")
        for language in ("en", "zh"):
            if not given.probe:
                shoot(page, DOCS / f"report-{language}.png", TOP, f"lang={language}&theme=light")
            shoot(part, DOCS / f"report-probe-{language}.png", PROBE, f"lang={language}&theme=light")


if __name__ == "__main__":
    main()
