"""`python -m t2i` and the console script `t2i`."""

from t2i.cli import main

if __name__ == "__main__":
    main()
