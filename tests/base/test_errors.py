from __future__ import annotations

from norma.base.errors import NormaError, nearest


def test_one_line_names_place_thing_and_mend() -> None:
    error = NormaError("unknown key 'stepz'", where="recipe.yaml:3:5", mend="Did you mean 'steps'")
    assert str(error) == "recipe.yaml:3:5: unknown key 'stepz'. Did you mean 'steps'."


def test_a_message_with_line_breaks_stays_one_line() -> None:
    assert str(NormaError("first\n  second\tthird")) == "first second third"


def test_nearest_name_or_the_list_of_what_is_known() -> None:
    assert nearest("stepz", ["steps", "batch"]) == "Did you mean 'steps'"
    assert nearest("zzz", ["steps", "batch"]) == "Known: batch, steps"
    assert nearest("zzz", []) == "Nothing is known here"
