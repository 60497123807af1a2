"""The thread that decides: resume, follow, and what to do about each incident."""
