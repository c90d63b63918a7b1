"""The report's charts as Vega-Lite specifications, drawn when the page is written: nothing is fetched or run to see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from markupsafe import Markup

LEAF, SOFT, LINE = "var(--leaf)", "var(--soft)", "var(--line)"  # the page's own, light or dark
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
MOST_POINTS = 200  # of a line: more than a page has pixels for says nothing


def drawn(said: str, spec: Mapping[str, Any], width: int, height: int) -> Markup:
    """The chart as SVG that scales to its place, in the page's colors. said: what it shows, for who cannot see it."""
    import vl_convert

    whole = {"width": width, "height": height, "description": said, "config": CONFIG, **spec}
    svg: str = vl_convert.vegalite_to_svg(whole, vl_version="5.20")
    start, rest = svg.split(">", 1)
    box = start[start.index("viewBox=") :]
    wide = float(box.split('"')[1].split()[2])
    label = Markup.escape(said)
    return Markup(f'<svg class="chart" {box} style="max-width: {wide:.0f}px" role="img" aria-label="{label}">{rest}')  # noqa: S704  (Vega escapes what it draws)


def learning_curve(found: Mapping[str, Any] | None) -> Markup | None:
    """Accuracy against labels: measured ones filled, expected ones open; None where there is none."""
    if not found:
        return None
    points = [
        {"labels": round(one["labels"]), "of": kind, **one["accuracy"]}
        for kind in ("points", "expected")
        for one in found[kind]
    ]
    told = ", ".join(f"{100 * one['value']:.1f} % with {one['labels']:,}" for one in points)
    across = {
        "field": "labels",
        "type": "quantitative",
        "title": "labeled rows",
        "scale": {"type": "log", "nice": False, "padding": 18},
        "axis": {"values": sorted({one["labels"] for one in points}), "grid": False, "format": ","},
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
    return drawn(f"Accuracy against the number of labels: {told}.", spec, 430, 200)


def abstaining(frame: pd.DataFrame) -> Markup | None:
    """Errors among what is answered against the share that is answered; None where no row is judged, or none is wrong."""
    if frame.empty or frame["error"].max() == 0:
        return None
    points = _thinned(frame[["coverage", "error"]])
    whole = frame.sort_values("coverage").iloc[-1]
    spec = {
        "data": {"values": points.to_dict("records")},
        "mark": {"type": "area", "color": LEAF, "opacity": 0.18, "line": {"color": LEAF, "strokeWidth": 2}},
        "encoding": {
            "x": _axis("coverage", "answered", format=".0%", tickCount=5),
            "y": _axis("error", "errors", format=".1%", tickCount=5),
        },
    }
    told = (
        f"Share of errors against the share of rows that is answered, up to {100 * whole['error']:.1f} % where all are."
    )
    return drawn(told, spec, 250, 200)


def losses(frame: pd.DataFrame) -> Markup | None:
    """A line a model, on a logarithmic scale; None where nothing follows a gradient."""
    frame = frame[frame["loss"] > 0]
    if frame.empty:
        return None
    models = frame["model"].nunique()
    lines = pd.concat([_thinned(one) for _, one in frame.groupby("model", sort=False)])
    spec = {
        "data": {"values": lines.to_dict("records")},
        "mark": {"type": "line", "color": LEAF, "opacity": 0.5, "strokeWidth": 1.5},
        "encoding": {
            "x": _axis("step", "step", tickCount=6),
            "y": {**_axis("loss", "loss", tickCount=5), "scale": {"type": "log"}},
            "detail": {"field": "model"},
        },
    }
    return drawn(f"Training loss of {models} models over {int(frame['step'].max())} steps.", spec, 520, 200)


def calibration(bins: Sequence[Mapping[str, float]]) -> Markup | None:
    """Accuracy against confidence, a dot a bin, as large as the bin has rows; None where no row is judged."""
    if not bins:
        return None
    told = "; ".join(
        f"{one['confidence']:.2f} sure, {one['accuracy']:.2f} right, {one['rows']:.0f} rows" for one in bins
    )
    full = {"domain": [0, 1]}
    x, y = ({**_axis(name, name, tickCount=5), "scale": full} for name in ("confidence", "accuracy"))
    size = {"field": "rows", "type": "quantitative", "legend": None, "scale": {"range": [30, 500], "zero": True}}
    spec = {
        "layer": [
            {
                "data": {"values": [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]},
                "mark": {"type": "line", "color": SOFT, "strokeDash": [4, 4], "strokeWidth": 1},
                "encoding": {"x": x, "y": y},
            },
            {
                "data": {"values": [dict(one) for one in bins]},
                "mark": {"type": "point", "filled": True, "color": LEAF, "opacity": 0.75},
                "encoding": {"x": x, "y": y, "size": size},
            },
        ]
    }
    return drawn(f"Accuracy against confidence: {told}.", spec, 250, 220)


def pace(points: Sequence[Mapping[str, Any]]) -> Markup | None:
    """Answers a second, a line a host, the pace that was aimed at, dashed, and the bracket of the host's limit as a band; None where too little was
    asked to show anything.
    """
    if len(points) < 4:
        return None
    frame = pd.DataFrame(points)
    last = {one["host"]: one for one in points}
    said = "; ".join(
        f"{host}: {one['answers'] / one['seconds']:.3g} answers a second, {one['refusals']} of {one['answers'] + one['refusals']} requests refused"
        for host, one in last.items()
    )
    steps = frame.groupby("host")[["answers", "seconds"]].diff(2)  # a second or so
    came = frame.assign(came=steps["answers"] / steps["seconds"]).dropna(subset=["came"])
    top = 1.25 * float(
        max(frame["rate"].max(), came["came"].max())
    )  # a bracket that is not closed yet is of no interest
    band = frame[frame["high"].notna() & (frame["high"] <= top)]
    x, host = _axis("seconds", "seconds", tickCount=6), {"field": "host"}
    spec = {
        "layer": [
            {
                "data": {"values": _thinned(band)[["host", "seconds", "low", "high"]].to_dict("records")},
                "mark": {"type": "area", "color": LEAF, "opacity": 0.18},
                "encoding": {"x": x, "y": _axis("low", "answers a second"), "y2": {"field": "high"}, "detail": host},
            },
            {
                "data": {"values": _thinned(frame)[["host", "seconds", "rate"]].to_dict("records")},
                "mark": {"type": "line", "color": SOFT, "strokeDash": [4, 4], "strokeWidth": 1},
                "encoding": {"x": x, "y": _axis("rate", "answers a second"), "detail": host},
            },
            {
                "data": {"values": _thinned(came)[["host", "seconds", "came"]].to_dict("records")},
                "mark": {"type": "line", "color": LEAF, "strokeWidth": 1.75},
                "encoding": {"x": x, "y": _axis("came", "answers a second", tickCount=5), "detail": host},
            },
        ]
    }
    return drawn(f"How fast answers came: {said}.", spec, 520, 180)


def _axis(field: str, title: str, **axis: Any) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title, "axis": axis}


def _thinned(frame: pd.DataFrame) -> pd.DataFrame:
    """Some of the rows at even distances, the first and the last among them."""
    if len(frame) <= MOST_POINTS:
        return frame
    places = [round(place * (len(frame) - 1) / (MOST_POINTS - 1)) for place in range(MOST_POINTS)]
    return frame.iloc[places]
