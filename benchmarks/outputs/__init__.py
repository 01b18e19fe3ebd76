"""What people take away: response formats, streams, smooth films."""
