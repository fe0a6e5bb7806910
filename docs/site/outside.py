"""Links of a page to files outside of docs/: on the site, which lacks these files, their paths stand instead."""

from __future__ import annotations

import re

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#\s]+)[^)]*\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    return OUTSIDE.sub(r"\1 (`\2` in the sources)", markdown)
