"""ExecuTorch: one program for phones, with molkv's kernel for the expert attention.

Importing its modules loads torch's compiler and ExecuTorch's, which takes seconds.
"""
