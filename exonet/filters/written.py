# SPDX-License-Identifier: MIT
"""What was written, for the refusal of a comparison: `Udp.dport == 70000` is refused by that text.

A method of fields.py that builds an expression is decorated with the form in which people write it. It costs nothing
unless something is refused. In text the reader (syntax.py) knows better what was written, and takes the reason alone.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from exonet.errors import FilterError
from exonet.wording import shown

__all__ = ["SHOWN", "FieldError", "said", "written"]

Method = TypeVar("Method", bound=Callable[..., Any])
SHOWN = 80
#: Beyond this Python does not write every number in decimal.
MOST_BITS = 256


class FieldError(FilterError):
    """A comparison of a field that cannot be. why: without it; written: the comparison, once it is known."""

    def __init__(self, why: str, written: str = "") -> None:
        super().__init__(f'filter "{written}": {why}' if written else why)
        self.why = why
        self.written = written


def said(value: object) -> str:
    """An operand as it was written, or its beginning."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return f"a number of {value.bit_length()} bits"
    return shown(repr(value), SHOWN)


def written(form: str) -> Callable[[Method], Method]:
    """A method that builds an expression; what it refuses is told with what was written: the field's name and the
    operands in `form`.
    """

    def decorate(method: Method) -> Method:
        @wraps(method)
        def told(self: Any, *operands: Any) -> Any:
            try:
                return method(self, *operands)
            except FieldError as error:
                if error.written:
                    raise
                raise FieldError(error.why, form.format(self, *map(said, operands))) from None

        return told  # type: ignore[return-value]  # of the same signature

    return decorate
