"""Whether an explanation is right: figures, curves and verdicts, each beside what it is compared with."""
