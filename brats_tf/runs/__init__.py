"""The folder of a run: its files, its record, and the network in it."""
