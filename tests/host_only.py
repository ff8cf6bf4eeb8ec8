"""The tests that need arrays of the host: the reason by the beginning of the name of a test."""

from pathlib import Path

HOST_ONLY = {
    test: reason
    for reason, _, tests in (
        part.partition("\n")
        for part in Path(__file__).with_suffix(".txt").read_text("utf-8").split("\n\n")
    )
    for test in tests.split()
}
