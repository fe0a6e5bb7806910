"""Fixtures for the tests of the extension alone; nothing in this folder imports torch.

``exporter`` is a small extension of our own whose tensor type hands out every description of memory that a DLPack
exchange table can give. It is built once per session, with the sanitizers of the build under test if it has any.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext

from glyder import _core

HERE = Path(__file__).parent
LEVELS = [name for name, available in _core.levels().items() if available]


@pytest.fixture(scope="session")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder = tmp_path_factory.mktemp("exporter")
    sanitize = [f"-fsanitize={os.environ['GLYDER_SANITIZE']}"] if os.environ.get("GLYDER_SANITIZE") else []
    extension = Extension(
        "exporter",
        [str(HERE / "exporter.c")],
        include_dirs=[str(HERE.parents[1] / "csrc" / "binding")],
        extra_compile_args=sanitize,
        extra_link_args=sanitize,
    )
    command = build_ext(Distribution({"ext_modules": [extension]}))
    command.build_lib, command.build_temp = str(folder), str(folder)
    command.ensure_finalized()
    command.run()
    path = command.get_ext_fullpath("exporter")
    loader = importlib.machinery.ExtensionFileLoader("exporter", path)
    spec = importlib.util.spec_from_file_location("exporter", path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    assert _core.register_tensor_type(module.Tensor)
    return module


@pytest.fixture(params=list(_core.levels()))
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every dispatch level in turn; those that the machine lacks show up as skipped, not as passed."""
    if request.param not in LEVELS:
        pytest.skip(f"this machine lacks {request.param}")
    before = _core.level()
    _core.select_level(request.param)
    yield request.param
    _core.select_level(before)
