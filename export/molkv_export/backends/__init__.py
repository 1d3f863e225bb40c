"""Backends: each turns the dense graph into one runtime's format."""
