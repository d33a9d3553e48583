"""From BraTS folders to streams of (volume, target)."""
