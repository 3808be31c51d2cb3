"""Annotated pictures: readers, sampling order and augmentation."""
