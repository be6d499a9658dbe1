"""One module per ecosystem: its networks, built, saved, loaded and run as by its users."""
