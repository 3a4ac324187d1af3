"""Making the tag ``<lazyneg:…>`` known to the host."""

from __future__ import annotations

from typing import Any

from modules import extra_networks

from lazyneg.core.tag import NAME


class PromptTag(extra_networks.ExtraNetwork):
    """The host cuts the tag out of the prompt; each picture's own is read in ``job``.

    Nothing happens here because the host hands over the tags of a batch's first prompt only.
    """

    def activate(self, p: Any, params_list: object) -> None:
        pass

    def deactivate(self, p: Any) -> None:
        pass


def register_tag() -> None:
    extra_networks.register_extra_network(PromptTag(NAME))
