"""The predictions that a bulk prediction has made so far, from which it resumes after a kill at any moment.

Rows are predicted in parts of at most 256 images, which lie in a directory beside the result until all are there. So a
kill costs seconds of work, and no image is predicted twice or missing.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from effnet.arch.serde import parse_json
from effnet.data.storage import errors
from effnet.data.storage.atomic_write import write_text
from effnet.data.storage.process_lock import OutputInUseError, lock_output
from effnet.prediction import bulk_chunks
from effnet.prediction.predictor import Prediction


class PartialResults:
    """The parts of the table ``target`` in ``.NAME.parts`` beside it, with a manifest of the settings."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.folder = target.with_name(f".{target.name}.parts")
        self.manifest = self.folder / "manifest.json"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from the same result; raise `OutputInUseError` if one is working on it."""
        with ExitStack() as stack:
            try:
                stack.enter_context(lock_output(self.target, self.folder))
            except OutputInUseError:
                raise
            except OSError as error:
                raise OSError(f"{self.target} cannot be written: {errors.describe_error(error)}") from error
            stack.callback(self._remove_if_empty)
            yield

    def _remove_if_empty(self) -> None:
        """Remove the folder, unless it has something worth resuming."""
        if not (self.manifest.exists() and any(self.folder.glob("*.jsonl"))):
            shutil.rmtree(self.folder, ignore_errors=True)

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Write the manifest, and remove files that a kill has left half written."""
        for unfinished in self.folder.glob(".*.part"):
            unfinished.unlink()
        if not self.manifest.exists():
            self.clear()
            self.write(self.manifest.name, json.dumps(settings, indent=2) + "\n")

    def clear(self) -> None:
        """Remove all parts, the manifest first: without it they mean nothing."""
        self.manifest.unlink(missing_ok=True)
        for path in self.folder.glob("*.jsonl"):
            path.unlink(missing_ok=True)

    def count_parts(self, chunk: bulk_chunks.Chunk) -> tuple[int, bool]:
        """Return how many parts of ``chunk`` there are from its start on, and whether these are all."""
        number = 0
        while not self._path(chunk.key, number, bulk_chunks.LAST_SUFFIX).exists():
            if not self._path(chunk.key, number, bulk_chunks.MIDDLE_SUFFIX).exists():
                return number, False
            number += 1
        return number + 1, True

    def write(self, name: str, text: str) -> None:
        """Write a file here, completely or not at all."""
        try:
            write_text(self.folder / name, text)
        except OSError as error:
            raise self.write_error(error) from error

    def write_error(self, error: OSError) -> OSError:
        """Return the error of a result that cannot be written any further."""
        return OSError(
            f"{self.target} cannot be written: {errors.describe_error(error)}; the predictions so far are in "
            f"{self.folder}: run the same command again to resume"
        )

    def read_rows(self, keys: Iterable[str]) -> Iterator[Prediction]:
        """Yield the predictions of these chunks, in order."""
        for key in keys:
            for path in self._files_of(key):
                with path.open(encoding="utf-8") as lines:
                    for line in lines:
                        image, labels, probabilities, error, *values = parse_json(line, path)
                        yield Prediction(image, tuple(labels), tuple(probabilities), error, *values)

    def count_broken(self, keys: Iterable[str]) -> int:
        """Return how many of these chunks could not be read to their end."""
        return sum(self._files_of(key)[-1].name.endswith(f"{bulk_chunks.BROKEN_SUFFIX}.jsonl") for key in keys)

    def _files_of(self, key: str) -> list[Path]:
        """Return the files of a chunk; a complete last part is preferred to a broken one of an earlier try."""
        files: list[Path] = []
        suffixes = (bulk_chunks.LAST_SUFFIX, bulk_chunks.MIDDLE_SUFFIX, bulk_chunks.BROKEN_SUFFIX)
        while True:
            suffix = next((suffix for suffix in suffixes if self._path(key, len(files), suffix).exists()), None)
            if suffix is None:
                raise ValueError(f"{self.target}: a shard changed while it was read: start over with --force")
            files.append(self._path(key, len(files), suffix))
            if suffix != bulk_chunks.MIDDLE_SUFFIX:
                return files

    def _path(self, key: str, number: int, suffix: str) -> Path:
        return self.folder / bulk_chunks.PartialResult(key, number, suffix).file_name
