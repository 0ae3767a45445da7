"""What ``make gpu-test``, ``gpu-bench`` and ``gpu-profile`` run: stages of limited time on a machine with a GPU.

Each builds what is not built yet, writes its results as they come, and says what it left out.
"""
