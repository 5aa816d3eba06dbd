"""Others' files made ours."""
