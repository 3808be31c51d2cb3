"""COCO evaluation of boxes and masks from anything that segments a picture."""
