# SPDX-License-Identifier: MIT
"""What a command is to write, checked before it runs: it can be written, and nothing is written over that is read, or
that another option writes.
"""

import argparse
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from exonet.errors import UsageError

__all__ = ["Output", "check_outputs", "check_suffix", "outputs"]

#: What a file's name says of its format, by option; the first is the default for what is no file.
SUFFIXES = {"--fates": (".parquet", ".csv"), "--pcap-out": (".pcapng", ".pcap")}

#: An option and its file, as it was given.
Output = tuple[str, Path | str | None]


def outputs(arguments: argparse.Namespace) -> list[Output]:
    """Of the options that add_outputs, add_pcap_out and add_trace define."""
    places = {"--json": "json", "--fates": "fates", "--pcap-out": "pcap_out", "--trace": "event_log"}
    return [(option, getattr(arguments, name, None)) for option, name in places.items()]


def check_outputs(written: Sequence[Output], captures: Sequence[Path] = (), costs: str | None = None) -> None:
    """UsageError says what could not be written, or would destroy a file. costs: the argument of --costs."""
    taken = {_file(path): "one of the captures that are read" for path in captures}
    if costs is not None and Path(costs).is_file():
        from exonet.kernel.schedule import MODELS  # late: a run without such a file needs no kernel here

        if costs not in MODELS:
            taken[_file(Path(costs))] = "the file of --costs"
    for option, given in written:
        if given is None or (option, str(given)) == ("--json", "-"):
            continue
        if str(given) == "-":
            raise UsageError(f"{option} -: it does not go to standard output: name a file")
        path = Path(given)
        if not path.parent.is_dir():
            raise UsageError(f"output file {path}: there is no directory {path.parent}")
        if not os.access(path.parent, os.W_OK) or path.is_dir():
            raise UsageError(f"output file {path}: it cannot be written there")
        file, own = _file(path), f"the file of {option}"
        if file is not None and taken.setdefault(file, own) != own:
            raise UsageError(f"{option} {path}: it is {taken[file]}")
    for option, given in written:
        if given is not None and option in SUFFIXES:
            check_suffix(option, Path(given), SUFFIXES[option])


def check_suffix(option: str, path: Path, known: Sequence[str]) -> None:
    """UsageError where a file's name says that it is something else; a device or a pipe has no format in its name."""
    if known and path.suffix not in known and (path.is_file() or not path.exists()):
        told = f'"{path.suffix}" is not known' if path.suffix else "it says no format"
        pack = ", and compress it afterwards" if path.suffix in (".gz", ".zst", ".xz", ".bz2") else ""
        raise UsageError(f"{option} {path}: {told}; end it with {' or '.join(known)}{pack}")


def _file(path: Path) -> tuple[int, int] | Path | None:
    """What two names of one file have in common; None for what may be named twice: a device, a pipe."""
    try:
        found = path.stat()
    except OSError:
        return Path(os.path.realpath(path))  # as far as its links go
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None
