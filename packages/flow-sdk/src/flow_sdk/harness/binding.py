"""Binds an execution's input to the parameters of an entry point, by its annotations.

Code block: the input's keys are keyword arguments. Workflow and agent: the same, but a function with one parameter
whose name is none of the keys takes the whole input. Transform: the first parameter takes the whole input. A parameter
named `context` gets the execution's config when the input has no key of that name.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUserError

from flow_sdk.harness.failure import Refused, refuse_invalid
from flow_sdk.wire.status import Kind

_PLAIN_TYPES: Final = (str, int, float, bool, dict, list)
"""JSON has them; a value of just that type needs no validation."""
_WHOLE_INPUT_NAMES: Final = frozenset({"data", "input", "input_data", "payload"})
_CONTEXT: Final = "context"
_NOTHING: Final = inspect.Parameter.empty


class Signature:
    """An entry point's parameters and result, with the annotations resolved."""

    def __init__(self, function: Callable[..., Any], kind: str) -> None:
        self._kind = kind
        try:
            parameters = inspect.signature(function).parameters.values()
            hints = _hints(inspect.unwrap(function))
        except (TypeError, ValueError, NameError) as exc:
            raise Refused("invalid_signature", f"the entry point's signature cannot be read: {exc}") from exc
        self._open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        named = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        self._parameters = [p.replace(annotation=hints.get(p.name, _NOTHING)) for p in named]
        self._result: Any = hints.get("return", _NOTHING)

    def bind(self, data: Any, context: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The positional and keyword arguments for this input.

        Raises:
            Refused: `invalid_input`, with the fields.
        """
        takers = self._takers(data)
        extra = {_CONTEXT: dict(context)} if self._wants_context(data) else {}
        if self._takes_whole(data, takers):
            if not takers:
                return [], extra
            first = takers[0]
            value = _validate(first.annotation, data, "input")
            return ([value], extra) if first.kind is not first.KEYWORD_ONLY else ([], {first.name: value, **extra})
        if not isinstance(data, Mapping):
            expected = ", ".join(repr(parameter.name) for parameter in takers) or "no keys"
            raise Refused(
                "invalid_input",
                f"the input is {data!r:.200}, expected an object with {expected}",
                [{"field": "input", "message": f"expected an object with {expected}", "value": repr(data)[:200]}],
            )
        given = typing.cast("Mapping[str, Any]", data)
        values = self._by_name(takers, given) | extra
        positional = [values.pop(p.name) for p in self._parameters if p.kind is p.POSITIONAL_ONLY and p.name in values]
        return positional, values

    def check_result(self, value: Any) -> Any:
        """The result as its annotation says.

        Raises:
            Refused: `invalid_output`.
        """
        return _validate(self._result, value, "output")

    def input_schema(self) -> dict[str, Any]:
        takers = self._takers({})
        if self._kind == Kind.TRANSFORM or (len(takers) == 1 and self._takes_whole({}, takers)):
            return _schema(takers[0].annotation, "validation") if takers else {}
        model = self._model(takers)
        try:
            return model.model_json_schema(by_alias=True)
        except PydanticUserError as exc:
            raise _refuse_annotations(takers) from exc

    def output_schema(self) -> dict[str, Any]:
        return _schema(self._result, "serialization")

    def _takers(self, data: Any) -> list[inspect.Parameter]:
        """The parameters that the input fills."""
        if not self._wants_context(data):
            return self._parameters
        return [parameter for parameter in self._parameters if parameter.name != _CONTEXT]

    def _wants_context(self, data: Any) -> bool:
        has = any(parameter.name == _CONTEXT for parameter in self._parameters)
        if not has or self._kind == Kind.TRANSFORM:
            return has and len(self._parameters) > 1
        return not (isinstance(data, Mapping) and _CONTEXT in data)

    def _takes_whole(self, data: Any, takers: list[inspect.Parameter]) -> bool:
        if self._kind == Kind.TRANSFORM:
            return True
        if self._kind == Kind.CODE_BLOCK or len(takers) != 1:
            return False
        parameter = takers[0]
        if isinstance(data, Mapping) and parameter.name in data:
            return False
        annotation = parameter.annotation
        return (
            parameter.name in _WHOLE_INPUT_NAMES or annotation in (_NOTHING, Any, dict) or _is_object_type(annotation)
        )

    def _by_name(self, takers: list[inspect.Parameter], given: Mapping[str, Any]) -> dict[str, Any]:
        names = {parameter.name for parameter in takers}
        plain = (self._open or given.keys() <= names) and all(
            _is_plain(parameter.annotation, given[parameter.name])
            if parameter.name in given
            else parameter.default is not _NOTHING
            for parameter in takers
        )
        if plain:  # Nothing to convert: saves building a model, which costs more than most calls.
            return dict(given)
        try:
            model = self._model(takers).model_validate(dict(given))
        except ValidationError as exc:
            raise refuse_invalid("invalid_input", "input", exc) from exc
        fields = [(parameter.name, f"field_{index}") for index, parameter in enumerate(takers)]
        # Only what was given: a missing value is left to the function's own default.
        values = {name: getattr(model, field) for name, field in fields if field in model.model_fields_set}
        return values | (model.model_extra or {})

    def _model(self, takers: list[inspect.Parameter]) -> type[BaseModel]:
        """Fields have neutral names and the parameters' names as aliases: any name is a legal parameter."""
        fields: dict[str, Any] = {}
        for index, parameter in enumerate(takers):
            annotation = Any if parameter.annotation is _NOTHING else parameter.annotation
            default = ... if parameter.default is _NOTHING else parameter.default
            fields[f"field_{index}"] = (annotation, Field(default, alias=parameter.name, title=parameter.name))
        config = ConfigDict(extra="allow" if self._open else "forbid", arbitrary_types_allowed=True)
        try:
            return create_model("Input", __config__=config, **fields)
        except PydanticUserError as exc:
            raise _refuse_annotations(takers) from exc


def _refuse_annotations(parameters: list[inspect.Parameter]) -> Refused:
    """Names the parameters whose types no JSON can be turned into."""
    details: list[dict[str, Any]] = []
    for parameter in parameters:
        if parameter.annotation is _NOTHING:
            continue
        try:
            TypeAdapter[Any](parameter.annotation).json_schema()
        except PydanticUserError:
            # As its author wrote it: the component's module has a name that only we know.
            shown = re.sub(r"(?<![\w.])component\.", "", inspect.formatannotation(parameter.annotation))
            message = f"parameter {parameter.name!r}: no value of {shown} can be made from JSON"
            details.append({"field": parameter.name, "message": message})
    problems = "; ".join(detail["message"] for detail in details) or "the annotations cannot be used together"
    hint = "(hint: use types that JSON has, dataclasses or pydantic models)"
    return Refused("invalid_signature", f"{problems} {hint}", details)


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The annotations, those that are text resolved."""
    annotations: Mapping[str, Any] | None = getattr(function, "__annotations__", None)
    if annotations is not None and all(isinstance(annotation, type) for annotation in annotations.values()):
        return annotations  # Nothing to resolve, which is most of what reading a signature costs.
    return typing.get_type_hints(function, include_extras=True)


def _is_plain(annotation: Any, value: Any) -> bool:
    return annotation is _NOTHING or annotation is Any or (annotation in _PLAIN_TYPES and type(value) is annotation)


def _is_object_type(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, (BaseModel, Mapping)):
        return True
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _validate(annotation: Any, value: Any, what: str) -> Any:
    if _is_plain(annotation, value):
        return value
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    except PydanticUserError:
        return value  # A class that pydantic knows nothing about: nothing to check against.
    try:
        return adapter.validate_python(value)
    except ValidationError as exc:
        raise refuse_invalid(f"invalid_{what}", what, exc) from exc


def _schema(annotation: Any, mode: typing.Literal["validation", "serialization"]) -> dict[str, Any]:
    if annotation is _NOTHING:
        return {}
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        return adapter.json_schema(mode=mode)
    except PydanticUserError:
        return {}
