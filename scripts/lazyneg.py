"""Lazy Negative for the WebUI. The host loads this file; all of it is in the package beside it."""

from lazyneg.webui.registration import register

LazyNegativeScript, LazyNegativeComparison = register()
