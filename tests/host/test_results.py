from __future__ import annotations

import json

from tests.host.results import FILE, PAGE, with_table


def test_the_table_of_hosts_is_what_the_tests_found() -> None:
    page = PAGE.read_text("utf-8")
    assert with_table(page, json.loads(FILE.read_text("utf-8"))) == page
