"""Writes scikit-learn's 1797 digits to a file, for digits.cpp: 64 pixels and the class in a line.

python write_digits.py FILE
"""

import sys

import numpy as np
from sklearn.datasets import load_digits

digits = load_digits()
np.savetxt(sys.argv[1], np.column_stack([digits.data, digits.target]), fmt="%d")
