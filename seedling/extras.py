"""The optional features: which packages each extra of pyproject.toml installs, and the error if one is missing.

    require("crawl", "A source of kind crawl")

Modules import these packages only within functions, or are themselves imported only by the feature. A plain
`pip install seedling-ml` therefore trains, reports and predicts without them.
"""

from __future__ import annotations

from importlib.util import find_spec

from seedling.errors import MissingExtra

EXTRA_MODULES: dict[str, tuple[str, ...]] = {
    "boxes": ("faster_coco_eval",),
    "crawl": ("scrapy", "parsel", "lxml", "cssselect", "jmespath"),
    "browser": ("scrapy_playwright",),
    "dask": ("distributed",),
    "encoder": ("transformers", "peft"),
    "hub": ("datasets",),
    "launch": ("accelerate",),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "serve": ("fastapi", "starlette", "uvicorn", "h11", "anyio", "prometheus_client"),
}
"""Extra → the modules that its feature imports."""


def install_command(extra: str) -> str:
    """The shell command that installs an extra."""
    return f"pip install 'seedling-ml[{extra}]'"


def missing_modules(extra: str) -> list[str]:
    """The modules of an extra that cannot be imported here."""
    return [module for module in EXTRA_MODULES[extra] if not _is_installed(module)]


def require(extra: str, feature: str) -> None:
    """Raise MissingExtra if a module of the extra is not installed. feature: the subject of the message."""
    if missing := missing_modules(extra):
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtra(
            f"{feature} needs {', '.join(missing)}, which {verb} not installed: {install_command(extra)}"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):  # ValueError: the entry in sys.modules has no specification
        return False
