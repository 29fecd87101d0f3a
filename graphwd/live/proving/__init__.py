"""The proof that a live model is another one plus edits: objects compared, not configs alone."""
