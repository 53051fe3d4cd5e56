"""What a terminal shows, as a picture: ``tmux capture-pane -e -p | python docs/live_view.py TITLE docs/live-view.svg``.

docs/live-view.svg is a real run's, in a terminal of 96 columns:

    norma run recipes/objectives.yaml --scale ci --until alternating alternating.steps=60 alternating.sequence=64 alternating.batch=8
        alternating.model.width=128 alternating.train.sample_every=15
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 96
FONTS = "DejaVu Sans Mono, Noto Sans Mono CJK SC, Menlo, Consolas, monospace"


def main() -> None:
    title, target = sys.argv[1], Path(sys.argv[2])
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(sys.stdin.read().rstrip()), soft_wrap=True)
    drawn = console.export_svg(title=title)
    drawn = re.sub(r"@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL)  # fonts that are there, none from the net
    target.write_text(drawn.replace("Fira Code, monospace", FONTS), encoding="utf-8")


if __name__ == "__main__":
    main()
