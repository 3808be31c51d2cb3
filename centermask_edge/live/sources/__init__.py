"""Where frames come from: files, folders, webcams, streams."""
