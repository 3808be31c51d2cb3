"""Sinks of live results, one a file; ``live.outlet`` gives each a thread and a bounded queue."""
