"""A local web page to try a delay on: painting, drawing, and the page itself."""
