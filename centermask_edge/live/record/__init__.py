"""Recordings of what the engine saw, and their replay to the bit."""
