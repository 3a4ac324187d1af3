from __future__ import annotations

from tests.core.test_page_arithmetic import in_node


def test_a_page_without_the_timeline_is_left_alone() -> None:
    """Where the extension stays off, the host's page may lack what the script asks for."""
    asked = in_node(
        """
        function gradioApp() { return {querySelectorAll: () => []}; }
        function onUiLoaded(callback) { onUiLoaded.asked = true; callback(); }
        console.log(JSON.stringify(onUiLoaded.asked));
        """
    )
    assert asked is True
