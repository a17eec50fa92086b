"""The depth of nanoparrot, one idea a file. A part imports nothing of ours and can be copied alone."""
