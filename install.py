"""Runs when the WebUI starts. Nothing to install: the host has all that the extension needs.

Kept so that this stays said: a WebUI's Python, torch, gradio and numpy are never touched.
"""
