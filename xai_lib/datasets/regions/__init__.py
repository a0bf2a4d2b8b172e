"""What a detector saw in each image, whatever file it lies in."""
