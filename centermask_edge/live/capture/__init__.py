"""From a camera's address to its freshest frame, whatever the camera does."""
