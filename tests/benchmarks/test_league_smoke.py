"""The league from the command line: a suite that is cut off, goes on and ends, and its report."""

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
LEAGUE = [sys.executable, "-m", "benchmarks.league"]


def league(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LEAGUE, *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=180)


def cut_off(arguments: list[str], lines: Path) -> None:
    """Start, and interrupt once a few runs are there."""
    process = subprocess.Popen([*LEAGUE, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (lines.exists() and lines.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGTERM)  # a shell may have its background jobs ignore SIGINT
    assert process.wait(timeout=30) != 0


@pytest.mark.slow
def test_smoke(tmp_path: Path) -> None:
    lines, suite = tmp_path / "runs.jsonl", ["run", "--suite", "smoke", "--results", str(tmp_path)]
    cut_off(suite, lines)
    before = lines.read_bytes()
    start = time.monotonic()
    league(*suite)
    assert time.monotonic() - start < 180
    whole = lines.read_bytes()
    assert whole.startswith(before)
    keys = [json.loads(text)["key"] for text in whole.splitlines()]
    assert len(keys) == len(set(keys)) >= 3 * 29
    assert league(*suite).stderr == ""
    assert lines.read_bytes() == whole

    written = []
    for _ in range(2):
        league("report", "--results", str(tmp_path))
        written.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert written[0] == written[1]
    assert "worth.png" in written[0]
    found = json.loads(written[0]["league.json"])
    assert found["pairs"] == 3
    assert found["diverged"]["diverged"] == 0
    for name in ("median_ratio", "worst_ratio", "median_regret", "worst_regret"):
        low, high = found[name]["interval"]
        assert low <= found[name]["value"] <= high
    assert {"cost", "ladder_slope", "ranks", "worth_runs", "tuned_peaks", "reserved", "scale"} <= found.keys()
    assert all(isinstance(row["regret"], float) for row in found["cells"])
