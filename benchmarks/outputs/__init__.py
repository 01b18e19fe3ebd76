"""What people take away: response formats, streams, smoothed videos."""
