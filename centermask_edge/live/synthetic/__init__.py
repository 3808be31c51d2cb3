"""A camera that is computed: moving figures, the truth about them, a time code in each picture."""
