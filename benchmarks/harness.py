"""What all benchmarks share: rounds in turn, processes of their own, medians, ratios and facts.

Machines are noisy, and on a shared one the noise comes in waves. So the ways that are compared
take turns, round by round, and a ratio is the median of the rounds' own ratios: both of its sides
were measured within the same minute.
"""

import gc
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

WINDOWS = platform.system() == "Windows"
ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PICTURES = ROOT / "benchmarks" / "pictures"
PACKAGES = ("keras", "tensorflow", "jax", "torch", "numpy", "networkx", "h5py", "keras-hub")


class BenchmarkError(Exception):
    """A process of a benchmark failed."""


def in_turn(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Times every way once in each round, in turn, after one round that only warms up.

    Args:
        ways: The name of each way and a function that goes it; what it returns is freed unseen.
        rounds: The number of samples of each way.

    Returns:
        The seconds of each way, one for each round.
    """
    samples: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, function in ways.items():
            gc.collect()
            start = time.perf_counter()
            result = function()
            seconds = time.perf_counter() - start
            del result
            if number:
                samples[way].append(seconds)
    return samples


def ratios(samples: Sequence[float], base: Sequence[float]) -> list[float]:
    """The ratio of each round."""
    return [one / other for one, other in zip(samples, base, strict=True)]


def geometric_mean(values: Iterable[float]) -> float:
    """The mean that fits ratios."""
    return math.exp(statistics.fmean(math.log(value) for value in values))


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The first and third quartile; of fewer than four samples, the smallest and the largest."""
    if len(values) < 4:
        return min(values), max(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of the straight line through the points, both axes logarithmic."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    return statistics.linear_regression(x, y).slope


def worker(
    function: str,
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
    python: str | os.PathLike[str] = sys.executable,
) -> Any:
    """Calls a function in a process of its own.

    Args:
        function: `module:name`, the module without `benchmarks.`.
        *arguments: Its arguments, plain JSON.
        environment: What to set in the process's environment.
        python: The interpreter.

    Returns:
        What the function returned, plain JSON.

    Raises:
        BenchmarkError: when the process failed; with the end of what it said.
    """
    command = [os.fspath(python), "-m", "benchmarks.worker", function, json.dumps(arguments)]
    settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", **(environment or {})}
    result = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        last = "\n".join(result.stderr.strip().splitlines()[-6:])
        raise BenchmarkError(f"The process of {function}{arguments} failed:\n{last}")
    return json.loads(result.stdout.splitlines()[-1])


def installed(*packages: str) -> bool:
    """Whether distributions of these names are installed here."""
    return all(version(package) is not None for package in packages)


def version(package: str) -> str | None:
    """The version of an installed distribution; TensorFlow has several names."""
    names = (
        (package, f"{package}-cpu", f"{package}-macos") if package == "tensorflow" else (package,)
    )
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def facts() -> dict[str, Any]:
    """The machine and the versions, without what would name the machine."""
    versions = {package: version(package) for package in PACKAGES}
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, AttributeError):  # not a system with sysconf
        memory = None
    return {
        "date": time.strftime("%Y-%m-%d"),
        "system": platform.system(),
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": memory and round(memory, 1),
        "python": platform.python_version(),
        "versions": {package: found for package, found in versions.items() if found},
    }


def _processor() -> str:
    information = pathlib.Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
