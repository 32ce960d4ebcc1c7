# SPDX-License-Identifier: MIT
"""The first pass: which language is a filter written in?

pcap-filter text goes to libpcap as it is. Text that names a header field (`Udp.dport`) is a Python expression: it is
parsed with `ast`, never evaluated, and only comparisons of fields with literals combined with and/or/not (or & | ~)
are understood. In text `Udp.dport in [53, 5353]`, `Ip.src in "10.0.0.0/8"`, `1000 <= Udp.dport <= 2000` and `Tcp.flags
& 2 == 2` work as well.
"""

import ast
import re
from difflib import get_close_matches

from exonet.errors import FilterError
from exonet.filters.fields import HEADERS, Expression, Field, Masked, Operand
from exonet.filters.written import FieldError
from exonet.wording import shown

_NAMES = {header.__name__: header for header in HEADERS}
_FIELD = re.compile(rf"\b(?:{'|'.join(_NAMES)})\.[a-z]")
_MIRRORED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
}
MAX_TEXT = 65536
MAX_DEPTH = 100
SHOWN_PART = 80
#: `Name.name` beside an operator of Python's.
_MEANT = re.compile(r"\b([A-Za-z]\w{0,30})\.([A-Za-z]\w{0,30})(?=\s*(?:[=!<>]=|[<>]|&(?!&)|(?:not\s+)?in\b))")
_BARE = re.compile(rf"(?<![\w.])({'|'.join(_NAMES)})\s*(?:[=!<>]=|[<>]|&(?!&)|(?:not\s+)?in\b)")
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
MIXED = "beside a field such as Udp.dport all must be comparisons of fields: pcap-filter's words cannot stand there"
#: What is often written instead of Python, the first that is found is said.
_HINTS = (
    (re.compile(r"[^=!<>]=[^=]"), "write == to compare"),
    (re.compile(r"(?:[=<>]|\bin)\s*\d+\.\d+\.\d+\.\d+/"), 'a network is a text, beside `in`: Ip.src in "10.0.0.0/8"'),
    (
        re.compile(r"(?:[=<>]|\bin)\s*(?:\d+\.\d+\.\d+\.\d|[0-9a-fA-F]*:)"),
        'an address is a text: Ip.src == "10.0.0.1"',
    ),
    (re.compile(r"&&|\|\||!(?!=)"), "write and, or, not"),
    (re.compile(r"[A-Za-z0-9)\"]\s+(?!and\b|or\b|not\b|in\b|is\b)[A-Za-z0-9(\"]"), MIXED),
)
#: Methods of a field's object, and how they are said in text.
_IN_TEXT = {
    "within": 'write `in`: Ip.src in "10.0.0.0/8"',
    "one_of": "write `in`: Udp.dport in [53, 5353]",
    "between": "write 1000 <= Udp.dport <= 2000",
}


def joins(text: str) -> int:
    """How often a filter's text joins or negates conditions, or a little more: of these depends what it costs to
    compile.
    """
    count = text.count
    signs = count("|") + count("&") + count("!") - count("||") - count("&&")
    return signs + count("and") + count("or") - count("port") + count("not")


def to_pcap(source: str | Expression) -> str:
    """The pcap-filter text of a filter in either language. FilterError where a Python expression is none."""
    if isinstance(source, Expression):
        return source.text
    if not isinstance(source, str):
        raise FilterError(f"filter {shown(repr(source), SHOWN_PART)}: must be text or an expression")
    if len(source) > MAX_TEXT:
        raise FilterError(f'filter "{shown(source, SHOWN_PART)}": {len(source)} characters; at most {MAX_TEXT}')
    if source.islower():  # the cheap way out: every header's name has a capital
        return source
    return parse(source).text if _FIELD.search(source) else source


def parse(text: str) -> Expression:
    """A Python expression's text as an expression."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _Reader(text).expression(tree.body)
    except FieldError as reason:
        raise FilterError(f'filter "{shown(text)}": {reason.why}') from None
    except UnicodeEncodeError as reason:
        raise FilterError(f'filter "{shown(text)}": character {reason.start + 1} is no UTF-8') from None
    except (SyntaxError, ValueError, MemoryError) as reason:
        why = shown(str(getattr(reason, "msg", reason)))
        raise FilterError(f'filter "{shown(text)}": {why}{_hint(text)}') from None
    except RecursionError:
        raise FilterError(f'filter "{shown(text, SHOWN_PART)}": nested too deeply') from None


def _hint(text: str) -> str:
    """What is meant by a text that names fields and is no Python; "" where nothing is known."""
    bare = _QUOTED.sub('""', text)
    return next((f"; {hint}" for pattern, hint in _HINTS if pattern.search(bare)), "")


def misspelt(text: str) -> str:
    """What is wrong with the first field of a text that is no pcap-filter, but looks as if it compared fields; ""
    where it does not.
    """
    for layer, field in _MEANT.findall(text):
        if not isinstance(vars(_NAMES.get(layer, object)).get(field), Field):
            return f"{layer}.{field}: {_unknown(layer, field)}"
    bare = _BARE.search(text)
    return f"{bare[1]}: is no field; {bare[1]} has {', '.join(_fields(bare[1]))}" if bare else ""


def _unknown(layer: str, field: str) -> str:
    fields = [f"{name}.{each}" for name in _NAMES for each in _fields(name)]
    asked = f"{layer}.{field}".lower()
    close = get_close_matches(asked, [name.lower() for name in fields], n=2)
    meant = [name for name in fields if name.lower() in (close if asked not in close else (asked,))]
    why = f"there is no such layer; there are {', '.join(_NAMES)}"
    if layer in _NAMES:
        why = f"there is no such field; {layer} has {', '.join(_fields(layer))}"
    return f"{why}; did you mean {' or '.join(meant)}?" if meant else why


def _fields(layer: str) -> list[str]:
    return [name for name, value in vars(_NAMES[layer]).items() if isinstance(value, Field)]


class _Reader:
    """Turns syntax nodes into expressions, fields and literals; refuses anything else with the text it stands for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _refuse(self, node: ast.AST, why: str) -> FilterError:
        return FilterError(f'filter "{shown(self._text)}": {shown(ast.unparse(node), SHOWN_PART)}: {why}')

    def expression(self, node: ast.expr, depth: int = 0) -> Expression:
        if depth > MAX_DEPTH:
            raise FilterError(f'filter "{shown(self._text, SHOWN_PART)}": nested more than {MAX_DEPTH} deep')
        if isinstance(node, ast.BoolOp):
            parts = [self.expression(value, depth + 1) for value in node.values]
            result = parts[0]
            for part in parts[1:]:
                result = result & part if isinstance(node.op, ast.And) else result | part
            return result
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
            return ~self.expression(node.operand, depth + 1)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            left, right = self.expression(node.left, depth + 1), self.expression(node.right, depth + 1)
            return left & right if isinstance(node.op, ast.BitAnd) else left | right
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _IN_TEXT:
            raise self._refuse(node, f"is for objects; in text {_IN_TEXT[node.func.attr]}")
        mixed = f"; {MIXED}" if isinstance(node, ast.Name) and node.id not in _NAMES else ""
        raise self._refuse(node, f"is not a comparison of a field, such as Udp.dport == 53{mixed}")

    def _comparison(self, node: ast.Compare) -> Expression:
        operands = [node.left, *node.comparators]
        if len(node.ops) == 2:
            return self._chain(node)
        if len(node.ops) > 2:
            raise self._refuse(node, "compares too many things; use `and`")
        left, operator, right = operands[0], node.ops[0], operands[1]
        if isinstance(left, ast.Constant):
            mirrored = _MIRRORED.get(type(operator))
            if mirrored is None:
                raise self._refuse(node, "the field must stand on the left of `in`")
            left, operator, right = right, mirrored(), left
        return self._compare(self._field(left), operator, right, node)

    def _chain(self, node: ast.Compare) -> Expression:
        """a <= field <= b."""
        field = self._field(node.comparators[0])
        if isinstance(field, Masked) or not all(isinstance(op, ast.Lt | ast.LtE) for op in node.ops):
            raise self._refuse(node, "must be low <= field <= high; put parentheses around comparisons beside & and |")
        low, high = (field.number(self._literal(end)) for end in (node.left, node.comparators[1]))
        after, before = (isinstance(operator, ast.Lt) for operator in node.ops)
        return field.between(low + after, high - before)

    def _compare(self, field: Field | Masked, operator: ast.cmpop, right: ast.expr, node: ast.expr) -> Expression:
        if isinstance(operator, ast.In | ast.NotIn) and isinstance(field, Field):
            inside = self._inside(field, right)
            return inside if isinstance(operator, ast.In) else ~inside
        value = self._literal(right)
        if isinstance(operator, ast.Eq):
            return field == value
        if isinstance(operator, ast.NotEq):
            return field != value
        if isinstance(field, Masked) or not isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE):
            raise self._refuse(node, "this comparison is not understood")
        if isinstance(operator, ast.Lt):
            return field < value
        if isinstance(operator, ast.LtE):
            return field <= value
        return field > value if isinstance(operator, ast.Gt) else field >= value

    def _inside(self, field: Field, right: ast.expr) -> Expression:
        if isinstance(right, ast.List | ast.Tuple | ast.Set):
            return field.one_of([self._literal(element) for element in right.elts])
        value = self._literal(right)
        if not isinstance(value, str):
            raise self._refuse(right, "`in` takes a list of values or a network such as '10.0.0.0/8'")
        return field.within(value)

    def _field(self, node: ast.expr) -> Field | Masked:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd):
            field, mask = self._field(node.left), self._literal(node.right)
            if isinstance(field, Field) and isinstance(mask, int):
                return field & mask
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            layer = node.value.id
            named = vars(_NAMES.get(layer, object)).get(node.attr)
            if isinstance(named, Field):
                return named
            raise self._refuse(node, _unknown(layer[:SHOWN_PART], node.attr[:SHOWN_PART]))
        raise self._refuse(node, "is not a field such as Udp.dport; put parentheses around comparisons beside & and |")

    def _literal(self, node: ast.expr) -> Operand:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            number = self._literal(node.operand)
            if isinstance(number, int):
                return -number
        if isinstance(node, ast.Constant) and isinstance(node.value, int | str) and not isinstance(node.value, bool):
            return node.value
        raise self._refuse(node, "is not a number or a text; put parentheses around comparisons beside & and |")
