"""Work without a server: folders, videos, checks."""
