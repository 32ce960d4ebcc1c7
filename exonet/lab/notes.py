# SPDX-License-Identifier: MIT
"""What a person must know of a capture beside the numbers; the same whether it is loaded or streamed."""

from collections.abc import Iterator

from exonet.clock import format_duration
from exonet.errors import UsageError
from exonet.wire.capture import Interface, Trace, link_type_name
from exonet.wording import counted

__all__ = ["changed_times", "check_trace", "odd_times", "trace_notes"]

#: Exponents of if_tsresol beyond which 64 bits of ticks hold no whole second.
_SECOND = {10: 19, 2: 63}


def check_trace(trace: Trace) -> None:
    """UsageError where a whole capture holds nothing to replay."""
    if trace.count == 0 and not trace.broken:
        raise UsageError(f"capture {trace.path}: it holds no packets; there is nothing to replay")


def trace_notes(trace: Trace | None) -> tuple[str, ...]:
    """Where it breaks, what is not Ethernet, what the snaplen cut, what times were changed. None: no capture."""
    if trace is None:
        return ()
    notes = []
    if trace.broken:
        before = counted(trace.count, "record") if trace.count else "nothing"
        notes.append(f"{trace.broken}; {before} before that can be replayed")
    notes += link_type_notes(trace)
    if trace.snapped:
        notes.append(
            f"{trace.path}: the snaplen cut {trace.snapped:,} of {counted(trace.count, 'packet')}; what is left is "
            "replayed as captured"
        )
    return (*notes, *(f"{trace.path}: {text}" for text in changed_times(trace)))


def link_type_notes(trace: Trace) -> list[str]:
    """What becomes of packets that are not Ethernet."""
    notes, whole = [], counted(trace.count, "packet")
    if trace.converted:
        notes.append(f"{trace.path}: {trace.converted:,} of {whole} converted to Ethernet frames")
    if trace.not_ethernet:
        refused = dict.fromkeys(link_type_name(each.link_type) for each in trace.interfaces if each.refused)
        some = "none" if trace.not_ethernet == trace.count else f"{trace.count - trace.not_ethernet:,}"
        notes.append(
            f"{trace.path}: {some} of {whole} can be replayed: link type {', '.join(refused)}; what cannot counts as "
            "source.link_type"
        )
    return notes


def changed_times(trace: Trace) -> Iterator[str]:
    """Times that are not what the file says."""
    times = trace.times
    if times.clamped:
        yield f"{counted(times.clamped, 'time')} before 1970 or after 2262-04-11, taken as that day"
    if times.fractions:
        yield f"{counted(times.fractions, 'time')} with a fraction of a second or more, added to the seconds as it is"


def odd_times(trace: Trace) -> Iterator[str]:
    """All that is unusual about a capture's times."""
    times = trace.times
    if times.backward:
        yield f"{counted(times.backward, 'step')} back, by {format_duration(times.step_back)} at most"
    if times.long_gaps:
        longest = f"{format_duration(times.longest_gap)} before packet {times.longest_before + 1:,}"
        yield f"{counted(times.long_gaps, 'gap')} longer than a minute, the longest {longest}"
    if times.stamped < trace.count:
        yield f"{counted(trace.count - times.stamped, 'packet')} without a timestamp"
    yield from changed_times(trace)
    for number, interface in enumerate(trace.interfaces):
        yield from (f"interface {number}: {text}" for text in _odd_ticks(interface))


def _odd_ticks(interface: Interface) -> Iterator[str]:
    base, exponent = interface.ticks
    if exponent > _SECOND[base]:
        yield f"ticks of {base}^-{exponent} s, of which 64 bits hold no second"
    elif base == 2 or exponent > 9:
        yield f"ticks of {base}^-{exponent} s, rounded down to nanoseconds"
    elif exponent not in (6, 9):
        yield f"ticks of {base}^-{exponent} s"
    if interface.offset_s:
        yield f"{interface.offset_s:,} s are added (if_tsoffset)"
