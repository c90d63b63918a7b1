"""`notify.template`: what a message may be made of, and that no template takes a machine's time or memory."""

from __future__ import annotations

import pytest
from jinja2 import TemplateError

from seedling.flows.message_template import render
from seedling.flows.notifications import DEFAULT_TEMPLATE

VALUES = {
    "title": "A gate failed",
    "workspace": "flowers",
    "sentence": "Too few rows.",
    "run": "flowers 2026-01-01",
    "result": "",
    "links": {"Report": "http://reports.test/report.html", "Data": "http://reports.test/data.html"},
    "details": {"failed": ["rows", "classes"], "count": 2},
}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ workspace|upper }}: {{ sentence }}", "FLOWERS: Too few rows."),
        ("{{ details.failed|join(', ') }} of {{ details['count'] }}", "rows, classes of 2"),
        ("{% for page in links %}{{ page }} {% endfor %}", "Report Data "),
        (
            "{% for page, url in links.items() if page != 'Data' %}{{ loop.index }} {{ url }}{% endfor %}",
            "1 http://reports.test/report.html",
        ),
        ("{% if result %}{{ result }}{% elif details.count > 1 and run is defined %}{{ 'a' ~ 'b' }}{% endif %}", "ab"),
        ("{{ missing|default('none', true) }}", "none"),
    ],
)
def test_values_conditions_one_loop_and_filters_are_rendered(template: str, message: str) -> None:
    """Expected texts are written by hand."""
    assert render(template, VALUES) == message


def test_the_default_message_is_within_the_language() -> None:
    """It names the workspace and each page."""
    text = render(DEFAULT_TEMPLATE, VALUES)
    assert "A gate failed: flowers" in text and "Data: http://reports.test/data.html" in text


@pytest.mark.parametrize(
    "template",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in sentence %}{% for b in sentence %}{% endfor %}{% endfor %}",
        "{% for a in links recursive %}{{ loop(links) }}{% endfor %}",
        "{{ 'a' * 9999999999 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'a'|center(9999999999) }}",
        "{{ '%9999999999d'|format(1) }}",
        "{{ sentence|replace('o', sentence) }}",
        "{{ links|tojson(indent=9999999999) }}",
        "{{ links|tojson(**details) }}",
        "{{ links.items(*details) }}",
        "{{ sentence|join(sentence)|join(sentence) }}",
        "{{ sentence|join('-')|join('-') }}",
        "{{ sentence|join('" + "-" * 21 + "') }}",
        "{{ sentence.ljust(9999999999) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% set x = sentence %}{{ x }}",
        "{% include 'x' %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ lipsum(n=99999) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ broken",
        "{% if not " + "not " * 3000 + "a %}{% endif %}",
        "x" * 10_001,
    ],
)
def test_what_can_take_all_time_or_memory_is_refused(template: str) -> None:
    """Each would run for minutes, hold gigabytes, or reach Python's own objects, were it rendered."""
    with pytest.raises((TemplateError, ArithmeticError)):
        render(template, VALUES)
