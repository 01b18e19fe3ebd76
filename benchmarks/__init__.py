"""What the README's figures come from; one module, one command."""
