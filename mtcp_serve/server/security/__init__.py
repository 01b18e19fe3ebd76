"""Who may ask and how: API keys, TLS, the headers of every response, calls from other origins."""
