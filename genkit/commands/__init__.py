"""The commands of `genkit`: one file each, with a function `run(argv) -> exit code`."""
