"""From a source to the sinks: pictures in, annotated pictures and JSON lines out."""
