# SPDX-License-Identifier: MIT
"""LLVM's intermediate language as text, instruction by instruction: one function under way, with fresh names."""

__all__ = ["Lines"]


class Lines:
    """The body of a function. Names of values are strings with their %; addresses are of type ptr."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._names = 0

    def __str__(self) -> str:
        return "\n".join(self._lines)

    def __call__(self, instruction: str) -> str:
        """Adds an instruction that gives a result; returns its name."""
        self._names += 1
        name = f"%t{self._names}"
        self._lines.append(f"  {name} = {instruction}")
        return name

    def do(self, instruction: str) -> None:
        self._lines.append(f"  {instruction}")

    def label(self, name: str) -> None:
        self._lines.append(f"{name}:")

    def at(self, pointer: str, offset: int | str) -> str:
        """pointer + offset bytes; a string is an i64 name."""
        return self(f"getelementptr i8, ptr {pointer}, i64 {offset}")

    def slot(self, array: str, kind: str, index: str) -> str:
        """The address of array[index], index an i64."""
        return self(f"getelementptr {kind}, ptr {array}, i64 {index}")

    def load(self, kind: str, pointer: str, align: int = 1) -> str:
        return self(f"load {kind}, ptr {pointer}, align {align}")

    def store(self, kind: str, value: str | int, pointer: str, align: int) -> None:
        self.do(f"store {kind} {value}, ptr {pointer}, align {align}")

    def widened(self, kind: str, pointer: str, align: int) -> str:
        """What is loaded, as an i64 without a sign."""
        return self(f"zext {kind} {self.load(kind, pointer, align)} to i64")

    def prefetch(self, pointer: str) -> None:
        self.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 3, i32 1)")

    def loop(self, name: str, count: str) -> str:
        """Opens a loop of `count` (i64) turns; label next<name> ends one, `close` the loop. Returns its counter."""
        self.do(f"br label %before{name}")
        self.label(f"before{name}")
        self.do(f"br label %head{name}")
        self.label(f"head{name}")
        self.do(f"%i{name} = phi i64 [ 0, %before{name} ], [ %i{name}.more, %next{name} ]")
        self.do(f"%done{name} = icmp eq i64 %i{name}, {count}")
        self.do(f"br i1 %done{name}, label %after{name}, label %body{name}")
        self.label(f"body{name}")
        return f"%i{name}"

    def close(self, name: str) -> None:
        """The end of a loop's body: the next turn."""
        self.label(f"next{name}")
        self.do(f"%i{name}.more = add nuw nsw i64 %i{name}, 1")
        self.do(f"br label %head{name}")
        self.label(f"after{name}")
