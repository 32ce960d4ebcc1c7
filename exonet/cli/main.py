# SPDX-License-Identifier: MIT
"""The `exonet` command: its parser, and the one place where an error becomes a line and an exit code.

0: it ran. 1: the run failed. 2: the caller's mistake. 130: ended by Ctrl-C, with the ledger of what happened until
then.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence

from exonet.cli import attach, calibrate, drops, filter, info, libos, replay, show
from exonet.cli.common import Parser
from exonet.errors import INTERRUPTED, OUTPUT_ERRORS, ExonetError
from exonet.lab.results import version
from exonet.wording import printable

COMMANDS = (replay, attach, drops, calibrate, info, libos, filter, show)

DESCRIPTION = """\
exonet runs library operating systems (LibOSes), each with its own user-level network stack, on real packets: from a
capture file or from a TAP device. It accounts for every packet: delivered to whom, or dropped where and why.
"""

EPILOG = """\
With no arguments it replays a shipped trace of web and DNS traffic into two LibOSes and prints the ledger.

examples:
  exonet                                                       see what it does
  exonet info trace.pcapng                                     what a capture holds
  exonet replay trace.pcapng --bind web='tcp port 80' --bind dns='udp port 53'
  sudo exonet attach exo0 --host 10.7.0.1/24 --libos echo@10.7.0.2      then: ping 10.7.0.2
  exonet drops trace.pcap --clock virtual --out report/        loss against load and ring size

exit codes: 0 it ran, 1 the run failed, 2 something in the command is wrong, 130 ended by Ctrl-C
"""


def parser() -> Parser:
    top = Parser(prog="exonet", description=DESCRIPTION, epilog=EPILOG)
    top.add_argument("--version", action="version", version=f"exonet {version()}")
    commands = top.add_subparsers(title="commands", dest="command", metavar="COMMAND", parser_class=Parser)
    for command in COMMANDS:
        command.add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code. Nothing expected leaves a traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_standard_streams()
    _end_by_signal()
    try:
        parsed = parser().parse_args(arguments or replay.demo())
        code = int(parsed.run(parsed, arguments))
        sys.stdout.flush()
    except ExonetError as error:
        print(f"exonet: error: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("exonet: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python must not complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in OUTPUT_ERRORS:
            raise
        print(f"exonet: error: standard output: {error.strerror}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        print("exonet: error: out of memory; a smaller --memory, --pages or --rings needs less", file=sys.stderr)
        return 1
    return code


def _end_by_signal() -> None:
    """SIGTERM ends a command as Ctrl-C does, also before and after its run: what it had open is closed."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _open_standard_streams() -> None:
    """A closed standard stream becomes /dev/null: the next descriptor opened would take its number, and LibOS processes
    would write what they print into it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # lives as long as we do


if __name__ == "__main__":
    sys.exit(main())
