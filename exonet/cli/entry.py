# SPDX-License-Identifier: MIT
"""Where the `exonet` console command begins, before what takes a while to import: Ctrl-C is one line from here on,
and what it finds once the result is out does not change the exit code.
"""

import signal
import sys

from exonet.errors import INTERRUPTED


def main() -> int:
    """Runs the command line and returns its exit code."""
    try:
        from exonet.cli.main import main as run  # late: it is what Ctrl-C may come into

        code = run()
    except KeyboardInterrupt:
        print("exonet: interrupted", file=sys.stderr)
        code = INTERRUPTED
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left is the interpreter's own end
    return code


if __name__ == "__main__":
    sys.exit(main())
