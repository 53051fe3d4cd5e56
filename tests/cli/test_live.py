"""The live view: curves keep the whole history in a few means, and the board shows the numbers that are there."""

from __future__ import annotations

import io
import math

from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from norma.cli.live import BLOCKS, WIDTH, Board, Curve
from norma.cli.progress import number


def test_a_curve_by_hand() -> None:
    curve = Curve()
    for value in (0.0, 1.0, 2.0, 7.0):
        curve.add(value)
    assert curve.drawn() == "▁▂▃█"
    curve.add(math.nan)
    assert curve.drawn() == "▁▂▃█", "what is not finite is not drawn"
    flat = Curve()
    for _ in range(3):
        flat.add(5.0)
    assert flat.drawn() == "▁▁▁"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3000))
def test_a_curve_never_grows(count: int) -> None:
    curve = Curve()
    for i in range(count):
        curve.add(float(i))
    assert len(curve.means) < 2 * WIDTH
    drawn = curve.drawn()
    assert len(drawn) <= WIDTH
    assert list(drawn) == sorted(drawn, key=BLOCKS.index), "a line that rises is drawn rising"
    if count > 1:
        assert drawn[0] == BLOCKS[0]


def test_the_board_shows_what_it_was_told() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    board = Board(console)
    board.open("2/3 train")
    for step in range(1, 9):
        board.update(step, 10, {"loss": 8.0 / step, "loss.masked-next": 2.0, "tokens_per_s": 15500.0, "peak_share": 0.4123})
    with console.capture() as capture:
        console.print(board._drawn())
    space, bar, *rows = capture.get().splitlines()
    assert not space.strip(), "what was said before is set apart"
    assert "2/3 train" in bar and "8/10" in bar
    cells = [row.split() for row in rows]
    assert [row[:-1] for row in cells] == [["loss", "1.000"], ["masked-next", "2.000"], ["tokens/s", "15.5k"], ["of", "the", "peak", "41%"]]
    assert cells[0][-1] == "█▄▂▂▁▁▁▁"  # 8, 4, 2.67, 2, 1.6, 1.33, 1.14, 1 between 1 and 8
    assert rows[0].startswith("  loss") and rows[1].startswith("    masked-next"), "a part of the loss stands below it, indented"
    board.close()
    with console.capture() as capture:
        console.print(board._drawn())
    assert capture.get().strip() == ""


def test_a_line_elsewhere() -> None:
    assert number("loss", 3.4117) == "loss 3.412" and number("gradient_norm", 0.01234) == "gradient norm 0.0123"
    assert number("tokens_per_s", 15500.0) == "15.5k tokens/s" and number("peak_share", 0.41) == "41% of the peak"
