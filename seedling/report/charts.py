"""The report's charts: Vega-Lite specifications, drawn as SVG when the page is written.

The page needs no network and no script to show them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

from seedling.records.candidates import LearningCurvePointRecord
from seedling.records.crawl_rates import CrawlRatePoint
from seedling.records.evaluation import ExpectedAccuracyRecord, ExtrapolatedCurveRecord

LEAF, SOFT, LINE = "var(--leaf)", "var(--soft)", "var(--line)"  # colors of the page, light or dark
CONFIG = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": SOFT,
        "titleColor": SOFT,
        "titleFontWeight": "normal",
        "titleFontSize": 12,
        "labelFontSize": 12,
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        "labelPadding": 6,
    },
}
MAX_POINTS_PER_LINE = 200  # more are not visible
MIN_CRAWL_POINTS = 4


def draw(description: str, spec: Mapping[str, Any], width: int, height: int) -> Markup:
    """The chart as SVG in the page's colors, scaled to the available width. description: for screen readers."""
    import vl_convert

    full_spec = {"width": width, "height": height, "description": description, "config": CONFIG, **spec}
    svg: str = vl_convert.vegalite_to_svg(full_spec, vl_version="5.20")
    start, rest = svg.split(">", 1)
    box = start[start.index("viewBox=") :]
    wide = float(box.split('"')[1].split()[2])
    label = Markup.escape(description)
    return Markup(f'<svg class="chart" {box} style="max-width: {wide:.0f}px" role="img" aria-label="{label}">{rest}')  # noqa: S704  (Vega escapes what it draws)


def learning_curve(results: ExtrapolatedCurveRecord | None) -> Markup | None:
    """Accuracy against labels: measured points are filled, expected ones open; None without a learning curve."""
    if results is None:
        return None
    marked_points: list[tuple[str, LearningCurvePointRecord | ExpectedAccuracyRecord]] = [
        *(("points", point) for point in results.points),
        *(("expected", point) for point in results.expected),
    ]
    points = [
        {"labels": round(point.labels), "of": kind, **point.accuracy.model_dump()} for kind, point in marked_points
    ]
    measured = [(point.labels, point.accuracy.value) for point in results.points]
    expected = [(point.labels, point.accuracy.value) for point in results.expected]
    values = ", ".join(f"{100 * value:.1f} % with {round(labels):,}" for labels, value in [*measured, *expected])
    across = {
        "field": "labels",
        "type": "quantitative",
        "title": "labeled rows",
        "scale": {"type": "log", "nice": False, "padding": 18},
        "axis": {"values": sorted({point["labels"] for point in points}), "grid": False, "format": ","},
    }
    scale = {"zero": False, "domainMax": 1, "nice": False}
    up = {"type": "quantitative", "title": "accuracy", "scale": scale, "axis": {"format": ".0%", "tickCount": 6}}
    ranges = {"mark": {"type": "rule", "color": LEAF, "strokeWidth": 4, "strokeCap": "round", "opacity": 0.4}}
    dots = {"mark": {"type": "point", "size": 90, "filled": True, "opacity": 1, "stroke": LEAF, "strokeWidth": 2}}
    fill = {"condition": {"test": "datum.of === 'points'", "value": LEAF}, "value": "var(--paper)"}
    spec = {
        "data": {"values": points},
        "encoding": {"x": across},
        "layer": [
            {**ranges, "encoding": {"y": {"field": "low", **up}, "y2": {"field": "high"}}},
            {**dots, "encoding": {"y": {"field": "value", **up}, "fill": fill}},
        ],
    }
    return draw(f"Accuracy against the number of labels: {values}.", spec, 430, 200)


def risk_coverage(frame: pd.DataFrame) -> Markup | None:
    """Error rate among the covered rows against coverage; None without rows, or without errors."""
    if frame.empty or frame["error"].max() == 0:
        return None
    points = _thin(frame[["coverage", "error"]])
    full_coverage = frame.sort_values("coverage").iloc[-1]
    spec = {
        "data": {"values": points.to_dict("records")},
        "mark": {"type": "area", "color": LEAF, "opacity": 0.18, "line": {"color": LEAF, "strokeWidth": 2}},
        "encoding": {
            "x": _axis("coverage", "coverage", format=".0%", tickCount=5),
            "y": _axis("error", "error rate", format=".1%", tickCount=5),
        },
    }
    description = f"Error rate against coverage, up to {100 * full_coverage['error']:.1f} % at full coverage."
    return draw(description, spec, 250, 200)


def losses(frame: pd.DataFrame) -> Markup | None:
    """Training loss on a logarithmic scale, one line per model; None if no model is trained by gradients."""
    frame = frame[frame["loss"] > 0]
    if frame.empty:
        return None
    models = frame["model"].nunique()
    lines = pd.concat([_thin(of_model) for _, of_model in frame.groupby("model", sort=False)])
    spec = {
        "data": {"values": lines.to_dict("records")},
        "mark": {"type": "line", "color": LEAF, "opacity": 0.5, "strokeWidth": 1.5},
        "encoding": {
            "x": _axis("step", "step", tickCount=6),
            "y": {**_axis("loss", "loss", tickCount=5), "scale": {"type": "log"}},
            "detail": {"field": "model"},
        },
    }
    return draw(f"Training loss of {models} models over {int(frame['step'].max())} steps.", spec, 520, 200)


def calibration(bins: Sequence[Mapping[str, float]]) -> Markup | None:
    """Accuracy against confidence, one dot per bin, its area by the number of rows; None without rows."""
    if not bins:
        return None
    values = "; ".join(
        f"confidence {of_bin['confidence']:.2f}, accuracy {of_bin['accuracy']:.2f}, {of_bin['rows']:.0f} rows"
        for of_bin in bins
    )
    scale = {"domain": [0, 1]}
    x, y = ({**_axis(name, name, tickCount=5), "scale": scale} for name in ("confidence", "accuracy"))
    size = {"field": "rows", "type": "quantitative", "legend": None, "scale": {"range": [30, 500], "zero": True}}
    spec = {
        "layer": [
            {
                "data": {"values": [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]},
                "mark": {"type": "line", "color": SOFT, "strokeDash": [4, 4], "strokeWidth": 1},
                "encoding": {"x": x, "y": y},
            },
            {
                "data": {"values": [dict(of_bin) for of_bin in bins]},
                "mark": {"type": "point", "filled": True, "color": LEAF, "opacity": 0.75},
                "encoding": {"x": x, "y": y, "size": size},
            },
        ]
    }
    return draw(f"Accuracy against confidence: {values}.", spec, 250, 220)


def crawl_rate(points: Sequence[CrawlRatePoint]) -> Markup | None:
    """Responses per second, one line per host; None with too few points.

    Dashed: the target rate; as a band: the bounds of the host's limit.
    """
    if len(points) < MIN_CRAWL_POINTS:
        return None
    frame = pd.DataFrame([point.model_dump() for point in points])
    last = {point.host: point for point in points}
    values = "; ".join(
        f"{host}: {point.answers / point.seconds:.3g} responses per second, "
        f"{point.refusals} of {point.answers + point.refusals} requests refused"
        for host, point in last.items()
    )
    steps = frame.groupby("host")[["answers", "seconds"]].diff(2)  # over about a second
    measured = frame.assign(measured=steps["answers"] / steps["seconds"]).dropna(subset=["measured"])
    top = 1.25 * float(max(frame["rate"].max(), measured["measured"].max()))  # leave out bounds that are still open
    band = frame[frame["high"].notna() & (frame["high"] <= top)]
    x, host = _axis("seconds", "seconds", tickCount=6), {"field": "host"}
    spec = {
        "layer": [
            {
                "data": {"values": _thin(band)[["host", "seconds", "low", "high"]].to_dict("records")},
                "mark": {"type": "area", "color": LEAF, "opacity": 0.18},
                "encoding": {
                    "x": x,
                    "y": _axis("low", "responses per second"),
                    "y2": {"field": "high"},
                    "detail": host,
                },
            },
            {
                "data": {"values": _thin(frame)[["host", "seconds", "rate"]].to_dict("records")},
                "mark": {"type": "line", "color": SOFT, "strokeDash": [4, 4], "strokeWidth": 1},
                "encoding": {"x": x, "y": _axis("rate", "responses per second"), "detail": host},
            },
            {
                "data": {"values": _thin(measured)[["host", "seconds", "measured"]].to_dict("records")},
                "mark": {"type": "line", "color": LEAF, "strokeWidth": 1.75},
                "encoding": {"x": x, "y": _axis("measured", "responses per second", tickCount=5), "detail": host},
            },
        ]
    }
    return draw(f"Crawl rate: {values}.", spec, 520, 180)


def _axis(field: str, title: str, **axis: Any) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, "axis": axis}


def _thin(frame: pd.DataFrame) -> pd.DataFrame:
    """At most MAX_POINTS_PER_LINE evenly spaced rows, including the first and the last one."""
    if len(frame) <= MAX_POINTS_PER_LINE:
        return frame
    step = (len(frame) - 1) / (MAX_POINTS_PER_LINE - 1)
    return frame.iloc[[round(index * step) for index in range(MAX_POINTS_PER_LINE)]]
