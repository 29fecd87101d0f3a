"""Tables: aligned, without empty columns, and nothing in them that steers a terminal."""

import xml.etree.ElementTree

from hypothesis import given
from hypothesis import strategies as st

from graphwd.plans import tables
from graphwd.plans.plan import make_plan
from graphwd.policy.policies import Policy, Rule
from tests.support.slots import L2, hostile, sized, state


def test_a_file_without_numbers_has_no_empty_columns():
    text = str(make_plan([sized("a/kernel", shape=None)], Policy([Rule(L2)])))
    assert "parameters" not in text
    assert "dormant" not in text
    assert "a/kernel" in text
    assert "L2(0.0001)" in text


def test_an_empty_model_has_a_table():
    assert "0 of the 0 slots" in str(state())
    assert "<p>" in state()._repr_html_()


def test_names_from_a_file_can_not_steer_a_page():
    assert "\x1b" not in str(hostile())
    assert r"a\x1b[2J\n<script>/kernel" in str(hostile())
    assert "<script>" not in hostile()._repr_html_()


def test_a_table_is_aligned():
    table = tables.make_table("T", {"name": ["a", "bbb"], "n": [5, 12345], "no": ["", ""]})
    assert table.text() == "T\n  name       n\n  a          5\n  bbb   12,345"


def test_numbers_stand_on_the_right_and_are_read_easily():
    cells = {"n": [1234567, None], "x": [0.000123456, 2.5], "share": ["<0.1%", "50.0%"]}
    table = tables.make_table("T", {**cells, "mixed": [1, "a"], "list": [("a", "b"), ()]})
    right = {column.header: column.right for column in table.columns}
    assert right == {"n": True, "x": True, "share": True, "mixed": False, "list": False}
    assert table.rows[0] == ("1,234,567", "0.0001235", "<0.1%", "1", "a, b")
    assert table.rows[1] == ("", "2.5", "50.0%", "a", "")
    assert table.lines[0][-1] == ("a", "b")


def test_a_table_of_a_notebook_has_every_cell_and_no_markup_from_outside():
    table = tables.make_table("<b>", {"<i>": ["<script>", "b"], "of": [("x", "y"), 3]})
    root = xml.etree.ElementTree.fromstring(table.html().replace("<br>", "<br/>"))
    assert root.find("caption").text == "<b>"
    assert [cell.text for cell in root.iter("th")] == ["<i>", "of"]
    cells = ["|".join(cell.itertext()) for cell in root.iter("td")]
    assert cells == ["<script>", "x|y", "b", "3"]


@given(st.text())
def test_what_is_printed_is_one_line_that_shows(text):
    shown = tables.printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text
    elif "\\" not in text:
        assert shown.encode("latin-1", "backslashreplace").decode("unicode_escape") == text
