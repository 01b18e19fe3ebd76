"""What any layer may use: atomic files, concurrency, exit statuses."""
