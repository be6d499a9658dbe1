"""Where files lie and how they are read and written there: this disk, a web server, a store in the cloud."""
