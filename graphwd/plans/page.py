"""The HTML report: one file with the graph, the charts and the tables of a plan.

Nothing in the file asks a network for anything: styles and drawings are in it, there is no script,
and its content security policy forbids both. No Keras: a saved model's report needs none.
"""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphwd.errors import ModelError
from graphwd.graph.slots import strip_carried
from graphwd.plans import drawing
from graphwd.plans.edits import Edit
from graphwd.plans.plan import Plan
from graphwd.plans.summary import Summary, count_parameters, remark
from graphwd.policy import regularizers
from graphwd.writing import check_target, write_whole

_COLOURS = 8
_BARS = 24
_FIXED = {
    "kept": "stays penalised, by no rule",
    "removed": "loses its penalty",
    "nothing": "no penalty",
    "unreached": "unreached: no config reaches the weight, no rule penalises it",
    "weightless": "no weights to penalise",
}


@dataclass(frozen=True)
class Key:
    """An entry of the legend: a CSS class, what it means, and of how many slots, if that counts."""

    mark: str
    label: str
    count: int | None


@dataclass(frozen=True)
class Bar:
    """A bar of a chart: the path of a layer, and its value."""

    label: str
    text: str
    pieces: list[tuple[str, float, float]]
    """The CSS class, the start and the width of each piece, in percent of the longest bar."""


@dataclass(frozen=True)
class Chart:
    """A bar chart: the longest bars, longest first, and what the others come to."""

    title: str
    bars: list[Bar]
    rest: str


def render(plan: Plan) -> str:
    """Makes the page of a plan, in HTML."""
    import jinja2

    files = importlib.resources.files("graphwd.plans")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((files / "page.html.jinja").read_text("utf-8"))
    plan = plan.measured()
    marks = Marks(plan)
    summary = plan.summary()
    notes = list(plan.notes)
    panels: list[drawing.Panel] = []
    if plan.serialized is not None:
        try:
            panels = drawing.draw(strip_carried(plan.serialized), plan.slots, marks)
        except ModelError as error:
            notes.append(f"The graph can't be drawn: {error}")
    return template.render(
        plan=plan,
        notes=notes,
        panels=panels,
        drawing=drawing,
        keys=marks.legend(),
        facts=_facts(plan, summary),
        charts=_charts(plan, marks, valued=summary.valued),
        tables=plan.shown()[0],
        swatches=[f"p{number % _COLOURS}" for number in range(len(plan.policy or ()))],
        marks=marks,
        describe=regularizers.describe,
        remark=remark,
        shorten=shorten,
        clip=clip,
        style=(files / "page.css").read_text("utf-8"),
    )


def save_html(plan: Plan, path: str | os.PathLike[str], *, overwrite: bool = True) -> None:
    """Writes the page of a plan to a file, which is complete or as it was before."""
    check_target(path, overwrite=overwrite)
    write_whole(path, render(plan).encode("utf-8", "backslashreplace"), overwrite=overwrite)


class Marks:
    """The CSS classes of edits: a colour for each rule, or for each penalty without rules."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._penalties: dict[Any, int] = {}
        self._labels: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        for number, rule in enumerate(plan.policy or ()):
            if rule.times is not None or rule.regularizer is not None:
                label = f"rule {number + 1}: {rule.gives}"
                mark = f"p{number % _COLOURS}"
                before = self._labels.get(mark)
                self._labels[mark] = f"{before}; {label}" if before else label
        for edit in plan.slots:
            for mark in self(edit).split():
                self._counts[mark] = self._counts.get(mark, 0) + 1

    def __call__(self, edit: Edit) -> str:
        """The CSS classes of one edit."""
        words = [self._colour(edit)]
        words += [word for word in ("dormant", "carried") if getattr(edit, word)]
        return " ".join(words)

    def _colour(self, edit: Edit) -> str:
        if edit.after is None:
            if edit.changes:
                return "removed"
            return "unreached" if edit.unreached else "nothing"
        if self._plan.policy is not None:
            return "kept" if edit.rule is None else f"p{edit.rule % _COLOURS}"
        key = regularizers.normalize(edit.after)
        mark = f"p{self._penalties.setdefault(key, len(self._penalties)) % _COLOURS}"
        label = regularizers.describe(edit.after)
        known = self._labels.setdefault(mark, label)
        if label not in known.split("; "):
            self._labels[mark] = f"{known}; {label}"
        return mark

    def legend(self) -> list[Key]:
        """The legend: what there is in the model, colours first."""
        keys = [Key(mark, label, self._counts.get(mark, 0)) for mark, label in self._labels.items()]
        keys += [
            Key(mark, label, self._counts.get(mark))
            for mark, label in _FIXED.items()
            if mark in self._counts or mark == "weightless"
        ]
        for mark, label in (
            ("dormant", "dormant: frozen, so Keras skips the penalty"),
            ("carried", "carried: by graphwd, no config of Keras's own holds it"),
        ):
            if mark in self._counts:
                keys.append(Key(mark, label, self._counts[mark]))
        return keys


def shorten(text: str, length: int) -> str:
    """A text that is cut in its middle where it is too long: names differ at their ends."""
    if len(text) <= length:
        return text
    end = length // 2
    return f"{text[: length - end - 1]}\N{HORIZONTAL ELLIPSIS}{text[-end:]}"


def clip(text: str, length: int) -> str:
    """A text that is cut at its end where it is too long."""
    if len(text) <= length:
        return text
    return text[: length - 1].rstrip(" +") + "\N{HORIZONTAL ELLIPSIS}"


def _facts(plan: Plan, summary: Summary) -> list[tuple[str, str]]:
    """The numbers at the top: what they count, and how many."""
    penalised = [edit for edit in plan.slots if edit.after is not None]
    facts = [] if plan.policy is None else [("edits", f"{len(plan):,}")]
    facts.append(("slots penalised", f"{len(penalised):,} of {len(plan.slots):,}"))
    parameters = count_parameters(penalised)
    if summary.total:
        facts.append(("of the parameters", f"{(parameters or 0) / summary.total:.1%}"))
    whole = summary.whole()
    if whole.penalty is not None and whole.planned_penalty is not None and summary.valued:
        value = f"{whole.penalty:.4g}"
        if plan.policy is not None:
            value += f" \N{RIGHTWARDS ARROW} {whole.planned_penalty:.4g}"
        facts.append(("penalty", value))
        if whole.dormant_penalty:
            facts.append(("dormant penalty", f"{whole.dormant_penalty:.4g}"))
    for word in ("dormant", "carried", "unreached"):
        count = getattr(whole, word)
        if count:
            facts.append((f"slots {word}", f"{count:,}"))
    return facts


def _charts(plan: Plan, marks: Marks, *, valued: bool) -> list[Chart]:
    layers: dict[str, list[Edit]] = {}
    for edit in plan.slots:
        layers.setdefault(edit.path.rpartition("/")[0], []).append(edit)
    charts = []
    if valued:
        title = "Penalty by layer" + ("" if plan.policy is None else ", as planned")
        values = {
            path: [(marks(edit), edit.planned_penalty or 0.0) for edit in edits]
            for path, edits in layers.items()
        }
        charts.append(_chart(title, values, lambda value: f"{value:.4g}", all_count=False))
    title = "Parameters by layer"
    if plan.sizes is not None and count_parameters(plan.slots) is None:
        title += ", with those that take no penalty"
        counts = {
            path: [(_strongest(layers.get(path, ()), marks), float(size))]
            for path, size in plan.sizes.items()
        }
    else:
        counts = {
            path: [(marks(edit), float(edit.slot.parameters or 0)) for edit in edits]
            for path, edits in layers.items()
        }
    charts.append(_chart(title, counts, lambda value: f"{int(value):,}"))
    return [chart for chart in charts if chart.bars]


def _strongest(edits: Sequence[Edit], marks: Marks) -> str:
    """The mark of a layer of whose weights the sizes are not known one by one."""
    ranked = sorted(edits, key=lambda edit: (edit.after is None, not edit.changes))
    return marks(ranked[0]) if ranked else "weightless"


def _chart(
    title: str,
    values: Mapping[str, Sequence[tuple[str, float]]],
    text: Any,
    *,
    all_count: bool = True,
) -> Chart:
    """A chart of sums by layer; what is dormant may have a bar but no share of the whole."""
    sums = {path: sum(value for _, value in pieces) for path, pieces in values.items()}
    order = sorted((path for path in sums if sums[path] > 0), key=lambda path: -sums[path])
    longest = sums[order[0]] if order else 1.0
    awake = {
        path: sum(v for mark, v in values[path] if all_count or "dormant" not in mark.split())
        for path in order
    }
    total = sum(awake.values())

    def said(paths: Sequence[str]) -> str:
        value = text(sum(sums[path] for path in paths))
        share = sum(awake[path] for path in paths)
        return f"{value} ({_percent(share / total)})" if share else f"{value}, dormant"

    bars = []
    for path in order[:_BARS]:
        start = 0.0
        pieces = []
        for mark, value in values[path]:
            if value > 0:
                pieces.append((mark, start, 100 * value / longest))
                start += 100 * value / longest
        bars.append(Bar(path or "the model itself", said([path]), pieces))
    others = order[_BARS:]
    rest = f"{len(others):,} more layers: {said(others)}" if others else ""
    return Chart(title, bars, rest)


def _percent(share: float) -> str:
    return "<0.1%" if share < 0.0005 else f"{share:.1%}"
