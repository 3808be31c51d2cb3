"""Sinks of live results, one a file; ``outlet`` gives each a thread and a bounded queue."""
