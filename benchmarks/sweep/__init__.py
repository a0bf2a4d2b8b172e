"""What methods say of every transformer family of timm and transformers, in random form."""
