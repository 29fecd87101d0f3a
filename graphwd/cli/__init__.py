"""The command line: commands, the options they share, and how they speak in a terminal."""
