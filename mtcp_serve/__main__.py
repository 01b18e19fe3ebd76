"""``python -m mtcp_serve`` is ``mtcp-serve``."""

from mtcp_serve.cli import main

if __name__ == "__main__":
    main()
