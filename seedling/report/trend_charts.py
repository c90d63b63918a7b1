"""Charts of a workspace's runs over time, for history.html and for Prefect's artifacts."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from seedling.pipeline import stage_kinds
from seedling.records.intervals import EstimateRecord
from seedling.records.run_trend import RunPoint
from seedling.report.charts import CONFIG, LEAF, LINE, SOFT, draw

MAX_RUNS_IN_CHART = 60
MAX_AXIS_LABELS = 4
CHART_WIDTH, CHART_HEIGHT = 330, 170
# Readable on white and on black, and distinguishable with color vision deficiency (Okabe and Ito 2008).
STAGE_COLORS = ("#0072b2", "#56b4e9", "#009e73", "#8fc31f", "#e69f00", "#cc79a7", "#8c8c8c")
PAPER_COLORS = {LEAF: "#1f7a4d", SOFT: "#5b6b63", LINE: "#dde5e0", "var(--paper)": "#ffffff"}


def accuracy_chart(points: Sequence[RunPoint]) -> Markup | None:
    """Accuracy with its interval per run; None if no run has one."""
    spec = _accuracy_spec(points)
    return None if spec is None else draw(_accuracy_in_words(points), spec, CHART_WIDTH, CHART_HEIGHT)


def accuracy_image(points: Sequence[RunPoint]) -> str | None:
    """The accuracy chart as an SVG image in a data URL with fixed colors, for pages outside Seedling."""
    import vl_convert

    spec = _accuracy_spec(points)
    if spec is None:
        return None
    full_spec = {"width": 560, "height": 180, "description": _accuracy_in_words(points), "config": CONFIG, **spec}
    text = json.dumps({**full_spec, "background": "#ffffff", "padding": 12})
    for variable, color in PAPER_COLORS.items():
        text = text.replace(variable, color)
    svg: str = vl_convert.vegalite_to_svg(json.loads(text), vl_version="5.20")
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def log_loss_chart(points: Sequence[RunPoint]) -> Markup | None:
    """Log-loss with its interval per run; None if no run has one."""
    estimates = [point.log_loss for point in _newest(points) if point.log_loss]
    if not estimates:
        return None
    values = [{"run": number, **_ends(point.log_loss)} for number, point in _numbered(points) if point.log_loss]
    spec = _interval_spec(values, points, "log-loss", ".2f", {"zero": False})
    last = estimates[-1]
    words = f"Log-loss of {len(values)} runs; the last one {last.value:.3f} [{last.low:.3f}, {last.high:.3f}]."
    return draw(words, spec, CHART_WIDTH, CHART_HEIGHT)


def rows_chart(points: Sequence[RunPoint]) -> Markup | None:
    """Rows of the dataset per run; None if no run recorded them."""
    values = [{"run": number, "rows": point.rows} for number, point in _numbered(points) if point.rows is not None]
    if not values:
        return None
    words = f"Rows kept by validate in {len(values)} runs, from {values[0]['rows']:,} to {values[-1]['rows']:,}."
    return draw(words, _bars(values, points, "rows", "rows"), CHART_WIDTH, CHART_HEIGHT)


def label_issues_chart(points: Sequence[RunPoint]) -> Markup | None:
    """Likely label errors per run; None if no run recorded them."""
    values = [
        {"run": number, "issues": point.label_issues}
        for number, point in _numbered(points)
        if point.label_issues is not None
    ]
    if not values:
        return None
    words = f"Likely label errors in {len(values)} runs; {values[-1]['issues']:,} in the last one."
    return draw(words, _bars(values, points, "issues", "likely label errors"), CHART_WIDTH, CHART_HEIGHT)


def durations_chart(points: Sequence[RunPoint]) -> Markup | None:
    """Seconds per stage, stacked, per run; None if no stage was run."""
    values = [
        {"run": number, "stage": kind.replace("_", "-"), "seconds": point.seconds[kind], "order": order}
        for number, point in _numbered(points)
        for order, kind in enumerate(stage_kinds())
        if point.seconds.get(kind)
    ]
    if not values:
        return None
    last = _newest(points)[-1]
    color = {
        "field": "stage",
        "type": "nominal",
        "title": None,
        "scale": {"domain": [kind.replace("_", "-") for kind in stage_kinds()], "range": list(STAGE_COLORS)},
        "legend": {"orient": "bottom", "columns": 4, "labelColor": SOFT, "labelFontSize": 12, "symbolType": "square"},
    }
    spec = {
        "data": {"values": values},
        "mark": {"type": "bar", "width": _bar_width(points)},
        "encoding": {
            "x": _run_axis(points),
            "y": {"field": "seconds", "type": "quantitative", "title": "seconds", "axis": {"tickCount": 5}},
            "color": color,
            "order": {"field": "order"},
        },
    }
    words = f"Seconds per stage in {len(_newest(points))} runs; {last.total_seconds:.0f} in the last one."
    return draw(words, spec, CHART_WIDTH, CHART_HEIGHT)


def _accuracy_spec(points: Sequence[RunPoint]) -> dict[str, Any] | None:
    values = [{"run": number, **_ends(point.accuracy)} for number, point in _numbered(points) if point.accuracy]
    if not values:
        return None
    return _interval_spec(values, points, "accuracy", ".0%", {"zero": False, "domainMax": 1, "nice": False})


def _ends(estimate: EstimateRecord) -> dict[str, float]:
    """The value and the ends of its interval, for a specification of Vega-Lite."""
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _accuracy_in_words(points: Sequence[RunPoint]) -> str:
    last = [point.accuracy for point in points if point.accuracy][-1]
    return (
        f"Accuracy of {len(_newest(points))} runs; the last one {100 * last.value:.1f} % "
        f"[{100 * last.low:.1f} %, {100 * last.high:.1f} %]."
    )


def _interval_spec(
    values: list[dict[str, Any]], points: Sequence[RunPoint], title: str, form: str, scale: dict[str, Any]
) -> dict[str, Any]:
    """A dot per run with its interval as a bar, and a thin line through the dots."""
    up = {"type": "quantitative", "title": title, "scale": scale, "axis": {"format": form, "tickCount": 5}}
    across = _run_axis(points)
    value = {"field": "value", **up}
    line = {"mark": {"type": "line", "color": LEAF, "strokeWidth": 1, "opacity": 0.5}}
    interval = {"mark": {"type": "rule", "color": LEAF, "strokeWidth": 4, "strokeCap": "round", "opacity": 0.35}}
    dots = {"mark": {"type": "point", "size": 60, "filled": True, "opacity": 1, "color": LEAF}}
    return {
        "data": {"values": values},
        "layer": [
            {**interval, "encoding": {"x": across, "y": {"field": "low", **up}, "y2": {"field": "high"}}},
            {**line, "encoding": {"x": across, "y": value}},
            {**dots, "encoding": {"x": across, "y": value}},
        ],
    }


def _bars(values: list[dict[str, Any]], points: Sequence[RunPoint], field: str, title: str) -> dict[str, Any]:
    axis = {"tickCount": 5, "format": ",d", "tickMinStep": 1}
    scale = {"domain": [0, max(1, *(1.05 * value[field] for value in values), 1)], "nice": False}
    return {
        "data": {"values": values},
        "mark": {"type": "bar", "color": LEAF, "opacity": 0.75, "width": _bar_width(points)},
        "encoding": {
            "x": _run_axis(points),
            "y": {"field": field, "type": "quantitative", "title": title, "axis": axis, "scale": scale},
        },
    }


def _bar_width(points: Sequence[RunPoint]) -> float:
    return min(40.0, 0.6 * CHART_WIDTH / len(_newest(points)))


def _run_axis(points: Sequence[RunPoint]) -> dict[str, Any]:
    """Axis of the runs at equal distances, some of them labeled with the date or time."""
    newest = _newest(points)
    step = max(1, -(-len(newest) // MAX_AXIS_LABELS))
    labeled = list(range(len(newest) - 1, -1, -step))[::-1]
    same_day = len({point.day[:10] for point in newest}) == 1
    days = [point.day[11:] if same_day else point.day[5:10] for point in newest]
    axis = {
        "values": labeled,
        "labelExpr": f"{json.dumps(days)}[datum.value]",
        "grid": False,
        "labelAngle": 0,
        "title": f"runs of {newest[0].day[:10]}" if same_day else "runs, by date",
    }
    scale = {"domain": [-0.6, len(newest) - 0.4], "nice": False, "zero": False}
    return {"field": "run", "type": "quantitative", "scale": scale, "axis": axis}


def _numbered(points: Sequence[RunPoint]) -> list[tuple[int, RunPoint]]:
    return list(enumerate(_newest(points)))


def _newest(points: Sequence[RunPoint]) -> Sequence[RunPoint]:
    return points[-MAX_RUNS_IN_CHART:]
