"""The pages of `leaf review`: review doubtful images and label new ones."""
