"""Dependencies of DVC's stages as they were at the start of a run, regardless of later changes in the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dvc.dependency.base import Dependency
from dvc.dependency.param import ParamsDependency, read_param_file


class PinnedData(Dependency):  # type: ignore[misc]  # DVC has no type annotations
    """data/ as in the run's snapshot, regardless of later changes in the workspace."""

    def __init__(self, dependency: Dependency, pointer: Any) -> None:
        """pointer: the output of data.dvc at the start of the run."""
        super().__init__(dependency.stage, dependency.fs_path)
        self.meta, self.hash_info, self._pointer = dependency.meta, dependency.hash_info, pointer

    @property
    def exists(self) -> bool:
        """Always true, since the snapshot can be restored from DVC's cache."""
        return True

    def get_hash(self) -> Any:
        """Return the snapshot's digest."""
        return self._pointer.hash_info

    def save(self) -> None:
        """Record the snapshot's digest as the digest of the data that the stage read."""
        self.meta, self.hash_info = self._pointer.meta, self._pointer.hash_info


class PinnedReviews(Dependency):  # type: ignore[misc]  # DVC has no type annotations
    """reviews/ as in the run's snapshot, regardless of answers that reviewers add during the run."""

    def __init__(self, dependency: Dependency, copy: Path) -> None:
        """copy: the copy of the folder in the snapshot."""
        super().__init__(dependency.stage, dependency.fs_path)
        self.meta, self.hash_info = dependency.meta, dependency.hash_info
        self._copy = Dependency(dependency.stage, str(copy))

    @property
    def exists(self) -> bool:
        """Always true, since the snapshot has a copy."""
        return True

    def get_hash(self) -> Any:
        """Return the hash of the copy, which does not depend on the path of the folder."""
        return self._copy.get_hash()

    def save(self) -> None:
        """Record the copy's hash as the hash of the reviews that the stage read."""
        self._copy.save()
        self.meta, self.hash_info = self._copy.meta, self._copy.hash_info


class PinnedParams(ParamsDependency):  # type: ignore[misc]  # DVC has no type annotations
    """A params file as in the run's snapshot, regardless of later changes in the workspace."""

    def __init__(self, dependency: ParamsDependency, copy: Path) -> None:
        """copy: the copy of the file in the snapshot."""
        super().__init__(dependency.stage, dependency.fs_path, dependency.params)
        self.hash_info, self._copy = dependency.hash_info, copy

    def read_params(self, flatten: bool = True, **_: Any) -> dict[str, Any]:
        """Read the values of the dependency's keys from the copy in the snapshot."""
        values: dict[str, Any] = read_param_file(self.repo.fs, str(self._copy), list(self.params) or None, flatten)
        return values

    @property
    def exists(self) -> bool:
        """Always true, since the snapshot has a copy."""
        return True

    def isfile(self) -> bool:
        """Always true, since the snapshot's copy is a file."""
        return True
