"""The settings of a run: declared once, with presets and checks."""
