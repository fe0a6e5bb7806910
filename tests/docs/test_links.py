"""What the pages link to is there: also outside of docs/, where the site's own check does not look."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)[^)]*\)")
PAGES = [(page, target) for page in sorted(ROOT.glob("docs/*.md")) for target in LINK.findall(page.read_text("utf-8"))]


@pytest.mark.parametrize(("page", "target"), PAGES, ids=[f"{page.name}:{target}" for page, target in PAGES])
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    assert (page.parent / target).exists()


def test_the_site_has_every_page() -> None:
    settings = (ROOT / "docs" / "site" / "mkdocs.yml").read_text("utf-8")
    listed = re.findall(r"^  - .*: (\S+\.md)$", settings, re.MULTILINE)
    assert sorted(listed) == sorted(page.name for page in ROOT.glob("docs/*.md"))
