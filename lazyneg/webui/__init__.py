"""The extension for AUTOMATIC1111's WebUI and its family. Imports the host: only loaded by it."""
