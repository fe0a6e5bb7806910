"""The benchmarks from the command line: a suite that is cut off, goes on and ends, and its report."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "benchmarks"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)


def cut_off(arguments: list[str], lines: Path) -> None:
    """Start, and interrupt once a few runs are there."""
    process = subprocess.Popen([*COMMAND, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (lines.exists() and lines.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)  # a shell may have its background jobs ignore SIGINT
    assert process.wait() != 0


@pytest.mark.slow
def test_smoke(tmp_path: Path) -> None:
    lines, suite = tmp_path / "runs.jsonl", ["run", "--suite", "smoke", "--results", str(tmp_path)]
    cut_off(suite, lines)
    before = lines.read_bytes()
    run(*suite)
    whole = lines.read_bytes()
    assert whole.startswith(before)
    keys = [json.loads(text)["key"] for text in whole.splitlines()]
    assert len(keys) == len(set(keys)) >= 3 * (7 + 3 + 3 + 3 * 2 + 2 * 3)
    assert run(*suite).stderr == ""
    assert lines.read_bytes() == whole

    written = []
    for _ in range(2):
        run("report", "--results", str(tmp_path))
        written.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert written[0] == written[1]
    assert {"README.md", "summary.json", "ratios.png", "peaks.png"} <= written[0].keys()
    found = json.loads(written[0]["summary.json"])
    assert found["diverged"] == 0
    known = {key for key, value in found.items() if value is not None}
    each = {f"{key}_{o}" for key in ("ratio", "scale_rms") for o in ("adamw", "sgd", "momentum")}
    assert known == {*each, "worst_ratio", "diverged", "adamw_peaks_decades"}
    assert found["worst_ratio"] == max(found[f"ratio_{o}"] for o in ("adamw", "sgd", "momentum"))
