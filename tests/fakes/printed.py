# SPDX-License-Identifier: MIT
"""What a LibOS printed, a JSON object a line."""

import json
from typing import Any

from exonet.kernel.environment import Environment


def printed(env: Environment) -> list[dict[str, Any]]:
    """The objects so far. Output is read as it arrives: what has no line end yet is not whole."""
    text = env.output.decode(errors="replace")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].split("\n") if line.startswith("{")]
