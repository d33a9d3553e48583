"""Trained networks for programs without this package."""
