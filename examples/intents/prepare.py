"""Prepares data/ with short requests to an assistant, eight intents; the sentences are this project's own.

    python examples/intents/prepare.py data

5 labeled sentences a class, a fixed test split of 12 a class, some loose unlabeled ones in the same table, and the
rest on a small forum site: pages, and on every third sentence or so a tag, which is wrong on one in eight.
"""

from __future__ import annotations

import csv
import html
import shutil
import sys
from pathlib import Path

import numpy as np

LABELED, TEST, LOOSE, ON_A_PAGE = 5, 12, 3, 16
TAGGED, WRONG = 0.35, 0.125
HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Requests, page {}</title>'
    "<body><h1>Requests</h1>\n<ol>\n"
)
SENTENCES = Path(__file__).with_name("sentences.txt")


def read_sentences() -> dict[str, list[str]]:
    """Class → its sentences, from sentences.txt: a line `# class`, then a sentence a line."""
    found: dict[str, list[str]] = {}
    label = ""
    for line in SENTENCES.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            label = line.removeprefix("# ").strip()
        elif line.strip():
            found.setdefault(label, []).append(line.strip())
    return found


def main(data: Path) -> None:
    """Writes the folder anew; the same bytes each time."""
    rng = np.random.default_rng(2024)
    rows, on_site = [], []
    sentences = read_sentences()
    for label in sorted(sentences):
        of_class = [sentences[label][place] for place in rng.permutation(len(sentences[label]))]
        for place, text in enumerate(of_class):
            split = "train" if place < LABELED else "test" if place < LABELED + TEST else "pool"
            if split == "pool" and place >= LABELED + TEST + LOOSE:
                on_site.append((label, text))
            else:
                rows.append((text, label if split != "pool" else "", split))
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    with (data / "requests.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "text", "label", "split"])
        writer.writerows((f"r{number:03d}", *row) for number, row in enumerate(rows))
    write_site(data / "site", [on_site[place] for place in rng.permutation(len(on_site))], sorted(sentences), rng)


def write_site(site: Path, items: list[tuple[str, str]], classes: list[str], rng: np.random.Generator) -> None:
    """Pages of sentences with a `next` link, and robots.txt."""
    site.mkdir()
    pages = [items[start : start + ON_A_PAGE] for start in range(0, len(items), ON_A_PAGE)]
    for number, page in enumerate(pages):
        lines = []
        for place, (label, text) in enumerate(page):
            tagged, wrong, other = rng.random() < TAGGED, rng.random() < WRONG, int(rng.integers(1, len(classes)))
            said = classes[(classes.index(label) + other) % len(classes)] if wrong else label
            tag = f' <a class="tag">{html.escape(said)}</a>' if tagged else ""
            lines.append(f'<li id="p{number}-{place}"><q>{html.escape(text)}</q>{tag}</li>')
        following = f'<a rel="next" href="page-{number + 1}.html">next</a>' if number + 1 < len(pages) else ""
        body = HEAD.format(number + 1) + "\n".join(lines) + f"\n</ol>\n{following}\n</body></html>\n"
        (site / ("index.html" if number == 0 else f"page-{number}.html")).write_text(body, encoding="utf-8")
    (site / "robots.txt").write_text("User-agent: *\nDisallow: /private/\n", encoding="utf-8")


if __name__ == "__main__":
    wanted = Path(sys.argv[1])
    beside = wanted.with_name(
        f".{wanted.name}.new"
    )  # renamed at the end, so that half a folder is never taken for whole
    main(beside)
    shutil.rmtree(wanted, ignore_errors=True)
    beside.replace(wanted)
