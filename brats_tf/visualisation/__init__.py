"""Figures and sprite sheets."""
