"""Who may ask and how: API keys, TLS, the headers of every answer, calls from other origins."""
