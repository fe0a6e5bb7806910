"""What looks at the model: its forward passes, its loss, and both at shifted parameters."""
