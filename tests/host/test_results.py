from __future__ import annotations

import json

from tests.host.results import FILE, README, with_table


def test_the_readmes_table_is_what_the_tests_found() -> None:
    readme = README.read_text("utf-8")
    assert with_table(readme, json.loads(FILE.read_text("utf-8"))) == readme
