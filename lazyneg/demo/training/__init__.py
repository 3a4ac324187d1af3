"""Trains the embedded model from nothing. Nothing here is needed to use it."""
