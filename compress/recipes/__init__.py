"""What a person writes: the recipe, its parts, and every rule that they keep."""
