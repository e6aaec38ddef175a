"""The command line: arguments in, one function of the library called, one line on failure."""
