# SPDX-License-Identifier: MIT
"""A wire around a wire: what impair, tee and pace share in Python. It owns the wire inside and closes it after
itself.
"""

from typing import Any

from exonet.wire.link import Wire


class Wrapper(Wire):
    """A wire that holds another one. A port is attached to the outermost; closing that closes all of them, from the
    outside in.
    """

    inner: Wire

    def __init__(self, native: Any, name: str, inner: Wire) -> None:
        super().__init__(native, name)
        self.inner = inner

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "inner": self.inner.describe()}

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.inner.close()
