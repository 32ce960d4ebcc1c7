# SPDX-License-Identifier: MIT
"""The exceptions of exonet.

    ExonetError
    ├── UsageError            the caller's mistake: exit code 2
    │   ├── CaptureError          a capture file that cannot be read
    │   ├── FilterError           a filter that cannot be parsed or decomposed
    │   │   └── UndecomposableError   it means something, but is no small union of conjuncts
    │   ├── InterfaceError        a device that cannot be made or attached
    │   └── MissingError          a tool, library or privilege that is not there
    ├── RunError              the run failed: exit code 1
    │   ├── ConservationError     the ledger does not balance
    │   ├── DeniedError           not authorised (capability, right, region or epoch)
    │   ├── ConflictError         it would take what another binding holds
    │   ├── ExhaustedError        a quota, table, ring or the memory is full
    │   └── LibOSError            a LibOS broke the protocol, crashed or hung
    └── KernelBug             an invariant of the kernel itself is broken

A message names the thing, the value and what would be right.
"""

import errno

#: The exit code of what Ctrl-C ended.
INTERRUPTED = 130
#: What writing a file can meet that is nobody's mistake: the run failed.
OUTPUT_ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG)


class ExonetError(Exception):
    """Root of everything exonet raises on purpose."""

    exit_code = 1


class UsageError(ExonetError):
    """The caller asked for something that cannot be."""

    exit_code = 2


class CaptureError(UsageError):
    """A capture file is missing, empty, not a capture, or of a link type that is not Ethernet."""


class FilterError(UsageError):
    """A filter cannot be parsed, or does not decompose into conjuncts."""


class UndecomposableError(FilterError):
    """libpcap compiles a filter, but it does not decompose into conjuncts."""


class InterfaceError(UsageError):
    """A network device cannot be made, attached or configured."""


class MissingError(UsageError):
    """A tool, a library or a privilege is missing; the message says what to install or who to be."""


class RunError(ExonetError):
    """The run failed."""


class ConservationError(RunError):
    """offered + copies != delivered + dropped + in flight, somewhere in the ledger."""


class DeniedError(RunError):
    """A capability does not cover what was asked, or has been revoked."""


class ConflictError(RunError):
    """Another binding, page owner or ring holds it."""


class ExhaustedError(RunError):
    """A quota, a table, a ring or the memory is full."""


class LibOSError(RunError):
    """A LibOS broke the protocol, crashed or hung."""


class KernelBug(ExonetError):
    """An invariant of the kernel is broken: please report it."""


def not_written(what: str, error: OSError) -> ExonetError:
    """The exception for an output file: UsageError where it cannot be made, RunError where it takes no more."""
    kind = RunError if error.errno in OUTPUT_ERRORS else UsageError
    return kind(f"{what}: cannot be written: {error.strerror or error}")
