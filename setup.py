"""The extension and its switches; everything else stands in ``pyproject.toml``.

One wheel serves every CPython from 3.11 on (stable ABI). Free-threaded Pythons have no stable ABI yet and get a build
of their own, which does not turn the global lock back on.

    GLYDER_DEBUG=1                      no optimisation, debug symbols, assertions
    GLYDER_SANITIZE=address,undefined   with these sanitizers (tests/run_sanitized.sh)
"""

import os
import re
import sys
import sysconfig
from glob import glob
from pathlib import Path

from setuptools import Extension, setup

DEBUG = os.environ.get("GLYDER_DEBUG", "") not in ("", "0")
SANITIZE = os.environ.get("GLYDER_SANITIZE", "")
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
STABLE_ABI = None if FREE_THREADED else "cp311"


def version() -> str:
    """The one in the C header, so that header, module and package cannot disagree."""
    return re.search(r'#define GLYDER_VERSION "(.+)"', Path("csrc/glyder.h").read_text(encoding="utf-8"))[1]


def flags() -> tuple[list[str], list[str]]:
    """Arguments for the compiler and for the linker. Fused multiply-add is never left to the compiler's taste."""
    if sys.platform == "win32":
        return ["/std:c11", "/W3", "/fp:precise", *(["/Od", "/Zi"] if DEBUG else ["/O2"])], ["/DEBUG"] * DEBUG
    compile_args = ["-std=c11", "-Wall", "-Wextra", "-ffp-contract=off", "-fvisibility=hidden"]
    compile_args += ["-O0", "-g", "-UNDEBUG"] if DEBUG else ["-O3"]
    link_args = []
    if SANITIZE:
        sanitizer = f"-fsanitize={SANITIZE}"
        compile_args += [sanitizer, "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g"]
        link_args += [sanitizer]
    return compile_args, link_args


compile_args, link_args = flags()
core = Extension(
    "glyder._core",
    sources=sorted(glob("csrc/*.c") + glob("csrc/rules/*.c") + glob("csrc/binding/*.c")),
    depends=sorted(glob("csrc/**/*.h", recursive=True)),
    libraries=[] if sys.platform == "win32" else ["m"],  # sin, log, pow: the interpreter need not have loaded them
    define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE_ABI else [],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
    py_limited_api=bool(STABLE_ABI),
)
setup(
    version=version(),
    ext_modules=[core],
    options={"bdist_wheel": {"py_limited_api": STABLE_ABI}} if STABLE_ABI else {},
)
