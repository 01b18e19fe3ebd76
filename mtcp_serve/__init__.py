"""One photo, one request, five maps: serves multi-task dense prediction bundles over HTTP."""
