"""What each kernel must compute, in plain numpy, written for reading and not for speed."""
