# SPDX-License-Identifier: MIT
"""What `scripts/bench` runs: every row of what the issues promise as "Speed", by name."""

import sys

from exonet.lab.bench import Row, main
from tests.bench.bench_bind import bind
from tests.bench.bench_capacity import capacity
from tests.bench.bench_churn import churn
from tests.bench.bench_demux import demux
from tests.bench.bench_demux_compile import compile_
from tests.bench.bench_echo import echo, idle, ping
from tests.bench.bench_path import path
from tests.bench.bench_spread import spread
from tests.bench.bench_stages import stages
from tests.bench.bench_time import pace
from tests.bench.bench_trace import load, stream

ROWS: dict[str, Row] = {
    "path": path,
    "load": load,
    "stream": stream,
    "echo": echo,
    "ping": ping,
    "idle": idle,
    "pace": pace,
    "capacity": capacity,
    "bind": bind,
    "churn": churn,
    "demux": demux,
    "compile": compile_,
    "spread": spread,
    "stages": stages,
}

if __name__ == "__main__":
    sys.exit(main(ROWS))
