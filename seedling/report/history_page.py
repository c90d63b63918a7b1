"""reports/history.html: the runs of the workspace over time, as charts and a table. Written after each run."""

from __future__ import annotations

import os
from pathlib import Path

from seedling.gates.history import gate_history
from seedling.records.run_trend import new_test_rows, run_points
from seedling.report import trend_charts
from seedling.report.pages import environment
from seedling.workspace import Workspace

MAX_RUNS = 200
MAX_FAILURES = 20


def write_history_page(workspace: Path) -> Path:
    """Writes the page from the records of runs and the history of gates; returns its path."""
    points = run_points(workspace)
    page = (
        environment("history.html.jinja")
        .get_template("history.html.jinja")
        .render(
            name=workspace.resolve().name,
            points=points[-MAX_RUNS:][::-1],
            runs=len(points),
            last=points[-1] if points else None,
            new_test_rows=new_test_rows(points),
            charts=[
                (title, chart)
                for title, chart in (
                    ("Accuracy", trend_charts.accuracy_chart(points)),
                    ("Log-loss", trend_charts.log_loss_chart(points)),
                    ("Data", trend_charts.rows_chart(points)),
                    ("Likely label errors", trend_charts.label_issues_chart(points)),
                    ("Duration", trend_charts.durations_chart(points)),
                )
                if chart is not None
            ],
            most_runs=trend_charts.MAX_RUNS_IN_CHART,
            failures=[record for record in reversed(gate_history(workspace)) if not record.passed][:MAX_FAILURES],
        )
    )
    path = Workspace(workspace).history_page
    path.parent.mkdir(parents=True, exist_ok=True)
    replacement = path.with_name(f".{path.name}.{os.getpid()}")
    replacement.write_text(page, encoding="utf-8")
    replacement.replace(path)
    return path
