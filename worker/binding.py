"""The arguments of a call, fitted to the signature of its handler.

The signature is read once, at decoration. The check is light: a value is compared with the outer type of a simple
annotation (`list[int]`: a list), and an annotation that says nothing about what can arrive (a dataclass, a type
variable, a name that does not resolve) checks nothing. As for type checkers an int is a float and a bool is an int.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin
from uuid import UUID

from ..common.body import decode_call, encode_result
from ..common.errors import BindError
from ..common.names import did_you_mean
from ..common.wire import Body
from .context import Context

if TYPE_CHECKING:
    from inspect import Parameter

Types = frozenset[type]

FITTING_MAX = 256  # shapes of calls that a handler remembers: most have one or two

# What `common.body` can deliver: these types themselves, never a subclass, so `type(value) in types` decides.
ARRIVING: Types = frozenset(
    {NoneType, bool, int, float, str, bytes, list, dict, tuple, set, frozenset} | {datetime, date, Decimal, UUID}
)


class Param(NamedTuple):
    name: str
    types: Types  # of the values that are let in
    annotation: str  # as it is shown; empty: none
    required: bool
    by_name_only: bool

    def __str__(self) -> str:
        text = f"{self.name}: {self.annotation}" if self.annotation else self.name
        return text if self.required else f"{text} = ..."


class Binding:
    """`arguments` turns what a caller sent into the arguments of one handler.

    `context` is the name of the parameter that takes the Context, None if the handler wants none.
    """

    __slots__ = (
        "name",
        "params",
        "rest",
        "context",
        "_by_position",
        "_types",
        "_rest_types",
        "_required",
        "_complete",
        "_leads",
        "_fitting",
    )

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        """`name` is shown in errors. Raises TypeError when calls cannot be bound to the signature."""
        params, rest, context, leads = _read(name, function)
        self.name = name
        self.params = params
        self.rest = rest  # `**rest`
        self.context = context
        self._by_position = [param.name for param in params if not param.by_name_only]
        self._types = {param.name: param.types for param in params}
        if context:
            self._types[context] = frozenset()  # nothing a caller sends may take its place
        self._rest_types: Types = rest.types if rest else frozenset()
        self._required = frozenset(param.name for param in params if param.required)
        self._leads = leads  # the context is the first argument
        self._complete = len(params) if rest is None else -1  # so many known names are all that there are
        self._fitting: set[tuple[type, ...]] = set()  # types of arguments by position

    def read(self, body: Body, context: object) -> tuple[list[Any], dict[str, Any]]:
        """What to call the handler with, of the body of a call. ProtocolError, or BindError as `arguments`."""
        args, kwargs = decode_call(body)
        return self.arguments(args, kwargs, context)

    write = staticmethod(encode_result)  # of what the handler returned; raises TypeError

    def arguments(self, args: list[Any], kwargs: dict[str, Any], context: object) -> tuple[list[Any], dict[str, Any]]:
        """What to call the handler with. BindError names handler and argument."""
        if not args:
            self._check(kwargs)
        elif kwargs or tuple(map(type, args)) not in self._fitting:
            self._check(self._placed(args, kwargs))
            if not kwargs and len(self._fitting) < FITTING_MAX:
                self._fitting.add(tuple(map(type, args)))
        if self.context is None:
            return args, kwargs
        if self._leads:
            return [context, *args], kwargs
        return [], {**self._placed(args, kwargs), self.context: context}

    def describe(self) -> list[str]:
        """The signature as callers see it: ["symbol: str", "quantity: int = ..."]."""
        shown = [str(param) for param in self.params if not param.by_name_only]
        named = [str(param) for param in self.params if param.by_name_only]
        rest = [f"**{self.rest}"] if self.rest else []
        return shown + (["*", *named] if named else []) + rest

    def _check(self, kwargs: dict[str, Any]) -> None:
        types, rest = self._types, self._rest_types
        for name, value in kwargs.items():
            if type(value) not in types.get(name, rest):
                raise self._misfit(name, value)
        if len(kwargs) != self._complete and not self._required <= kwargs.keys():
            raise self._missing(kwargs)

    def _placed(self, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        names = self._by_position
        if len(args) > len(names):
            takes = f"{len(names)} argument{'s' if len(names) != 1 else ''} by position"
            raise BindError(f"{self.name}: takes {takes}, {len(args)} given")
        placed = dict(zip(names, args, strict=False))
        if not kwargs:
            return placed
        for name in placed:
            if name in kwargs:
                raise BindError(f"{self.name}: argument '{name}' given by position and by name")
        return placed | kwargs

    def _misfit(self, name: str, value: object) -> BindError:
        known = [param for param in self.params if param.name == name]
        if not known and self.rest and name != self.context:
            known = [self.rest]
        if known:
            got = "None" if value is None else type(value).__name__
            expected = known[0].annotation
            return BindError(f"{self.name}: argument '{name}' must be {expected}, not {got}")
        names = [param.name for param in self.params]
        takes = f"it takes {', '.join(names)}" if names else "it takes no arguments"
        hint = did_you_mean(name[:64], names)
        return BindError(f"{self.name}: unexpected argument {name[:64]!r}{hint or '; ' + takes}")

    def _missing(self, kwargs: dict[str, Any]) -> BindError:
        missing = [param for param in self.params if param.required and param.name not in kwargs]
        names = ", ".join(f"'{param.name}'" for param in missing)
        return BindError(f"{self.name}: missing argument{'s' if len(missing) > 1 else ''} {names}")


def _read(handler: str, function: Callable[..., Any]) -> tuple[tuple[Param, ...], Param | None, str | None, bool]:
    """Parameters, `**rest`, the name of the context parameter, and whether that is the first argument."""
    from inspect import signature  # 12 ms to load, and a client never needs it

    try:
        found = list(signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise TypeError(f"{handler}: its signature cannot be read: {error}") from None
    if found and found[0].name == "self":
        raise TypeError(
            f"{handler}: a handler is a function or the method of an object: "
            "decorate `instance.method`, not the method in its class"
        )
    namespace = _namespace(function)
    params: list[Param] = []
    rest = context = None
    for index, parameter in enumerate(found):
        annotation = _resolved(parameter.annotation, namespace)
        if _is_context(parameter, annotation, index):
            if context is not None:
                raise TypeError(f"{handler}: two parameters for the context: {context}, {parameter}")
            context = parameter.name
            continue
        param = _param(handler, parameter, annotation)
        if parameter.kind is parameter.VAR_KEYWORD:
            rest = param
        else:
            params.append(param)
    leads = bool(found) and found[0].name == context and found[0].kind is not found[0].KEYWORD_ONLY
    return tuple(params), rest, context, leads


def _param(handler: str, parameter: Parameter, annotation: Any) -> Param:
    if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
        raise TypeError(
            f"{handler}: parameter '{parameter}' has no name that a caller could use; "
            "handlers take parameters by name, without `/` and `*args`"
        )
    known = annotation is not parameter.empty
    return Param(
        parameter.name,
        accepted(annotation) if known else ARRIVING,
        _shown(annotation) if known else "",
        parameter.default is parameter.empty,
        parameter.kind is parameter.KEYWORD_ONLY,
    )


def _is_context(parameter: Parameter, annotation: Any, index: int) -> bool:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    if annotation is parameter.empty:
        return index == 0 and parameter.name == "ctx"
    if isinstance(annotation, str):  # an import for type checkers only
        return annotation.rpartition(".")[2] == "Context"
    return annotation is Context or Context in get_args(annotation)


def _namespace(function: Any) -> dict[str, Any]:
    """The globals in which the annotations were written."""
    from functools import partial
    from inspect import unwrap

    while isinstance(function, partial):
        function = function.func
    function = unwrap(function)
    if not hasattr(function, "__globals__"):
        function = getattr(type(function), "__call__", None)  # noqa: B004 (an object that is called)
    found: dict[str, Any] = getattr(function, "__globals__", {})
    return found


def _resolved(annotation: Any, namespace: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, namespace)  # the application's own source, as get_type_hints does
    except Exception:
        return annotation


def accepted(annotation: Any) -> Types:
    """The types that may arrive for an annotation; all of them if it says nothing about those."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return _union(accepted(member) for member in get_args(annotation))
    if origin is Literal:
        return _union(accepted(type(value)) for value in get_args(annotation))
    if origin is Annotated:
        return accepted(get_args(annotation)[0])
    if hasattr(annotation, "__supertype__"):  # a NewType
        return accepted(annotation.__supertype__)
    if annotation is None:
        return frozenset({NoneType})
    kind = origin or annotation
    try:
        found = frozenset(arriving for arriving in ARRIVING if issubclass(arriving, kind))
    except TypeError:  # not a class
        return ARRIVING
    return (found | {int, bool} if kind is float else found) or ARRIVING


def _union(members: Iterable[Types]) -> Types:
    return frozenset().union(*members)


def _shown(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation.__qualname__
    return "None" if annotation is None else str(annotation).replace("typing.", "")
