"""Prepares data/ with short requests to an assistant, eight intents; the sentences are this project's own.

    python examples/intents/prepare.py data

The table has 5 labeled sentences and 12 test sentences per class, and some unlabeled ones. The others are on a small
forum site: about every third sentence has a tag, and about one tag in eight is wrong.
"""

from __future__ import annotations

import csv
import html
import shutil
import sys
from pathlib import Path

import numpy as np

LABELED_PER_CLASS, TEST_PER_CLASS, POOL_PER_CLASS, SENTENCES_PER_PAGE = 5, 12, 3, 16
TAGGED_SHARE, WRONG_TAG_SHARE = 0.35, 0.125
HEAD = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Requests, page {}</title>'
    "<body><h1>Requests</h1>\n<ol>\n"
)
SENTENCES = Path(__file__).with_name("sentences.txt")


def read_sentences() -> dict[str, list[str]]:
    """Class → its sentences. sentences.txt has a line `# class`, and a line per sentence below it."""
    sentences_by_class: dict[str, list[str]] = {}
    label = ""
    for line in SENTENCES.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            label = line.removeprefix("# ").strip()
        elif line.strip():
            sentences_by_class.setdefault(label, []).append(line.strip())
    return sentences_by_class


def main(data: Path) -> None:
    """Create the folder again, with the same bytes each time."""
    rng = np.random.default_rng(2024)
    rows, site_items = [], []
    sentences_by_class = read_sentences()
    for label, sentences in sorted(sentences_by_class.items()):
        for rank, number in enumerate(rng.permutation(len(sentences))):
            n_labeled, n_tabled = LABELED_PER_CLASS, LABELED_PER_CLASS + TEST_PER_CLASS
            split = "train" if rank < n_labeled else "test" if rank < n_tabled else "pool"
            if rank >= n_tabled + POOL_PER_CLASS:
                site_items.append((label, sentences[number]))
            else:
                rows.append((sentences[number], label if split != "pool" else "", split))
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    with (data / "requests.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "text", "label", "split"])
        writer.writerows((f"r{number:03d}", *row) for number, row in enumerate(rows))
    shuffled = [site_items[number] for number in rng.permutation(len(site_items))]
    write_site(data / "site", shuffled, sorted(sentences_by_class), rng)


def write_site(site: Path, items: list[tuple[str, str]], classes: list[str], rng: np.random.Generator) -> None:
    """Write pages of sentences, each with a `next` link, and robots.txt. items: (class, sentence)."""
    site.mkdir()
    pages = [items[start : start + SENTENCES_PER_PAGE] for start in range(0, len(items), SENTENCES_PER_PAGE)]
    for page_number, page in enumerate(pages):
        lines = []
        for item_number, (label, text) in enumerate(page):
            has_tag, is_wrong = rng.random() < TAGGED_SHARE, rng.random() < WRONG_TAG_SHARE
            offset = int(rng.integers(1, len(classes)))
            tag = classes[(classes.index(label) + offset) % len(classes)] if is_wrong else label
            link = f' <a class="tag">{html.escape(tag)}</a>' if has_tag else ""
            lines.append(f'<li id="p{page_number}-{item_number}"><q>{html.escape(text)}</q>{link}</li>')
        has_next = page_number + 1 < len(pages)
        following = f'<a rel="next" href="page-{page_number + 1}.html">next</a>' if has_next else ""
        body = HEAD.format(page_number + 1) + "\n".join(lines) + f"\n</ol>\n{following}\n</body></html>\n"
        name = "index.html" if page_number == 0 else f"page-{page_number}.html"
        (site / name).write_text(body, encoding="utf-8")
    (site / "robots.txt").write_text("User-agent: *\nDisallow: /private/\n", encoding="utf-8")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    partial_folder = folder.with_name(f".{folder.name}.new")  # renamed at the end: a failure leaves nothing half done
    main(partial_folder)
    shutil.rmtree(folder, ignore_errors=True)
    partial_folder.replace(folder)
