# SPDX-License-Identifier: MIT
"""Does the virtual clock's cost model, calibrated now, predict what runs reach?"""

from collections.abc import Iterator

from exonet.lab.bench import Context, Figure, Target
from exonet.lab.calibrate import KINDS, RUNS, Calibration


def capacity(context: Context) -> Iterator[Figure]:
    """A calibrated cost model's capacity, by kind of LibOS (inline), beside that of runs: medians of five"""
    calibration = Calibration(repeat=context.size(15, 1), frames=None if context.size(1, 0) else 2000)
    calibration.measure()
    for kind, found in zip(KINDS, calibration.capacities, strict=True):
        details = {"runs": RUNS, "bytes": found.size, "host": found.host.to_json()}
        yield Figure(f"{kind}: predicted", "frames/s", (found.predicted,), details=details)
        yield Figure(f"{kind}: reached", "frames/s", (found.measured.median,), details=details)
        off = abs(found.predicted / found.measured.median - 1)
        busy = ", the host was busy" if found.host.busy else ""
        yield Figure(f"{kind}: off by{busy}", "of it", (off,), Target(0.2, at_most=True), details)
