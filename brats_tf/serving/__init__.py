"""Label maps over HTTP (extra `serve`)."""
