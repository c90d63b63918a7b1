"""Hooks of MkDocs: charts, the commands, files of the repository as pages, and links that leave docs/.

docs/ reads well in the repository, too: its links lead to files such as ../deploy/README.md. In the site, such a link
leads to the file's page if the site has one, and is plain text otherwise.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

import charts
import cli_reference
from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).parents[2]
PAGES_OF_FILES = {
    "deploy/README.md": "deploy.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
}
FILES_OF_PAGES = {page: file for file, page in PAGES_OF_FILES.items() if page != "index.md"}
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(((?!https?:|mailto:|#)[^)\s]+)\)")
CODE_OR_LINK = re.compile(rf"^```.*?^```$|{LINK.pattern}|`[^`\n]+`", re.MULTILINE | re.DOTALL)  # whichever begins first
DIAGRAM = re.compile(r"^!\[[^\]]*\]\(images/(stages)\.svg\)$", re.MULTILINE)
CHART = re.compile(r"^<!-- chart: (\w+) -->$", re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are files of the repository outside docs/."""
    for page, file in FILES_OF_PAGES.items():
        files.append(File.generated(config, page, content=(PROJECT / file).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Put the charts and the commands into their places, and adjust the links that leave docs/."""
    name = page.file.src_uri
    source = FILES_OF_PAGES.get(name, f"docs/{name}")
    markdown = CHART.sub(lambda match: f'<figure class="chart">{charts.CHARTS[match[1]]()}</figure>', markdown)
    markdown = markdown.replace("<!-- commands -->", cli_reference.reference())
    markdown = DIAGRAM.sub(lambda match: f'<figure class="chart">{inline_svg(match[1])}</figure>', markdown)
    return with_adjusted_links(markdown, source, name)


def with_adjusted_links(markdown: str, source: str, page: str) -> str:
    """The page's text with each link through `adjusted`; code keeps its links, which are examples."""
    return CODE_OR_LINK.sub(lambda match: adjusted(match, source, page) if match[2] else match[0], markdown)


def inline_svg(name: str) -> str:
    """A diagram of docs/images/ as part of the page, whose colors it then has."""
    return (PROJECT / "docs" / "images" / f"{name}.svg").read_text(encoding="utf-8").strip()


def adjusted(link: re.Match[str], source: str, page: str) -> str:
    """The link as it must stand on the page of the site, whose source is a file of the repository.

    Raises FileNotFoundError if the link leads to no file.
    """
    text, target = link.groups()
    path, _, fragment = target.partition("#")
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if not (PROJECT / file).exists():
        raise FileNotFoundError(f"{source}: the link to {target} leads to no file. Correct the link.")
    target_page = PAGES_OF_FILES.get(file, file.removeprefix("docs/") if file.startswith("docs/") else None)
    if target_page is None:
        return text
    relative = posixpath.relpath(target_page, posixpath.dirname(page) or os.curdir)
    return f"[{text}]({relative}{'#' + fragment if fragment else ''})"
