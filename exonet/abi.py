# SPDX-License-Identifier: MIT
"""The one module that touches `exonet._kernel`: its `ffi`, its `lib`, and what makes exceptions of its error codes."""

import os

from exonet import errors
from exonet._kernel import ffi, lib

__all__ = ["ABI_VERSION", "NO_OWNER", "PAGE_SIZE", "check", "ffi", "lib", "reason_name", "stage_name"]

ABI_VERSION: int = lib.EXO_ABI_VERSION
PAGE_SIZE: int = lib.EXO_PAGE_SIZE
NO_OWNER: int = lib.EXO_NO_OWNER

_EXCEPTIONS: dict[int, tuple[type[errors.ExonetError], str]] = {
    lib.EXO_E_INVALID: (errors.UsageError, "a value is out of range"),
    lib.EXO_E_MEMORY: (errors.ExhaustedError, "out of memory"),
    lib.EXO_E_FULL: (errors.ExhaustedError, "a table, ring or quota is full"),
    lib.EXO_E_NOT_FOUND: (errors.UsageError, "there is no such thing"),
    lib.EXO_E_BUSY: (errors.ConflictError, "it is taken: bound, pinned, posted or owned by somebody else"),
    lib.EXO_E_END: (errors.RunError, "the source has no more frames"),
    lib.EXO_E_SYSTEM: (errors.RunError, "a system call failed"),
    lib.EXO_E_FORMAT: (errors.CaptureError, "the capture breaks its format"),
    lib.EXO_E_DENIED: (errors.DeniedError, "not authorised"),
    lib.EXO_E_CONFLICT: (errors.ConflictError, "another binding holds it"),
}


def check(code: int, what: str) -> int:
    """Returns `code` if it is 0 or a count, else raises the exception that a negative EXO_E_ code stands for.

    `what` names the thing and the value, as in "pages 7..9 of environment 2".
    """
    if code >= 0:
        return code
    kind, meaning = _EXCEPTIONS.get(code, (errors.KernelBug, f"unknown error code {code}"))
    if code == lib.EXO_E_SYSTEM:
        meaning = f"{meaning}: {os.strerror(ffi.errno)}"
    raise kind(f"{what}: {meaning}")


def reason_name(reason: int) -> str:
    """`stage.reason` of an exo_reason, e.g. "ring.no_buffer"."""
    name = lib.exo_reason_name(reason)
    if name == ffi.NULL:
        raise ValueError(f"reason {reason}: there is none such")
    return str(ffi.string(name), "ascii")


def stage_name(stage: int) -> str:
    """The name of an exo_stage, e.g. "ring"."""
    name = lib.exo_stage_name(stage)
    if name == ffi.NULL:
        raise ValueError(f"stage {stage}: there is none such")
    return str(ffi.string(name), "ascii")
