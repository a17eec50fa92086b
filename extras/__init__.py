"""
Options of the scripts at the top, one idea a file. A script opens a file of this folder when a flag
asks for it, and works without the folder as long as no flag does.

    planner             memory, days and price of a run, before it starts
"""
