"""What painting takes: pipelines from files, infotexts, processes that share the work."""
