"""What differs between the WebUIs: each fact about a host has its one place here.

``needs`` says what is taken from a host and whether it has it, ``passes`` what pass is under way,
``encoding`` how it encodes a text, where it notes what it met there and what that depends on,
``steps`` how it counts. The rest of the extension does not know which host it runs on.
"""
