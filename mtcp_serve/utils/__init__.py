"""What any layer may use: files, concurrency, memory, caches, and the words and statuses of errors."""
