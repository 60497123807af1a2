"""The guides to frameworks: each Python block is part of an example that the tests run."""

import pytest

from tests.helpers import docs
from tests.helpers.framework_sites import DURABLE
from tests.helpers.frameworks import EXAMPLES

SERVED = ["fastapi", "flask", "sqlalchemy"]


@pytest.mark.parametrize("page", [*SERVED, "pytest"])
def test_each_block_of_a_guide_is_part_of_its_example(page):
    """A page shows nothing that is not run."""
    programs = [path.read_text() for path in sorted((EXAMPLES / page).glob("*.py"))]
    blocks = list(docs.blocks(docs.TOP / f"docs/guide/{page}.md", "python"))
    assert blocks
    for block in blocks:
        assert any(block.text in text for text in programs), block.text


@pytest.mark.parametrize("page", SERVED)
def test_the_command_of_a_guide_is_the_one_that_the_tests_start(page):
    """But for its address and its log."""
    (site,) = [site for site in DURABLE.values() if site.folder == page]
    served = (site.plain or site.replicated).partition(" {")[0].split(" -b ")[0].split(" --port")[0]
    commands = [line for line, _ in docs.commands(docs.TOP / f"docs/guide/{page}.md")]
    assert any(line.endswith(served) for line in commands), served
