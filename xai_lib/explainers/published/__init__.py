"""What published code does otherwise than its paper, a module a repository (see `steps`)."""
