"""`applies:` - when does a rule apply? A small, total, three-valued part of the Common Expression Language (CEL), over the INPUT only.

    text ──celpy parses──→ tree ──compiled once──→ closures ──called per item──→ True | False | Unknown

Parsing is the kept library's (cel-python); evaluation is ours, because its evaluator takes 0.6 ms an expression (ours: a few
microseconds) and lets a missing value slip through user functions as text. Here a value that is absent, of the wrong type or out of
range raises ``Unknown``; ``&&`` and ``||`` are Kleene's (false && unknown is false), everything else passes Unknown on. So a missing
fact can never turn into "applies" or "does not apply". There are no loops but ``all`` and ``exists`` over finite lists; patterns are
literal and run on RE2: every expression ends, quickly.

Variables: ``user`` (text of the last user message), ``system`` (system messages), ``messages`` (role, content), ``language``, ``facts``.
Functions: ``size lower contains startsWith endsWith matches capture has`` and the macros ``all`` and ``exists``; text functions may
also be written as methods, ``user.contains("x")``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import celpy
import lark
import re2
from celpy.celparser import CELParseError
from celpy.evaluation import celstr

from norma.base.errors import NormaError, nearest
from norma.spec import values
from norma.spec.types import Item
from norma.spec.values import Unknown

Scope = Mapping[str, Any]
Closure = Callable[[Scope], Any]

VARIABLES = ("facts", "language", "messages", "system", "user")
MAX_LENGTH = 2000  # characters
MAX_DEPTH = 60  # levels that calculate; keeps evaluation far from Python's recursion limit


def variables(item: Item) -> dict[str, Any]:
    """What an expression may look at: the input, never an answer."""
    return {
        "user": item.user,
        "system": "\n".join(m["content"] for m in item.messages if m["role"] == "system"),
        "messages": item.messages,
        "language": item.language,
        "facts": item.facts,
    }


class Expression:
    """A compiled expression. ``Expression(text, where)`` raises NormaError for anything that can be known to be wrong before an input."""

    def __init__(self, text: str, where: object = None) -> None:
        self.text = text
        self.constant: bool | None = {"true": True, "false": False}.get(text.strip())
        self._run: Closure = _compile_text(text, where)

    def __call__(self, scope: Scope) -> bool:
        """True or False; raises Unknown when an input lacks what the expression asks for."""
        if self.constant is not None:
            return self.constant
        value = self._run(scope)
        if not isinstance(value, bool):
            raise Unknown(f"the expression gives {values.kind(value)}, not true or false")
        return value


def _compile_text(text: str, where: object) -> Closure:
    if len(text) > MAX_LENGTH:
        raise NormaError(f"the expression is longer than {MAX_LENGTH} characters", where=where, mend="Put the decision into a fact")
    try:
        tree = celpy.Environment().compile(text)
        return _Compiler(where).closure(tree, frozenset())
    except CELParseError as error:
        place = f" at line {error.line}, character {error.column}" if error.line and error.column else ""
        mend = 'Write for example facts.about == true or language == "en"'
        raise NormaError(f"not a CEL expression{place}: {text}", where=where, mend=mend) from None


@lru_cache(maxsize=1024)
def regex(pattern: str) -> Any:
    """A pattern compiled by RE2 (linear time). Raises ValueError with RE2's reason."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0]
        raise ValueError(reason.decode() if isinstance(reason, bytes) else str(reason)) from None


# name -> (number of arguments, function); the text functions check for themselves
_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "size": (1, values.size),
    "lower": (1, lambda text: values.want(text, "string", "lower").lower()),
    "contains": (2, lambda text, part: values.want(part, "string", "contains") in values.want(text, "string", "contains")),
    "startsWith": (2, lambda text, part: values.want(text, "string", "startsWith").startswith(values.want(part, "string", "startsWith"))),
    "endsWith": (2, lambda text, part: values.want(text, "string", "endsWith").endswith(values.want(part, "string", "endsWith"))),
}
_PATTERNS = ("capture", "matches")  # (text, literal pattern)
_MACROS = ("all", "exists")  # list.all(variable, condition)
_NAMES = (*_FUNCTIONS, *_PATTERNS, *_MACROS, "has")
_RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "relation_eq": values.equal,
    "relation_ne": lambda left, right: not values.equal(left, right),
    "relation_in": values.contains,
    "relation_lt": lambda left, right: values.order(left, right, operator.lt),
    "relation_le": lambda left, right: values.order(left, right, operator.le),
    "relation_gt": lambda left, right: values.order(left, right, operator.gt),
    "relation_ge": lambda left, right: values.order(left, right, operator.ge),
}
_CHAIN = frozenset(
    ("expr", "conditionalor", "conditionaland", "relation", "addition", "multiplication", "unary", "member", "primary", "paren_expr")
)


def _step(node: Any) -> Any:
    """Skip the grammar's one-child levels, so that the depth of closures is that of the expression."""
    while isinstance(node, lark.Tree) and node.data in _CHAIN and len(node.children) == 1:
        node = node.children[0]
    return node


class _Compiler:
    """Turns a parse tree into closures; everything unknown is an error here and not at the first input."""

    def __init__(self, where: object) -> None:
        self.where, self.depth = where, 0

    def error(self, what: str, mend: str | None = None) -> NormaError:
        return NormaError(what, where=self.where, mend=mend)

    def closure(self, node: Any, bound: frozenset[str]) -> Closure:
        node = _step(node)
        name = str(node.data)
        handler = getattr(self, f"_{name}", None)
        if handler is None:
            mend = f"Use variables, literals, operators and {', '.join(sorted(_NAMES))}"
            raise self.error(f"this part of CEL is not used in specs ({name})", mend)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.error("the expression is nested too deeply", "Put the decision into a fact")
        result: Closure = handler(node, bound)
        self.depth -= 1
        return result

    def _expr(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        condition, yes, no = (self.closure(child, bound) for child in node.children)
        return lambda s: yes(s) if values.want(condition(s), "bool", "'?'") else no(s)

    def _conditionalor(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        return self._kleene(node, bound, decisive=True)

    def _conditionaland(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        return self._kleene(node, bound, decisive=False)

    def _kleene(self, node: lark.Tree[Any], bound: frozenset[str], decisive: bool) -> Closure:
        left, right = (self.closure(child, bound) for child in node.children)
        sign = "'||'" if decisive else "'&&'"

        def run(scope: Scope) -> Any:
            unknown: Unknown | None = None
            for side in (left, right):
                try:
                    if values.want(side(scope), "bool", sign) is decisive:
                        return decisive
                except Unknown as error:
                    unknown = unknown or error
            if unknown is not None:
                raise unknown
            return not decisive

        return run

    def _relation(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        head, last = node.children
        compare = _RELATIONS[str(head.data)]
        left, right = self.closure(head.children[0], bound), self.closure(last, bound)
        return lambda s: compare(left(s), right(s))

    def _addition(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        head, last = node.children
        name = str(head.data)
        left, right = self.closure(head.children[0], bound), self.closure(last, bound)
        return lambda s: values.arithmetic(name, left(s), right(s))

    _multiplication = _addition

    def _unary(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        sign, operand = str(node.children[0].data), self.closure(node.children[1], bound)
        if sign == "unary_not":
            return lambda s: not values.want(operand(s), "bool", "'!'")
        return lambda s: -values.want(operand(s), "number", "'-'")

    def _literal(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        token: Any = node.children[0]
        value: Any
        match token.type:
            case "STRING_LIT" | "MLSTRING_LIT":
                value = str(celstr(token))
            case "INT_LIT":
                value = int(token.value, 0) if "x" in token.value else int(token.value)
            case "FLOAT_LIT":
                value = float(token.value)
            case "BOOL_LIT":
                value = token.value == "true"
            case "NULL_LIT":
                value = None
            case _:
                raise self.error(f"this kind of literal is not used in specs: {token.value}")
        return lambda s: value

    def _list_lit(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        parts = [self.closure(child, bound) for child in self._arguments(node.children)]
        return lambda s: [part(s) for part in parts]

    def _ident(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        name = str(node.children[0])
        if name not in bound and name not in VARIABLES:
            raise self.error(f"unknown variable '{name}' in an expression", nearest(name, {*VARIABLES, *bound}))
        return lambda s: s[name]

    def _member_dot(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        container, key = self.closure(node.children[0], bound), str(node.children[1])
        return lambda s: values.member(container(s), key)

    def _member_index(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        container, key = self.closure(node.children[0], bound), self.closure(node.children[1], bound)
        return lambda s: values.member(container(s), key(s))

    def _ident_arg(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        return self._call(str(node.children[0]), self._arguments(node.children[1:]), bound)

    def _member_dot_arg(self, node: lark.Tree[Any], bound: frozenset[str]) -> Closure:
        return self._call(str(node.children[1]), [node.children[0], *self._arguments(node.children[2:])], bound)

    @staticmethod
    def _arguments(children: list[Any]) -> list[Any]:
        return list(children[0].children) if children and children[0] is not None else []

    def _call(self, name: str, arguments: list[Any], bound: frozenset[str]) -> Closure:
        if name not in _NAMES:
            raise self.error(f"unknown function '{name}' in an expression", nearest(name, _NAMES))
        count = _FUNCTIONS[name][0] if name in _FUNCTIONS else 3 if name in _MACROS else 1 if name == "has" else 2
        if len(arguments) != count:
            usage = {"has": "has(facts.name)"}.get(name, f"list.{name}(variable, condition)" if name in _MACROS else None)
            raise self.error(f"'{name}' takes {count} argument{'s' if count > 1 else ''}, not {len(arguments)}", usage and f"Write {usage}")
        if name in _PATTERNS:
            return self._pattern(name, arguments, bound)
        if name in _MACROS:
            return self._macro(name, arguments, bound)
        if name == "has":
            return self._has(arguments[0], bound)
        function, parts = _FUNCTIONS[name][1], [self.closure(argument, bound) for argument in arguments]
        if count == 1:
            only = parts[0]
            return lambda s: function(only(s))
        first, second = parts
        return lambda s: function(first(s), second(s))

    def _pattern(self, name: str, arguments: list[Any], bound: frozenset[str]) -> Closure:
        literal = _step(arguments[1])
        if literal.data != "literal" or not literal.children[0].type.endswith("STRING_LIT"):
            raise self.error(f"the pattern of '{name}' must stand in the expression as a literal text")
        try:
            pattern = regex(str(celstr(literal.children[0])))
        except ValueError as error:
            raise self.error(f"not a regular expression ({error})", "RE2 syntax is used: no look-around, no back-references") from None
        text = self.closure(arguments[0], bound)
        if name == "matches":
            return lambda s: pattern.search(values.want(text(s), "string", name)) is not None
        if pattern.groups < 1:
            raise self.error("the pattern of 'capture' has no group", "Put ( ) around what should be captured")

        def capture(scope: Scope) -> str:
            found = pattern.search(values.want(text(scope), "string", name))
            return (found.group(1) or "") if found else ""

        return capture

    def _has(self, argument: Any, bound: frozenset[str]) -> Closure:
        node = _step(argument)
        if node.data != "member_dot":
            raise self.error("'has' asks for a key", "Write has(facts.name)")
        container, key = self.closure(node.children[0], bound), str(node.children[1])
        return lambda s: key in values.want(container(s), "map", "has")

    def _macro(self, name: str, arguments: list[Any], bound: frozenset[str]) -> Closure:
        variable = _step(arguments[1])
        if variable.data != "ident":
            raise self.error(f"'{name}' needs the name of a variable", f"Write list.{name}(m, condition)")
        bound_name = str(variable.children[0])
        source, condition = self.closure(arguments[0], bound), self.closure(arguments[2], bound | {bound_name})
        decisive = name == "exists"

        def run(scope: Scope) -> Any:
            unknown: Unknown | None = None
            for value in values.want(source(scope), "list", name):
                try:
                    if values.want(condition({**scope, bound_name: value}), "bool", name) is decisive:
                        return decisive
                except Unknown as error:
                    unknown = unknown or error
            if unknown is not None:
                raise unknown
            return not decisive

        return run
