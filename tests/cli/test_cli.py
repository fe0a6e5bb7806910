"""The command line as a user meets it: exit status, what is printed, what is written."""

import json
import subprocess
import sys

import pytest


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "glyder", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_info(tmp_path):
    found = run("info", "--json", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    facts = json.loads(found.stdout)
    assert facts["level"] in facts["levels"]
    assert facts["entry"] in ("exchange table", "data_ptr")
    text = run("info", cwd=tmp_path).stdout
    assert facts["glyder"] in text
    assert facts["level"] in text


@pytest.mark.parametrize("arguments", [(), ("nonsense",), ("demo", "--seeds", "x")])
def test_wrong_use_says_how(tmp_path, arguments):
    found = run(*arguments, cwd=tmp_path)
    assert found.returncode == 2
    assert "usage:" in found.stderr


def test_help_names_what_it_does(tmp_path):
    text = run("demo", "--help", cwd=tmp_path).stdout
    for word in ("--json", "--seeds", "validation", "glyder-demo.png"):
        assert word in text


def test_demo_of_nothing(tmp_path):
    found = run("demo", "--only", "perceptron", cwd=tmp_path)
    assert found.returncode == 2
    assert "MLP AdamW" in found.stderr


def test_small_demo_as_json(tmp_path):
    found = run("demo", "--json", "--only", "MLP AdamW", "--seeds", "2", "--steps", "40", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    (line,) = found.stdout.splitlines()
    row = json.loads(line)
    assert row["model"] == "MLP"
    assert row["optimizer"] == "AdamW"
    assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    # 40 updates and some measurements of 2 forwards each, against seven whole runs
    assert 40 < row["glyder_cost"] < 80
    assert row["tuned_cost"] == 280
    png = (tmp_path / "glyder-demo.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 10_000
