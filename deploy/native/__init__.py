"""Native kernels: one pass in C++ where a graph of operators needs several, each with a plain fallback.

Nothing here is needed: a machine without a C++ compiler takes the plain forms, and `searchkit doctor` says which are in
use.
"""
