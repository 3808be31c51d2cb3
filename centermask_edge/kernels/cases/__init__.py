"""Inputs on which kernels and references are compared, the same on every backend."""
