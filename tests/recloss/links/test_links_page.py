"""The code of the page on links runs, and finds links."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "links.md"


def test_the_code_of_the_page_finds_links():
    [block] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict = {}
    exec(block, names)
    assert set(names["scores"]) == {"hit_rate_5", "mrr"}
    assert names["scores"]["hit_rate_5"] > 3 * 5 / 41
    assert (names["gcn"].embed(without=names["train"]) != names["gcn"].embed()).any()
