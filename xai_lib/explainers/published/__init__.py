"""What published code does differently, a module a repository."""
