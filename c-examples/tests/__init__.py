"""The tests of the examples; ../test_examples.py runs them."""
