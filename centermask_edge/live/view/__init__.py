"""What the operator sees of a live run: terminal, summary, metrics."""
