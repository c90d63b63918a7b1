"""Draw the charts of docs/benchmarks.md from benchmarks/results/, as SVG in the colors of the page, light or dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from seedling.report.charts import LEAF, LINE, SOFT, draw

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
WIDTH_PIXELS = 440
ROW_PIXELS = 26
SEEDLING, PEER = "Seedling", "peers"
READABLE_PARTS = {
    "trashnet": "photographs",
    "sms_spam": "messages",
    "banking77_oos": "intents",
    " a class": " per class",
    "/noise_sym20": ", 20 % at random",
    "/noise_conf20": ", 20 % similar class",
    "/noise_upstream": ", 6 % by the publisher",
    "logistic_regression": "linear",
}
REVIEW_SETS = {"photographs": "trash", "clothing_small": "clothing", "hwu64": "home intents", "intents": "bank intents"}
LABEL_ERROR_METRICS = ["F1", "average precision"]
SPEED_TICKS = [0.5, 1, 2, 5, 10]
COVERAGE_TARGET = {"low": 0.93, "high": 0.97}
PEERS_OF_CRAWLING = {
    "seedling": SEEDLING,
    "scrapy": "Scrapy",
    "autothrottle": "Scrapy, AutoThrottle",
    "fixed_delay": "fixed delay at the known limit",
    "crawlee": "Crawlee",
}


def results(name: str) -> pd.DataFrame:
    """Read a file of benchmarks/results/."""
    return pd.read_csv(RESULTS / f"{name}.csv")


def readable(setting: str) -> str:
    """Return the setting of a benchmark as the label of a line: what is classified instead of the name of the set."""
    for part, words in READABLE_PARTS.items():
        setting = setting.replace(part, words)
    return setting


def few_labels() -> Markup:
    """Test accuracy with one to fifty labels per class: Seedling and every peer."""
    frame = pd.concat([results("digits"), results("few_labels")])
    frame = frame[frame["metric"] == "test accuracy"]
    return _dots(_against_peers(frame, "Seedling, accepted model"), "test accuracy")


def label_noise() -> Markup:
    """Test accuracy after training with wrong labels: Seedling and confident learning."""
    frame = results("label_noise")
    return _dots(_against_peers(frame[frame["metric"] == "test accuracy"], SEEDLING), "test accuracy")


def label_errors() -> Markup:
    """F1 and average precision of finding wrong labels: Seedling and the best of cleanlab."""
    frame = results("label_errors")
    frame = frame[frame["metric"].isin(LABEL_ERROR_METRICS) & frame["system"].isin([SEEDLING, "cleanlab, best"])]
    first_part = frame["setting"].str.split(",").str[0]
    frame = frame.assign(setting=frame["metric"] + ": " + first_part)
    frame = frame.sort_values("metric", ascending=False, kind="stable")
    return _dots(_against_peers(frame, SEEDLING), "F1 or average precision")


def review() -> Markup:
    """Answers until random's accuracy at 300 answers: the order of the review and the other orders."""
    frame = results("review")
    frame = frame[frame["metric"] == "answers to random's accuracy at 300"]
    setting = frame["setting"].str.removesuffix(", from no label").map(readable).replace(REVIEW_SETS)
    kind = frame["system"].eq("expected_value").map({True: SEEDLING, False: PEER})
    return _dots(frame.assign(kind=kind, setting=setting), "answers", reference=300)


def augmentation() -> Markup:
    """Gain of accuracy from augmented rows: the default policy of Seedling and the peers' policies."""
    frame = results("augmentation")
    frame = frame[(frame["metric"] == "gain") & ~frame["system"].eq("auto")]
    return _dots(_against_peers(frame, "usual"), "gain in accuracy", reference=0.0)


def coverage() -> Markup:
    """How often the 95 % intervals contain the true value, per metric and setting."""
    frame = results("coverage")
    frame = frame[frame["system"] == SEEDLING].assign(setting=frame["metric"], kind=SEEDLING)
    rows = frame[["setting", "kind", "system", "value"]].assign(low=frame["value"], high=frame["value"])
    return _dots(rows, "share of intervals that contain the truth", band=COVERAGE_TARGET)


def run_time() -> Markup:
    """Seconds of each stage, one bar per set."""
    frame = results("cost")
    frame = frame[(frame["metric"] == "time") & ~frame["system"].str.startswith("round")]
    frame = frame.assign(setting=frame["setting"].map(readable), order=range(len(frame)))
    stages = list(dict.fromkeys(frame["system"]))
    shares = [round(100 * (number + 1) / len(stages)) for number in range(len(stages))]
    shades = [f"color-mix(in srgb, {LEAF} {share}%, var(--paper))" for share in shares]
    spec = {
        "data": {"values": frame[["setting", "system", "value", "order"]].to_dict("records")},
        "mark": {"type": "bar", "height": 16},
        "encoding": {
            "x": {"field": "value", "type": "quantitative", "title": "seconds, two cores", "stack": "zero"},
            "y": _rows_axis(frame["setting"]),
            "order": {"field": "order", "type": "quantitative"},
            "color": {
                "field": "system",
                "type": "nominal",
                "title": None,
                "scale": {"domain": stages, "range": shades},
                "legend": {"labelColor": SOFT, "orient": "bottom", "columns": 4, "symbolType": "square"},
            },
        },
    }
    totals = frame.groupby("setting", sort=False)["value"].sum()
    words = "; ".join(f"{setting}: {seconds:.0f} s" for setting, seconds in totals.items())
    return draw(f"Seconds of a run by stage. {words}.", spec, WIDTH_PIXELS, ROW_PIXELS * len(totals))


def speed() -> Markup:
    """How many times as fast as its peer each part is, on a logarithmic axis."""
    rows = pd.DataFrame(_speed_ratios(), columns=["setting", "value", "low", "high"])
    rows = rows.assign(kind=SEEDLING, system=SEEDLING)
    return _dots(rows, "times as fast as the peer", reference=1.0, logarithmic=True)


def crawling() -> Markup:
    """Share of the requests that a site with a limit of 50 per second refused, per crawler."""
    frame = results("pace")
    frame = frame[(frame["setting"] == "bucket, 50/s") & (frame["metric"] == "refused")]
    frame = frame[frame["system"].isin(PEERS_OF_CRAWLING)].assign(setting=frame["system"].map(PEERS_OF_CRAWLING))
    spec = {
        "data": {"values": frame[["setting", "value"]].to_dict("records")},
        "mark": {"type": "bar", "height": 14},
        "encoding": {
            "x": {**_values_axis("value", "share of requests refused"), "axis": {"format": ".0%", "tickCount": 5}},
            "y": _rows_axis(frame["setting"]),
            "color": {"condition": {"test": f"datum.setting === '{SEEDLING}'", "value": LEAF}, "value": SOFT},
        },
    }
    words = "; ".join(f"{row.setting}: {100 * row.value:.1f} %" for row in frame.itertuples())
    return draw(f"Share of requests refused. {words}.", spec, WIDTH_PIXELS, ROW_PIXELS * len(frame))


CHARTS: Mapping[str, Callable[[], Markup]] = {
    chart.__name__: chart
    for chart in (few_labels, label_noise, label_errors, review, augmentation, coverage, run_time, speed, crawling)
}


def _against_peers(frame: pd.DataFrame, system: str) -> pd.DataFrame:
    """The rows of a chart: `system` as Seedling, all systems that are not part of Seedling as peers."""
    frame = frame[(frame["system"] == system) | ~frame["system"].str.startswith(SEEDLING)]
    kind = frame["system"].eq(system).map({True: SEEDLING, False: PEER})
    return frame.assign(kind=kind, setting=frame["setting"].map(readable))


def _speed_ratios() -> list[tuple[str, float, float, float]]:
    """How many times as fast: what, the value and its interval; a peer's time divided by Seedling's."""
    rows = []
    for name, setting, metric, label in (
        ("encoding", "all-MiniLM-L6-v2, messages, one core", "rate over sentence-transformers's", "encode texts"),
        (
            "encoding",
            "MobileNetV2 at 224, photographs, two cores",
            "rate over transformers, plain loop's",
            "encode images",
        ),
        ("operations", "texts: swap", "rate", "change texts (swap words)"),
        ("operations", "six operations, 224 pixels", "ratio", "change images (six operations)"),
        ("gates", "10,000,000 rows, validate's gate", "time, over one frame's", "check 10,000,000 rows"),
        ("gates", "100,000 rows, validate's gate", "time, over one frame's", "check 100,000 rows"),
        ("pace_free", "no limit", "pages/s", "crawl without a limit"),
    ):
        frame = results(name)
        frame = frame[(frame["setting"] == setting) & (frame["metric"] == metric) & (frame["unit"] == "ratio")]
        frame = frame[
            frame["system"].str.lower().str.startswith("seedling") & ~frame["system"].str.contains("bfloat16")
        ]
        for row in frame.itertuples():
            is_time = name == "gates" or metric == "ratio"
            values = (1 / row.value, 1 / row.high, 1 / row.low) if is_time else (row.value, row.low, row.high)
            rows.append((label, *values))
    return rows


def _dots(
    rows: pd.DataFrame,
    title: str,
    *,
    reference: float | None = None,
    band: Mapping[str, float] | None = None,
    logarithmic: bool = False,
) -> Markup:
    """Dots with intervals, a line per setting: Seedling green, peers gray; a reference line or a target band behind."""
    axis = _values_axis("value", title)
    axis["scale"] = {"type": "log", "nice": False, "padding": 20} if logarithmic else {"zero": False, "nice": True}
    axis["axis"] = {"values": SPEED_TICKS} if logarithmic else {"tickCount": 7}
    y = _rows_axis(rows["setting"])
    is_seedling = f"datum.kind === '{SEEDLING}'"
    color = {"condition": {"test": is_seedling, "value": LEAF}, "value": SOFT}
    layers: list[dict[str, Any]] = []
    if band is not None:
        ends = {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}}
        layers.append(
            {
                "data": {"values": [dict(band)]},
                "mark": {"type": "rect", "color": LEAF, "opacity": 0.12},
                "encoding": ends,
            }
        )
    if reference is not None:
        line = {"x": {"datum": reference, "type": "quantitative"}}
        layers.append({"mark": {"type": "rule", "color": LINE, "strokeWidth": 2}, "encoding": line})
    interval = {"x": {**axis, "field": "low"}, "x2": {"field": "high"}, "y": y, "color": color}
    layers.append({"mark": {"type": "rule", "strokeWidth": 3, "opacity": 0.4}, "encoding": interval})
    dot = {"type": "point", "filled": True, "size": 70, "opacity": 0.95}
    layers.append({"mark": dot, "encoding": {"x": axis, "y": y, "color": color}})
    ours = rows.sort_values("kind", ascending=False, kind="stable")  # Seedling is drawn last, on top
    spec = {"data": {"values": ours[["setting", "kind", "value", "low", "high"]].to_dict("records")}, "layer": layers}
    return draw(f"{title}. {_in_words(rows)}.", spec, WIDTH_PIXELS, ROW_PIXELS * rows["setting"].nunique())


def _in_words(rows: pd.DataFrame) -> str:
    """The values of the chart for screen readers."""
    parts = []
    for setting, group in rows.groupby("setting", sort=False):
        values = ", ".join(f"{row.system} {row.value:.3g}" for row in group.itertuples())
        parts.append(f"{setting}: {values}")
    return "; ".join(parts)


def _values_axis(field: str, title: str) -> dict[str, Any]:
    return {"field": field, "type": "quantitative", "title": title}


def _rows_axis(settings: pd.Series) -> dict[str, Any]:
    axis = {"labelLimit": 290, "domain": False, "ticks": False}
    return {"field": "setting", "type": "nominal", "title": None, "sort": list(dict.fromkeys(settings)), "axis": axis}


if __name__ == "__main__":
    import sys

    for name, chart in CHARTS.items():
        Path(sys.argv[1], f"{name}.svg").write_text(chart(), encoding="utf-8")
