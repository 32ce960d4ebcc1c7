# SPDX-License-Identifier: MIT
"""How much a test tries: enough for its rule in the default run, ten times as much or more in the long one.

EXONET_LONG=seconds makes a run a long one; what goes on for as long as one likes goes on for so many. conftest.py
loads the hypothesis profile of the same name: in the default run the examples are always the same ones.
"""

import os

from hypothesis import HealthCheck, settings

LONG = float(os.environ.get("EXONET_LONG") or "0")
PROFILE = "long" if LONG else "default"
ALL_CHECKS = list(HealthCheck)

settings.register_profile(
    "default", deadline=None, derandomize=True, database=None, max_examples=30, suppress_health_check=ALL_CHECKS
)
settings.register_profile(
    "long", deadline=None, database=None, max_examples=2000, print_blob=True, suppress_health_check=ALL_CHECKS
)


def tries(default: int, long: int = 0) -> int:
    """So many in the default run, and in a long one `long`, or ten times as many."""
    return (long or 10 * default) if LONG else default
