"""Every run of the project as one function that returns a config."""
