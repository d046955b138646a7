"""A file of features that grows image by image: little of it is ever in memory, and what was interrupted goes on.

Until it is whole it is a folder `OUT.partial` beside it:

    features.f32    rows of float32, one after the other
    rows.i64        the number of each row's image in the list
    bad.json        reasons of the images that could not be read, by number
    state.json      what is embedded of what, how many images are done, how many rows they gave
    lock.json       who writes it
"""

import contextlib
import json
import os
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from simfle_jax.data.read_back import parse_json
from simfle_jax.errors import UserError
from simfle_jax.runs.lock import Lock
from simfle_jax.writing import writing_output

ENDINGS = (".npz", ".parquet", ".npy")
ROWS_AT_ONCE = 4096  # of the final file: 32 MB at 2,048 features
SAVE_SECONDS = 10  # between two states: what an interruption costs at most


class FeatureFile:
    """The features of a list of images, on their way to `out`.

    Args:
        out: the final file, ending in one of ENDINGS.
        names: of all images, in order.
        dim: features of an image.
        identity: what makes two embeddings the same; another one is not continued.

    `done` is the number of images, from the first on, whose features are there already. Use it in a `with`: what was
    appended is then kept whatever ends it.

    Raises:
        UserError: `out` is there, or a part of something else, or being written by somebody else, or cannot be written.
    """

    def __init__(self, out: Path, names: list[str], dim: int, identity: dict[str, Any]):
        self.out, self.names, self.dim = out, names, dim
        self.folder = out.with_name(f"{out.name}.partial")
        self.state: dict[str, Any] = {"identity": identity, "done": 0, "rows": 0}
        self.bad: dict[int, str] = {}
        require_new(out)
        self._lock = Lock(self.folder, instead="--out").acquire()
        try:
            require_new(out)  # another one may have finished it meanwhile
            with self._told():
                self._read()
                self._features = self._opened("features.f32", 4 * dim)
                self._rows = self._opened("rows.i64", 8)
        except BaseException:
            self._unlock()
            raise
        self._saved = time.monotonic()

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        try:
            with contextlib.closing(self._features), contextlib.closing(self._rows):
                if kind is not None:
                    self.save()
        finally:
            self._unlock()

    @property
    def done(self) -> int:
        return self.state["done"]

    @property
    def count(self) -> int:
        """Rows so far."""
        return self.state["rows"]

    def append(self, features: np.ndarray, rows: np.ndarray, bad: dict[int, str], done: int) -> None:
        """Adds float32 [n, dim] of the images `rows` [n]; with them and `bad` the first `done` images are done."""
        with self._told():
            features.astype(np.float32, copy=False).tofile(self._features)
            rows.astype(np.int64).tofile(self._rows)
        self.bad |= bad
        self.state |= {"done": done, "rows": self.count + len(rows)}
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Makes what was appended last through a crash; raises UserError where somebody has taken the file over."""
        self._lock.verify()
        with self._told():
            for file in (self._features, self._rows):
                file.flush()
                os.fsync(file.fileno())
        self._write("bad.json", self.bad)
        self._write("state.json", self.state)
        self._saved = time.monotonic()

    def finish(self) -> None:
        """Writes `out` and removes the folder; a .npy gets its names as a second file, `features.names.npy`."""
        self.save()
        write = {".npz": self._write_npz, ".parquet": self._write_parquet, ".npy": self._write_npy}[self.out.suffix]
        with writing_output(self.out) as temporary:
            write(temporary)
        self._lock.release()  # before the folder goes: it must not be made anew
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---------------------------------------------------------------- the folder

    def _unlock(self) -> None:
        self._lock.release()
        with contextlib.suppress(OSError):
            self.folder.rmdir()  # of a file that was finished, or never begun

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"{self.folder} cannot be written: {reason}; mend that, and the same command goes on"
            ) from None

    def _read(self) -> None:
        try:
            state = parse_json((self.folder / "state.json").read_text())
            bad = parse_json((self.folder / "bad.json").read_text())
            if not isinstance(bad, dict) or not all(type(state[name]) is int for name in ("done", "rows")):
                raise ValueError("it holds no state")
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{self.folder} is damaged ({error}): remove it to begin anew") from None
        if state["identity"] != self.state["identity"]:
            raise UserError(f"{self.folder} is part of another embedding: remove it, or give another --out")
        for name, row_bytes in {"features.f32": 4 * self.dim, "rows.i64": 8}.items():
            if (self.folder / name).stat().st_size < state["rows"] * row_bytes:
                raise UserError(f"{self.folder} is damaged, {name} is too short: remove it to begin anew")
        self.state, self.bad = state, {int(number): reason for number, reason in bad.items()}

    def _opened(self, name: str, row_bytes: int) -> BinaryIO:
        """A file of the folder, cut to what the state knows of it and open at its end."""
        file = (self.folder / name).open("ab")
        file.truncate(self.count * row_bytes)
        return file

    def _write(self, name: str, content: Any) -> None:
        with writing_output(self.folder / name) as temporary:
            temporary.write_text(json.dumps(content))

    # ---------------------------------------------------------------- the final file

    def _parts(self) -> Iterator[tuple[np.ndarray, list[str]]]:
        """Features and names, a few thousand rows at a time."""
        with (self.folder / "features.f32").open("rb") as features, (self.folder / "rows.i64").open("rb") as rows:
            while len(numbers := np.fromfile(rows, np.int64, ROWS_AT_ONCE)):
                values = np.fromfile(features, np.float32, len(numbers) * self.dim)
                yield values.reshape(-1, self.dim), [self.names[number] for number in numbers]

    def _write_features(self, file: Any) -> None:
        npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (self.count, self.dim)})
        with (self.folder / "features.f32").open("rb") as features:
            shutil.copyfileobj(features, file, 2**20)

    def _write_names(self, file: Any) -> None:
        longest = max((len(name) for _, names in self._parts() for name in names), default=1)
        npy.write_array_header_1_0(file, {"descr": f"<U{longest}", "fortran_order": False, "shape": (self.count,)})
        for _, names in self._parts():
            file.write(np.array(names, f"<U{longest}").tobytes())

    def _write_npz(self, path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, write in (("features.npy", self._write_features), ("names.npy", self._write_names)):
                with archive.open(name, "w", force_zip64=True) as file:
                    write(file)

    def _write_npy(self, path: Path) -> None:
        with writing_output(self.out.with_suffix(".names.npy")) as temporary, temporary.open("wb") as file:
            self._write_names(file)
        with path.open("wb") as file:
            self._write_features(file)

    def _write_parquet(self, path: Path) -> None:
        pa, parquet = import_parquet()
        schema = pa.schema([("name", pa.string()), ("feature", pa.list_(pa.float32(), self.dim))])
        with parquet.ParquetWriter(path, schema) as writer:
            for features, names in self._parts():
                column = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), self.dim)
                text = [os.fsencode(name).decode(errors="backslashreplace") for name in names]
                writer.write_table(pa.table([pa.array(text, pa.string()), column], schema))


def require_new(out: Path) -> None:
    """Raises UserError where the file is there already."""
    if out.exists():
        raise UserError(f"--out {out} exists already: give another name, or remove it first")


def import_parquet() -> Any:
    """pyarrow and its parquet module, or a UserError that says what needs them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "a parquet file needs pyarrow: pip install 'simfle-jax[parquet]', or give --out FILE.npz"
        ) from None
    return pyarrow, pyarrow.parquet
