"""One run, several workers."""
