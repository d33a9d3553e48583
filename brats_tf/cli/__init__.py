"""The command line `brats-tf`."""
