# SPDX-License-Identifier: MIT
"""What the tests of several runs took: which were slow, which were skipped and why.

As a plugin (`pytest -p tests.summary`) it adds each test of a run to the file that EXONET_SUMMARY names. As a program
(`python -m tests.summary FILE`) it prints what stands there.
"""

import json
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

SLOWEST = 10


class Tried(NamedTuple):
    """seconds: of set-up, test and tear-down. skipped: why, "" where it was not."""

    name: str
    seconds: float
    failed: bool
    skipped: str


def tried(reports: Iterable[pytest.TestReport]) -> Iterator[Tried]:
    """One of each test, from the reports of its three phases."""
    phases = defaultdict[str, list[pytest.TestReport]](list)
    for report in reports:
        phases[report.nodeid].append(report)
    for name, of_it in phases.items():
        reasons = [report.longrepr[2] for report in of_it if report.skipped and isinstance(report.longrepr, tuple)]
        skipped = reasons[0].removeprefix("Skipped: ") if reasons else ""
        yield Tried(name, sum(report.duration for report in of_it), any(report.failed for report in of_it), skipped)


class Plugin:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.append(report)

    def pytest_sessionfinish(self) -> None:
        with self._path.open("a") as file:
            file.writelines(json.dumps(each) + "\n" for each in tried(self._reports))


def pytest_configure(config: Any) -> None:
    """Workers of one run say nothing: who distributes the tests hears of all."""
    path = os.environ.get("EXONET_SUMMARY")
    if path and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(Plugin(Path(path)))


def table(tests: list[Tried]) -> str:
    slowest = sorted(tests, key=lambda test: -test.seconds)[:SLOWEST]
    reasons = Counter(test.skipped for test in tests if test.skipped)
    failed = sum(test.failed for test in tests)
    lines = ["the slowest tests:", *(f"{test.seconds:8.1f} s  {test.name}" for test in slowest)]
    lines += [f"{sum(reasons.values()):,} skipped" + (":" if reasons else "")]
    lines += [f"{count:8}    {reason}" for reason, count in reasons.most_common()]
    passed = len(tests) - failed - sum(reasons.values())
    return "\n".join([*lines, f"{passed:,} tests passed" + (f", {failed:,} failed" if failed else "")])


def main(path: str) -> None:
    print(table([Tried(*json.loads(line)) for line in Path(path).read_text().splitlines()]))


if __name__ == "__main__":
    main(sys.argv[1])
