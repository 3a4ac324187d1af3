"""Properties that hold for any input, and a coverage-guided fuzzer that looks for one without."""
