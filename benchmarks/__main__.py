"""Runs the benchmarks: `python -m benchmarks` for all, `python -m benchmarks NAME` for one."""

import sys

from benchmarks import files, rewriting

BENCHMARKS = {"rewriting": rewriting.main, "files": files.main}

if __name__ == "__main__":
    chosen = sys.argv[1:] or list(BENCHMARKS)
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"There is no benchmark {unknown[0]!r}; choose from {', '.join(BENCHMARKS)}.")
    for name in chosen:
        BENCHMARKS[name]()
