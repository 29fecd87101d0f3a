"""The benchmarks: what they say is what they measured, and the machinery measures what it says."""

import json
import re

import pytest
from click.testing import CliRunner

from benchmarks import charts, harness, page, works
from benchmarks.__main__ import main
from benchmarks.listed import BENCHMARKS
from benchmarks.tables import Table, relative, seconds
from benchmarks.works.catalogue import COLUMNS, WAYS

PAGES = [path.read_text("utf-8") for path in page.PAGES]
README, PAGE = PAGES
MEASURED = page.measured()


def module(name):
    return pytest.importorskip(f"benchmarks.{name}")


def results(name):
    return json.loads((harness.RESULTS / f"{name}.json").read_text())


def test_every_benchmark_has_results():
    assert list(BENCHMARKS) == MEASURED
    assert {path.stem for path in harness.RESULTS.glob("*.json")} == set(BENCHMARKS)


@pytest.mark.parametrize("text", PAGES, ids=["README", "page"])
def test_a_page_is_what_the_script_writes(text):
    assert page.rendered(text, page.contents()) == text, "run python -m benchmarks tables"


@pytest.mark.parametrize("text", PAGES, ids=["README", "page"])
def test_a_changed_figure_or_table_is_seen(text):
    found = page.contents()
    assert page.MARKED.search(text)
    for match in page.MARKED.finditer(text):
        start, end = match.span(2)
        changed = text[:start] + match[2].replace("|", "!", 1) + "9" + text[end:]
        assert page.rendered(changed, found) == text


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_pages_have_every_table(name):
    marks = {match[1] for text in PAGES for match in page.MARKED.finditer(text)}
    assert set(page.tables(name)) <= marks


def test_figures_in_prose_stand_between_marks():
    measured = PAGE[: PAGE.index("## You have X")] + README[README.index("## Comparison") :]
    prose = page.MARKED.sub("", measured)
    prose = re.sub(r"`[^`]*`|!?\[[^]]*\]\([^)]*\)|Keras \d|L\d", "", prose)
    assert not re.findall(r"\S*\d\S*", prose)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_pictures_are_there_and_show_these_results(name):
    digest = charts.digest(harness.RESULTS / f"{name}.json").encode()
    for picture in module(name).PICTURES:
        for suffix in (".png", ".svg"):
            path = harness.PICTURES / f"{picture}{suffix}"
            assert digest in path.read_bytes(), f"{path.name}: run python -m benchmarks tables"
        assert f"(pictures/{picture}." in PAGE


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_draws_what_it_lists(name):
    pytest.importorskip("matplotlib")
    import matplotlib.pyplot

    drawn = module(name).draw(results(name)["data"])
    matplotlib.pyplot.close("all")
    assert tuple(drawn) == tuple(module(name).PICTURES)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_results_name_versions_but_no_machine(name):
    facts = results(name)["facts"]
    assert facts["versions"]["keras"]
    assert facts["cores"] > 0
    text = (harness.RESULTS / f"{name}.json").read_text()
    assert not re.search(r"/(root|home|work|tmp|usr)/", text)


def test_graphwd_does_what_the_table_asks():
    answers = results("works")["data"]["graphwd_live"]["answers"]
    assert {column: works.cell(answer) for column, answer in answers.items()} == dict.fromkeys(
        COLUMNS, "yes"
    )


def test_the_ways_of_the_table_are_those_that_are_tried():
    from benchmarks.works import checks, ways

    assert list(ways.WAYS) == list(WAYS)
    assert list(checks.QUESTIONS) == list(COLUMNS)


def test_a_way_is_counted_by_its_statements():
    from benchmarks.works import ways

    assert ways.WAYS["graphwd_live"].lines == 2
    assert ways.WAYS["sgd_decay"].lines > 1


def test_the_check_sees_a_penalty_and_its_absence():
    from benchmarks.works import checks, ways

    found = checks.first_step(ways.WAYS["graphwd_live"], "choosable")
    assert found.right == found.wanted == 2
    assert checks.first_step(ways.WAYS["add_loss"], "choosable").right == 0


def test_ways_take_turns_and_the_first_round_warms_up():
    calls = []
    samples = harness.in_turn({way: lambda way=way: calls.append(way) for way in "ab"}, 2)
    assert calls == list("ababab")
    assert {way: len(each) for way, each in samples.items()} == {"a": 2, "b": 2}


def test_statistics():
    sizes = [10, 100, 1000]
    assert harness.exponent(sizes, [size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert harness.geometric_mean([0.5, 2.0]) == pytest.approx(1)
    assert harness.ratios([1.0, 4.0], [2.0, 2.0]) == [0.5, 2.0]
    assert harness.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == (2, 4)
    assert harness.spread([1.0, 9.0]) == (1, 9)


def test_units():
    assert [seconds(value) for value in (0.0123, 0.5, 2, 20, 200)] == [
        "12.3 ms",
        "500 ms",
        "2.00 s",
        "20.0 s",
        "200 s",
    ]
    assert relative(0.0) == "0"
    assert relative(1.26e-7) == "1e-07"


def test_a_table_is_markdown():
    table = Table("t", ["a", "b"], [["x", "1"]], ["1. note"])
    assert table.markdown() == "| a | b |\n| --- | ---: |\n| x | 1 |\n\n1. note"


def test_a_worker_is_a_process_of_its_own():
    samples = [0.5, 2.0]
    assert harness.worker("harness:geometric_mean", samples) == pytest.approx(1)
    with pytest.raises(harness.BenchmarkError, match="StatisticsError"):
        harness.worker("harness:geometric_mean", [])


def test_serialized_models_are_as_keras_writes_them():
    import keras

    from benchmarks import growth
    from graphwd.graph.wiring import read

    for shape in growth.SHAPES:
        live = growth.build(shape, 5)
        ours = read(growth.serialized(shape, 5))
        theirs = read(keras.saving.serialize_keras_object(live))
        assert list(ours.calls.values()) == list(theirs.calls.values())
        assert ours.tensors == theirs.tensors


def test_help_lists_every_benchmark():
    said = CliRunner().invoke(main, ["--help"]).output
    for name, what in BENCHMARKS.items():
        assert name in said
        assert what.split("?")[0][:30] in said


def test_an_unknown_benchmark_is_an_error():
    ran = CliRunner().invoke(main, ["nothing"])
    assert ran.exit_code == 2
    assert "works" in ran.output
