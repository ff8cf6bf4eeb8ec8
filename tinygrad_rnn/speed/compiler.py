"""The C compiler, and the cache of compiled libraries."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import CompilerError

FLAGS = [
    "-std=gnu11", "-O3", "-fPIC", "-shared", "-w", "-fwrapv", "-fno-math-errno",
    "-fno-trapping-math", "-ffp-contract=off",
]  # fmt: skip
FLAGS += ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
# Flags for this processor: the first that the compiler accepts. NumPy uses 512-bit vectors too.
NATIVE = [["-march=native", "-mprefer-vector-width=512"], ["-march=native"], ["-mcpu=native"], []]
NAMES = ("gcc", "clang", "cc")
TIMEOUT = 300  # seconds: a compiler that takes longer hangs
TOLD = 1.0  # seconds of compilation that are reported

# -- the compilers of this machine -----------------------------------------------------------------


class NoCompiler(CompilerError):
    """None is installed."""


def candidates() -> list[list[str]]:
    """Return the commands of the compilers that are installed, the preferred first.

    The environment variable ``CC`` names the only one. Without it: gcc, clang, cc, and the clang of
    the package ziglang.

    Raises
    ------
    CompilerError
        If there is none.
    """
    if sys.implementation.name != "cpython":
        raise NoCompiler("fuse.backend: kernels in C need CPython")
    wanted = os.environ.get("CC")
    if wanted:
        with contextlib.suppress(ValueError):  # an open quotation mark
            program, *options = shlex.split(wanted) or [""]
            if path := shutil.which(program):
                return [[path, *options]]
        raise CompilerError(f"fuse.backend: no C compiler; tried {wanted} (of CC). {_CURE}")
    found: dict[str, list[str]] = {}  # one name of each program
    for path in map(shutil.which, NAMES):
        if path:
            found.setdefault(os.path.realpath(path), [path])
    zig = _zig()
    if zig:
        found[zig] = [zig, "cc"]
    if not found:
        raise NoCompiler(
            f"fuse.backend: no C compiler; tried {', '.join(NAMES)} (in PATH), and the package "
            f"ziglang. {_CURE}"
        )
    return [*found.values()]


_CURE = (
    "Install one (pip install 'tinygrad-rnn[c]'; Debian: apt install gcc; macOS: xcode-select "
    "--install), or name it in the environment variable CC, or use "
    "tinygrad_rnn.fuse.backend('numpy')"
)


def _zig() -> str | None:
    """Return the program of the package ziglang."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).with_name("zig.exe" if os.name == "nt" else "zig")
    return str(path) if path.exists() else None


class Compiler:
    """A C compiler with its flags.

    Parameters
    ----------
    command : list of str
        The path of the program, and options.
    temporary : bool, optional
        Whether compiled libraries may be in a temporary folder where no other can be written.

    Attributes
    ----------
    identity : str
        A part of each key in the cache: a digest of the command, the version, and the predefined
        macros, which name the instruction sets of this processor.
    version : str
    vector_bits : int
        The width of the vectors of compiled loops.
    required : bool
        Whether the user asked for it, so that a failure is an error.

    Notes
    -----
    The cache also keeps the compiler's answers, for the program's path, size and date, and for the
    model of the processor: the next process need not run the compiler.
    """

    def __init__(self, command: Sequence[str], temporary: bool = True) -> None:
        self.required = False
        self.program = [*command]
        self.path = self.program[0]
        self.temporary = temporary
        folder = self.folder = cache(temporary)
        # zig needs folders for its own files, and fails if HOME is not writable.
        zig = {f"ZIG_{name}_CACHE_DIR": str(folder / "zig") for name in ("GLOBAL", "LOCAL")}
        self._environment = zig if Path(self.path).name.startswith("zig") else {}
        file = folder / f"compiler-{self._key()}.json"
        try:
            facts = json.loads(file.read_text("utf-8"))
            flags, self.version = facts["flags"], facts["version"]
            self.identity, self.vector_bits = facts["identity"], facts["vector_bits"]
        except (OSError, ValueError, TypeError, KeyError):
            flags = self._ask()
            facts = {"flags": flags, "version": self.version, "identity": self.identity}
            with _writing(folder) as scratch:
                written = scratch / file.name
                written.write_text(json.dumps({**facts, "vector_bits": self.vector_bits}), "utf-8")
                written.replace(file)
        self.command = [*self.program, *FLAGS, *flags]

    def _key(self) -> str:
        """Return the key of the compiler's answers, found without running it."""
        path = os.path.realpath(self.path)
        found = os.stat(path)
        facts = [*self.program, path, found.st_mtime_ns, found.st_size, *FLAGS, NATIVE, processor()]
        return _digest(repr(facts).encode())

    def _ask(self) -> list[str]:
        """Run the compiler for its version and macros; return the flags for this processor."""
        self.command = self.program
        version = self._run("--version")
        for native in NATIVE:
            with contextlib.suppress(CompilerError):
                macros = self._run(*FLAGS, *native, "-dM", "-E", "-x", "c", os.devnull)
                break
        else:
            self._run(*FLAGS, "-dM", "-E", "-x", "c", os.devnull)  # raises the compiler's message
        self.version = version.partition("\n")[0].strip()
        # As VECTOR_BYTES of `loop_runtime.c`.
        widths = (("__AVX512F__", 512), ("__AVX__", 256), ("", 128))
        self.vector_bits = next(bits for name, bits in widths if f"#define {name}" in macros)
        command = [*self.program, *FLAGS, *native]
        self.identity = _digest("\n".join([*command, version, macros]).encode())
        return native

    def _run(self, *args: str) -> str:
        import subprocess  # here, since an import of the library is light

        command = [*self.command, *args]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self._environment},
            )
            status, message = done.returncode, done.stderr.strip()[-2000:]
        except (OSError, subprocess.TimeoutExpired) as error:
            status, message = 1, str(error)
        if status:
            raise CompilerError(
                f"fuse.backend: {shlex.join(command)} failed:\n{message}\n"
                "Name another compiler in the environment variable CC, or use "
                "tinygrad_rnn.fuse.backend('numpy')"
            )
        return done.stdout

    def _key_of(self, text: str, flags: Sequence[str]) -> str:
        return _digest(f"{self.identity} {shlex.join(flags)}\n{text}".encode())

    def kept(self, text: str, flags: Sequence[str] = ()) -> Path | None:
        """Return the compiled library of a source from the cache; None if it is not there."""
        folder, key = cache(self.temporary), self._key_of(text, flags)
        self.folder = folder
        for path in sorted(folder.glob(f"{key}-*")):
            with contextlib.suppress(OSError):
                if path.name == _name(key, path) and _is_own(path.lstat()):
                    return path
                path.unlink()
        return None

    def library(
        self,
        text: str,
        flags: Sequence[str] = (),
        proof: Callable[[Path], None] | None = None,
        program: bool = False,
    ) -> Path:
        """Return the compiled library of a source: from the cache, or compiled now.

        The file's name contains a digest of its content, so that a truncated or changed file is not
        loaded. The file is renamed when complete, so that processes can share the cache.

        Parameters
        ----------
        text : str
        flags : sequence of str, optional
            They follow the usual ones.
        proof : callable, optional
            Raises a CompilerError if the new library does not work. It is not kept then, so a
            library in the cache has been proved.
        program : bool, optional
            Compile a program, without the usual flags.
        """
        kept = self.kept(text, flags)
        if kept is not None:
            return kept
        folder, key = self.folder, self._key_of(text, flags)
        start = time.perf_counter()
        with _writing(folder) as scratch:
            made, written = scratch / "kernel.so", scratch / "kernel.c"
            written.write_text(text, "utf-8")
            if program:
                other = Compiler.__new__(Compiler)
                other.command, other._environment = self.program, self._environment
                other._run(str(written), "-o", str(made), *flags)
            else:
                self._run(str(written), "-o", str(made), "-lm", *flags)
            _count(time.perf_counter() - start, folder)
            if proof is not None:
                proof(made)
            return made.replace(folder / _name(key, made))


selected: list[Compiler | None] = []  # by `executor`: the compiler in use; None for NumPy

# -- the time that it takes ------------------------------------------------------------------------

spent = [0, 0.0]  # files that this process compiled, and seconds


def _count(seconds: float, folder: Path) -> None:
    """Add to the time of compilation, and report it once."""
    before = spent[1]
    spent[:] = [spent[0] + 1, before + seconds]
    if before < TOLD <= spent[1]:
        import logging

        logging.getLogger("tinygrad_rnn").info(
            "compiling for this processor took %.1f s so far; the files are kept in %s",
            spent[1],
            folder,
        )


# -- the cache -------------------------------------------------------------------------------------


@functools.cache
def processor() -> str:
    """Return the model of the processor and its instruction sets."""
    names = {"vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features"}
    names |= {"CPU implementer", "CPU architecture", "CPU variant", "CPU part"}
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first = file.read(1 << 14).partition("\n\n")[0]
        lines = [x for x in first.splitlines() if x.partition(":")[0].strip() in names]
    except OSError:
        lines = []
    return "\n".join([platform.machine(), *(lines or platform.uname())])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _name(key: str, path: Path) -> str:
    return f"{key}-{_digest(path.read_bytes())}.so"


def _is_own(status: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or status.st_uid == os.getuid()


def cache(temporary: bool = True) -> Path:
    """Return the folder of compiled kernels, which only the user can write.

    It is ``tinygrad_rnn/kernels`` in ``$XDG_CACHE_HOME`` or in the system's cache folder. It may be
    deleted at any time. If it is not writable or has another owner, a temporary folder is used,
    which is deleted at exit.

    Raises
    ------
    CompilerError
        If it is not writable, and not `temporary`.
    """
    default = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(default)
    folder = Path(root, "tinygrad_rnn", "kernels")
    reason = "it belongs to another user, or is not a folder"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and _is_own(found):
            if found.st_mode & 0o077:
                folder.chmod(0o700)
            if os.access(folder, os.W_OK):
                return folder
            reason = "it is read-only"
    except OSError as error:
        reason = str(error)
    if not temporary:
        raise _not_kept(folder, reason)
    return Path(_temporary().name)


def _not_kept(folder: Path, reason: object) -> CompilerError:
    return CompilerError(
        f"fuse.backend: compiled code cannot be kept in {folder} ({reason}); name another folder "
        "in the environment variable XDG_CACHE_HOME"
    )


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """Provide a folder for new files in the cache."""
    import tempfile

    try:
        with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:
            yield Path(scratch)
    except OSError as error:
        raise _not_kept(folder, error) from error


@functools.cache
def _temporary() -> Any:
    import tempfile

    return tempfile.TemporaryDirectory(prefix="tinygrad_rnn-", ignore_cleanup_errors=True)


def load(path: Path, kind: type[ctypes.CDLL] = ctypes.CDLL) -> Any:
    """Load a library into this process."""
    try:
        return kind(str(path))
    except OSError as error:
        raise not_executable(path, error) from error


def not_executable(path: Path, error: Exception) -> CompilerError:
    """Return the error about a file that cannot be loaded or run."""
    return CompilerError(
        f"fuse.backend: {path} cannot be loaded ({error}); name a folder that programs may run "
        "from in the environment variable XDG_CACHE_HOME"
    )
