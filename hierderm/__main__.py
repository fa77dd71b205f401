"""`python -m hierderm` is the command line."""

from hierderm.cli.main import main

main()
