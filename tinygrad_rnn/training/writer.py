"""Callbacks that write a file, on a disk that is full at times: their base class, and `Log`."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from ..io import atomic_write
from .run import Callback, Run, plain

FilePath = str | os.PathLike[str]
_Rows = list[dict[str, Any]]


class Writer(Callback):
    """A callback that writes a file: a failure is a warning, and an error if it is the last."""

    error: OSError | None = None

    def start(self, run: Run) -> None:
        """Forget the error of another run."""
        self.error = None

    def attempt(
        self, run: Run, write: Callable[..., None], path: Path, *values: Any, **state: Any
    ) -> None:
        """Write a file, in one process of several; where that fails, warn and keep the error."""
        if not run.writes:
            return
        try:
            write(path, *values, **state)
            self.error = None
        except OSError as error:
            self.error = error
            warnings.warn(
                f"{type(self).__name__}: {path} was not written: {error}; training continues, "
                "and the next time tries again",
                stacklevel=5,
            )

    def end(self, run: Run) -> None:
        """Raise if the last attempt failed."""
        if self.error is not None:
            raise self.error


class Log(Writer):
    """Add each row of figures to a file, as a line of JSON; a resumed run continues the file.

    Parameters
    ----------
    path : str or path
        The file. Rows that a killed run has added after its last checkpoint are removed.
    resume : bool
        Whether the file may exist: the run is resumed, or begins again.

    Raises
    ------
    ArgumentError
        If the folder does not exist; at the start, if the file exists and ``resume=False``.
    OSError
        At the end, if the last attempt to write failed. Until then a failure, such as a full disk,
        is a warning, training continues, and the next row tries again.

    Notes
    -----
    It comes after the callbacks that add figures.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import tinygrad_rnn as tg
    >>> path = Path(tempfile.mkdtemp()) / "run.jsonl"
    >>> model, x = tg.nn.Linear(1, 1), tg.ones(4, 1)
    >>> history = tg.fit(
    ...     model, [(x, x)], loss=tg.functional.mse_loss, epochs=3,
    ...     optimizer=tg.optim.SGD(model.parameters(), lr=0.1), callbacks=[tg.training.Log(path)],
    ... )
    >>> len(path.read_text().splitlines())
    3
    """

    def __init__(self, path: FilePath, resume: bool = False) -> None:
        self.path, self.resume = writable("Log", path), resume
        self._rows, self._begun = _Rows(), False

    def start(self, run: Run) -> None:
        """Begin again; raise if the file is that of another run."""
        super().start(run)
        self._rows, self._begun = [], False
        refuse_existing(self.path, self.resume, "Log")

    def report(self, run: Run) -> None:
        """Write the row, and those that could not be written before."""
        self._rows.append({n: _json_value(n, figure) for n, figure in run.figures.items()})
        earlier = run.history[: -len(self._rows)]
        write, values = (_append, ()) if self._begun else (_continue, (earlier,))
        self.attempt(run, write, self.path, self._rows, *values)
        if self.error is None:
            self._rows, self._begun = [], True


def _json_value(name: str, figure: Any) -> Any:
    value = plain(figure)
    if value is not None and not isinstance(value, bool | int | float | str | list | dict):
        raise ArgumentError(
            f"Log: the figure {name!r} is {value!r:.60}: a number or a text is expected, or a "
            "list of them: use .tolist()"
        )
    return value


def _continue(path: Path, rows: _Rows, earlier: _Rows) -> None:
    """Write rows after those of the resumed run, if it had some, in place of all others."""
    kept = []
    if earlier and path.exists():
        # A killed run may have written a part of a line.
        with contextlib.suppress(ValueError, KeyError, TypeError):
            for line in path.read_text(encoding="utf-8").splitlines():
                if json.loads(line)["step"] < rows[0]["step"]:
                    kept.append(line)
    with atomic_write(path) as file:
        file.write("".join(f"{line}\n" for line in [*kept, *map(json.dumps, rows)]).encode())


def _append(path: Path, rows: _Rows) -> None:
    """Write rows at the end, or none of them."""
    length = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a", encoding="utf-8") as file:
            print(*map(json.dumps, rows), sep="\n", file=file)
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, length)
        raise


def writable(name: str, path: Any) -> Path:
    """Return the path of a file; raise unless its folder exists."""
    if not isinstance(path, str | os.PathLike):
        raise ArgumentError(f"{name}: path: the path of a file is expected, got {path!r:.60}")
    if Path(path).is_dir():
        raise ArgumentError(f"{name}: {str(path)!r} is a folder: pass a file in it")
    if not Path(path).parent.is_dir():
        raise ArgumentError(
            f"{name}: {str(path)!r}: no such folder: make it, or pass a file in one"
        )
    return Path(path)


def refuse_existing(path: Path, resume: bool, name: str) -> None:
    """Raise if there is a file already that is not continued."""
    if path.exists() and not resume:
        raise ArgumentError(
            f"{name}: {path} exists: continue its run with resume=True, or choose another name"
        )
