"""Those who act on a decision; one a file, one protocol."""
