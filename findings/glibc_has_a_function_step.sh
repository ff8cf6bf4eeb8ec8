#!/usr/bin/env bash
# glibc 2.36 (Debian 12), gcc 12.2: a shared library that defines `step` and calls it, calls another one.
#
# glibc still exports the functions of <regexp.h>, `step` and `advance`, for old programs. The header
# is gone, the linker does not offer them to new programs, and a program of its own with a function
# `step` works. But in a library that is loaded (dlopen, ctypes), a call of the library's own function
# goes through the table of symbols, where the C library comes first: it calls glibc's `step`, usually
# with a crash. `-Wl,-Bsymbolic`, -fvisibility=hidden or `static` help; so does any other name.
#
# Seen: "as it is: the library's step is glibc's: True", "-Bsymbolic: the library's step is glibc's: False"
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/library.c" <<'C'
void step(const float *x, float *y) { *y = *x; }
typedef void function(const float *, float *);
function *that_is_called(void) { return step; }
C
gcc -Wall -Wextra -Werror -O2 -fPIC -shared "$folder/library.c" -o "$folder/plain.so"
gcc -Wall -Wextra -Werror -O2 -fPIC -shared -Wl,-Bsymbolic "$folder/library.c" -o "$folder/bound.so"
python3 - "$folder" <<'PYTHON'
import ctypes
import platform
import sys

dlvsym = ctypes.CDLL("libc.so.6").dlvsym
dlvsym.restype, dlvsym.argtypes = ctypes.c_void_p, [ctypes.c_void_p, *[ctypes.c_char_p] * 2]
theirs = dlvsym(None, b"step", b"GLIBC_2.2.5")
assert theirs
print(*platform.libc_ver())
for name, option in {"plain": "as it is", "bound": "-Bsymbolic"}.items():
    library = ctypes.CDLL(f"{sys.argv[1]}/{name}.so")
    library.that_is_called.restype = ctypes.c_void_p
    found = library.that_is_called() == theirs
    print(f"{option}: the library's step is glibc's: {found}")
    assert found == (name == "plain")
PYTHON
