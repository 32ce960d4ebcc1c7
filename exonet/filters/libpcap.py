# SPDX-License-Identifier: MIT
"""libpcap through cffi's ABI mode: filter text to a classic BPF program, and the oracle that runs one.

No development headers are needed, only the shared library of the Debian package libpcap0.8. A `Program` keeps its
instructions alive; `matches()` is libpcap's own answer (R5), and `addresses` is the pair (`bpf_filter`,
instructions) that C code which filters captures calls by pointer.
"""

import functools
import struct
from typing import Any, NamedTuple

from cffi import FFI

from exonet.errors import FilterError, MissingError
from exonet.wording import printable, shown

SONAMES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
DLT_EN10MB = 1
SNAPLEN = 262144
NETMASK_UNKNOWN = 0xFFFFFFFF
INSTRUCTION_BYTES = 8

_CDEF = """
typedef struct pcap pcap_t;
struct bpf_insn { uint16_t code; uint8_t jt; uint8_t jf; uint32_t k; };
struct bpf_program { unsigned int bf_len; struct bpf_insn *bf_insns; };
pcap_t *pcap_open_dead(int linktype, int snaplen);
void pcap_close(pcap_t *p);
int pcap_compile(pcap_t *p, struct bpf_program *fp, const char *text, int optimize, unsigned int netmask);
void pcap_freecode(struct bpf_program *fp);
char *pcap_geterr(pcap_t *p);
const char *pcap_lib_version(void);
char *bpf_image(const struct bpf_insn *instruction, int number);
unsigned int bpf_filter(const struct bpf_insn *program, const uint8_t *packet, unsigned int wire_len, unsigned int len);
"""


_FFI = FFI()
_FFI.cdef(_CDEF)


@functools.cache  # a library that cffi has opened is never given back
def _opened(names: tuple[str, ...]) -> Any:
    for name in names:
        try:
            return _FFI.dlopen(name)
        except OSError:
            continue
    raise MissingError(f"libpcap: none of {', '.join(names)} can be loaded; install the Debian package libpcap0.8")


class Instruction(NamedTuple):
    """One instruction of classic BPF: jump offsets are relative to the next one."""

    code: int
    jt: int
    jf: int
    k: int


class Program:
    """A compiled filter: `text`, its `code` as the machine has it, and libpcap's own interpreter over it."""

    __slots__ = ("_run", "code", "text")

    def __init__(self, run: Any, text: str, code: bytes) -> None:
        self.text = text
        self.code = code
        self._run = run

    @property
    def _native(self) -> Any:
        return _FFI.from_buffer("struct bpf_insn[]", self.code)

    @property
    def instructions(self) -> tuple[Instruction, ...]:
        return tuple(Instruction(*fields) for fields in struct.iter_unpack("=HBBI", self.code))

    def matches(self, frame: bytes, wire_len: int | None = None) -> bool:
        """Would libpcap take the frame? `wire_len`: its length on the wire, where a snaplen cut it."""
        return bool(self._run(self._native, frame, len(frame) if wire_len is None else wire_len, len(frame)))

    @property
    def addresses(self) -> tuple[int, int]:
        """The addresses of libpcap's `bpf_filter` and of the instructions: valid while this object lives."""
        return int(_FFI.cast("uintptr_t", self._run)), int(_FFI.cast("uintptr_t", self._native))


class Libpcap:
    """The shared library, opened, with a handle for each snaplen asked for: of one thread. MissingError where it is
    not installed.
    """

    __slots__ = ("_handles", "_lib", "_program")

    def __init__(self, names: tuple[str, ...] = SONAMES) -> None:
        self._lib = _opened(names)
        self._handles: dict[int, Any] = {}
        self._program = _FFI.new("struct bpf_program *")

    def _handle(self, snaplen: int) -> Any:
        handle = self._lib.pcap_open_dead(DLT_EN10MB, snaplen)
        if handle == _FFI.NULL:
            raise MemoryError("libpcap: out of memory")
        self._handles[snaplen] = kept = _FFI.gc(handle, self._lib.pcap_close)
        return kept

    @property
    def version(self) -> str:
        """As libpcap names itself, e.g. "libpcap version 1.10.3"."""
        return _text(_FFI.string(self._lib.pcap_lib_version()))

    def listing(self, code: bytes) -> tuple[str, ...]:
        """A program as `tcpdump -d` prints it, a line an instruction."""
        native = _FFI.from_buffer("struct bpf_insn[]", code)
        return tuple(_text(_FFI.string(self._lib.bpf_image(native + i, i))) for i in range(len(native)))

    def compile(self, text: str, *, optimize: bool = True, snaplen: int = SNAPLEN) -> Program:
        """Compiles pcap-filter(7) text for Ethernet. FilterError carries libpcap's own message."""
        if "\0" in text:
            raise FilterError(f'filter "{shown(text)}": it holds a NUL character')
        try:
            encoded = text.encode()
        except UnicodeEncodeError as error:
            raise FilterError(f'filter "{shown(text)}": character {error.start + 1} is no UTF-8') from None
        lib = self._lib
        program: Any = self._program
        handle = self._handles.get(snaplen) or self._handle(snaplen)
        if lib.pcap_compile(handle, program, encoded, optimize, NETMASK_UNKNOWN) != 0:
            reason = printable(_text(_FFI.string(lib.pcap_geterr(handle))))
            raise FilterError(f'filter "{shown(text)}": {reason}')
        code = _FFI.buffer(program.bf_insns, program.bf_len * INSTRUCTION_BYTES)[:]
        lib.pcap_freecode(program)
        return Program(lib.bpf_filter, text, code)


def _text(raw: Any) -> str:
    return bytes(raw).decode(errors="replace")
