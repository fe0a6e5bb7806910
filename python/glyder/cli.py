"""``python -m glyder``: see it work, what rules there are, and what it runs on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any


def info() -> dict[str, Any]:
    """What glyder runs on: versions, dispatch level, and how tensors enter C."""
    import torch

    import glyder
    from glyder import _core
    from glyder.vectors import segments

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


def _rules(arguments: argparse.Namespace) -> int:
    from glyder import catalogue

    rules = catalogue.catalogue()
    if arguments.markdown:
        page = Path(arguments.markdown)
        try:
            page.write_text(catalogue.renewed(page.read_text(encoding="utf-8"), rules), encoding="utf-8")
        except (OSError, ValueError) as error:
            print(f"nothing is written to {page}: {error}", file=sys.stderr)
            return 2
    elif arguments.json:
        for facts in rules:
            print(json.dumps(asdict(facts)))
    else:
        print(catalogue.text(rules))
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
        "glyder is given no learning rate. The rival is the same schedule, warm-up and linear decay, whose peak is the "
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

    rules = commands.add_parser(
        "rules",
        help="every rule: source, extra passes and memory, optimizers that it suits",
        description="Every scheduler by the name of its rule: where it is from, what it costs and what it suits.",
    )
    form = rules.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line, with all that is known of a rule")
    form.add_argument("--markdown", metavar="FILE", help="write the table of rules between its marks in FILE anew")
    rules.set_defaults(run=_rules)

    about = commands.add_parser("info", help="versions, dispatch level, threads, how tensors enter C")
    about.add_argument("--json", action="store_true", help="one JSON object")
    about.set_defaults(run=_info)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    return int(arguments.run(arguments))
