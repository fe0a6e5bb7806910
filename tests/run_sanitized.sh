#!/usr/bin/env bash
# Builds the extension with sanitizers into build/sanitized and runs the tests that need no torch under them.  Each
# compiler and each choice of sanitizers has a folder of its own: an extension that is newer than its sources is kept,
# however it was built.  Arguments go to pytest. PYTHON, CC and GLYDER_SANITIZE (address,undefined) may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python}
export CC=${CC:-gcc} GLYDER_DEBUG=1 GLYDER_SANITIZE=${GLYDER_SANITIZE:-address,undefined}
out=$PWD/build/sanitized/$(printf %s "${CC##*/}-$GLYDER_SANITIZE-debug$GLYDER_DEBUG" | tr -c '[:alnum:].' -)
"$python" setup.py --quiet build_ext --build-lib "$out" --build-temp "$out/objects"
: >"$out/glyder/__init__.py" # a package of the extension alone: the real one would load torch

# Python's own allocator hides overruns; the interpreter itself leaks at exit, our leaks are counted by the tests.
export PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
LD_PRELOAD="$($CC -print-file-name=libasan.so) $($CC -print-file-name=libubsan.so)" PYTHONPATH=$out \
    "$python" -m pytest tests/kernels --confcutdir=tests/kernels -p no:cacheprovider "$@"
