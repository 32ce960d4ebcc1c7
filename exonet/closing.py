# SPDX-License-Identifier: MIT
"""What is given back by `close()`: leaving its `with` block is closing it."""

from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing:
    """A context manager by `close()`, which is idempotent."""

    __slots__ = ()

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
