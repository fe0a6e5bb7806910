"""``python -m glyder``: see it work, and see what it runs on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any


def info() -> dict[str, Any]:
    """What glyder runs on: versions, dispatch level, and how tensors enter C."""
    import torch

    import glyder
    from glyder import _core, segments

    return {
        "glyder": glyder.__version__,
        "level": _core.level(),
        "levels": [name for name, available in _core.levels().items() if available],
        "threads": 1,
        "entry": segments.entry(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }


def _info(arguments: argparse.Namespace) -> int:
    found = info()
    if arguments.json:
        print(json.dumps(found))
        return 0
    print(f"glyder {found['glyder']}, torch {found['torch']}, Python {found['python']}")
    others = ", ".join(name for name in found["levels"] if name != found["level"])
    print(f"dispatch level   {found['level']} (also on this machine: {others or 'none'})")
    print(f"threads          {found['threads']} per kernel")
    print(f"tensors enter by {found['entry']}")
    return 0


def _demo(arguments: argparse.Namespace) -> int:
    from glyder import demo

    return demo.main(arguments)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m glyder", description="The learning rate of any optimizer.")
    commands = top.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser(
        "demo",
        help="train small networks with no learning rate given, next to a tuned grid",
        description="Trains an MLP and a small conv net on scikit-learn's digits with AdamW, SGD and SGD+momentum. "
        "glyder is given no learning rate. The rival is a cosine schedule with the same warm-up whose peak is the "
        "best of seven, chosen on a validation split. Both are then compared on the test split over paired seeds. "
        "Ends with a table and the picture glyder-demo.png; takes under three minutes on two cores.",
    )
    demo.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    demo.add_argument("--seeds", type=int, default=5, metavar="N", help="paired seeds of the comparison (default 5)")
    demo.add_argument("--steps", type=int, default=None, metavar="T", help="updates per run (default: the demo's)")
    demo.add_argument("--jobs", type=int, default=None, metavar="N", help="runs at a time (default: one per core)")
    demo.add_argument(
        "--only", default="", metavar="TEXT", help="only cells whose 'model optimizer' contains this, e.g. 'MLP AdamW'"
    )
    demo.add_argument("--picture", default="glyder-demo.png", metavar="FILE", help="where the picture goes")
    demo.set_defaults(run=_demo)

    about = commands.add_parser("info", help="versions, dispatch level, threads, how tensors enter C")
    about.add_argument("--json", action="store_true", help="one JSON object")
    about.set_defaults(run=_info)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    return int(arguments.run(arguments))
