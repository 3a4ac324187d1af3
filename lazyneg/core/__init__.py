"""The pure core: when the negative prompt acts, and the settings. It knows no host."""
