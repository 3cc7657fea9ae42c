"""The commands of `dogo-fed`: a command line in, an exit status out."""
