"""Cameras that misbehave on a schedule, to see what outputs and alarms make of it."""
