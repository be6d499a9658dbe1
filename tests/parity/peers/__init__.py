"""One module an ecosystem: its networks, built, saved, loaded and asked as its users do it."""
