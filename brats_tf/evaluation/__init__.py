"""Scores of label maps and what is made of them."""
