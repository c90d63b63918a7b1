"""The subset of Jinja that `notify.template` may use: rendering any template needs little time and memory.

It has values, conditions, loops without nesting, and filters that do not lengthen a text. A short line of full Jinja
(nested loops, macros, arithmetic) could use all time and memory of a machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from jinja2.sandbox import SandboxedEnvironment

MAX_TEMPLATE_CHARACTERS = 10_000
MAX_SEPARATOR_CHARACTERS = 20
NODES = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Const),
    *(nodes.If, nodes.CondExpr, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Test),
    *(nodes.For, nodes.Tuple, nodes.Concat, nodes.Filter, nodes.Call, nodes.Keyword, nodes.Neg),
)
FILTERS = frozenset(
    {"capitalize", "count", "d", "default", "first", "int", "last", "length", "lower", "round", "title"}
    | {"tojson", "trim", "upper", "join"}
)
# The arguments of other filters can lengthen a text: tojson(indent=9999999999).
FILTERS_WITH_ARGUMENTS = frozenset({"d", "default", "round"})
METHODS = frozenset({"items", "keys", "values"})


def render(template: str, values: Mapping[str, Any]) -> str:
    """Renders the template. Raises jinja2.TemplateError for a syntax error and for anything outside the subset."""
    if len(template) > MAX_TEMPLATE_CHARACTERS:
        raise TemplateError(f"it has {len(template):,} characters, and at most {MAX_TEMPLATE_CHARACTERS:,} are allowed")
    environment = SandboxedEnvironment(autoescape=False)
    try:
        _check(environment.parse(template), within_loop=False)
        return environment.from_string(template).render(values)
    except RecursionError as error:
        raise TemplateError("it is nested too deeply") from error


def _check(node: nodes.Node, *, within_loop: bool) -> None:
    for child in node.iter_child_nodes():
        if not isinstance(child, NODES):
            raise TemplateSyntaxError(f"{type(child).__name__} is not supported", child.lineno)
        if isinstance(child, nodes.For):
            if within_loop or child.recursive:
                raise TemplateSyntaxError("nested and recursive loops are not supported", child.lineno)
        elif isinstance(child, nodes.Filter):
            _check_filter(child)
        elif isinstance(child, nodes.Call):
            method = child.node
            if not isinstance(method, nodes.Getattr) or method.attr not in METHODS or _has_arguments(child):
                raise TemplateSyntaxError(
                    "only items(), keys() and values() may be called, without arguments", child.lineno
                )
        _check(child, within_loop=within_loop or isinstance(child, nodes.For))


def _has_arguments(node: nodes.Call | nodes.Filter) -> bool:
    return bool(node.args or node.kwargs or node.dyn_args or node.dyn_kwargs)


def _check_filter(node: nodes.Filter) -> None:
    if node.name not in FILTERS:
        raise TemplateSyntaxError(
            f"the filter '{node.name}' is not supported; use one of {', '.join(sorted(FILTERS))}", node.lineno
        )
    if node.dyn_args or node.dyn_kwargs:
        raise TemplateSyntaxError("* and ** are not supported in arguments", node.lineno)
    if node.name not in {"join", *FILTERS_WITH_ARGUMENTS} and _has_arguments(node):
        raise TemplateSyntaxError(f"arguments of the filter '{node.name}' are not supported", node.lineno)
    if node.name == "join":  # repeated joins of texts with texts would square their lengths
        separators = [*node.args, *(keyword.value for keyword in node.kwargs)]
        for separator in separators:
            if not isinstance(separator, nodes.Const) or len(str(separator.value)) > MAX_SEPARATOR_CHARACTERS:
                raise TemplateSyntaxError(
                    f"'join' takes a quoted text of up to {MAX_SEPARATOR_CHARACTERS} characters", node.lineno
                )
        if not isinstance(node.node, nodes.Name | nodes.Getattr | nodes.Getitem):
            raise TemplateSyntaxError("'join' takes a value, not another expression", node.lineno)
