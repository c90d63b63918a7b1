"""The record of an annotated image: what each format is read into and written from."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from seedling.files.data_files import files_below

Completeness = Literal["yes", "no", "unknown"]
"""Whether all objects of an image are annotated. Rows with "no" give no negatives."""
Box = tuple[float, float, float, float]
"""x, y, width and height in pixels; (x, y) is the top left corner."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """An object in an image.

    mask: JSON of COCO's run-length encoding, {"size": [height, width], "counts": "…"}; is_crowd: the box surrounds a
    group that is not separated; is_difficult: evaluations leave the object out, as Pascal VOC does.
    """

    category: str
    box: Box
    source: str = "human"
    confidence: float = 1.0
    is_crowd: bool = False
    is_difficult: bool = False
    mask: str | None = None


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image file with its objects.

    file: path relative to the folder of images; width, height: in pixels, as the annotation states them, None if it
    does not; annotation: the file that it comes from.
    """

    file: str
    objects: tuple[AnnotatedObject, ...] = ()
    width: int | None = None
    height: int | None = None
    complete: Completeness = "unknown"
    split: str | None = None
    annotation: str = ""


@dataclass(frozen=True, slots=True)
class ImageFrame:
    """The pixels of an image file. width, height: as displayed; orientation: of EXIF, 1 to 8."""

    width: int
    height: int
    orientation: int = 1

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height before the image is turned."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


FrameOf = Callable[[str], ImageFrame | None]
"""Image file → its frame; None if it cannot be read."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in an annotation file that was left out or changed. kind: a reason code; where: file and position."""

    kind: str
    where: str
    detail: str = ""


@dataclass
class AnnotationSet:
    """The images of a dataset, by file, and what could not be used.

    categories: in the order of the annotation files, those without objects included.
    """

    format: str
    images: dict[str, AnnotatedImage] = field(default_factory=dict)
    categories: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def add(self, image: AnnotatedImage) -> None:
        """Add an image. The second annotation of an image is left out, as a problem unless it is equal."""
        for category in dict.fromkeys(annotated.category for annotated in image.objects):
            self.add_category(category)
        earlier = self.images.get(image.file)
        if earlier is None:
            self.images[image.file] = image
        elif earlier.objects != image.objects:
            detail = f"{image.file}: {len(earlier.objects)} objects in {earlier.annotation}, {len(image.objects)} here"
            self.report("annotated_twice", image.annotation, detail)

    def add_category(self, name: str) -> None:
        """Add a category unless it is there."""
        if name not in self.categories:
            self.categories.append(name)

    def report(self, kind: str, where: str, detail: str = "") -> None:
        """Note something that was left out or changed."""
        self.problems.append(Problem(kind, where, detail))

    @property
    def object_counts(self) -> dict[str, int]:
        """Category → number of its objects."""
        counts = Counter(each.category for image in self.images.values() for each in image.objects)
        return {name: counts[name] for name in self.categories}

    def problem_counts(self) -> dict[str, int]:
        """Reason code → number of problems, the most frequent first."""
        return dict(Counter(problem.kind for problem in self.problems).most_common())


def files_of(folder: Path) -> list[Path]:
    """The regular files below a folder, sorted. Hidden files, and links that lead out of the folder, are left out."""
    root = folder.resolve()
    return [
        path
        for path, fault in files_below(folder, root, lambda inner: not inner.name.startswith("."))
        if fault is None and not path.name.startswith(".")
    ]


class ImageIndex:
    """The image files below a folder, found by the names that annotation files use for them.

    Annotation files often hold the path of another machine. A name is looked up as a path relative to the folder, then
    by its last parts, and then by its stem; a name that fits several files fits none of them.
    """

    def __init__(self, folder: Path, files: Iterable[str]) -> None:
        self.folder, self.files = folder, sorted(files)
        self._exact = frozenset(self.files)
        self._by_tail: dict[str, set[str]] = {}
        for file in self.files:
            parts = PurePosixPath(file).parts
            for start in range(len(parts)):
                self._by_tail.setdefault("/".join(parts[start:]).casefold(), set()).add(file)
            stem_parts = (*parts[:-1], PurePosixPath(parts[-1]).stem)
            for start in range(len(stem_parts)):
                self._by_tail.setdefault("stem:" + "/".join(stem_parts[start:]).casefold(), set()).add(file)

    @classmethod
    def of(cls, folder: Path) -> ImageIndex:
        """The images below a folder. Hidden files, and links that lead out of the folder, are left out."""
        paths = files_of(folder)
        return cls(
            folder, (path.relative_to(folder).as_posix() for path in paths if path.suffix.casefold() in IMAGE_SUFFIXES)
        )

    def find(self, name: str) -> str | None:
        """The file that an annotation means, relative to the folder; None if no file or several files fit."""
        parts = [part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in {"/", ".", ".."}]
        if (exact := "/".join(parts)) in self._exact:
            return exact
        for start in range(len(parts)):
            match = self._only("/".join(parts[start:]))
            if match is not None:
                return match
        return None

    def find_stem(self, name: str) -> str | None:
        """The file whose path without suffix ends with `name`; None if no file or several files fit."""
        parts = PurePosixPath(name.replace("\\", "/")).parts
        for start in range(len(parts)):
            match = self._only("stem:" + "/".join(parts[start:]))
            if match is not None:
                return match
        return None

    def _only(self, tail: str) -> str | None:
        files = self._by_tail.get(tail.casefold(), set())
        return next(iter(files)) if len(files) == 1 else None


def finite_box(values: Sequence[object]) -> Box | None:
    """Four numbers as a box; None unless they are four finite numbers."""
    if len(values) != 4 or any(isinstance(value, bool) for value in values):
        return None
    try:
        x, y, width, height = (float(value) for value in values)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return (x, y, width, height) if all(map(math.isfinite, (x, y, width, height))) else None


def box_of_points(points: Sequence[tuple[float, float]]) -> Box | None:
    """The smallest upright box around a polygon; None for fewer than three points or numbers that are not finite."""
    if len(points) < 3 or not all(math.isfinite(value) for point in points for value in point):
        return None
    horizontal, vertical = zip(*points, strict=True)
    left, top = min(horizontal), min(vertical)
    return (left, top, max(horizontal) - left, max(vertical) - top)


def merge_spellings(annotations: AnnotationSet) -> AnnotationSet:
    """Give categories that differ only in case or spaces the most frequent spelling, and report each change."""
    counts = annotations.object_counts
    spellings: dict[str, list[str]] = {}
    for name in annotations.categories:
        spellings.setdefault(" ".join(name.casefold().split()), []).append(name)
    name_of = {
        name: max(names, key=lambda each: (counts[each], -names.index(each)))
        for names in spellings.values()
        for name in names
    }
    merged = AnnotationSet(annotations.format, problems=list(annotations.problems))
    for name, kept in name_of.items():
        merged.add_category(kept)
        if name != kept:
            detail = f"'{name}' ({counts[name]:,}) counts as '{kept}' ({counts[kept]:,})"
            merged.report("names_differ_in_case", annotations.format, detail)
    merged.images = {
        file: replace(image, objects=tuple(replace(each, category=name_of[each.category]) for each in image.objects))
        for file, image in annotations.images.items()
    }
    return merged


def with_unannotated(
    annotations: AnnotationSet, index: ImageIndex, *, without_annotation: Literal["unlabeled", "background"]
) -> AnnotationSet:
    """Add the image files that no annotation names: without objects, and complete only if they are background."""
    complete: Completeness = "yes" if without_annotation == "background" else "unknown"
    images: Mapping[str, AnnotatedImage] = annotations.images
    split = None if without_annotation == "background" else "pool"
    missing = {file: AnnotatedImage(file, complete=complete, split=split) for file in index.files if file not in images}
    return replace(annotations, images={**images, **missing})
