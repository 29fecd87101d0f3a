"""What is shown while benchmarks run."""

import rich.console
import rich.progress


class Meter:
    """One benchmark's line in the terminal.

    Args:
        progress: What shows it.
        title: The benchmark's name.
    """

    def __init__(self, progress: rich.progress.Progress, title: str) -> None:
        self._progress = progress
        self._title = title
        self._task = progress.add_task(title, total=None)

    def start(self, total: int) -> None:
        """Says how many steps there will be."""
        self._progress.update(self._task, total=total)

    def now(self, what: str) -> None:
        """Says what is done now."""
        self._progress.update(self._task, description=f"{self._title}: {what}")

    def step(self, what: str = "") -> None:
        """Says that a step is done."""
        self._progress.update(self._task, advance=1)
        if what and not self._progress.console.is_terminal:
            self._progress.console.print(f"{self._title}: {what}")

    def finish(self) -> None:
        """Says that the benchmark is done."""
        self._progress.update(self._task, description=self._title, total=1, completed=1)


Bar = rich.progress.Progress


def bar() -> Bar:
    """The progress of all benchmarks."""
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeElapsedColumn(),
        console=rich.console.Console(stderr=True),
    )
