"""The C compiler, and the cache of compiled libraries."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import CompilerError

FLAGS = [
    "-std=gnu11", "-O3", "-fPIC", "-shared", "-w", "-fwrapv", "-fno-math-errno",
    "-fno-trapping-math", "-ffp-contract=off",
]  # fmt: skip
FLAGS += ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else []
# Flags for this processor: the first that the compiler accepts. NumPy uses 512-bit vectors too.
NATIVE = [["-march=native", "-mprefer-vector-width=512"], ["-march=native"], ["-mcpu=native"], []]


class Compiler:
    """A C compiler with its flags.

    Its `identity` is a part of each key in the cache: a digest of the command, the version, and the
    predefined macros, which name the instruction sets of this processor.
    """

    def __init__(self) -> None:
        if sys.implementation.name != "cpython":
            raise CompilerError("fuse.backend: kernels in C need CPython")
        wanted = os.environ.get("CC")
        tried = [shlex.split(wanted)] if wanted else [["cc"], ["gcc"], ["clang"]]
        command = next((c for c in tried if c and shutil.which(c[0])), None)
        if command is None:
            names = ", ".join(c[0] for c in tried if c)
            raise CompilerError(
                f"fuse.backend: no C compiler; tried {names} ({'CC' if wanted else 'in PATH'}). "
                "Install one (Debian: apt install gcc; macOS: xcode-select --install), or name it "
                "in the environment variable CC, or use tinygrad_rnn.fuse.backend('numpy')"
            )
        self.path = str(shutil.which(command[0]))
        self.command = [self.path, *command[1:]]
        version = self._run("--version")
        for native in NATIVE:
            with contextlib.suppress(CompilerError):
                macros = self._run(*FLAGS, *native, "-dM", "-E", "-x", "c", os.devnull)
                self.command += [*FLAGS, *native]
                break
        else:
            self._run(*FLAGS, "-dM", "-E", "-x", "c", os.devnull)  # raises the compiler's message
        self.identity = _digest("\n".join([*self.command, version, macros]).encode())

    def _run(self, *args: str) -> str:
        command = [*self.command, *args]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if done.returncode:
            raise CompilerError(
                f"fuse.backend: {shlex.join(command)} failed:\n{done.stderr.strip()[-2000:]}\n"
                "Name another compiler in the environment variable CC, or use "
                "tinygrad_rnn.fuse.backend('numpy')"
            )
        return done.stdout

    def library(self, text: str, flags: Sequence[str] = ()) -> Path:
        """Return the compiled library of a source: from the cache, or compiled now.

        `flags` follow the usual ones.

        The file's name contains a digest of its content, so that a truncated or changed file is not
        loaded. The file is renamed when complete, so that processes can share the cache.
        """
        folder = cache()
        key = _digest(f"{self.identity} {shlex.join(flags)}\n{text}".encode())
        for path in sorted(folder.glob(f"{key}-*.so")):
            with contextlib.suppress(OSError):
                if path.name == _name(key, path) and _is_own(path.lstat()):
                    return path
                path.unlink()
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made, written = Path(scratch, "kernel.so"), Path(scratch, "kernel.c")
            written.write_text(text)
            self._run(str(written), "-o", str(made), "-lm", *flags)
            return made.replace(folder / _name(key, made))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _name(key: str, path: Path) -> str:
    return f"{key}-{_digest(path.read_bytes())}.so"


def _is_own(status: os.stat_result) -> bool:
    return not hasattr(os, "getuid") or status.st_uid == os.getuid()


def cache() -> Path:
    """Return the folder of compiled kernels, which only the user can write.

    It is ``tinygrad_rnn/kernels`` in ``$XDG_CACHE_HOME`` or in the system's cache folder. It may be
    deleted at any time. If it is not writable or has another owner, a temporary folder is used,
    which is deleted at exit.
    """
    default = "~/Library/Caches" if sys.platform == "darwin" else "~/.cache"
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser(default)
    folder = Path(root, "tinygrad_rnn", "kernels")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and _is_own(found):
            if found.st_mode & 0o077:
                folder.chmod(0o700)
            if os.access(folder, os.W_OK):
                return folder
    except OSError:
        pass
    return Path(_temporary().name)


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tinygrad_rnn-", ignore_cleanup_errors=True)
