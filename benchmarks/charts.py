"""The look of all pictures, and the forms that several benchmarks share.

Matplotlib is imported when something is drawn: tables need none of it.
"""

import hashlib
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import harness

# Okabe and Ito's colours, which people who see colours differently can tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
OURS = "#0072B2"
OTHERS = ("#8C959F", "#E69F00", "#CC79A7", "#009E73", "#56B4E9", "#D55E00")
STYLE = {
    "figure.facecolor": "white",
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "font.size": 10,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so pictures look the same everywhere
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#57606A",
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#D8DEE4",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "graphwd",
    "svg.fonttype": "path",
}


def colour(way: str, number: int) -> str:
    """Blue for graphwd, others in their order."""
    return OURS if way.startswith("graphwd") else OTHERS[number % len(OTHERS)]


def figure(columns: int = 1, rows: int = 1, width: float = 8.0, height: float = 4.4) -> Any:
    """A figure and its axes, in the style of all."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot

    matplotlib.rcParams.update(STYLE)
    return matplotlib.pyplot.subplots(
        rows, columns, figsize=(width, height), layout="constrained", squeeze=False
    )


def bars(
    groups: Mapping[str, Sequence[Sequence[float]]],
    labels: Sequence[str],
    title: str,
    axis: str,
    *,
    line: float | None = None,
) -> Any:
    """Grouped bars: medians with their spread.

    Args:
        groups: For each way, the samples for each label.
        labels: What is along the axis.
        title: The title.
        axis: What the bars' length means, with its unit.
        line: A value to draw a line at.

    Returns:
        A matplotlib figure.
    """
    picture, ((axes,),) = figure(height=1.4 + 0.17 * len(labels) * (len(groups) + 0.9))
    height = 0.8 / len(groups)
    for number, (way, samples) in enumerate(groups.items()):
        middles = [statistics.median(each) for each in samples]
        spreads = [harness.spread(each) for each in samples]
        errors = [
            [middle - low for middle, (low, _) in zip(middles, spreads, strict=True)],
            [high - middle for middle, (_, high) in zip(middles, spreads, strict=True)],
        ]
        places = [place + (number - (len(groups) - 1) / 2) * height for place in range(len(labels))]
        single = all(len(each) == 1 for each in samples)
        axes.barh(
            places,
            middles,
            height * 0.92,
            label=way,
            color=colour(way, number),
            xerr=None if single else errors,
            error_kw={"ecolor": "#24292F", "elinewidth": 0.9, "capsize": 2},
        )
        for place, middle, (_, high) in zip(places, middles, spreads, strict=True):
            axes.annotate(
                f"{middle:.2f}",
                (high, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
                color="#24292F",
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none"},
            )
    if line is not None:
        axes.axvline(line, color="#24292F", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.09, y=0.02)
    axes.set_xlabel(axis)
    axes.set_title(title)
    picture.legend(loc="outside lower center", ncols=len(groups))
    return picture


def save(picture: Any, folder: pathlib.Path, name: str, digest: str) -> None:
    """Writes a picture as PNG and SVG, each with the digest of the results that it shows."""
    import matplotlib.pyplot

    folder.mkdir(parents=True, exist_ok=True)
    picture.savefig(folder / f"{name}.png", metadata={"Source": digest, "Software": None})
    picture.savefig(
        folder / f"{name}.svg", metadata={"Source": digest, "Date": None, "Creator": None}
    )
    matplotlib.pyplot.close(picture)


def digest(results: pathlib.Path) -> str:
    """What a picture keeps of the results that it shows."""
    return hashlib.sha256(results.read_bytes()).hexdigest()
