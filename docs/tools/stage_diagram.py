"""Draw docs/images/stages.svg, the diagram of the seven stages, from the stage table.

python docs/tools/stage_diagram.py
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from seedling.pipeline import Stage, find_stage

TARGET = Path(__file__).parents[1] / "images" / "stages.svg"
ROUNDS_DRAWN = ("scrape", "validate", "augment", "synthesize", "train@0", "pseudo_label@1", "train@1", "evaluate")
BOX_WIDTH, BOX_HEIGHT = 200, 50
LEFT, MIDDLE, RIGHT = 8, 132, 256
POSITIONS = {
    "scrape": (MIDDLE, 66),
    "validate": (MIDDLE, 146),
    "augment": (LEFT, 226),
    "synthesize": (RIGHT, 226),
    "train": (LEFT, 306),
    "pseudo_label": (RIGHT, 306),
    "evaluate": (LEFT, 386),
}
DESCRIPTIONS = {
    "scrape": "collect rows from files and sites",
    "validate": "check rows, find label errors",
    "augment": "make changed copies",
    "synthesize": "make new rows",
    "train": "compare models and rounds",
    "pseudo_label": "label the unlabeled pool",
    "evaluate": "score on the test rows, once",
}
STYLE = """
  .stages { --ink: #1c2a24; --soft: #5b6b63; --leaf: #1f7a4d; --wash: #dff1e6; }
  @media (prefers-color-scheme: dark) {
    .stages { --ink: #e6eeea; --soft: #9fb0a7; --leaf: #5cc48d; --wash: #1d3a2b; }
  }
  .stages text { font: 12px system-ui, sans-serif; fill: var(--soft); text-anchor: middle; }
  .stages text.name { font-size: 15px; font-weight: 600; fill: var(--ink); }
  .stages rect { fill: var(--wash); stroke: var(--leaf); }
  .stages path { stroke: var(--leaf); stroke-width: 1.5; fill: none; marker-end: url(#arrow); }
  .stages marker path { fill: var(--leaf); stroke: none; marker-end: none; }
"""


def edges() -> list[tuple[str, str]]:
    """The edges between stages in the stage table, without those that follow from others; rounds are one stage."""
    stages = [find_stage(name) for name in ROUNDS_DRAWN]
    readers = {reader.name: {writer.name for writer in stages if reads(reader, writer)} for reader in stages}
    ancestors: dict[str, set[str]] = {}
    drawn: list[tuple[str, str]] = []
    for stage in stages:
        direct = readers[stage.name]
        ancestors[stage.name] = direct.union(*(ancestors[name] for name in direct))
        implied = set[str]().union(*(ancestors[name] for name in direct))
        drawn += [(find_stage(name).kind, stage.kind) for name in sorted(direct - implied)]
    return list(dict.fromkeys(drawn))


def reads(reader: Stage, writer: Stage) -> bool:
    """Whether an input of the reader is the writer's output, or a folder that contains it."""
    return reader.name != writer.name and any(
        writer.output == folder or writer.output.startswith(f"{folder}/") for folder in reader.inputs
    )


def box(kind: str) -> str:
    """The box of a stage with its name and one line."""
    x, y = POSITIONS[kind]
    center = x + BOX_WIDTH // 2
    return (
        f'<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="8"/>'
        f'<text class="name" x="{center}" y="{y + 21}">{kind}</text>'
        f'<text x="{center}" y="{y + 39}">{escape(DESCRIPTIONS[kind])}</text>'
    )


def arrow(start: str, end: str) -> str:
    """The arrow between two boxes: down to a lower one, across between boxes of one line."""
    (x1, y1), (x2, y2) = POSITIONS[start], POSITIONS[end]
    if y1 == y2:
        right = x2 > x1
        height = y1 + BOX_HEIGHT // 2 + (-9 if right else 9)
        return f'<path d="M{x1 + (BOX_WIDTH if right else 0)} {height} H{x2 + (-2 if right else BOX_WIDTH + 2)}"/>'
    from_x, to_x = x1 + BOX_WIDTH // 2, x2 + BOX_WIDTH // 2
    return f'<path d="M{from_x} {y1 + BOX_HEIGHT} L{to_x} {y2 - 2}"/>'


def diagram() -> str:
    """The diagram as SVG, in light or dark colors."""
    top, bottom = MIDDLE + BOX_WIDTH // 2, POSITIONS["evaluate"][1] + BOX_HEIGHT
    parts = [
        f'<text x="{top}" y="20">your labeled and unlabeled rows: data/, web sources</text>',
        f'<path d="M{top} 30 V{POSITIONS["scrape"][1] - 2}"/>',
        *(arrow(start, end) for start, end in edges()),
        *(box(kind) for kind in POSITIONS),
        f'<path d="M{LEFT + BOX_WIDTH} {bottom - BOX_HEIGHT // 2} H{RIGHT - 2}"/>',
        f'<text x="{RIGHT + BOX_WIDTH // 2}" y="{bottom - BOX_HEIGHT // 2 + 4}">'
        "reports/report.html, metrics.json</text>",
    ]
    words = "Diagram of the stages: " + "; ".join(f"{start} to {end}" for start, end in edges())
    marker = (
        '<marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker>'
    )
    head = (
        '<svg xmlns="http://www.w3.org/2000/svg" class="stages" viewBox="0 0 464 444" width="464" role="img" '
        f'aria-label="{words}">'
    )
    return "\n".join([head, f"<style>{STYLE}</style>", f"<defs>{marker}</defs>", *parts, "</svg>", ""])


if __name__ == "__main__":
    TARGET.write_text(diagram(), encoding="utf-8")
