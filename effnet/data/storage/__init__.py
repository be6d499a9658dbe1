"""Where files are and how they are read and written: the local disk, a web server, a cloud store."""
