"""The world of the default data: things, icons, scenes and what is said of them."""
