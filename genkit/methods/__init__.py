"""Training methods, one file each; the file name is the method's name everywhere."""
